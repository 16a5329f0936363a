"""Search the models in proof/ with spin: `make proof`."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MODELS = Path(__file__).parent.parent / "proof"

NEEDED = "make proof needs spin and a C compiler: apt-get install spin gcc"

ONCE = ("OTHERS=3",)
"""Of messages whose answers get lost; every state of it is searched."""

ONCE_MUTANTS = {
    "NO_CHECK": "a message that does not look whether its row has moved",
    "NO_LOCK": "a client that looks for its event before it has locked the stream",
    "NO_LOOK": "a client that does not look",
    "NO_MORE": "a client that does not look whether more has happened since",
}
"""What must not be there."""

WHOLE = (
    ("WRITERS=2", "EVENTS=2"),
    ("WRITERS=2", "EVENTS=3"),
    ("WRITERS=2", "EVENTS=2", "BATCH"),
    ("WRITERS=2", "EVENTS=2", "STANDBY"),
    ("WRITERS=3", "EVENTS=1", "BATCH"),
)
"""Every state of these is searched."""

SAMPLED = (
    ("WRITERS=3", "EVENTS=2", "BATCH", "STANDBY"),
    ("WRITERS=4", "EVENTS=3", "BATCH", "STANDBY"),
)
"""These have more states than memory; they are searched for some minutes, none twice."""

MUTANTS = {
    "NO_SUBTRANSACTION": "rows under the transaction's own id, which is older than the positions",
    "DRAWN_FIRST": "the position drawn before the transaction has an id",
    "TRUSTS_SNAPSHOT": "a reader that takes what it sees for all that there will be",
    "NO_CLOSER_LOOK": "a reader that waits for transactions that are not of this store",
}
"""What must not be, and why not: the search has to find a state that is wrong."""


class Searched(NamedTuple):
    """What a search came to."""

    states: int
    wrong: str | None
    """The assertion that does not hold in one of them."""


class Unusable(Exception):
    """spin or the compiler is missing, or refuses the model."""


def search(defined: Sequence[str], *, model: str = "order", minutes: int | None = None) -> Searched:
    """Search a model's states.

    Args:
        defined: what is defined in it.
        model: its name.
        minutes: how long at most, keeping a mark of each state only; None: all of them.

    Raises:
        Unusable: spin or the compiler is missing, or refuses the model.
    """
    if shutil.which("spin") is None or shutil.which("gcc") is None:
        raise Unusable(NEEDED)
    with tempfile.TemporaryDirectory() as folder:
        _run(folder, "spin", *(f"-D{each}" for each in defined), "-a", str(MODELS / f"{model}.pml"))
        kind = "COLLAPSE" if minutes is None else "BITSTATE"
        _run(folder, "gcc", "-O2", "-w", "-DSAFETY", f"-D{kind}", "-o", "pan", "pan.c")
        limits = ["-w24"] if minutes is None else ["-w30", f"-Q{minutes}"]
        said = _run(folder, "./pan", "-m1000000", *limits)
    states = re.search(r"(\S+) states, stored", said)
    if states is None or "max search depth too small" in said:
        raise Unusable(f"the search did not end:\n{said[-2000:]}")
    wrong = re.search(r"pan:\d+: (.*?) \(at depth", said)
    return Searched(int(float(states[1])), wrong and wrong[1])


def _run(folder: str, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Unusable(f"{command[0]} fails:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> int:
    """Search all, say what was found, and return how many searches did not end as they should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=2, help="for each that is sampled")
    minutes = parser.parse_args().minutes
    failed = 0

    def tell(what: str, found: Searched, *, right: bool) -> None:
        nonlocal failed
        failed += not right
        came_to = "nothing wrong" if found.wrong is None else f"wrong: {found.wrong}"
        print(f"{'ok' if right else 'FAILED':<7}{found.states:>14,} states  {what}: {came_to}")

    try:
        for name, why in MUTANTS.items():
            found = search((*WHOLE[0], name))
            tell(f"mutant {name} ({why})", found, right=found.wrong is not None)
        for name, why in ONCE_MUTANTS.items():
            found = search((*ONCE, name), model="once")
            tell(f"mutant {name} ({why})", found, right=found.wrong is not None)
        found = search(ONCE, model="once")
        tell(f"all of once, {' '.join(ONCE)}", found, right=found.wrong is None)
        for defined in WHOLE:
            found = search(defined)
            tell(f"all of {' '.join(defined)}", found, right=found.wrong is None)
        for defined in SAMPLED:
            found = search(defined, minutes=minutes)
            tell(f"some of {' '.join(defined)}", found, right=found.wrong is None)
    except Unusable as error:
        print(error, file=sys.stderr)
        return 1
    return failed


if __name__ == "__main__":
    sys.exit(main())

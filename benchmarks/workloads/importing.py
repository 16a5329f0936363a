"""`import refold` in a new process, beside an interpreter that imports nothing."""

import os
import subprocess
import sys

from benchmarks.measure import figures, seconds
from benchmarks.places import Places
from benchmarks.results import Figure, Section, within

MILLISECONDS = 1e3
EXTRAS = ["torch", "dill", "typer", "rich", "psycopg", "pyarrow"]
"""What only those who use it pay for."""

# Whatever is installed has its bytecode; a checkout gets it from the first process.
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}


def measure(places: Places) -> list[Section]:
    """Measure whole processes, so that nothing is imported already."""
    loaded = _python("import sys, refold; print(*sys.modules)").stdout.split()
    assert not {*loaded}.intersection(EXTRAS), f"import refold imports one of {EXTRAS}"
    work = "a process from start to end"
    found = figures(
        work,
        "ms",
        {
            "import refold": lambda: _milliseconds("import refold"),
            "empty interpreter": lambda: _milliseconds("pass"),
        },
        rounds=21,
    )
    with_refold, empty = found.values()
    more = zip(with_refold.rounds, empty.rounds, strict=True)
    ours = Figure(
        "refold", "import, over an empty interpreter", "ms", tuple(a - b for a, b in more)
    )
    return [
        Section(
            "Importing",
            __doc__ or "",
            [*found.values(), ours],
            [within(60, ours, "import")],
            notes=[f"Not imported: {', '.join(EXTRAS)}.", f"The most expensive: {_expensive()}."],
        )
    ]


def _milliseconds(program: str) -> float:
    return MILLISECONDS * seconds(lambda: _python(program))


def _python(program: str, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *options, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT)


def _expensive() -> str:
    before, after = _import_times("pass"), _import_times("import refold")
    took = [(after[name], name) for name in after.keys() - before.keys()]
    shown = [f"{name} {each / 1e3:.1f} ms" for each, name in sorted(took, reverse=True)[:5]]
    return ", ".join(shown) + ", without what they import themselves"


def _import_times(program: str) -> dict[str, int]:
    """Return the microseconds that each module took by itself."""
    lines = _python(program, "-X", "importtime").stderr.splitlines()[1:]
    columns = [line.removeprefix("import time:").split("|") for line in lines]
    return {name.strip(): int(alone) for alone, _, name in columns}

"""docs/command-line.md: every command in it prints what the page says."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
from command_line import TOP, here, record, refold

PAGE = TOP / "docs" / "command-line.md"


def examples() -> list[tuple[str, str]]:
    """Return the commands of the page, in order, and what each prints."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.M)
    return [
        (line, printed)
        for block in blocks
        for line, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
    ]


def test_every_command_prints_what_the_page_says(
    place: str, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = "rapidfire.db" if engine == "sqlite" else place
    monkeypatch.chdir(tmp_path)
    record(store)
    # As messages tell it: without the password.
    shown = re.sub("://refold:[^@]*@", "://refold@", store)
    same = doctest.OutputChecker().check_output
    ran: list[str] = []
    different: list[str] = []
    for line, printed in examples():
        program, *words = shlex.split(line)
        assert program == "refold"
        if words[0] == "doctor" and engine != "sqlite":
            continue  # it tells of a file
        # A process of its own for the first of each command, on one engine, is enough.
        if engine == "sqlite" and words[0] not in ran:
            done = refold(*words)
        else:
            done = here(*words, env={} if engine == "sqlite" else {"REFOLD_STORE": place})
        told = (done.out + done.err).replace(shown, "rapidfire.db")
        ran.append(words[0])
        if not same(printed, told, doctest.ELLIPSIS):
            different.append(f"$ {line}\n{told}\ninstead of\n{printed}")
    assert not different, "\n".join(different)
    assert {"status", "runs", "show", "log", "history", "why", "diff"} <= set(ran)

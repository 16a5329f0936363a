"""A checkout: its folders have one name each, and links that are missing are explained."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
ROOMS = ("eventstore", "projections", "commands")


def imported(name: str, at: Path) -> str:
    """Import a module in a process whose first path is this one; return its last words."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(at)!r}); import {name}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    return done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_one_name(room: str) -> None:
    assert imported(room, TOP) == f"ImportError: import refold.{room} instead of {room}"
    assert imported(f"refold.{room}", TOP) == ""
    assert (TOP / "refold" / room).resolve() == TOP / room


def test_a_checkout_without_links_says_so(tmp_path: Path) -> None:
    package = tmp_path / "refold"
    package.mkdir()
    shutil.copy(TOP / "refold" / "__init__.py", package)
    for room in ROOMS:  # as git writes a link where there are none
        (package / room).write_text(f"../{room}")
    said = imported("refold", tmp_path)
    assert said.startswith("ImportError: refold/eventstore is a text file here")
    assert "git config core.symlinks true" in said

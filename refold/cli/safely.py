"""Before and while something is changed: ask, write a file as a whole, tell of an interruption."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import typer

from refold.cli.options import FAILED, NO
from refold.cli.output import complain, note, printable
from refold.face import Face

UNCHANGED = "nothing was changed"


def ask(question: str, *, yes: bool) -> None:
    """Go on if the user agrees, or said `--yes`; end the command if not.

    Raises:
        typer.Exit: the user does not agree.
        typer.BadParameter: nobody is there to be asked.
        KeyboardInterrupt: the user pressed Ctrl-C.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Nobody is there to answer: pass --yes")
    try:
        print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        note(f"\n{UNCHANGED}")
        raise
    if answer.strip().lower() not in ("y", "yes"):
        note(UNCHANGED if answer.endswith("\n") else f"\n{UNCHANGED}")
        raise typer.Exit(NO)


@contextmanager
def tell_if_interrupted(db: Face, command_id: str) -> Generator[None, None, None]:
    """Have the block send a command with this id, and if it is interrupted, look and say so."""
    try:
        yield
    except KeyboardInterrupt:
        with db.store.reading() as connection:
            done = connection.execute("SELECT 1 FROM commands WHERE command_id = ?", (command_id,))
        note(f"interrupted: {'but it had been done already' if done else 'nothing was changed'}")
        raise


@contextmanager
def note_if_interrupted(message: str) -> Generator[None, None, None]:
    """Say how things are if the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"interrupted: {message}")
        raise


STDOUT = "-"


@contextmanager
def out_file(path: str, *, store: str, yes: bool) -> Generator[BinaryIO, None, None]:
    """Open a file for writing, or `-`, the standard output.

    What was there before stays until the end of the block; an error leaves it.

    Args:
        path: of the file.
        store: the path or URL of the store, which is never overwritten.
        yes: overwrite another file without asking.

    Raises:
        typer.BadParameter: the path is that of the store, or of a folder.
        typer.Exit: the user does not agree, or the file cannot be written.
    """
    try:
        if path == STDOUT:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif _is_regular(path, store):
            if os.path.exists(path):
                ask(f"Overwrite {path}, which is there already?", yes=yes)
            yield from _replacing(Path(os.path.realpath(path)))
        else:  # a pipe or a device
            with open(path, "wb") as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        complain(f"{path}: {error.strerror or error}")
        raise typer.Exit(FAILED) from error


def _is_regular(path: str, store: str) -> bool:
    if os.path.isdir(path):
        raise typer.BadParameter(f"{path} is a folder: pass the path of a file")
    with suppress(OSError):  # no file is there, or the store is on a server
        if os.path.samefile(path, store.removeprefix("sqlite:///")):
            raise typer.BadParameter(f"{path} is the store itself: pass another path")
    return os.path.isfile(path) or not os.path.exists(path)


def _replacing(path: Path) -> Generator[BinaryIO, None, None]:
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

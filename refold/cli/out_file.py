"""The file that a command writes: as a whole or not at all."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import typer

from refold.cli.ask import ask
from refold.cli.ends import FAILED
from refold.cli.output import complain

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

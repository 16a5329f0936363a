"""Asking before something is changed."""

import sys

import typer

from refold.cli.ends import NO
from refold.cli.output import note, printable

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

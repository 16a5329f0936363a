"""`refold rapidfire`: RapidFire AI's own commands, and programs that use it, on a store."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from refold.eventstore.errors import InvalidCommand, MissingPackage
from refold.rapidfire import check_version, environment


def rapidfire(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="start|stop|… [-- OPTIONS] | run -- PROGRAM",
            help="A command of rapidfireai, or run and a program with its arguments.",
        ),
    ],
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            "-s",
            envvar="REFOLD_STORE",
            metavar="PATH|URL",
            help="The store; by default rapidfire.db in the folder of RapidFire's databases.",
        ),
    ] = None,
) -> None:
    """Have RapidFire AI keep its state in a store: run one of its commands, or a program with it.

    All processes that are started from there use the same store: dispatchers, workers, Ray actors.

    Examples:
        refold rapidfire start
        refold rapidfire --store postgresql://user@host/database start -- --force
        refold rapidfire run -- python train.py
    """
    check_version()
    first, *others = words
    if first == "run":
        if not others:
            raise InvalidCommand("run what? Such as: refold rapidfire run -- python train.py")
        program = others
    else:
        program = [str(Path(sys.executable).with_name("rapidfireai")), *words]
    settings = os.environ | environment(store)
    sys.stdout.flush()
    try:
        os.execvpe(program[0], program, settings)
    except OSError as error:
        raise MissingPackage(f"{program[0]} cannot be run: {error}") from error

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
            metavar="start|stop|… [-- OPTIONS] | run -- PROGRAM | import OLD.db",
            help="A command of rapidfireai; run and a program with its arguments; or import and a "
            "database of RapidFire's.",
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
        refold rapidfire --store rapidfire.db import ~/rapidfireai/db/rapidfire_fit.db
    """
    check_version()
    first, *others = words
    if first == "import":
        _import(others, store)
        return
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


def _import(words: list[str], store: str | None) -> None:
    """Turn a database of RapidFire's into a new store."""
    from refold.rapidfire.importing import import_database

    if len(words) != 1 or store is None:
        raise InvalidCommand(
            "import what, and where to? Such as: refold rapidfire --store new.db import OLD.db"
        )
    count = import_database(words[0], store)
    print(f"{count} events imported from {words[0]}")

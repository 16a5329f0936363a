"""The options that many commands share."""

from typing import Annotated

import typer

NEVER_IN_A_URL = (
    "A password in a URL on the command line can be seen by everybody on the machine (ps): put the "
    "URL into REFOLD_STORE, or the password into PGPASSWORD or ~/.pgpass."
)

DEFAULT_STORE = "rapidfire.db"

Store = Annotated[
    str,
    typer.Option(
        "--store",
        "-s",
        envvar="REFOLD_STORE",
        metavar="PATH|URL",
        help="The store: a file, or postgresql://user@host/database?schema=name. A password in it "
        "would be seen by all (ps): use PGPASSWORD, or put the URL into the variable.",
    ),
]

At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="POSITION|TIME",
        help="As it was then: a position, 2026-01-31T12:00Z, or 5m for five minutes ago.",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        envvar="REFOLD_IMPORT",
        metavar="MODULE",
        help="A module with event types and views of your own; may be given several times.",
    ),
]

AllowDill = Annotated[
    bool,
    typer.Option(
        "--allow-dill",
        help="Decode a configuration that only dill can carry. That runs code that whoever wrote "
        "it has chosen.",
    ),
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

Actor = Annotated[
    str | None,
    typer.Option(
        "--actor",
        envvar="REFOLD_ACTOR",
        metavar="NAME",
        help="Who acts, noted with every event; by default your name here.",
    ),
]

"""What commands take, as people write it: options, moments, entities; and how they end."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from refold.eventstore.log.readable import Moment
from refold.face import Face
from refold.projections.entities import ENTITIES, view_of
from refold.projections.view import Key, View

NO = 1
"""The answer is no: there are differences, a problem was found, the user did not agree."""

USAGE = 2
"""The command line is wrong."""

FAILED = 3
"""It was refused, or failed; nothing was changed."""

INTERRUPTED = 130
"""Ctrl-C, as shells count it: 128 and the signal's number."""

BROKEN_PIPE = 141
"""Nobody reads any more what is printed, likewise; `refold log | head` is no error."""


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


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"-?(\d+(?:\.\d+)?)([smhdw])(?: ago)?")


def moment(text: str) -> Moment | None:
    """Return the moment that a text names; None for `now`.

    Raises:
        typer.BadParameter: it names none, or is a time without a zone.
    """
    if text == "now":
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a moment: pass a position such as 120, a time such as "
            f"2026-01-31T12:00Z, or 5m for five minutes ago (s, m, h, d, w)"
        ) from None
    if time.utcoffset() is None:
        whole = text if len(text) > len("2026-01-31") else f"{text}T00:00"
        raise typer.BadParameter(
            f"the time {text!r} has no zone: {whole}Z would be UTC, {whole}+01:00 an hour ahead"
        )
    return time


def position(db: Face, text: str) -> int:
    """Return the position of the last event at a moment.

    Raises:
        typer.BadParameter: it is no moment.
        InvalidMoment: it lies in the future or before the first event.
    """
    when = moment(text)
    return db.store.head() if when is None else db.position_at(when)


_STREAMS = {"ic": "request", "actor-task": "actor_task"}
"""Words of the log, or of the command line, for what Python calls otherwise."""


def _entities() -> list[str]:
    return list(ENTITIES)


Words = Annotated[
    list[str],
    typer.Argument(
        metavar="ENTITY ID|NAME",
        help=f"Such as run 5, run-5, or run baseline. Entities: {', '.join(ENTITIES)}, or a view.",
        autocompletion=_entities,
    ),
]


class Entity(NamedTuple):
    """One row of a view."""

    word: str
    view: View[Any]
    key: Key

    def __str__(self) -> str:
        return self.word if self.word == "controller" else f"{self.word} {self.key}"


def entity_and_column(words: Sequence[str], db: Face) -> tuple[Entity, str | None]:
    """Return the entity that words begin with, and the column behind it, if there is one.

    Raises:
        NotFound: there is no such entity.
        typer.BadParameter: its id is missing or wrong, or more words follow.
    """
    found, columns = entity(words, db.views.views, db)
    if len(columns) > 1:
        raise typer.BadParameter(f"one column at most, not {' '.join(columns)}")
    return found, next(iter(columns), None)


def entity(
    words: Sequence[str], views: Iterable[View[Any]], db: Face | None = None
) -> tuple[Entity, list[str]]:
    """Return the entity that words begin with, and the words behind it.

    Args:
        words: as people write them.
        views: whose rows they may name.
        db: where names are looked up; None: only ids are taken.

    Raises:
        NotFound: there is no such entity.
        typer.BadParameter: its id is missing or wrong.
    """
    word, *rest = words
    begin, dash, end = word.rpartition("-")
    if dash and end.isdecimal():
        word, rest = begin, [end, *rest]
    word = _STREAMS.get(word, word)
    view = view_of(word, views)
    if word == "controller":
        return Entity(word, view, 1), rest[1:] if rest[:1] == ["1"] else rest
    if not rest:
        raise typer.BadParameter(f"which {word}? Give its id, such as {word} 5")
    key, *rest = rest
    return Entity(word, view, _key(key, word, view, db)), rest


NAMES = {"experiments": "experiment_name", "runs": "run_name", "pipelines": "pipeline_name"}
"""The views whose rows have names, and in which column."""


def id_of(db: Face, word: str, text: str) -> int:
    """Return the id of an experiment, a run or a pipeline that is given by its id or name.

    Raises:
        typer.BadParameter: there is none of that name, or there are several.
    """
    return int(_key(text, word, ENTITIES[word], db))


def _key(text: str, word: str, view: View[Any], db: Face | None) -> Key:
    with suppress(msgspec.ValidationError):
        return msgspec.convert(text, view.key_type, strict=False)
    column = NAMES.get(view.name)
    if db is None or column is None:
        raise typer.BadParameter(
            f"{text!r} is not the id of {_article(word)} {word}: pass a number, such as {word} 5"
        )
    sql = f"SELECT {view.key} AS id FROM {view.table} WHERE {column} = ? ORDER BY {view.key}"
    found = [row["id"] for row in db.views.select(sql, text)]
    if not found:
        raise typer.BadParameter(f"no {word} has the name {text!r}: refold {word}s lists them")
    if len(found) > 1:
        raise typer.BadParameter(
            f"{text!r} is the name of {word}s {', '.join(map(str, found))}: give an id"
        )
    return found[0]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"

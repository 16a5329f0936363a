"""An entity as people write it: `run 5`, or as the log does, `run-5`."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from refold.projections.entities import ENTITIES, view_of
from refold.projections.view import Key, View

_STREAMS = {"ic": "request", "actor-task": "actor_task"}
"""Words of the log, or of the command line, for what Python calls otherwise."""


def _entities() -> list[str]:
    return list(ENTITIES)


Words = Annotated[
    list[str],
    typer.Argument(
        metavar="ENTITY ID",
        help=f"Such as run 5, or run-5. Entities: {', '.join(ENTITIES)}, or a view.",
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


def entity_and_column(
    words: Sequence[str], views: Iterable[View[Any]]
) -> tuple[Entity, str | None]:
    """Return the entity that words begin with, and the column behind it, if there is one.

    Raises:
        NotFound: there is no such entity.
        typer.BadParameter: its id is missing or wrong, or more words follow.
    """
    found, columns = entity(words, views)
    if len(columns) > 1:
        raise typer.BadParameter(f"one column at most, not {' '.join(columns)}")
    return found, next(iter(columns), None)


def entity(words: Sequence[str], views: Iterable[View[Any]]) -> tuple[Entity, list[str]]:
    """Return the entity that words begin with, and the words behind it.

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
    try:
        return Entity(word, view, msgspec.convert(key, view.key_type, strict=False)), rest
    except msgspec.ValidationError:
        raise typer.BadParameter(
            f"{key!r} is no id of a {word}: pass a number, such as {word} 5"
        ) from None

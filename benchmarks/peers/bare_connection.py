"""A connection to a store with the engine's driver and no layer: for the same reads as refold's."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.peers.bare_sqlite import SETTINGS


class Cursor(Protocol):
    @property
    def description(self) -> Sequence[Sequence[Any]] | None: ...

    def fetchall(self) -> list[tuple[Any, ...]]: ...

    def fetchone(self) -> tuple[Any, ...] | None: ...

    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...


class BareConnection(Protocol):
    """What sqlite3 and psycopg have in common."""

    def execute(self, query: str, parameters: Sequence[Any] = (), /) -> Cursor: ...

    def close(self) -> None: ...


def connect(place: str) -> BareConnection:
    """Connect to the place of a store: a file, or a schema of a server."""
    url, _, schema = place.partition("schema=")
    if not schema:
        file = sqlite3.connect(place, isolation_level=None)
        file.executescript(SETTINGS)
        return file
    conninfo = make_conninfo(url.rstrip("?&"), options=f"-c search_path={schema}")
    return cast("BareConnection", psycopg.connect(conninfo, autocommit=True))


def dicts(cursor: Cursor) -> list[dict[str, Any]]:
    """Return all rows as dicts of their columns."""
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]

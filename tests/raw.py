"""A connection of one's own to a store on any engine, for tests of what refold does about it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from raw_sqlite import raw as raw_sqlite


@contextmanager
def raw(place: str) -> Iterator[sqlite3.Connection | psycopg.Connection[tuple[Any, ...]]]:
    """Open the file, or the schema on the server, as any program can; commit at the end."""
    if "://" not in place:
        with raw_sqlite(place) as connection:
            yield connection
        return
    url, _, schema = place.rpartition("schema=")
    with psycopg.connect(url[:-1], options=f"-c search_path={schema}") as connection:
        yield connection

"""A connection of one's own to a store's file, for tests of what refold does about it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager


@contextmanager
def raw(place: str) -> Iterator[sqlite3.Connection]:
    """Open the file as any program can; commit at the end."""
    with closing(sqlite3.connect(place)) as connection, connection:
        yield connection

"""A connection of one's own to a store's file, for tests of what refold does about it."""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pytest


@contextmanager
def raw(place: str) -> Iterator[sqlite3.Connection]:
    """Open the file as any program can; commit at the end."""
    with closing(sqlite3.connect(place)) as connection, connection:
        yield connection


@contextmanager
def noting(monkeypatch: pytest.MonkeyPatch) -> Generator[list[str], None, None]:
    """Note all that is executed on connections that are opened in the block."""
    noted: list[str] = []

    class Noting(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            noted.append(sql)
            return super().execute(sql, *parameters)

        def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            noted.append(sql)
            return super().executemany(sql, *parameters)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Noting))
        yield noted

"""How the versions of rows lie in their file: each is its row, and the position that ended it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from refold.eventstore.sqlite.connection import SqliteConnection, fail
from refold.projections.view import View

UNTIL = '"holds until"'
"""The column that a version has beyond its row's: no row can have one of that name."""

NEVER = 2**63 - 1
"""What it holds of a version that is still true."""

TIMES = ("created_at", "updated_at")
"""Columns that are kept as microseconds here."""

# Nobody but its own store relies on the file, so nothing of it needs to survive.
_SETTINGS = ("synchronous = OFF", "temp_store = MEMORY")


def connect(path: Path, name: str) -> SqliteConnection:
    """Open the file of versions.

    Args:
        path: of the file.
        name: how it is called in messages.
    """
    try:
        raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        fail(str(path), error)
    connection = SqliteConnection(raw, name)
    for setting in _SETTINGS:
        connection.execute(f"PRAGMA {setting}")
    return connection


def table_of(view: View[Any]) -> str:
    """Return the statement that creates the table of a view's versions."""
    # With the types that the view's own table has: SQLite makes 1 of 1.0 where they say INTEGER.
    with closing(sqlite3.connect(":memory:")) as scratch:
        for statement in view.schema:
            scratch.execute(statement)
        told = scratch.execute(f"PRAGMA table_info({view.table})").fetchall()
    types = {name: sql for _, name, sql, *_ in told}
    columns = [f"{name} {'INTEGER' if name in TIMES else types[name]}" for name in view.columns]
    return f"CREATE TABLE {view.table} ({', '.join(columns)}, {UNTIL} INTEGER)"


def index_of(view: View[Any]) -> str:
    """Return the statement that creates the index of it."""
    return (
        f"CREATE INDEX IF NOT EXISTS {view.table}_by_key "
        f"ON {view.table} ({view.key}, position, {UNTIL})"
    )


def columns_of(view: View[Any]) -> str:
    """Return the columns of a view's versions for a SELECT, as its own table has them."""
    return ", ".join(_as_text(name) if name in TIMES else name for name in view.columns)


def _as_text(time: str) -> str:
    return (
        f"strftime('%Y-%m-%d %H:%M:%S.', {time} / 1000000, 'unixepoch') || "
        f"printf('%06d', {time} % 1000000) AS {time}"
    )

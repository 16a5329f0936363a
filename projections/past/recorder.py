"""A unit of work that keeps what it overwrites."""

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import astuple

from eventstore.recorded import Recorded
from eventstore.sqlite.connection import SqliteConnection
from eventstore.store import EventStore
from projections.unit_of_work import KEYS_PER_SELECT, UnitOfWork
from projections.view import Key, R, View

ROWS_REMEMBERED = 400_000
"""Bounds the memory of a build; rows beyond it are loaded again when an event changes them."""

NEVER = 2**63 - 1
"""`until` of a version that is still true."""

# Nobody but its own store relies on the file, so nothing of it needs to survive.
_SETTINGS = ("synchronous = OFF", "cache_size = -131072", "temp_store = MEMORY")

TIMES = ("created_at", "updated_at")
"""Columns that are kept as microseconds here."""


class Recorder(UnitOfWork):
    """Folds events and writes each version of each row, with the position that ended it."""

    def __init__(self, views: Iterable[View[Any]], path: Path) -> None:
        super().__init__(views)
        self._db = connect(path, str(path))
        self._db.execute("PRAGMA journal_mode = OFF")
        for view in self.views:
            self._db.execute(_table_of(view))
        self._db.execute("CREATE TABLE payloads (digest TEXT PRIMARY KEY, content BLOB NOT NULL)")
        self._position = 0
        self._all_remembered = True
        self._ended: dict[View[Any], list[tuple[Any, ...]]] = {view: [] for view in self.views}
        """Versions with their ends, to be inserted."""
        self._ends: dict[View[Any], list[tuple[Any, ...]]] = {view: [] for view in self.views}
        """Ends of versions that are in the file."""
        self._unwritten: dict[View[Any], set[Key]] = {view: set() for view in self.views}
        """Keys of the rows in memory whose present version is not in the file."""
        self._digests: set[str] = set()

    @contextmanager
    def recording(self, store: EventStore) -> Generator[None, None, None]:
        """Have the block fold events, and write all that they lead to in one transaction."""
        self._db.execute("BEGIN")
        yield
        self._write_present()
        for digest, content in store.get_payloads(self._digests):
            self._db.execute("INSERT OR IGNORE INTO payloads VALUES (?, ?)", (digest, content))
        self._digests.clear()
        self._db.execute("COMMIT")
        self._db.execute("PRAGMA journal_mode = WAL")  # from now on there are readers

    # --- rows -----------------------------------------------------------------------------

    def fold(self, recorded: Recorded) -> None:
        """Let each view take in an event."""
        self._position = recorded.position
        super().fold(recorded)

    def get(self, view: View[R], key: Key) -> R | None:
        """Return the row with a key, or None."""
        rows = self._rows[view]
        if key not in rows and not self._all_remembered:
            self._load(view, (key,))
        return rows.get(key)

    def put(self, view: View[R], key: Key, row: R | None) -> None:
        """Set the row with a key, or delete it with None; the version before has ended."""
        before = self.get(view, key)
        unwritten = self._unwritten[view]
        if before is not None:
            if key not in unwritten:
                self._ends[view].append((self._position, key, before.position))
            elif before.position != self._position:
                self._ended[view].append((*astuple(before), self._position))
        self._rows[view][key] = row
        if row is None:
            unwritten.discard(key)
            return
        unwritten.add(key)
        for name in _digests_of(view):
            digest = getattr(row, name)
            if digest is not None and (before is None or getattr(before, name) != digest):
                self._digests.add(digest)

    def clear(self, view: View[R]) -> None:
        """Empty a view."""
        if not self._all_remembered:
            self._write_present()
            self._rows[view].clear()
            present = [
                key
                for (key,) in self._db.execute(
                    f"SELECT {view.key} FROM {view.table} WHERE until = ?", (NEVER,)
                )
            ]
            self._load(view, present)
        for row in self.rows(view):
            self.put(view, getattr(row, view.key), None)

    def _load(self, view: View[Any], keys: Sequence[Key]) -> None:
        rows = self._rows[view]
        rows.update(dict.fromkeys(keys))
        for start in range(0, len(keys), KEYS_PER_SELECT):
            part = keys[start : start + KEYS_PER_SELECT]
            marks = ", ".join("?" * len(part))
            for values in self._db.execute(
                f"{view.select} WHERE {view.key} IN ({marks}) AND until = {NEVER}", part
            ):
                rows[values[0]] = view.row(*view.typed(values))

    # --- writing --------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the versions that have ended; let go of rows if there are too many."""
        self._write_ended()
        if len(self) > ROWS_REMEMBERED:
            self._write_present()
            self.forget()
            self._all_remembered = False

    def _write_ended(self) -> None:
        for view in self.views:
            self._insert(view, self._ended[view])
            self._db.executemany(
                f"UPDATE {view.table} SET until = ? WHERE {view.key} = ? AND position = ?",
                self._ends[view],
            )
            self._ended[view].clear()
            self._ends[view].clear()

    def _write_present(self) -> None:
        self._write_ended()
        for view, keys in self._unwritten.items():
            rows = self._rows[view]
            self._insert(view, [(*astuple(rows[key]), NEVER) for key in sorted(keys)])
            keys.clear()

    def _insert(self, view: View[Any], versions: Sequence[tuple[Any, ...]]) -> None:
        self._db.insert(view.table, (*view.columns, "until"), versions)


def connect(path: Path, name: str) -> SqliteConnection:
    """Open the file of a recorder."""
    raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection = SqliteConnection(raw, name)
    for setting in _SETTINGS:
        connection.execute(f"PRAGMA {setting}")
    return connection


def _table_of(view: View[Any]) -> str:
    # With the types that the view's own table has: SQLite makes 1 of 1.0 where they say INTEGER.
    with closing(sqlite3.connect(":memory:")) as scratch:
        for statement in view.schema:
            scratch.execute(statement)
        told = scratch.execute(f"PRAGMA table_info({view.table})").fetchall()
    types = {name: sql for _, name, sql, *_ in told}
    columns = [f"{name} {'INTEGER' if name in TIMES else types[name]}" for name in view.columns]
    return (
        f"CREATE TABLE {view.table} ({', '.join(columns)}, until INTEGER, "
        f"PRIMARY KEY ({view.key}, position)) WITHOUT ROWID"
    )


def columns_of(view: View[Any]) -> str:
    """Return the columns of a view's versions for a SELECT, as its own table has them."""
    return ", ".join(_as_text(name) if name in TIMES else name for name in view.columns)


def _as_text(time: str) -> str:
    return (
        f"strftime('%Y-%m-%d %H:%M:%S.', {time} / 1000000, 'unixepoch') || "
        f"printf('%06d', {time} % 1000000) AS {time}"
    )


@cache
def _digests_of(view: View[Any]) -> list[str]:
    return [name for name in view.columns if name.endswith("_digest")]

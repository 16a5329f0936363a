"""A unit of work that keeps what it overwrites: every version of every row, in a file."""

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import astuple

from refold.eventstore import times
from refold.eventstore.engines.sqlite.connection import SqliteConnection, fail
from refold.eventstore.event import Event
from refold.eventstore.log.reading import Fact
from refold.eventstore.log.store import EventStore
from refold.eventstore.paging import chunks
from refold.eventstore.sql import marks
from refold.projections.entities import own_views
from refold.projections.unit_of_work import UnitOfWork
from refold.projections.view import Key, R, View

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
        found = scratch.execute(f"PRAGMA table_info({view.table})").fetchall()
    types = {name: sql for _, name, sql, *_ in found}
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
    return ", ".join(
        f"{times.text_in_sqlite(name)} AS {name}" if name in TIMES else name
        for name in view.columns
    )


ROWS_REMEMBERED = 400_000
"""Bounds the memory of a build; rows beyond it are loaded again when an event changes them."""


class _Unwritten:
    """What the file does not hold yet of a view."""

    def __init__(self) -> None:
        self.ended: list[tuple[Any, ...]] = []
        """Versions that have ended, with their ends."""
        self.ends: list[tuple[Any, ...]] = []
        """Ends of versions that the file holds as true."""
        self.present: set[Key] = set()
        """Keys of the rows whose version is still true."""


class VersionWriter(UnitOfWork):
    """Folds events and writes each version of each row, with the position that ended it."""

    def __init__(self, views: Iterable[View[Any]], path: Path) -> None:
        views = tuple(views)
        super().__init__(views, own=own_views(views))
        self._db = connect(path, str(path))
        self._db.execute("PRAGMA cache_size = -65536")  # KiB
        self._db.execute("PRAGMA journal_mode = WAL")  # neither readers nor the writer ever wait
        for view in self.views:
            self._db.execute(table_of(view))
        self._db.execute("CREATE TABLE payloads (digest TEXT PRIMARY KEY, content BLOB NOT NULL)")
        self._position = 0
        self._all_remembered = True
        self._unwritten = {view: _Unwritten() for view in self.views}
        self._digests: set[str] = set()
        """Of payloads that rows name, and that are not in the file."""
        self._digest_columns = {
            view: [name for name in view.columns if name.endswith("_digest")] for view in self.views
        }

    def close(self) -> None:
        """Close the file."""
        self._db.raw.close()

    @contextmanager
    def writing(self, views: Sequence[View[Any]], store: EventStore) -> Generator[None, None, None]:
        """Have the block fold events into some of the views, and write all of it or nothing."""
        self.views = tuple(views)
        self.failed.clear()
        self._concerned.clear()
        self._db.execute("BEGIN")
        yield
        self._write_present()
        self._index()
        self.fetch(store)
        self._db.execute("COMMIT")

    def fetch(self, store: EventStore) -> None:
        """Fetch the payloads that rows name, as far as they are stored by now."""
        if self._digests:
            for digest, content in store.get_payloads(self._digests):
                self._db.execute("INSERT OR IGNORE INTO payloads VALUES (?, ?)", (digest, content))
                self._digests.discard(digest)

    def fold_page(self, page: Iterable[Fact]) -> None:
        """Fold events and write the versions that they end."""
        for fact in page:
            self.take_in(*fact)
        self._write_ended()
        if len(self) > ROWS_REMEMBERED:
            self._write_present()
            self._index()
            self.forget()
            self._all_remembered = False

    # --- rows -----------------------------------------------------------------------------

    def take_in(self, position: int, event: Event, recorded_at: int) -> None:
        """Let each view take in an event."""
        self._position = position
        super().take_in(position, event, recorded_at)

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
            if key not in unwritten.present:
                unwritten.ends.append((self._position, key, before.position))
            elif before.position != self._position:
                unwritten.ended.append((*astuple(before), self._position))
        self._rows[view][key] = row
        if row is None:
            unwritten.present.discard(key)
            return
        unwritten.present.add(key)
        for name in self._digest_columns[view]:
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
                    f"SELECT {view.key} FROM {view.table} WHERE {UNTIL} = {NEVER}"
                )
            ]
            self._load(view, present)
        for row in self.rows(view):
            self.put(view, getattr(row, view.key), None)

    def _load(self, view: View[Any], keys: Sequence[Key]) -> None:
        rows = self._rows[view]
        rows.update(dict.fromkeys(keys))
        for part in chunks(keys):
            for values in self._db.execute(
                f"{view.select} WHERE {view.key} IN ({marks(part)}) AND {UNTIL} = {NEVER}", part
            ):
                rows[values[0]] = view.row_of(values)

    # --- writing --------------------------------------------------------------------------

    def _write_ended(self) -> None:
        for view in self.views:
            unwritten = self._unwritten[view]
            self._insert(view, unwritten.ended)
            self._db.executemany(
                f"UPDATE {view.table} SET {UNTIL} = ? WHERE {view.key} = ? AND position = ?",
                unwritten.ends,
            )
            unwritten.ended.clear()
            unwritten.ends.clear()

    def _write_present(self) -> None:
        self._write_ended()
        for view in self.views:
            rows, keys = self._rows[view], self._unwritten[view].present
            self._insert(view, [(*astuple(rows[key]), NEVER) for key in sorted(keys)])
            keys.clear()

    def _index(self) -> None:
        # Not before the rows are there: that would cost several times as much.
        for view in self.views:
            self._db.execute(index_of(view))

    def _insert(self, view: View[Any], versions: Sequence[tuple[Any, ...]]) -> None:
        self._db.insert(view.table, (*view.columns, UNTIL), versions)

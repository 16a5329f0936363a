"""A connection to an SQLite file whose errors are `DBException`s, and what may be done on it."""

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from functools import cache
from typing import Any, NoReturn

from refold.eventstore import errors
from refold.eventstore.engines.engine import Definition, Values
from refold.eventstore.sql import marks, section, statements

_TELLING_PRAGMAS = {  # of what their argument names
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
}
_SETTING_PRAGMAS = {  # which an argument would change
    "application_id",
    "compile_options",
    "data_version",
    "database_list",
    "freelist_count",
    "journal_mode",
    "page_count",
    "page_size",
    "user_version",
}
_READING_ACTIONS = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


class _Denied(threading.local):
    """Whether `only_reads` has denied a step of this thread's present statement."""

    step = False


_denied = _Denied()


def only_reads(action: int, name: str | None, value: str | None, *_: str | None) -> int:
    """Allow or deny a step of a statement, as SQLite asks while it compiles it."""
    if action == sqlite3.SQLITE_PRAGMA:
        reads = name in _TELLING_PRAGMAS or (name in _SETTING_PRAGMAS and value is None)
    else:
        reads = action in _READING_ACTIONS
    if not reads:
        _denied.step = True
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY


_REFUSED = "a rule of the table refuses the row"

_ERRORS: dict[int, tuple[type[errors.DBException], str]] = {
    sqlite3.SQLITE_FULL: (errors.StoreFull, "the disk is full: make room and try again"),
    sqlite3.SQLITE_READONLY: (
        errors.StoreReadOnly,
        "it can only be read: make the file and its folder writable",
    ),
    sqlite3.SQLITE_CONSTRAINT: (errors.RowRefused, _REFUSED),
    sqlite3.SQLITE_MISMATCH: (errors.RowRefused, _REFUSED),
    sqlite3.SQLITE_BUSY: (errors.StoreBusy, "another process holds it: try again"),
    sqlite3.SQLITE_LOCKED: (errors.StoreBusy, "another connection holds it: try again"),
    sqlite3.SQLITE_NOTADB: (errors.NotAStore, "it is not a database: pass another path"),
    sqlite3.SQLITE_CORRUPT: (
        errors.StoreDamaged,
        "the file is damaged: keep a copy, then try `sqlite3 FILE .recover`",
    ),
    sqlite3.SQLITE_IOERR: (
        errors.StoreFailed,
        "reading or writing it failed: check the disk, its room and its limits, then try again",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        errors.NotAStore,
        "it cannot be opened: check the path and the rights on its folder",
    ),
}


def fail(name: str, error: Exception, sql: str = "") -> NoReturn:
    """Raise the `DBException` that says what an error of SQLite's or Python's means."""
    code = getattr(error, "sqlite_errorcode", 0)
    if "closed database" in str(error):
        raise errors.StoreClosed(f"{name} was closed: open it again") from error
    denied = code == sqlite3.SQLITE_AUTH or "not authorized" in str(error)
    if denied:
        if not _denied.step:
            # An exception came within `only_reads`; sqlite3 has swallowed it and denied the step.
            raise KeyboardInterrupt from error
        _denied.step = False
    if denied or "because it is a view" in str(error):
        raise errors.WriteRefused(
            f"{sql.strip()!r} would write: the views are rebuilt from events and only events "
            f"change them; use a method such as set_run_status()"
        ) from error
    if code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) and _descriptors_used_up():
        raise errors.StoreFailed(
            f"{name}: {error}; this process has used up its file descriptors: close stores, "
            f"subscriptions and files that are no longer needed, or raise the limit (ulimit -n)"
        ) from error
    kind, advice = _ERRORS.get(code & 0xFF, (errors.StoreFailed, "see the cause"))
    if code in (0, sqlite3.SQLITE_ERROR):
        # Python's own complaints about the statement or its parameters carry no code.
        raise errors.InvalidQuery(f"{sql.strip()!r}: {error}") from error
    raise kind(f"{name}: {error}; {advice}") from error


def _descriptors_used_up() -> bool:
    """Return whether there are too few file descriptors for one more connection."""
    found: list[int] = []
    try:
        while len(found) < DESCRIPTORS:
            found.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    finally:
        for descriptor in found:
            os.close(descriptor)
    return False


DESCRIPTORS = 4
"""That one connection may need: the file, its log, the index of that, and a temporary file."""

FAILURES = (sqlite3.Error, OverflowError, UnicodeError, ValueError)


def _text(column: str) -> str:
    return f"CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) END"


def _only(kind: str, column: str) -> str:
    return f"CASE typeof({column}) WHEN '{kind}' THEN {column} END"


# A column may hold a value of any type, if somebody has altered it.
EXACT_EVENTS = f"""
    SELECT position, {_text("stream")}, {_only("integer", "version")},
           CASE typeof(previous) WHEN 'integer' THEN previous WHEN 'null' THEN NULL ELSE -1 END,
           {_text("type")}, {_only("integer", "schema_version")}, {_text("data")},
           {_text("metadata")}, {_only("integer", "recorded_at")}, {_only("blob", "digest")}
    FROM events WHERE position > ? ORDER BY position LIMIT ?"""


class _Objects:
    """The tables, with their columns, and the triggers of a file."""

    def __init__(self, execute: Callable[[str], Iterable[tuple[Any, ...]]]) -> None:
        found = list(
            execute(
                "SELECT type, name, sql FROM sqlite_master "
                "WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
            )
        )
        self.triggers = {name: sql for kind, name, sql in found if kind == "trigger"}
        self.tables: dict[str, list[str]] = {
            name: [column for _, column, *_ in execute(f'PRAGMA table_info("{name}")')]
            for kind, name, _ in found
            if kind in ("table", "view")
        }

    def differences(
        self, ours: "_Objects", known: Collection[str] | None
    ) -> Generator[tuple[str, str], None, None]:
        """Iterate over what differs from refold's own."""
        for name, columns in self.tables.items():
            if name not in ours.tables:
                if known is not None and name not in known:
                    yield f"table {name}", "it is not refold's, nor a view's that is known here"
            elif extra := [column for column in columns if column not in ours.tables[name]]:
                yield f"table {name}", f"refold has no column {', '.join(extra)} there"
        for name, sql in self.triggers.items():
            if name not in ours.triggers:
                yield f"trigger {name}", "it is not refold's, and may alter what is written"
            elif sql != ours.triggers[name]:
                yield f"trigger {name}", "it was altered: drop it, and create it as tables.sql does"
        for name in sorted(ours.triggers.keys() - self.triggers.keys()):
            yield f"trigger {name}", "it is missing, so the log can be altered"


@cache
def _expected(sections: str) -> _Objects:
    with closing(sqlite3.connect(":memory:")) as scratch:
        for statement in statements("".join(map(section, sections.split()))):
            scratch.execute(statement)
        return _Objects(scratch.execute)


class SqliteConnection:
    """A connection whose errors are `DBException`s."""

    def __init__(self, raw: sqlite3.Connection, name: str) -> None:
        self.raw = raw
        self.begun = False
        self.kept = True
        """Whether it may be used again, rather than closed after its use."""
        self._name = name

    def _check_begun(self) -> None:
        try:
            if self.raw.in_transaction:
                return
        except sqlite3.Error as error:  # it was closed
            fail(self._name, error)
        # On a full disk, for one, SQLite ends a transaction by itself; what came after it would
        # be committed statement by statement.
        raise errors.TransactionFailed(
            f"{self._name}: the transaction failed and was rolled back: leave its block and "
            f"begin anew"
        )

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        if self.begun:
            self._check_begun()
        try:
            return self.raw.execute(sql, parameters).fetchall()
        except FAILURES as error:
            fail(self._name, error, sql)

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        if self.begun:
            self._check_begun()
        try:
            cursor = self.raw.execute(sql, parameters)
            rows = cursor.fetchall()
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in rows]
        except FAILURES as error:
            fail(self._name, error, sql)

    def select_together(
        self, first: str, sql: str, parameters: Values, /
    ) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]]]:
        """Run two statements; return the rows of both, the second's as dicts."""
        return self.execute(first), self.select(sql, parameters)

    def run(self, sql: str, parameters: Values = (), /) -> None:
        """Run one statement that returns no rows."""
        if self.begun:
            self._check_begun()
        try:
            self.raw.execute(sql, parameters)
        except FAILURES as error:
            fail(self._name, error, sql)

    def executemany(self, sql: str, rows: Sequence[Values], /) -> None:
        """Run one statement for each row of parameters."""
        if self.begun:
            self._check_begun()
        try:
            self.raw.executemany(sql, rows)
        except FAILURES as error:
            fail(self._name, error, sql)

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Values], on_conflict: str = "", /
    ) -> None:
        """Insert rows in bulk."""
        self.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks(columns)}) {on_conflict}",
            rows,
        )

    def need_digests(self, unchecked: int, /) -> None:
        """Do nothing: the trigger looks into the table `store`."""

    @contextmanager
    def renewed(self, tables: Sequence[Definition], /) -> Generator[None, None, None]:
        """Lay out tables and SQL views anew, empty, and have the block fill them."""
        for objects, schema in tables:
            for name in objects:
                for (kind,) in self.execute(
                    "SELECT type FROM sqlite_master WHERE name = ?", (name,)
                ):
                    self.execute(f"DROP {kind} {name}")
            for statement in schema:
                self.execute(statement)
        yield

    def head(self) -> int:
        """Return the position of the last event: here they are committed in order."""
        ((head,),) = self.execute("SELECT max(position) FROM events")
        return head or 0

    def exact_events(self, after: int, limit: int, /) -> list[tuple[Any, ...]]:
        """Return events after a position, each as an `EventRow`, texts as their bytes."""
        return self.execute(EXACT_EVENTS, (after, limit))

    def foreign(self, known: Collection[str] | None, /) -> list[tuple[str, str]]:
        """Return what is not as refold made it: tables, columns and triggers, and what of them."""
        there = _Objects(self.execute)
        format_1 = "store" not in there.tables  # which can only be read here
        expected = _expected("log" if format_1 else "log store")
        return list(there.differences(expected, known))

    def changes(self) -> int:
        """Return a number that changes when any other connection commits."""
        return self.execute("PRAGMA data_version")[0][0]

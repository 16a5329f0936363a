"""A connection to a server whose errors are `DBException`s."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Any, TypeVar
from zlib import crc32

import psycopg

from eventstore import errors
from eventstore.engine import Values
from eventstore.postgres import dialect
from eventstore.postgres.connect import Raw
from eventstore.postgres.failures import FAILURES, fail

T = TypeVar("T")
Cursor = psycopg.Cursor[tuple[Any, ...]]

# An event is settled as soon as no transaction can still commit one below it. A writer holds a
# transaction id before it draws positions, and the row is written under a later id than that. So
# once every transaction older than the row's own (`xmin`) has ended, nothing comes in below it.
# What follows without a gap is settled too.
HEAD = """
    WITH sure AS (
        SELECT coalesce((
            SELECT position FROM events
            WHERE age(xmin) > age(pg_snapshot_xmin(pg_current_snapshot())::xid)
            ORDER BY position DESC LIMIT 1), 0) AS position
    ), later AS (
        SELECT e.position, e.position - row_number() OVER (ORDER BY e.position) AS base
        FROM events e, sure WHERE e.position > sure.position
    )
    SELECT coalesce((SELECT max(l.position) FROM later l WHERE l.base = sure.position),
                    sure.position),
           (SELECT max(position) FROM later) IS NOT NULL
    FROM sure"""

NAMES = 1024
"""Locks on names are of so many: the server has room for some thousands of all transactions."""

COPIED = 100
"""From so many rows on, COPY is faster than INSERTs, although it needs the line for itself."""

_changes = count()


class PostgresConnection:
    """A connection on which every statement stands alone; one that gets lost is replaced."""

    def __init__(self, raw: Raw, name: str, renew: Callable[[Raw], Raw] | None = None) -> None:
        self.raw = raw
        self.unsettled = False
        """Whether the last look at the head saw events beyond it."""
        self._name = name
        self._renew = renew

    def _do(self, work: Callable[[], T], sql: str) -> T:
        while True:
            try:
                return work()
            except FAILURES as error:
                try:
                    fail(self._name, error, sql)
                except errors.ConnectionLost:
                    if self._renew is None:
                        raise
                    self.raw = self._renew(self.raw)

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        text = dialect.query(sql)
        return self._do(lambda: _rows(self.raw.execute(text, parameters)), sql)

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        text = dialect.query(sql)
        return self._do(lambda: _dicts(self.raw.execute(text, parameters)), sql)

    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own; whatever it does besides is taken back."""
        text = dialect.query(sql)

        def answered() -> list[dict[str, Any]]:
            with self.raw.pipeline():
                self.raw.execute("BEGIN READ ONLY")
                cursor = self.raw.execute(text, parameters)
                self.raw.execute("ROLLBACK")
                return _dicts(cursor)

        try:
            return self._do(answered, sql)
        except errors.DBException as error:
            _refuse_writing(error, sql)
            raise
        finally:
            with suppress(psycopg.Error):  # a broken connection has nothing to roll back
                if self.raw.info.transaction_status:
                    self.raw.execute("ROLLBACK")

    def run(self, sql: str, parameters: Values = (), /) -> None:
        """Run one statement that returns no rows."""
        self._do(lambda: self.raw.execute(dialect.query(sql), parameters), sql)

    def executemany(self, sql: str, rows: Sequence[Values], /) -> None:
        """Run one statement for each row of parameters."""
        self._do(lambda: self.raw.cursor().executemany(dialect.query(sql), rows), sql)

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Values], /) -> None:
        """Insert rows that are new, in bulk."""
        marks = ", ".join("?" * len(columns))
        self.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)

    def lock(self, names: Iterable[str], /) -> None:
        """Do nothing: there is no transaction that could hold a lock."""

    def renew(self, objects: Sequence[str], schema: Sequence[str], /) -> None:
        """Make tables and SQL views anew, empty; readers see the old ones until the commit."""
        raise errors.WriteRefused(f"{self._name}: {', '.join(objects)}: this connection only reads")

    def head(self) -> int:
        """Return the position up to which the log is complete: nothing comes in at or below it."""
        ((head, self.unsettled),) = self.execute(HEAD)
        return head

    def changes(self) -> int:
        """Return a new number each time: the server does not tell who has committed."""
        return next(_changes)


class WriteConnection(PostgresConnection):
    """A connection in a write transaction; statements go out without waiting for each other."""

    def __init__(self, raw: Raw, name: str, lock: int) -> None:
        super().__init__(raw, name)
        self._lock = lock
        self._pid = os.getpid()
        self._line = ExitStack()
        self._pipeline = self._line.enter_context(raw.pipeline())

    def _do(self, work: Callable[[], T], sql: str) -> T:
        if self._pid != os.getpid():
            raise errors.StoreFailed(
                f"{self._name}: this process was forked in the middle of a transaction: fork "
                f"outside of them, or start processes with spawn"
            )
        return super()._do(work, sql)

    def together(self, *statements: tuple[str, Values]) -> list[list[tuple[Any, ...]]]:
        """Run statements in one round trip and return the rows of each."""

        def sent() -> list[list[tuple[Any, ...]]]:
            cursors = [self.raw.execute(dialect.query(sql), values) for sql, values in statements]
            return [_rows(cursor) for cursor in cursors]

        return self._do(sent, statements[-1][0])

    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own within the transaction."""
        with self._alone_on_the_line():
            self.run("SAVEPOINT before_query")
            self.run("SET LOCAL transaction_read_only = on")
            try:
                return self._do(
                    lambda: _dicts(self.raw.execute(dialect.query(sql), parameters)), sql
                )
            except errors.DBException as error:
                _refuse_writing(error, sql)
                raise
            finally:
                self.run("ROLLBACK TO SAVEPOINT before_query")
                self.run("RELEASE SAVEPOINT before_query")

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Values], /) -> None:
        """Insert rows that are new, in bulk."""
        if len(rows) < COPIED:
            super().insert(table, columns, rows)
            return
        sql = f"COPY {table} ({', '.join(columns)}) FROM STDIN"

        def copied() -> None:
            with self.raw.cursor().copy(sql.encode()) as copy:
                for row in rows:
                    copy.write_row(row)

        with self._alone_on_the_line():
            self._do(copied, sql)

    def lock(self, names: Iterable[str], /) -> None:
        """Wait until no transaction beside this one holds one of these names, and lock them."""
        slots = sorted({crc32(name.encode()) % NAMES for name in names})
        self.run(
            "SELECT pg_advisory_xact_lock(?::int, slot) FROM unnest(?::int[]) AS slot",
            (self._lock >> 32, slots),
        )

    def renew(self, objects: Sequence[str], schema: Sequence[str], /) -> None:
        """Make tables and SQL views anew, empty; readers see the old ones until the commit."""
        for name in reversed(objects):
            for (kind,) in self.execute(
                "SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END FROM pg_class "
                "WHERE oid = to_regclass(?)",
                (name,),
            ):
                self.run(f"DROP {kind} {name}")
        for statement in schema:
            for definition in dialect.definition(statement):
                self.run(definition)

    def head(self) -> int:
        """Return the position of the last event, those of this transaction included."""
        ((head,),) = self.execute("SELECT max(position) FROM events")
        return head or 0

    def commit(self, channel: str | None) -> None:
        """Commit and, if a channel is given, announce it there."""
        # Not within the transaction: PostgreSQL lets only one that announces commit at a time.
        self.run("COMMIT")
        if channel is not None:
            self.run("SELECT pg_notify(?, '')", (channel,))
        self._do(self._end, "COMMIT")

    def _end(self) -> None:
        self._pipeline.sync()
        self._line.close()

    def roll_back(self, channel: str | None) -> None:
        """Roll back, whatever happened, and announce it if a channel is given."""
        if self._pid != os.getpid():
            return
        with suppress(psycopg.Error):  # the error that brought us here is the one to tell
            self._pipeline.sync()
        with suppress(psycopg.Error):
            self._line.close()
        with suppress(psycopg.Error):
            if self.raw.info.transaction_status:
                self.raw.execute("ROLLBACK")
            if channel is not None:
                self.raw.execute("SELECT pg_notify(%s, '')", (channel,))

    @contextmanager
    def _alone_on_the_line(self) -> Generator[None, None, None]:
        self._do(self._end, "")
        try:
            yield
        finally:
            if not self.raw.closed:
                self._pipeline = self._line.enter_context(self.raw.pipeline())


def _rows(cursor: Cursor) -> list[tuple[Any, ...]]:
    return cursor.fetchall()


def _dicts(cursor: Cursor) -> list[dict[str, Any]]:
    rows = cursor.fetchall()
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _refuse_writing(error: errors.DBException, sql: str) -> None:
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None)
    if code == "25006" or (code == "55000" and "view" in str(cause)):
        raise errors.WriteRefused(
            f"{sql.strip()!r} would write: the views are rebuilt from events and only events "
            f"change them; use a method such as set_run_status()"
        ) from cause

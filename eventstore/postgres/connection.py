"""A connection to a server whose errors are `DBException`s."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar
from zlib import crc32

import psycopg

from eventstore import errors
from eventstore.engine import Values
from eventstore.postgres import dialect
from eventstore.postgres.connect import Raw
from eventstore.postgres.failures import FAILURES, fail
from eventstore.postgres.guard import refuse_writing, told

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
        for value in parameters:
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise errors.InvalidQuery(f"{sql.strip()!r}: {value} is beyond 64 bits")
        return self._do(lambda: _dicts(self.raw.execute(text, parameters)), sql)

    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own; whatever it does besides is taken back."""
        refuse_writing(sql)
        try:
            return self._do(lambda: self._answer(sql, parameters, "BEGIN READ ONLY"), sql)
        except errors.DBException as error:
            _tell_writing(error, sql)
            raise
        finally:
            with suppress(psycopg.Error):  # a broken connection has nothing to roll back
                if self.raw.info.transaction_status:
                    self.raw.execute("ROLLBACK")

    def _answer(self, sql: str, parameters: Values, *first: str) -> list[dict[str, Any]]:
        # In a pipeline one statement is one, whatever its text says.
        failure = None
        rows: list[dict[str, Any]] = []
        with self.raw.pipeline() as line:
            try:
                for statement in first:
                    self.raw.execute(statement.encode())
                rows = _dicts(self.raw.execute(dialect.query(sql), parameters))
            except psycopg.Error as error:
                failure = error
                with suppress(psycopg.Error):
                    line.sync()
        if failure is not None:
            raise failure
        return rows

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
    """A connection in a write transaction.

    A statement whose rows nobody waits for goes out with the next that somebody does.
    """

    def __init__(self, raw: Raw, name: str, lock: int) -> None:
        super().__init__(raw, name)
        self._lock = lock
        self._pid = os.getpid()
        self._binder = psycopg.ClientCursor(raw)
        self._pending: list[bytes] = []

    def _do(self, work: Callable[[], T], sql: str) -> T:
        if self._pid != os.getpid():
            raise errors.StoreFailed(
                f"{self._name}: this process was forked in the middle of a transaction: fork "
                f"outside of them, or start processes with spawn"
            )
        return super()._do(work, sql)

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        if self._pending:
            return self.together((sql, parameters))[0]
        return super().execute(sql, parameters)

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        self._send()
        return super().select(sql, parameters)

    def run(self, sql: str, parameters: Values = (), /) -> None:
        """Run one statement that returns no rows; its error may come with a later statement's."""
        self._pending.append(self._bound(sql, parameters))

    def executemany(self, sql: str, rows: Sequence[Values], /) -> None:
        """Run one statement for each row of parameters."""
        self._send()
        super().executemany(sql, rows)

    def together(self, *statements: tuple[str, Values]) -> list[list[tuple[Any, ...]]]:
        """Run statements in one round trip and return the rows of each."""
        for sql, parameters in statements:
            self.run(sql, parameters)

        def all_rows() -> list[list[tuple[Any, ...]]]:
            cursor = self._sent()
            found = [_rows(cursor)]
            while cursor.nextset():
                found.append(_rows(cursor))
            return found[-len(statements) :]

        return self._do(all_rows, statements[-1][0])

    def _bound(self, sql: str, parameters: Values) -> bytes:
        text = dialect.query(sql)
        return self._do(lambda: self._binder.mogrify(text, parameters).encode(), sql)

    def _sent(self) -> Cursor:
        text = b";\n".join(self._pending)
        self._pending.clear()
        return self.raw.execute(text, prepare=False)  # several at once cannot be prepared

    def _send(self) -> None:
        if self._pending:
            self._do(self._sent, "")

    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own within the transaction."""
        refuse_writing(sql)
        self.run("SAVEPOINT before_query")
        self.run("SET LOCAL transaction_read_only = on")
        self._send()
        try:
            return self._do(lambda: self._answer(sql, parameters), sql)
        except errors.DBException as error:
            _tell_writing(error, sql)
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

        self._send()
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
        self._send()

    def roll_back(self, channel: str | None) -> None:
        """Roll back, whatever happened, and announce it if a channel is given."""
        self._pending.clear()
        if self._pid != os.getpid():
            return
        with suppress(psycopg.Error):  # the error that brought us here is the one to tell
            if self.raw.info.transaction_status:
                self.raw.execute("ROLLBACK")
            if channel is not None:
                self.raw.execute("SELECT pg_notify(%s, '')", (channel,))


def _rows(cursor: Cursor) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []


def _dicts(cursor: Cursor) -> list[dict[str, Any]]:
    rows = cursor.fetchall()
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _tell_writing(error: errors.DBException, sql: str) -> None:
    code = getattr(error.__cause__, "sqlstate", None)
    if code == "25006" or (code == "55000" and "view" in str(error.__cause__)):
        raise errors.WriteRefused(told(sql)) from error.__cause__

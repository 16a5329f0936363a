"""A connection to a server whose errors are `DBException`s."""

import hashlib
import os
import re
import sys
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from refold.eventstore import errors
from refold.eventstore.engines.engine import Definition, Values
from refold.eventstore.engines.postgres import dialect
from refold.eventstore.engines.postgres.dialect import PATH, refuse_writing, would_write
from refold.eventstore.engines.postgres.failures import FAILURES, fail, quietly, raise_interrupt
from refold.eventstore.engines.postgres.server import Address, Raw
from refold.eventstore.engines.postgres.settled import Settled
from refold.eventstore.sql import marks, section

# What a query locks for the session must not outlive it: others will be lent the connection.
UNLOCK = "SELECT pg_advisory_unlock_all()"


class Renewal:
    """Lays out tables and SQL views anew; between `begin` and `end` they are filled.

    One whose definition is still the same is emptied. To drop one that has changed would have
    readers wait, so a temporary one is filled first, and takes its place at the end.

    Args:
        writer: the transaction.
        schema: the store's.
        tables: what is laid out.
    """

    def __init__(
        self, writer: "WriteConnection", schema: str, tables: Sequence[Definition]
    ) -> None:
        self._writer = writer
        self._schema = (schema,)
        self._tables = tables
        self._changed: list[Definition] = []
        self._kinds: dict[str, str] = {}
        self._filled: dict[str, str] = {}

    def begin(self) -> None:
        """Create, empty, or put a temporary one in front of each."""
        run = self._writer.run
        run(PATH, self._schema)
        self._kinds, marks = self._there(self._tables)
        for table in self._tables:
            found = [name for name in table.objects if name in self._kinds]
            if not found:
                self._create(table)
            elif len(found) == len(table.objects) and marks[found[0]] == _mark(table):
                for name in found:
                    if self._kinds[name] == "TABLE":
                        run(f"DELETE FROM {name}")
            else:
                self._changed.append(table)
        if self._changed:
            path = "SELECT set_config('search_path', 'pg_temp, ' || quote_ident(?), true)"
            run(path, self._schema)
            for table in self._changed:
                self._define(table)
            self._filled, _ = self._there(self._changed)
            self._writer.put_in_front(self._filled)

    def end(self) -> None:
        """Put the temporary ones in the place of the old ones."""
        if not self._changed:
            return
        run = self._writer.run
        run(PATH, self._schema)
        self._writer.put_in_front(())
        for table in self._changed:
            for name in reversed(table.objects):
                if name in self._kinds:
                    run(f"DROP {self._kinds[name]} {name}")
            self._create(table)
            for name in reversed(table.objects):
                if self._filled[name] == "TABLE":
                    run(f"INSERT INTO {name} SELECT * FROM pg_temp.{name}")
                run(f"DROP {self._filled[name]} pg_temp.{name}")

    def _there(self, tables: Sequence[Definition]) -> tuple[dict[str, str], dict[str, str | None]]:
        """Return which objects of these are there: what each is, and the mark it bears."""
        names = [name for table in tables for name in table.objects]
        found = self._writer.execute(
            "SELECT name, CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, "
            "obj_description(c.oid, 'pg_class') "
            "FROM unnest(?::text[]) AS name JOIN pg_class c ON c.oid = to_regclass(name)",
            (names,),
        )
        kinds = {name: kind for name, kind, _ in found}
        return kinds, {name: mark for name, _, mark in found}

    def _define(self, table: Definition) -> None:
        for statement in table.schema:
            for definition in dialect.definition(statement):
                self._writer.define(definition)

    def _create(self, table: Definition) -> None:
        self._define(table)
        self._writer.run(f"COMMENT ON TABLE {table.objects[0]} IS '{_mark(table)}'")


def _mark(table: Definition) -> str:
    return f"refold, {hashlib.sha256(' '.join(table.schema).encode()).hexdigest()}"


T = TypeVar("T")
Tuples = list[tuple[Any, ...]]
Cursor = psycopg.Cursor[tuple[Any, ...]]

LARGE = 1_000_000
"""Bytes of a parameter from which on its statement goes by itself."""

COPIED = 100
"""From this many rows on, COPY is faster than INSERTs, although it needs the line for itself."""


EXACT_EVENTS = """
    SELECT position, convert_to(stream, 'UTF8'), version, previous, convert_to(type, 'UTF8'),
           schema_version, convert_to(data, 'UTF8'), convert_to(metadata, 'UTF8'), recorded_at,
           digest
    FROM events WHERE position > ? ORDER BY position LIMIT ?"""

TABLES = """
    SELECT c.relname::text, array_agg(a.attname::text)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = to_regnamespace(?) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND a.attnum > 0 AND NOT a.attisdropped AND NOT c.relispartition
    GROUP BY c.relname ORDER BY c.relname"""

# Those that fire, rules that rewrite, and the constraint that takes the place of a trigger.
TRIGGERS = """
    SELECT t.tgname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = to_regnamespace(?) AND t.tgenabled <> 'D'
      AND NOT t.tgisinternal AND NOT c.relispartition
    UNION SELECT r.rulename::text FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE c.relnamespace = to_regnamespace(?) AND r.rulename <> '_RETURN'
    UNION SELECT c.conname::text FROM pg_constraint c
    WHERE c.connamespace = to_regnamespace(?) AND c.conname = 'events_have_digests'"""

_TRIGGER = re.compile(r"CREATE TRIGGER IF NOT EXISTS (\w+) BEFORE (\w+)")
_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+) \((.*?)\n\)", re.DOTALL)


def _foreign(
    tables: Tuples, triggers: Tuples, known: Collection[str] | None
) -> Generator[tuple[str, str], None, None]:
    text = section("log") + section("store")
    ours = {
        name: {line.split()[0] for line in body.splitlines() if line.strip()}
        for name, body in _TABLE.findall(text)
    }
    for name, columns in tables:
        if name not in ours:
            if known is not None and name not in known:
                yield f"table {name}", "it is not refold's, nor a view's that is known here"
        elif extra := sorted(set(columns) - ours[name]):
            yield f"table {name}", f"refold has no column {', '.join(extra)} there"
    # What would refuse an INSERT that replaces is a thing of SQLite; the constraint is ours.
    wanted = {name for name, verb in _TRIGGER.findall(text) if verb != "INSERT"}
    wanted.add("events_have_digests")
    there = {name for (name,) in triggers}
    for name in sorted(there - wanted):
        yield f"trigger {name}", "it is not refold's, and may alter what is written"
    for name in sorted(wanted - there):
        yield f"trigger {name}", "it is missing, so the log can be altered"


class PostgresConnection:
    """A connection on which every statement stands alone; one that gets lost is replaced."""

    def __init__(
        self,
        raw: Raw,
        address: Address,
        settled: Settled | None = None,
        replace: Callable[[Raw], Raw] | None = None,
    ) -> None:
        self.raw: Raw = raw
        self._begun = False
        self._temporary: frozenset[str] = frozenset()
        self._name = address.name
        self._schema = address.schema
        self._settled = settled
        self._replace = replace

    def _do(self, work: Callable[[], T], sql: str) -> T:
        while True:
            handled = sys.exception()
            try:
                return work()
            except FAILURES as error:
                raise_interrupt(error, handled)
                try:
                    fail(self._name, error, sql, intact=self._is_intact())
                except errors.ConnectionLost:
                    self.raw.close()
                    if self._replace is None:
                        raise
                    self.raw = self._replace(self.raw)

    def _is_intact(self) -> bool:
        return self.raw.info.transaction_status not in (
            TransactionStatus.ACTIVE,
            TransactionStatus.UNKNOWN,
        )

    def revive(self) -> None:
        """Replace the connection if it got lost while nobody used it, as far as that is seen."""
        try:
            self.raw.pgconn.consume_input()
        except psycopg.OperationalError:
            assert self._replace is not None
            self.raw = self._replace(self.raw)

    def begin(self, kind: str) -> None:
        """Begin a transaction of some kind, in which all that follows is done."""
        self._begun = True
        self._at_once([(f"BEGIN {kind}", ()), *self.raw.settings], kind)

    def _text(self, sql: str) -> bytes:
        return dialect.query(dialect.qualified(sql, self._schema, self._temporary))

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        return _rows(self._run(sql, parameters))

    def _run(self, sql: str, parameters: Values) -> Cursor:
        if self.raw.settings and not self._begun:
            return self._at_once([(sql, parameters)], sql)
        text = self._text(sql)
        # Bytes would come as text of twice their size.
        return self._do(lambda: self.raw.execute(text, parameters, binary=True), sql)

    def together(self, *statements: tuple[str, Values]) -> list[list[tuple[Any, ...]]]:
        """Run statements in one round trip and one transaction; return the rows of each."""
        return _sets(self._at_once(statements, statements[-1][0]))

    def _at_once(self, statements: Sequence[tuple[str, Values]], sql: str) -> Cursor:
        # The server takes no parameters with several statements: they are bound here.
        def sent() -> Cursor:
            first = () if self._begun else self.raw.settings
            texts = [self._text(sql) for sql, _ in (*first, *statements)]
            values = [value for _, given in (*first, *statements) for value in given]
            cursor = psycopg.ClientCursor(self.raw).execute(b";\n".join(texts), values)
            for _ in first:
                cursor.nextset()
            return cursor

        return self._do(sent, sql)

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        _check_bits(sql, parameters)
        return _dicts(self._run(sql, parameters))

    def select_together(
        self, first: str, sql: str, parameters: Values, /
    ) -> tuple[Tuples, list[dict[str, Any]]]:
        """Run two statements in one round trip; return the rows of both, the second's as dicts."""
        _check_bits(sql, parameters)
        cursor = self._at_once([(first, ()), (sql, parameters)], sql)
        rows = _rows(cursor)
        cursor.nextset()
        return rows, _dicts(cursor)

    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own; whatever it does besides is taken back."""
        refuse_writing(sql)
        path = (PATH, (self._schema,))
        try:
            return self._do(
                lambda: self._answer(
                    sql, parameters, ("BEGIN READ ONLY", ()), *self.raw.settings, path
                ),
                sql,
            )
        except errors.DBException as error:
            _tell_writing(error, sql)
            raise
        finally:
            with quietly():  # a broken connection has nothing to roll back
                if self.raw.info.transaction_status:
                    self.raw.execute(f"ROLLBACK; {UNLOCK}".encode())

    def _answer(
        self, sql: str, parameters: Values, *first: tuple[str, Values]
    ) -> list[dict[str, Any]]:
        # In a pipeline one statement is one, whatever its text says.
        failure = None
        rows: list[dict[str, Any]] = []
        with self.raw.pipeline() as line:
            try:
                for statement, values in first:
                    self.raw.execute(dialect.query(statement), values)
                rows = _dicts(self.raw.execute(dialect.query(sql), parameters, prepare=False))
            except psycopg.Error as error:
                failure = error
                with quietly():
                    line.sync()
        if failure is not None:
            raise failure
        return rows

    def head(self) -> int:
        """Return the position up to which the log is complete: nothing comes in at or below it."""
        return (self._settled or Settled()).head(self)

    def exact_events(self, after: int, limit: int, /) -> list[tuple[Any, ...]]:
        """Return events after a position, each as an `EventRow`, texts as their bytes."""
        return self.execute(EXACT_EVENTS, (after, limit))

    def foreign(self, known: Collection[str] | None, /) -> list[tuple[str, str]]:
        """Return what is not as refold made it: tables, columns and triggers, and what of them."""
        schema = dialect.quoted(self._schema)
        tables, triggers = self.execute(TABLES, (schema,)), self.execute(TRIGGERS, (schema,) * 3)
        return list(_foreign(tables, triggers, known))

    def changes(self) -> None:
        """Return None: the server does not tell who has committed."""
        return


class WriteConnection(PostgresConnection):
    """A connection in a write transaction.

    A statement whose rows nobody waits for goes out with the next that somebody does.
    """

    def __init__(self, raw: Raw, address: Address) -> None:
        super().__init__(raw, address)
        self._begun = True
        self._address = address
        self._pid = os.getpid()
        self._pending: list[tuple[str, Values]] = []
        self._awaited: list[tuple[int, Callable[[Tuples], None]]] = []

    def begin(self, kind: str) -> None:
        """Begin a transaction of some kind, together with what follows."""
        self.run(f"BEGIN {kind}")
        for setting in self.raw.settings:
            self.run(*setting)

    def _do(self, work: Callable[[], T], sql: str) -> T:
        if self._pid != os.getpid():
            raise errors.StoreFailed(
                f"{self._name}: this process was forked in the middle of a transaction: fork "
                f"outside of them, or start processes with spawn"
            )
        if self.raw.info.transaction_status == TransactionStatus.ACTIVE:
            raise self._failed()  # an interrupt has hit a statement, and was caught
        return super()._do(work, sql)

    def _failed(self) -> errors.TransactionFailed:
        return errors.TransactionFailed(
            f"{self._name}: a statement of this transaction failed, so all of it is rolled back: "
            f"leave its block and begin anew"
        )

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        if self._pending and not _is_large(parameters):
            return self.together((sql, parameters))[0]
        self._send()
        return super().execute(sql, parameters)

    def put_in_front(self, temporary: Iterable[str]) -> None:
        """From here on, have these temporary tables take the place of those of the same name."""
        self._send()
        self._temporary = frozenset(temporary)

    def define(self, sql: str) -> None:
        """Run a definition as it stands: its names are meant where `search_path` leads."""
        self._send()
        self._do(lambda: self.raw.execute(dialect.query(sql)), sql)

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        self._send()
        return super().select(sql, parameters)

    def run(self, sql: str, parameters: Values = (), /) -> None:
        """Run one statement that returns no rows; its error may come with a later statement's."""
        if _is_large(parameters):
            self.execute(sql, parameters)
        else:
            self._pending.append((sql, parameters))

    def executemany(self, sql: str, rows: Sequence[Values], /) -> None:
        """Run one statement for each row of parameters."""
        self._send()
        self._do(lambda: self.raw.cursor().executemany(self._text(sql), rows), sql)

    def together(self, *statements: tuple[str, Values]) -> list[Tuples]:
        """Run statements in one round trip and return the rows of each."""
        for sql, parameters in statements:
            self.run(sql, parameters)
        return self._send(statements[-1][0])[-len(statements) :]

    def later(self, sql: str, hear: Callable[[Tuples], None]) -> None:
        """Run one statement together with the next, and then have its rows heard."""
        self._awaited.append((len(self._pending), hear))
        self.run(sql)

    def _send(self, sql: str = "") -> list[Tuples]:
        if not self._pending:
            return []
        pending, awaited = self._pending, self._awaited
        self._pending, self._awaited = [], []
        found = _sets(self._at_once(pending, sql or pending[0][0]))
        for place, hear in awaited:
            hear(found[place])
        return found

    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own within the transaction."""
        refuse_writing(sql)
        self.run("SAVEPOINT before_query")
        self.run("SET LOCAL transaction_read_only = on")
        self.run(PATH, (self._schema,))
        self._send()
        try:
            return self._do(lambda: self._answer(sql, parameters), sql)
        except errors.DBException as error:
            _tell_writing(error, sql)
            raise
        finally:
            self.run("ROLLBACK TO SAVEPOINT before_query")
            self.run("RELEASE SAVEPOINT before_query")
            self.run(UNLOCK)

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Values], on_conflict: str = "", /
    ) -> None:
        """Insert rows in bulk."""
        if len(rows) < COPIED or any(map(_is_large, rows)):
            values = f"({', '.join(columns)}) VALUES ({marks(columns)})"
            self.executemany(f"INSERT INTO {table} {values} {on_conflict}", rows)
            return
        names = ", ".join(columns)
        whole = into = dialect.whole(self._schema, table, self._temporary)
        if on_conflict:
            into = f"pg_temp.copied_{table}"
            self.run(
                f"CREATE TEMP TABLE IF NOT EXISTS copied_{table} (LIKE {whole}) ON COMMIT DROP"
            )
        sql = f"COPY {into} ({names}) FROM STDIN"

        def copied() -> None:
            with self.raw.cursor().copy(sql.encode()) as copy:
                for row in rows:
                    copy.write_row(row)

        self._send()
        self._do(copied, sql)
        if on_conflict:
            self.run(f"INSERT INTO {whole} ({names}) SELECT {names} FROM {into} {on_conflict}")
            self.run(f"TRUNCATE {into}")

    def lock(self, names: Iterable[str], /) -> None:
        """Wait until no transaction beside this one holds one of these names, and lock them."""
        locks = sorted({self._address.name_lock(name) for name in names})
        self.run(
            "SELECT pg_advisory_xact_lock(a, b) FROM unnest(?::int[], ?::int[]) AS locks (a, b)",
            tuple(map(list, zip(*locks, strict=True))),
        )

    def need_digests(self, unchecked: int, /) -> None:
        """Refuse events without a digest from now on, except up to a position."""
        self.run("ALTER TABLE events DROP CONSTRAINT events_have_digests")
        self.run(dialect.digests_needed(unchecked))

    @contextmanager
    def renewed(self, tables: Sequence[Definition], /) -> Generator[None, None, None]:
        """Lay out tables and SQL views anew, empty, and have the block fill them."""
        renewal = Renewal(self, self._schema, tables)
        renewal.begin()
        yield
        renewal.end()

    def head(self) -> int:
        """Return the position of the last event, those of this transaction included."""
        ((head,),) = self.execute("SELECT max(position) FROM events")
        return head or 0

    def commit(self, channel: str | None) -> None:
        """Commit and, if a channel is given, announce it there."""
        if self.raw.info.transaction_status == TransactionStatus.INERROR:
            # A statement failed and its error was caught. COMMIT would say ROLLBACK, and no more.
            raise self._failed()
        if self._awaited:
            self._send()  # what is heard may yet be in the way
        # Not within the transaction: PostgreSQL lets only one that announces commit at a time.
        self.run("COMMIT")
        if channel is not None:
            self.run("SELECT pg_notify(?, '')", (channel,))
        self._send()

    def roll_back(self, channel: str | None) -> None:
        """Roll back, whatever happened, and announce it if a channel is given."""
        self._pending.clear()
        self._awaited.clear()
        if self._pid != os.getpid():
            return
        roll_back(self.raw)
        if channel is not None:
            with quietly():
                self.raw.execute("SELECT pg_notify(%s, '')", (channel,))


def roll_back(raw: Raw) -> None:
    """Roll back, if anything is under way; a broken connection has nothing to roll back."""
    with quietly():  # the error that brought us here is the one to tell
        if raw.info.transaction_status:
            raw.execute("ROLLBACK")


def _is_large(parameters: Values) -> bool:
    """Return whether they are to go by themselves: in a text they would take twice the room."""
    return any(isinstance(each, bytes | str) and len(each) > LARGE for each in parameters)


def _check_bits(sql: str, parameters: Values) -> None:
    for value in parameters:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise errors.InvalidQuery(f"{sql.strip()!r}: {value} is beyond 64 bits")


def _rows(cursor: Cursor) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.pgresult and cursor.pgresult.nfields else []


def _sets(cursor: Cursor) -> list[list[tuple[Any, ...]]]:
    found = [_rows(cursor)]
    while cursor.nextset():
        found.append(_rows(cursor))
    return found


def _dicts(cursor: Cursor) -> list[dict[str, Any]]:
    rows = cursor.fetchall()
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _tell_writing(error: errors.DBException, sql: str) -> None:
    code = getattr(error.__cause__, "sqlstate", None)
    if code == "25006" or (code == "55000" and "view" in str(error.__cause__)):
        raise errors.WriteRefused(would_write(sql)) from error.__cause__

"""The engine for several machines: one PostgreSQL, writers side by side."""

import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from refold.eventstore import errors, times
from refold.eventstore.blocks import Block, Use
from refold.eventstore.digests import Signer, log_key
from refold.eventstore.engines.engine import (
    Change,
    Durability,
    Moved,
    Placed,
    Projections,
    Reader,
    Sql,
    Table,
    Values,
    busy,
    check_options,
)
from refold.eventstore.engines.log_end import name_of_command
from refold.eventstore.engines.pool import Pool
from refold.eventstore.engines.postgres import dialect
from refold.eventstore.engines.postgres.connection import (
    PostgresConnection,
    WriteConnection,
    roll_back,
)
from refold.eventstore.engines.postgres.failures import (
    FAILURES,
    fail,
    is_starting,
    raise_interrupt,
)
from refold.eventstore.engines.postgres.log_end import ServerEnd, ServerExclusiveEnd, SharedEnd
from refold.eventstore.engines.postgres.one_message import (
    TYPES,
    Statement,
    array,
    ask_together,
    definition,
    encoded,
    function_for,
    outcome_of,
    text_of,
)
from refold.eventstore.engines.postgres.server import Raw, address_of, connect, prepare
from refold.eventstore.engines.postgres.settled import Settled
from refold.eventstore.engines.postgres.watch import PostgresWatch

# Which server, by the moment of its start; which database of it; which table.
IDENTITY = """
    SELECT extract(epoch FROM pg_postmaster_start_time()), current_database(),
           to_regclass(?)::oid"""

RETRY = 0.1  # seconds between attempts to reach a server that does not answer

GRACE = 5.0
"""Seconds that opening waits for a server that does not answer: the URL may be wrong."""

# Connections of a process that this one was forked from: never used here, never closed.
_inherited: list[Pool[Raw]] = []


class PostgresEngine:
    """A store in a schema of a PostgreSQL database, for any number of machines.

    A commit waits for the server's disk, whatever `durability` says, also if the server is set not
    to (`synchronous_commit = off`).

    Args:
        url: `postgresql://user:password@host:port/database?schema=name`; the schema is `refold` by
            default, and created if it is not there. Everything else goes to libpq, TLS settings for
            one (https://www.postgresql.org/docs/current/libpq-connect.html).
        timeout: seconds to wait for other writers before `StoreBusy`, and to try again what a lost
            connection undid.
        clock: returns the time in microseconds since 1970-01-01 UTC; None: that of the server.
        create: make the store if there is none.

    Raises:
        StoreUnreachable: no server answers.
        AccessDenied: it does not know the user or the password, or refuses to make the schema.
        NotAStore: it is not a URL of a server, there is no such database, or the schema holds
            something else.
        StoreTooNew: a newer refold wrote it.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: Durability = "normal",
        timeout: float = 30,
        clock: Callable[[], int] | None = None,
        create: bool = True,
    ) -> None:
        check_options(durability, timeout)
        self._address = address_of(url)
        self.name = self._address.name
        self.timeout = timeout
        self._connect = partial(connect, self._address, timeout)
        """Opens a connection."""
        self._clock = clock
        self._settled = Settled(self._address.lock)
        self._begin_afresh()
        with Block(_Reading(self, time.monotonic() + timeout, opening=True)) as connection:
            store = prepare(connection.raw, self._address, create=create)
        self._signer = Signer(self.name, store.key_id, log_key())

    def _begin_afresh(self) -> None:
        self._pid = os.getpid()
        self._usable = True
        self._writings: dict[_Writing, int] = {}
        """Those under way, each with its thread."""
        self._projections: Projections | None = None  # as far as the last writer knew
        self._watches: weakref.WeakSet[PostgresWatch] = weakref.WeakSet()
        self._pool = Pool[Raw](self._connect, _close, _is_usable)
        self._finalizer = weakref.finalize(self, self._pool.close)

    @property
    def sql(self) -> Sql:
        """See `Engine`."""
        return "postgresql"

    def before_fork(self, timeout: float) -> bool:
        """Return False in the middle of a transaction of the thread that forks."""
        me = threading.get_ident()
        for writing, thread in list(self._writings.items()):
            if writing.is_left_over():
                writing.abandon()
            elif thread == me:
                return False
        return True

    def resume(self) -> None:
        """In the parent, after a fork: go on."""

    def after_fork(self, *, usable: bool) -> None:
        """In the child of a fork, begin anew; unless it is usable, refuse all use."""
        self._finalizer.detach()
        _inherited.append(self._pool)
        self._begin_afresh()
        self._usable = usable

    # --- connections ----------------------------------------------------------------------

    def _take(self, deadline: float, *, opening: bool = False) -> Raw:
        hopeless = min(deadline, time.monotonic() + GRACE) if opening else deadline
        while True:
            self._check_open()
            raw = self._pool.take_idle()
            if raw is not None:
                return raw
            try:
                return self._connect(deadline)
            except (errors.StoreUnreachable, errors.StoreBusy) as error:
                if time.monotonic() + RETRY >= (deadline if is_starting(error) else hopeless):
                    raise
            time.sleep(RETRY)

    def _check_open(self) -> None:
        if self._pool.closed:
            raise errors.StoreClosed(f"{self.name} was closed: open it again")
        if not self._usable:
            raise errors.StoreFailed(
                f"{self.name}: this process was forked in the middle of a transaction: fork "
                f"outside of them, or start processes with spawn"
            )

    def _give_back(self, raw: Raw, error: BaseException | None) -> None:
        # Any other error may have come in the middle of a statement: see `Loan`.
        if error is None or isinstance(error, errors.DBException):
            self._pool.give_back(raw)
        else:
            self._pool.discard(raw)

    def _replace(self, raw: Raw, deadline: float) -> Raw:
        raw.close()
        self._distrust()
        if time.monotonic() >= deadline:
            raise errors.ConnectionLost(
                f"{self.name}: connections have been breaking for {self.timeout:g} s: check the "
                f"server"
            )
        return self._take(deadline)

    def _distrust(self) -> None:
        # The server has been restarted, perhaps: then the idle connections are gone as well, and it
        # may be another one now, to which less had come.
        self._pool.empty()
        self._settled.forget()

    # --- using ----------------------------------------------------------------------------

    def write(self, *, exclusive: bool) -> Block[ServerEnd]:
        """Open a write transaction: commit at the end, or roll back if an error leaves it.

        A shared one locks the rows and the streams that it needs, and others write beside it.
        """
        return Block(_Writing(self, exclusive))

    def _open(self, connection: WriteConnection, end: ServerEnd) -> None:
        try:
            connection.begin("ISOLATION LEVEL READ COMMITTED READ WRITE")
            kind = "" if end.lock is None else "_shared"
            connection.run(f"SELECT pg_advisory_xact_lock{kind}(?)", (self._address.lock,))
            end.look()
        except BaseException as error:
            connection.roll_back(None)
            cause = error.__cause__
            if isinstance(cause, psycopg.errors.LockNotAvailable):
                raise busy(self.name, self.timeout) from cause
            raise

    def _commit(self, connection: WriteConnection, end: ServerEnd) -> None:
        end.seal()
        try:
            connection.commit(None if end.last is None else self._address.channel)
        except errors.TransactionFailed:  # before it came to a commit
            raise
        except errors.DBException as error:
            # Without an event there was nothing that could happen twice.
            connection.roll_back(None)
            if end.last is None or not self._happened(end, error):
                raise
        self._settled.own = max(self._settled.own, end.position)

    def _happened(self, end: ServerEnd, failure: errors.DBException) -> bool:
        """Find out whether a commit happened whose answer never came, or was an error behind it."""
        event = end.last
        assert event is not None
        same = " AND ".join(f"{name} IS NOT DISTINCT FROM ?" for name in event._fields)
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                with Block(_Reading(self, deadline)) as lent:
                    connection = PostgresConnection(lent.raw, self._address)
                    # The transaction's id alone would not do: after a crash of the server, another
                    # transaction may have been given it.
                    if not _in_progress(connection.raw, end.transaction_id):
                        return bool(connection.execute(f"SELECT 1 FROM events WHERE {same}", event))
            except (psycopg.Error, errors.DBException):
                pass  # whatever keeps us from asking says nothing of what happened
            if time.monotonic() >= deadline or self._pool.closed:
                break
            time.sleep(random.uniform(0.01, 0.05))
        raise errors.OutcomeUnknown(
            f"{self.name}: the connection broke in a commit, and for {self.timeout:g} s the server "
            f"could not be asked whether it happened: look whether event {event.position} "
            f"({event.type} of {event.stream}) is there; with a command id, "
            f"it is safe to send the command again"
        ) from failure

    def sender(self, tables: Sequence[Table]) -> "_Sender":
        """Return what writes changes to these tables in one message."""
        return _Sender(self, tables)

    def read(self) -> Block[PostgresConnection]:
        """Lend a connection for reading; each statement sees the last commit."""
        return Block(_Reading(self, time.monotonic() + self.timeout))

    def snapshot(self) -> Block[PostgresConnection]:
        """Lend a connection for reading on which all statements see one and the same moment."""
        return Block(_Moment(self, time.monotonic() + self.timeout))

    def query(
        self, sql: str, parameters: Values, *, within: Reader | None = None
    ) -> list[dict[str, Any]]:
        """Answer a statement of a user's own as dicts; refuse one that would write."""
        if within is not None:
            assert isinstance(within, PostgresConnection)
            return within.query(sql, parameters)
        with self.read() as connection:
            return connection.query(sql, parameters)

    def backup(self, to: str | os.PathLike[str], progress: bool | None) -> int:
        """Refuse: a server has its own means.

        Raises:
            InvalidCommand: always.
        """
        raise errors.InvalidCommand(
            f"{self.name} is on a server: back it up with pg_dump or pg_basebackup, or copy it "
            f"to a file with copy_store (refold copy)"
        )

    def identity(self) -> tuple[Any, ...]:
        """Return what tells the store from all others, whatever URL leads to it."""
        with self.read() as connection:
            [found] = connection.execute(IDENTITY, (dialect.whole(self._address.schema, "events"),))
        return found

    @property
    def pooled(self) -> bool:
        """Whether a pooler stands before the server."""
        with self.read() as connection:
            return connection.raw.pooled

    def watch(self) -> PostgresWatch:
        """Begin to watch for commits."""
        self._check_open()
        watch = PostgresWatch(
            self.name,
            self._connect,
            self._address.channel,
            self._settled,
            self.timeout,
        )
        self._watches.add(watch)
        return watch

    def close(self) -> None:
        """Close all connections; closing twice does nothing."""
        self._finalizer()
        for watch in list(self._watches):
            watch.ring()


class _Reading(Use[PostgresConnection]):
    """The use of a connection, which is replaced when it gets lost."""

    def __init__(self, engine: PostgresEngine, deadline: float, *, opening: bool = False) -> None:
        super().__init__()
        self._engine = engine
        self._deadline = deadline
        self._opening = opening
        self._pid = os.getpid()
        self._connection: PostgresConnection | None = None

    def begin(self) -> PostgresConnection:
        """Take one."""
        engine = self._engine
        self._connection = PostgresConnection(
            engine._take(self._deadline, opening=self._opening),
            engine._address,
            engine._settled,
            partial(engine._replace, deadline=self._deadline),
        )
        return self._connection

    def end(self, error: BaseException | None) -> None:
        """Give it back, unless it is that of the process that this one was forked from."""
        connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            self._engine._give_back(connection.raw, error)


class _Moment(_Reading):
    """The use of a connection whose statements see one and the same moment."""

    def begin(self) -> PostgresConnection:
        """Take one, and stop the time."""
        connection = super().begin()
        # This also replaces the connection if it got lost while nobody used it.
        settled = Settled(known=connection.head())
        moment = PostgresConnection(connection.raw, self._engine._address, settled)
        self._connection = moment
        moment.begin("ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return moment

    def end(self, error: BaseException | None) -> None:
        """Let the time go on, and give it back."""
        if self._connection is not None and self._pid == os.getpid():
            roll_back(self._connection.raw)
        super().end(error)


class _Writing(Use[ServerEnd]):
    """A write transaction."""

    def __init__(self, engine: PostgresEngine, exclusive: bool) -> None:
        super().__init__()
        self._engine = engine
        self._exclusive = exclusive
        self._pid = os.getpid()
        self._connection: WriteConnection | None = None
        self._end: ServerEnd | None = None

    def begin(self) -> ServerEnd:
        """Begin it; a connection that got lost while nobody used it is replaced."""
        engine = self._engine
        deadline = time.monotonic() + engine.timeout
        engine._writings[self] = threading.get_ident()
        raw = engine._take(deadline)
        while True:
            self._connection = connection = WriteConnection(raw, engine._address)
            end: ServerEnd
            if self._exclusive:
                end = ServerExclusiveEnd(connection, engine._clock, engine._signer)
            else:
                end = SharedEnd(connection, engine._clock, engine._signer, engine._projections)
            try:
                engine._open(connection, end)
            except errors.ConnectionLost:  # nothing has happened yet
                raw = engine._replace(raw, deadline)
                continue
            self._end = end
            return end

    def end(self, error: BaseException | None) -> None:
        """Commit, or roll back."""
        engine, connection, end = self._engine, self._connection, self._end
        if connection is None:
            engine._writings.pop(self, None)
            return
        if error is None:
            assert end is not None
            engine._commit(connection, end)
            engine._projections = end.projections
        else:
            engine._projections = None
            connection.roll_back(engine._address.channel if end is not None and end.drawn else None)
            if isinstance(error, errors.ConnectionLost):
                engine._distrust()
        self._connection = None
        engine._writings.pop(self, None)
        if self._pid == os.getpid():
            engine._give_back(connection.raw, error)


class _Sender:
    """Writes changes that were decided from memory, each in one message.

    Args:
        engine: the store's.
        tables: those that rows are written to.
    """

    def __init__(self, engine: PostgresEngine, tables: Sequence[Table]) -> None:
        self._engine = engine
        self._tables = tables
        self._function = function_for(engine._address.schema, tables)
        self._usable = True  # as far as is known
        self._text: tuple[Projections, str] = {}, ""
        """What the function compares, of the views that were found last."""

    @property
    def projections(self) -> Projections | None:
        """The views that the store holds, as its last writer found them; None: send nothing."""
        # The server is not told a key, so it could not sign.
        usable = self._usable and not self._engine._signer.signs
        return self._engine._projections if usable else None

    def send(self, change: Change) -> Placed:
        """Write a change, and commit."""
        engine = self._engine
        with Block(_Reading(engine, time.monotonic() + engine.timeout)) as lent:
            lent.revive()  # what was not sent is in no doubt
            outcome = self._send(lent.raw, change)
        if isinstance(outcome, Moved):
            if outcome.row is None:
                engine._projections = None  # so that the next writer looks
            raise outcome
        engine._settled.own = max(engine._settled.own, outcome.position)
        return outcome

    def _send(self, raw: Raw, change: Change, *, again: bool = False) -> Placed | Moved:
        handled = sys.exception()
        try:
            statements = self._statements(raw, change)
            # What comes behind the commit is of no account.
            *_, answer, _ = ask_together(raw, statements, len(statements) - 1)
        except FAILURES as error:
            raise_interrupt(error, handled)
            roll_back(raw)
            if isinstance(error, psycopg.errors.UndefinedFunction) and not again:
                self._usable = self._make(raw)
                return self._send(raw, change, again=True) if self._usable else Moved(None)
            return self._failed(error)
        return outcome_of(answer)

    def _statements(self, raw: Raw, change: Change) -> list[Statement]:
        engine = self._engine
        clock = None if engine._clock is None else times.checked(engine._clock())
        if self._text[0] is not change.projections:
            self._text = change.projections, text_of(change.projections)
        seen, id_lock, sent = change.seen, None, change.sent or (None, None, None)
        if change.sent is not None:
            id_lock = array(engine._address.name_lock(name_of_command(change.sent[0])))
        values = (
            engine._address.lock,
            self._text[1],
            clock,
            change.stream,
            change.type,
            change.schema_version,
            change.data,
            change.metadata,
            array(row.table for row in seen),
            array(row.key for row in seen),
            array(row.position for row in seen),
            array(None if row.after is None else array(row.after) for row in seen),
            id_lock,
            *sent,
        )
        settings = [
            (dialect.numbered(sql), [encoded(each) for each in given])
            for sql, given in raw.settings
        ]
        return [
            (b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", ()),
            *settings,
            (self._function.call, [encoded(each) for each in values]),
            (b"COMMIT", ()),
            # Not within the transaction: PostgreSQL lets only one that announces commit at a time.
            (b"SELECT pg_notify($1, '')", [engine._address.channel.encode()]),
        ]

    def _make(self, raw: Raw) -> bool:
        """Make the function, and return whether it is there now; only the owner may."""
        schema = self._engine._address.schema
        try:
            with raw.transaction():
                raw.execute("SET TRANSACTION READ WRITE")
                found = raw.execute(TYPES, (dialect.quoted(schema),)).fetchall()
                types = {(table, column): kind for table, column, kind in found}
                name = self._function.name
                raw.execute(definition(name, schema, self._tables, types).encode())
        except (psycopg.errors.InsufficientPrivilege, KeyError):  # or a table is not there
            return False
        except (psycopg.errors.DuplicateFunction, psycopg.errors.UniqueViolation):
            pass  # another process was first
        return True

    def _failed(self, error: Exception) -> Moved:
        """Return what a failed message means: nothing of it is kept, unless the line broke.

        In a transaction it fails again, and says why; or it was the function's fault.
        """
        engine = self._engine
        if isinstance(error, psycopg.errors.LockNotAvailable):
            raise busy(engine.name, engine.timeout) from error
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            self._usable = False
        try:
            fail(engine.name, error, self._function.name)
        except errors.ConnectionLost:
            engine._distrust()
            raise
        except errors.DBException:
            return Moved(None)


def _close(raw: Raw) -> None:
    raw.close()


def _is_usable(raw: Raw) -> bool:
    return not raw.closed and raw.info.transaction_status == TransactionStatus.IDLE


def _in_progress(raw: Raw, transaction_id: str | None) -> bool:
    try:
        found = raw.execute("SELECT pg_xact_status(%s::xid8)", (transaction_id,)).fetchone()
    except psycopg.errors.InvalidParameterValue:  # a crash of the server took back that id
        return False
    return found is not None and found[0] == "in progress"

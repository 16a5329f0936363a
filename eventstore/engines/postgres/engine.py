"""The engine for several machines: one PostgreSQL, writers side by side."""

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from refold.eventstore import errors
from refold.eventstore.digests import Signer, log_key
from refold.eventstore.engines.engine import (
    Durability,
    Projections,
    Reader,
    Sql,
    Values,
    busy,
    check_options,
)
from refold.eventstore.engines.pool import Pool
from refold.eventstore.engines.postgres.connection import PostgresConnection, WriteConnection
from refold.eventstore.engines.postgres.log_end import ServerEnd, ServerExclusiveEnd, SharedEnd
from refold.eventstore.engines.postgres.server import Raw, address_of, connect, prepare
from refold.eventstore.engines.postgres.settled import Settled
from refold.eventstore.engines.postgres.watch import PostgresWatch

# Which server, by the moment of its start; which database of it; which table.
IDENTITY = """
    SELECT extract(epoch FROM pg_postmaster_start_time()), current_database(),
           to_regclass('events')::oid"""

RETRY = 0.1  # seconds between attempts to reach a server that does not answer

# Connections of a process that this one was forked from: never used here, never closed.
_inherited: list[Pool[Raw]] = []


class _Local(threading.local):
    """What a thread is doing with the engine."""

    writing = False


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
        NotAStore: the URL is none, there is no such database, or the schema holds something else.
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
        self._clock = clock
        self._settled = Settled(self._address.lock)
        self._begin_afresh()
        with self._pool.lend() as raw:
            store = prepare(raw, self._address, create=create)
        self._signer = Signer(self.name, store.key_id, log_key())

    def _begin_afresh(self) -> None:
        self._pid = os.getpid()
        self._usable = True
        self._local = _Local()
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
        return not self._local.writing

    def resume(self) -> None:
        """In the parent, after a fork: go on."""

    def after_fork(self, *, usable: bool) -> None:
        """In the child of a fork, begin anew; unless it is usable, refuse all use."""
        self._finalizer.detach()
        _inherited.append(self._pool)
        self._begin_afresh()
        self._usable = usable

    # --- connections ----------------------------------------------------------------------

    def _take(self, deadline: float) -> Raw:
        while True:
            self._check_open()
            try:
                return self._pool.take()
            except (errors.StoreUnreachable, errors.StoreBusy):  # it may be starting again
                if time.monotonic() + RETRY >= deadline:
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

    def _give_back(self, raw: Raw, pid: int) -> None:
        if pid == os.getpid():  # else it is the parent's
            self._pool.give_back(raw)

    def _replace(self, raw: Raw, deadline: float) -> Raw:
        raw.close()
        self._distrust()
        if time.monotonic() >= deadline:
            raise errors.ConnectionLost(
                f"{self.name}: connections have been breaking for {self.timeout:g} s: check the "
                f"server"
            )
        fresh = self._take(deadline)
        self._give_back(raw, self._pid)
        return fresh

    def _distrust(self) -> None:
        # The server has been restarted, perhaps: then the idle connections are gone as well, and it
        # may be another one now, to which less had come.
        self._pool.empty()
        self._settled.forget()

    # --- using ----------------------------------------------------------------------------

    @contextmanager
    def write(self, *, exclusive: bool) -> Generator[ServerEnd, None, None]:
        """Open a write transaction: commit at the end, or roll back if an error leaves it.

        A shared one locks the rows and the streams that it needs, and others write beside it.
        """
        deadline = time.monotonic() + self.timeout
        raw, pid = self._take(deadline), self._pid
        self._local.writing = True
        try:
            while True:
                connection = WriteConnection(raw, self._address)
                end: ServerEnd
                if exclusive:
                    end = ServerExclusiveEnd(connection, self._clock, self._signer)
                else:
                    end = SharedEnd(connection, self._clock, self._signer, self._projections)
                try:
                    self._open(connection, end)
                    break
                except errors.ConnectionLost:  # while nobody used it; nothing has happened yet
                    raw = self._replace(raw, deadline)
            try:
                yield end
                self._commit(connection, end)
                self._projections = end.projections
            except BaseException as error:
                self._projections = None
                connection.roll_back(self._address.channel if end.drawn else None)
                if isinstance(error, errors.ConnectionLost):
                    self._distrust()
                raise
        finally:
            self._local.writing = False
            self._give_back(raw, pid)

    def _open(self, connection: WriteConnection, end: ServerEnd) -> None:
        try:
            connection.run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
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
                with self._lend(deadline) as raw:
                    connection = PostgresConnection(raw, self.name)
                    # The transaction's id alone would not do: after a crash of the server, another
                    # transaction may have been given it.
                    if not _in_progress(raw, end.transaction_id):
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

    @contextmanager
    def _lend(self, deadline: float) -> Generator[Raw, None, None]:
        raw, pid = self._take(deadline), self._pid
        try:
            yield raw
        finally:
            self._give_back(raw, pid)

    @contextmanager
    def read(self) -> Generator[PostgresConnection, None, None]:
        """Lend a connection for reading; each statement sees the last commit."""
        deadline = time.monotonic() + self.timeout
        raw, pid = self._take(deadline), self._pid
        replace = partial(self._replace, deadline=deadline)
        connection = PostgresConnection(raw, self.name, self._settled, replace)
        try:
            yield connection
        finally:
            self._give_back(connection.raw, pid)

    @contextmanager
    def snapshot(self) -> Generator[PostgresConnection, None, None]:
        """Lend a connection for reading on which all statements see one and the same moment."""
        with self.read() as connection:
            # This also replaces the connection if it got lost while nobody used it.
            settled = Settled(known=connection.head())
            moment, pid = PostgresConnection(connection.raw, self.name, settled), self._pid
            moment.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield moment
            finally:
                if pid == os.getpid() and not moment.raw.closed:
                    moment.execute("ROLLBACK")

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
            [found] = connection.execute(IDENTITY)
        return found

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

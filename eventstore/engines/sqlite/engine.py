"""The embedded engine: one SQLite file, any number of threads and processes."""

import os
import random
import sqlite3
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from refold.eventstore import errors, times
from refold.eventstore.blocks import Block, Having, Turn, Use
from refold.eventstore.digests import Signer, log_key
from refold.eventstore.engines.engine import (
    Durability,
    Reader,
    Sql,
    Table,
    Values,
    Writer,
    busy,
    check_options,
)
from refold.eventstore.engines.log_end import LOG_FORMAT, ExclusiveEnd, projections_of
from refold.eventstore.engines.pool import Loan, Pool
from refold.eventstore.engines.sqlite.backup import back_up
from refold.eventstore.engines.sqlite.connection import FAILURES, SqliteConnection, fail, only_reads
from refold.eventstore.engines.sqlite.file import (
    SqliteWatch,
    existing,
    is_immutable,
    place_of,
    prepare,
    show_as_today,
)
from refold.eventstore.engines.sqlite.identity import (
    Identity,
    begin_log,
    bring_tag_into_file,
    set_foreign_log_aside,
)

Closing: TypeAlias = "weakref.finalize[[], SqliteConnection]"


class SqliteEnd(ExclusiveEnd):
    """What a store knows of the log's end; true as long as nobody else has committed."""

    def __init__(self, clock: Callable[[], int], signer: Signer) -> None:
        super().__init__(clock, signer)
        self._changes: int | None = None

    def look(self, writer: Writer) -> None:
        """Bring everything up to date, at the start of a transaction."""
        changes = writer.changes()
        self.fresh = self._changes is None or writer is not self.writer or changes != self._changes
        if not self.fresh:
            return
        self.forget()
        last = writer.execute(
            "SELECT position, recorded_at FROM events ORDER BY position DESC LIMIT 1"
        )
        self.position, self._recorded_at = last[0] if last else (0, 0)
        self.projections = projections_of(writer)
        self.writer, self._changes = writer, changes

    def forget(self) -> None:
        """Know nothing, so that the next transaction looks."""
        self._changes = None
        self._streams.clear()
        self._digests.clear()
        self._changed.clear()


class SqliteEngine:
    """A store in one SQLite file, in WAL mode: readers never wait, writers take turns.

    Args:
        path: the file; it is created if there is none.
        durability: `"normal"` survives the death of any process at any instruction, and a power
            cut may take the last moments, never more, never consistency; `"full"` also waits for
            the disk at each commit (https://www.sqlite.org/pragma.html#pragma_synchronous).
        timeout: seconds to wait for another process's write before `StoreBusy`.
        clock: returns the time in microseconds since 1970-01-01 UTC.
        create: make the store if there is none.

    Raises:
        NotAStore: there is none; or the path is a folder, not a database, or a database of
            something else.
        StoreTooNew: a newer refold wrote it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "normal",
        timeout: float = 30,
        clock: Callable[[], int] = times.now,
        create: bool = True,
    ) -> None:
        check_options(durability, timeout)
        place = place_of(path) if create else existing(path)
        self.name = str(place)
        # Once and for all: the process may go to another folder, and links may change.
        self._path = Path(os.path.realpath(place))
        self._identity = Identity(self._path)
        self.timeout = timeout
        self._clock = clock
        self._durability = durability
        self._closed = False
        self._outdated = False
        """Whether the log is of an older format, and can only be read."""
        self._signer = Signer(self.name, None, None)
        self._begin_afresh()
        self._check_open()
        set_foreign_log_aside(self._path)
        try:
            connection = self._connect()
            store = prepare(connection, self.name, timeout, create=create)
            self._signer = Signer(self.name, store.key_id, log_key())
            self._end = SqliteEnd(clock, self._signer)
            self._outdated = store.format < LOG_FORMAT
            if self._outdated:
                show_as_today(connection)
            self._identity.note()
            self._point_out_names()
            connection.execute("PRAGMA query_only = 1")
            self._readers.give_back(connection)  # the first read needs not open the file again
        except BaseException:
            self.close()
            raise

    def _begin_afresh(self) -> None:
        self._forking = False
        self._turn = Turn()
        """The writers'."""
        self._fork = Use[None]()
        self._end = SqliteEnd(self._clock, self._signer)
        self._writer: SqliteConnection | None = None
        self._readers = Pool(self._reader, self._disconnect, _is_kept)
        self._guests = Pool(self._guest, self._disconnect, _is_kept)
        self._watches: weakref.WeakSet[SqliteWatch] = weakref.WeakSet()
        # What closes each connection: one that nobody knows any more is closed, too.
        self._all = weakref.WeakKeyDictionary[SqliteConnection, Closing]()
        self._open = weakref.WeakSet[SqliteConnection]()
        """Those that have the log open: as long as there is one, SQLite keeps it."""

    def before_fork(self, timeout: float) -> bool:
        """Close all connections, once they are idle; return False if some stay in use.

        Nobody gets a new one until `resume`, or `after_fork` in the child.
        """
        # SQLite keeps, for the whole process, which locks it holds on which file. A child that
        # inherits that believes to hold locks that only its parent holds.
        deadline = time.monotonic() + timeout
        # A thread that waits for the one that forks must not hang the fork for ever.
        self._fork = Use[None]()
        if not self._turn.take(self._fork, timeout) or self._turn.owner is not self._fork:
            return False
        self._forking = True
        for pool in (self._readers, self._guests):
            if not pool.shut(deadline - time.monotonic()):
                return False
        self._put_down()
        for connection in list(self._all):  # what an interrupt has lost
            self._disconnect(connection)
        self._identity.forget_log()
        return True

    def resume(self) -> None:
        """In the parent, after a fork: lend connections again."""
        self._forking = False
        self._readers.reopen()
        self._guests.reopen()
        self._turn.give_back(self._fork)

    def after_fork(self, *, usable: bool) -> None:
        """In the child of a fork, begin anew; refuse all use if connections were inherited."""
        if not usable:
            inherited = _inherited.setdefault(self._path, [])
            inherited += [closing.detach() for closing in self._all.values()]
        self._begin_afresh()

    def _point_out_names(self) -> None:
        names = os.stat(self._path).st_nlink
        if names > 1:
            warnings.warn(
                f"{self._path} is one of {names} names of the same file (hard links): open the "
                f"store by one of them only, since each has a write-ahead log of its own",
                errors.StoreWarning,
                stacklevel=5,
            )

    def _connect(self) -> SqliteConnection:
        try:
            self._forget_closed_log()
            self._identity.check()
        except errors.StoreFailed:
            self._check_open()  # the last connection may just have been closed, and the log removed
            self._forget_closed_log()
            self._identity.check()
        connection = self._connection()
        try:
            if self._identity.file is not None:  # else it is the first, and may be empty
                connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")  # opens the log
                self._forget_closed_log()
                self._identity.note()
            self._open.add(connection)
        except BaseException:
            self._disconnect(connection)
            raise
        return connection

    def _forget_closed_log(self) -> None:
        if not self._open:
            self._identity.forget_log()

    def _connection(self) -> SqliteConnection:
        uri = f"file:{quote(os.fsencode(self._path))}"
        # Somebody with more rights may begin to write at any moment, so it is looked at each time.
        immutable = is_immutable(self._path)
        if immutable:
            uri += "?mode=ro&immutable=1"
        try:
            raw = sqlite3.connect(
                uri,
                uri=True,
                timeout=self.timeout,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        except sqlite3.Error as error:
            fail(self.name, error)
        connection = SqliteConnection(raw, self.name)
        # At the end of the process, too, so that the last one leaves no write-ahead log.
        self._all[connection] = weakref.finalize(connection, raw.close)
        connection.kept = not immutable
        connection.execute(f"PRAGMA synchronous = {self._durability}")
        connection.execute(f"PRAGMA fullfsync = {int(self._durability == 'full')}")
        connection.execute("PRAGMA cache_size = -65536")  # KiB; doubles bulk appends
        connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages, likewise
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA temp_store = MEMORY")
        if self._outdated:
            show_as_today(connection)
        return connection

    def _reader(self) -> SqliteConnection:
        connection = self._connect()
        connection.execute("PRAGMA query_only = 1")
        return connection

    def _guest(self) -> SqliteConnection:
        connection = self._connect()
        connection.raw.set_authorizer(only_reads)
        return connection

    def _disconnect(self, connection: SqliteConnection) -> None:
        self._open.discard(connection)
        close = self._all.pop(connection, None)
        if close is not None:  # else it is a parent's, or closed
            close()

    def _put_down(self) -> None:
        # In the writer's turn: what is in use is left to its user.
        if self._writer is not None:
            self._disconnect(self._writer)
            self._writer = None
        self._readers.empty()
        self._guests.empty()
        for watch in list(self._watches):
            watch.rest()

    def _check_open(self) -> None:
        if self._closed:
            raise errors.StoreClosed(f"{self.name} was closed: open it again")
        if _inherited and self._path in _inherited:
            raise errors.StoreFailed(
                f"{self.name}: this process was forked in the middle of a transaction or a read: "
                f"fork outside of them, or start processes with spawn"
            )

    def _check_usable(self) -> None:
        self._check_open()
        self._identity.check_file()

    @property
    def sql(self) -> Sql:
        """See `Engine`."""
        return "sqlite"

    # --- using ----------------------------------------------------------------------------

    def write(self, *, exclusive: bool) -> Block[SqliteEnd]:
        """Open a write transaction: commit at the end, or roll back if an error leaves it.

        It is always exclusive: that is SQLite's way.
        """
        return Block(_Writing(self))

    def _begin(self, connection: SqliteConnection) -> None:
        self._when_free(connection, "BEGIN IMMEDIATE")

    def _when_free(self, connection: SqliteConnection, statement: str) -> None:
        # SQLite's own busy handler backs off to 100 ms, which starves whoever waited longest.
        deadline = 0.0
        while True:
            try:
                connection.execute(statement)
                return
            except errors.StoreBusy as error:
                now = time.monotonic()
                deadline = deadline or now + self.timeout
                if now >= deadline:
                    raise busy(self.name, self.timeout) from error
            time.sleep(random.uniform(0.0001, 0.001))

    def _commit(self, connection: SqliteConnection, tags: str | None) -> None:
        self._when_free(connection, "COMMIT")
        connection.begun = False
        self._identity.check()
        if tags is not None:
            with suppress(errors.DBException):  # what is committed is committed
                bring_tag_into_file(connection, tags)

    def sender(self, tables: Sequence[Table]) -> None:
        """Return None: no message goes anywhere."""

    def read(self) -> Block[SqliteConnection]:
        """Lend a connection for reading; each statement sees the last commit."""
        self._check_usable()
        return self._readers.lend()

    def snapshot(self) -> Block[SqliteConnection]:
        """Lend a connection for reading on which all statements see one and the same moment."""
        self._check_usable()
        return Block(_Moment(self._readers))

    def query(
        self, sql: str, parameters: Values, *, within: Reader | None = None
    ) -> list[dict[str, Any]]:
        """Answer a statement of a user's own as dicts; refuse one that would write."""
        self._check_usable()
        with self._guests.lend() as guest:
            try:
                if within is None:
                    cursor = guest.raw.execute(sql, parameters)
                else:
                    guest.raw.execute(f"EXPLAIN {sql}", parameters)  # refuses what would write
                    assert isinstance(within, SqliteConnection)
                    cursor = within.raw.execute(sql, parameters)
                names = [column[0] for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor]
            except FAILURES as error:
                fail(self.name, error, sql)

    def backup(self, to: str | os.PathLike[str], progress: bool | None) -> int:
        """See `Engine.backup`."""
        with self.snapshot() as connection:
            head = connection.head()
            back_up(connection, to, progress)
        return head

    def identity(self) -> tuple[int, int]:
        """Return the device and the number of the file, whatever path leads to it."""
        self._identity.note()
        assert self._identity.file is not None
        return self._identity.file

    def watch(self) -> SqliteWatch:
        """Begin to watch for commits."""
        self._check_open()
        watch = SqliteWatch(self._watching, self._disconnect, self._identity.check)
        self._watches.add(watch)
        return watch

    def _watching(self) -> SqliteConnection | None:
        self._check_open()
        return None if self._forking else self._connect()

    def close(self) -> None:
        """Close all connections; closing twice does nothing."""
        with Block(Having(self._turn)):
            self._closed = True
            self._readers.close()
            self._guests.close()
            self._put_down()
            if isinstance(self._turn.owner, _Writing):  # of this thread
                self._turn.owner.abandon()


class _Writing(Use[SqliteEnd]):
    """A write transaction, on the writer's connection, which it has for itself meanwhile."""

    def __init__(self, engine: SqliteEngine) -> None:
        super().__init__()
        self._engine = engine
        self._turn = engine._turn
        self._connection: SqliteConnection | None = None
        self._tags: str | None = None

    def begin(self) -> SqliteEnd:
        """Begin it, when it is its turn."""
        engine = self._engine
        self._turn.take(self)
        engine._check_open()
        connection, engine._writer = engine._writer, None
        if connection is None:
            connection = engine._connect()
            connection.execute("PRAGMA busy_timeout = 0")  # see _begin
        self._connection = connection
        engine._identity.check()
        engine._begin(connection)
        connection.begun = True
        if engine._identity.log_is_empty and not engine._outdated:
            engine._identity.check()  # somebody else may have begun it until now
            if engine._identity.log_is_empty:
                self._tags = begin_log(connection)
        engine._end.look(connection)
        return engine._end

    def end(self, error: BaseException | None) -> None:
        """Commit, or roll back."""
        engine, connection = self._engine, self._connection
        if error is None:
            engine._check_open()
            assert connection is not None
            engine._commit(connection, self._tags)
        if connection is not None:
            if error is None or self._is_rolled_back(connection, error):
                connection.begun = False
                self._connection = None
                engine._writer = connection
            else:
                engine._disconnect(connection)
                self._connection = None
        self._turn.give_back(self)

    def _is_rolled_back(self, connection: SqliteConnection, error: BaseException) -> bool:
        """Roll back, and return whether the connection may be used again."""
        if self._turn is not self._engine._turn:  # in the child of a fork it is the parent's
            return False
        try:
            if connection.raw.in_transaction:
                connection.raw.execute("ROLLBACK")
        except sqlite3.Error:
            return False  # closing it rolls back too; the first error is the one to raise
        if not isinstance(error, errors.DBException):  # see `Loan`
            return False
        self._engine._end.forget()
        return True


class _Moment(Loan[SqliteConnection]):
    """The use of a reader whose statements see one and the same moment."""

    def begin(self) -> SqliteConnection:
        """Take one, and stop the time."""
        connection = super().begin()
        connection.execute("BEGIN")
        return connection

    def end(self, error: BaseException | None) -> None:
        """Let the time go on, and give it back."""
        if error is None and self._connection is not None:
            self._connection.execute("COMMIT")
        super().end(error)


def _is_kept(connection: SqliteConnection) -> bool:
    return connection.kept and not connection.raw.in_transaction


# Connections that a fork caught in use: never closed, and the file never opened again here.
_inherited: dict[Path, list[object]] = {}

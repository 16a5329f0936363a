"""The embedded engine: one SQLite file, any number of threads and processes."""

import asyncio
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.parse import quote

from eventstore import errors, schema
from eventstore.engine import Connection, Values

Durability = Literal["normal", "full"]

APPLICATION_ID = 0x72666C64  # "rfld", in the header of the file: tells a store from other databases
LOG_FORMAT = 1  # PRAGMA user_version: of the tables of the log, not of events or views

# Reading news costs one look at shared memory, about a microsecond; 100 looks a second are
# 0.1 % of a core and bound the delay of a subscription.
WATCH_INTERVAL = 0.01

_ERRORS: dict[int, tuple[type[errors.DBException], str]] = {
    sqlite3.SQLITE_FULL: (errors.StoreFull, "the disk is full: make room and try again"),
    sqlite3.SQLITE_READONLY: (
        errors.StoreReadOnly,
        "it can only be read: make the file and its folder writable",
    ),
    sqlite3.SQLITE_BUSY: (errors.StoreBusy, "another process holds it: try again"),
    sqlite3.SQLITE_LOCKED: (errors.StoreBusy, "another connection holds it: try again"),
    sqlite3.SQLITE_NOTADB: (errors.NotAStore, "it is not a database: pass another path"),
    sqlite3.SQLITE_CORRUPT: (
        errors.StoreDamaged,
        "the file is damaged: keep a copy, then try `sqlite3 FILE .recover`",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        errors.NotAStore,
        "it cannot be opened: check the path and the rights on its folder",
    ),
}

_READING_PRAGMAS = {
    "application_id",
    "compile_options",
    "data_version",
    "database_list",
    "foreign_key_list",
    "freelist_count",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "page_count",
    "page_size",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
}
_READING_ACTIONS = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


def _only_reads(action: int, name: str | None, value: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_PRAGMA:
        reads = name in _READING_PRAGMAS or (name == "journal_mode" and value is None)
    else:
        reads = action in _READING_ACTIONS
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY


def _fail(name: str, error: Exception, sql: str = "") -> NoReturn:
    code = getattr(error, "sqlite_errorcode", 0)
    if "closed database" in str(error):
        raise errors.StoreClosed(f"{name} was closed: open it again") from error
    if code == sqlite3.SQLITE_AUTH or "because it is a view" in str(error):
        raise errors.WriteRefused(
            f"{sql.strip()!r} would write: the views are rebuilt from events and only events "
            f"change them; use a method such as set_run_status()"
        ) from error
    kind, advice = _ERRORS.get(code & 0xFF, (errors.StoreFailed, "see the cause"))
    if code in (0, sqlite3.SQLITE_ERROR):
        # Python's own complaints about the statement or its parameters carry no code.
        raise errors.InvalidQuery(f"{sql.strip()!r}: {error}") from error
    raise kind(f"{name}: {error}; {advice}") from error


_FAILURES = (sqlite3.Error, OverflowError, UnicodeError, ValueError)


class SqliteConnection:
    """A connection whose errors are `DBException`s."""

    def __init__(self, raw: sqlite3.Connection, name: str) -> None:
        self.raw = raw
        self.begun = False
        self._name = name

    def _check_begun(self) -> None:
        # On a full disk, for one, SQLite ends a transaction by itself; what came after it would
        # be committed statement by statement.
        if self.begun and not self.raw.in_transaction:
            raise errors.StoreFailed(
                f"{self._name}: the transaction failed and was rolled back: leave its block and "
                f"begin anew"
            )

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        if self.begun:
            self._check_begun()
        try:
            return self.raw.execute(sql, parameters).fetchall()
        except _FAILURES as error:
            _fail(self._name, error, sql)

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        if self.begun:
            self._check_begun()
        try:
            cursor = self.raw.execute(sql, parameters)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        except _FAILURES as error:
            _fail(self._name, error, sql)

    def executemany(self, sql: str, rows: Iterable[Values], /) -> None:
        """Run one statement for each row of parameters."""
        if self.begun:
            self._check_begun()
        try:
            self.raw.executemany(sql, rows)
        except _FAILURES as error:
            _fail(self._name, error, sql)

    def drop(self, name: str) -> None:
        """Drop a table or an SQL view, if there is one of that name."""
        for (kind,) in self.execute("SELECT type FROM sqlite_master WHERE name = ?", (name,)):
            self.execute(f"DROP {kind} {name}")

    def changes(self) -> int:
        """Return a number that is another one after any other connection has committed."""
        return self.execute("PRAGMA data_version")[0][0]


class SqliteWatch:
    """Looks for commits of any process at the database's counter of changes."""

    def __init__(self, engine: "SqliteEngine") -> None:
        self._engine = engine
        self._connection: SqliteConnection | None = None
        self._seen: int | None = None
        self._closed = threading.Event()
        self._looking = threading.Lock()

    def _news(self) -> bool:
        with self._looking:
            if self._closed.is_set():
                return False
            if self._connection is None:
                self._connection = self._engine.watching()
            now = self._connection.changes()
            news, self._seen = now != self._seen, now
            return news

    def rest(self) -> None:
        """Disconnect until the next look, which then counts as news."""
        with self._looking:
            if self._connection is not None:
                self._engine.disconnect(self._connection)
            self._connection = self._seen = None

    def wait(self, timeout: float) -> bool:
        """Return True as soon as anything was committed since the last call that did."""
        deadline = time.monotonic() + timeout
        while not self._closed.is_set():
            if self._news():
                return True
            if time.monotonic() >= deadline:
                return False
            self._closed.wait(WATCH_INTERVAL)
        return False

    async def wait_async(self, timeout: float) -> bool:
        """Do as `wait` does, without blocking the event loop."""
        deadline = time.monotonic() + timeout
        while not self._closed.is_set():
            if self._news():
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(WATCH_INTERVAL)
        return False

    def close(self) -> None:
        """Stop watching; a `wait` under way returns."""
        self._closed.set()
        self.rest()


class SqliteEngine:
    """A store in one SQLite file, in WAL mode: readers never wait, writers take turns.

    Args:
        path: the file; it is created if there is none.
        durability: `"normal"` survives the death of any process at any instruction, and a power
            cut may take the last moments, never more, never consistency; `"full"` also waits for
            the disk at each commit (https://www.sqlite.org/pragma.html#pragma_synchronous).
        timeout: seconds to wait for another process's write before `StoreBusy`.

    Raises:
        NotAStore: the path is a folder, not a database, or a database of something else.
        StoreTooNew: a newer refold wrote it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "normal",
        timeout: float = 30,
    ) -> None:
        self._path = Path(path).expanduser()
        self.name = str(self._path)
        self._timeout = timeout
        self._durability = durability
        self._immutable = False
        self._closed = False
        self._begin_afresh()
        self._check_place()
        self._check_open()
        self._create()

    def _begin_afresh(self) -> None:
        self._lock = threading.RLock()
        self._writer: SqliteConnection | None = None
        self._readers: list[SqliteConnection] = []
        self._guests: list[SqliteConnection] = []
        self._watches: weakref.WeakSet[SqliteWatch] = weakref.WeakSet()
        self._all: list[sqlite3.Connection] = []
        # Connections that nobody closed are closed with the engine, not one by one with warnings.
        self._finalizer = weakref.finalize(self, _close_all, self._all)

    def before_fork(self, timeout: float) -> bool:
        """Close all connections, once they are idle; return False if some stay in use."""
        # SQLite keeps, for the whole process, which locks it holds on which file. A child that
        # inherits that believes to hold locks that only its parent holds.
        deadline = time.monotonic() + timeout
        with self._lock:
            while True:
                idle = [*self._readers, *self._guests, *([self._writer] if self._writer else [])]
                if len(idle) + len(self._watches) >= len(self._all):
                    break
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.001)
            for watch in list(self._watches):
                watch.rest()
            self._readers.clear()
            self._guests.clear()
            self._writer = None
            for connection in idle:
                self.disconnect(connection)
            return not self._all

    def after_fork(self, *, usable: bool) -> None:
        """In the child of a fork, begin anew; refuse all use if connections were inherited."""
        if not usable:
            _inherited[self._path.resolve()] = self._all
            self._finalizer.detach()
        self._begin_afresh()

    # --- opening --------------------------------------------------------------------------

    def _check_place(self) -> None:
        if str(self._path) == ":memory:":
            raise errors.NotAStore(
                ":memory: cannot be shared by connections: pass the path of a temporary file"
            )
        if self._path.is_dir():
            raise errors.NotAStore(f"{self.name} is a folder: pass the path of a file in it")
        folder = self._path.absolute().parent
        if not folder.is_dir():
            raise errors.NotAStore(f"{self.name}: there is no folder {folder}: create it first")
        # Without the right to write beside the file SQLite cannot share it, but can still read it
        # as something that does not change.
        self._immutable = (
            self._path.exists()
            and not os.access(folder, os.W_OK)
            and not Path(f"{self.name}-wal").exists()
        )

    def _create(self) -> None:
        deadline = time.monotonic() + self._timeout
        connection = self._connect(self._timeout)
        try:
            if not self._is_ours(connection):
                # Turning WAL on needs the file for itself for a moment, and SQLite does not wait.
                while True:
                    try:
                        connection.execute("PRAGMA journal_mode = WAL")
                        break
                    except errors.StoreBusy:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(random.uniform(0.001, 0.01))
                connection.execute("BEGIN IMMEDIATE")
                if not self._is_ours(connection):  # another process may have been first
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {LOG_FORMAT}")
                    for statement in schema.statements(schema.section("log")):
                        connection.execute(statement)
                connection.execute("COMMIT")
            ((log_format,),) = connection.execute("PRAGMA user_version")
            if log_format > LOG_FORMAT:
                raise errors.StoreTooNew(
                    f"{self.name} has log format {log_format}, this refold reads up to "
                    f"{LOG_FORMAT}: upgrade refold"
                )
        except BaseException:
            _close_all(self._all)
            raise
        self.disconnect(connection)

    def _is_ours(self, connection: SqliteConnection) -> bool:
        ((application_id,),) = connection.execute("PRAGMA application_id")
        if application_id == APPLICATION_ID:
            return True
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master LIMIT 5")]
        if application_id or tables:
            raise errors.NotAStore(
                f"{self.name} is a database of something else (it holds "
                f"{', '.join(tables) or 'no tables'}): pass another path; refold keeps its own file"
            )
        return False

    def _connect(self, timeout: float) -> SqliteConnection:
        uri = f"file:{quote(str(self._path.absolute()))}"
        if self._immutable:
            uri += "?mode=ro&immutable=1"
        try:
            raw = sqlite3.connect(
                uri,
                uri=True,
                timeout=timeout,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        except sqlite3.Error as error:
            _fail(self.name, error)
        self._all.append(raw)
        connection = SqliteConnection(raw, self.name)
        connection.execute(f"PRAGMA synchronous = {self._durability}")
        connection.execute(f"PRAGMA fullfsync = {int(self._durability == 'full')}")
        connection.execute("PRAGMA cache_size = -65536")  # KiB; doubles bulk appends
        connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages, likewise
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    def disconnect(self, connection: SqliteConnection) -> None:
        """Close one connection."""
        with suppress(ValueError):  # the engine was closed meanwhile
            self._all.remove(connection.raw)
        connection.raw.close()

    def _check_open(self) -> None:
        if self._closed:
            raise errors.StoreClosed(f"{self.name} was closed: open it again")
        if _inherited and self._path.resolve() in _inherited:
            raise errors.StoreFailed(
                f"{self.name}: this process was forked in the middle of a transaction or a read: "
                f"fork outside of them, or start processes with spawn"
            )

    # --- using ----------------------------------------------------------------------------

    @contextmanager
    def write(self) -> Generator[Connection, None, None]:
        """Open a write transaction: commit at the end, or roll back if an error leaves it."""
        with self._lock:
            self._check_open()
            connection = self._writer
            if connection is None:
                connection = self._writer = self._connect(timeout=0)
            try:
                self._begin(connection)
                connection.begun = True
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back(connection)
                raise
            finally:
                connection.begun = False

    def _begin(self, connection: SqliteConnection) -> None:
        # SQLite's own busy handler backs off to 100 ms, which starves whoever waited longest.
        deadline = 0.0
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except errors.StoreBusy as busy:
                now = time.monotonic()
                deadline = deadline or now + self._timeout
                if now >= deadline:
                    raise errors.StoreBusy(
                        f"{self.name}: another process has been writing for {self._timeout:g} s: "
                        f"try again, or open the store with a larger timeout"
                    ) from busy
            time.sleep(random.uniform(0.0001, 0.001))

    def _roll_back(self, connection: SqliteConnection) -> None:
        try:
            if connection.raw.in_transaction:
                connection.raw.execute("ROLLBACK")
        except sqlite3.Error:
            # Closing it rolls back too; the error that brought us here is the one to tell.
            self._writer = None
            self.disconnect(connection)

    @contextmanager
    def read(self) -> Generator[Connection, None, None]:
        """Lend a connection for reading; each statement sees the last commit."""
        self._check_open()
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self._connect(self._timeout)
            connection.execute("PRAGMA query_only = 1")
        try:
            yield connection
        finally:
            self._readers.append(connection)

    @contextmanager
    def snapshot(self) -> Generator[Connection, None, None]:
        """Lend a connection for reading on which all statements see one and the same moment."""
        with self.read() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("COMMIT")

    def query(
        self, sql: str, parameters: Values, *, within: Connection | None = None
    ) -> list[dict[str, Any]]:
        """Answer a statement of a user's own as dicts; refuse one that would write."""
        self._check_open()
        try:
            guest = self._guests.pop()
        except IndexError:
            guest = self._connect(self._timeout)
            guest.raw.set_authorizer(_only_reads)
        try:
            if within is None:
                cursor = guest.raw.execute(sql, parameters)
            else:
                guest.raw.execute(f"EXPLAIN {sql}", parameters)  # refuses what would write
                assert isinstance(within, SqliteConnection)
                cursor = within.raw.execute(sql, parameters)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        except _FAILURES as error:
            _fail(self.name, error, sql)
        finally:
            self._guests.append(guest)

    def watch(self) -> SqliteWatch:
        """Begin to watch for commits."""
        self._check_open()
        watch = SqliteWatch(self)
        self._watches.add(watch)
        return watch

    def watching(self) -> SqliteConnection:
        """Open a connection for a watch."""
        self._check_open()
        return self._connect(self._timeout)

    def close(self) -> None:
        """Close all connections; closing twice does nothing."""
        with self._lock:
            self._closed = True
            self._finalizer()


def _close_all(connections: list[sqlite3.Connection]) -> None:
    while connections:
        connections.pop().close()


# Connections that a fork caught in use: never closed, and the file never opened again here.
_inherited: dict[Path, list[sqlite3.Connection]] = {}

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


def _fail(name: str, error: sqlite3.Error) -> NoReturn:
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        raise errors.StoreClosed(f"{name} was closed: open it again") from error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind, advice = _ERRORS.get(code, (errors.StoreFailed, "see the cause"))
    raise kind(f"{name}: {error}; {advice}") from error


class SqliteConnection:
    """A connection whose errors are `DBException`s."""

    def __init__(self, raw: sqlite3.Connection, name: str) -> None:
        self.raw = raw
        self._name = name

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        try:
            return self.raw.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            _fail(self._name, error)

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        try:
            cursor = self.raw.execute(sql, parameters)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        except sqlite3.Error as error:
            _fail(self._name, error)

    def executemany(self, sql: str, rows: Iterable[Values], /) -> None:
        """Run one statement for each row of parameters."""
        try:
            self.raw.executemany(sql, rows)
        except sqlite3.Error as error:
            _fail(self._name, error)

    def drop(self, name: str) -> None:
        """Drop a table or an SQL view, if there is one of that name."""
        for (kind,) in self.execute("SELECT type FROM sqlite_master WHERE name = ?", (name,)):
            self.execute(f"DROP {kind} {name}")

    def changes(self) -> int:
        """Return a number that is another one after any other connection has committed."""
        return self.execute("PRAGMA data_version")[0][0]


class SqliteWatch:
    """Looks for commits of any process at the database's counter of changes."""

    def __init__(self, engine: "SqliteEngine", connection: SqliteConnection) -> None:
        self._engine = engine
        self._connection = connection
        self._seen: int | None = None
        self._closed = threading.Event()
        self._looking = threading.Lock()

    def _news(self) -> bool:
        with self._looking:
            if self._closed.is_set():
                return False
            now = self._connection.changes()
        news, self._seen = now != self._seen, now
        return news

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
        with self._looking:
            if not self._closed.is_set():
                self._closed.set()
                self._engine.disconnect(self._connection)


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
        self._create()
        _engines.add(self)

    def _begin_afresh(self) -> None:
        self._lock = threading.RLock()
        self._writer: SqliteConnection | None = None
        self._readers: list[SqliteConnection] = []
        self._guests: list[SqliteConnection] = []
        self._all: list[sqlite3.Connection] = []
        # Connections that nobody closed are closed with the engine, not one by one with warnings.
        self._finalizer = weakref.finalize(self, _close_all, self._all)

    def after_fork(self) -> None:
        """Leave the parent's connections alone, for SQLite's must not cross a fork."""
        _inherited.append(self._all)
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
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back(connection)
                raise

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
        except sqlite3.Error as error:
            if getattr(
                error, "sqlite_errorcode", 0
            ) == sqlite3.SQLITE_AUTH or "because it is a view" in str(error):
                raise errors.WriteRefused(
                    f"{sql.strip()!r} would write: the views are rebuilt from events and only "
                    f"events change them; use a method such as set_run_status()"
                ) from error
            if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError) or (
                getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR
            ):
                raise errors.InvalidQuery(f"{sql.strip()!r}: {error}") from error
            _fail(self.name, error)
        except (OverflowError, UnicodeError, ValueError, TypeError) as error:
            raise errors.InvalidQuery(f"{sql.strip()!r}: {error}") from error
        finally:
            self._guests.append(guest)

    def watch(self) -> SqliteWatch:
        """Begin to watch for commits."""
        self._check_open()
        return SqliteWatch(self, self._connect(self._timeout))

    def close(self) -> None:
        """Close all connections; closing twice does nothing."""
        with self._lock:
            self._closed = True
            self._finalizer()


def _close_all(connections: list[sqlite3.Connection]) -> None:
    while connections:
        connections.pop().close()


_engines: weakref.WeakSet[SqliteEngine] = weakref.WeakSet()
_inherited: list[list[sqlite3.Connection]] = []  # never closed, see after_fork


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)

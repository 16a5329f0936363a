"""The file of a store: whether one can be at a path, how it is made, and news of commits in it."""

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from refold.eventstore import errors
from refold.eventstore.arguments import excerpt
from refold.eventstore.blocks import Bell, Block, Having, Turn
from refold.eventstore.digests import key_id, log_key
from refold.eventstore.engines.log_end import (
    LEVEL,
    LOG_FORMAT,
    EventRow,
    StoreRow,
    new_store,
    store_row,
)
from refold.eventstore.engines.sqlite.connection import SqliteConnection
from refold.eventstore.engines.sqlite.identity import begin_log, bring_tag_into_file
from refold.eventstore.sql import marks, section, statements

# PRAGMA user_version holds the format of the log.
APPLICATION_ID = 0x72666C64  # "rfld", in the header of the file: tells a store from other databases

WHAT_IS_THERE = """
    SELECT (SELECT application_id FROM pragma_application_id),
           (SELECT user_version FROM pragma_user_version),
           (SELECT group_concat(name, ', ') FROM (SELECT name FROM sqlite_master LIMIT 5))"""


def place_of(given: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be a store.

    Raises:
        NotAStore: none can be there; it says why, and what to pass instead.
        AccessDenied: this user may not look into its folder.
    """
    try:
        path = Path(given).expanduser()
        if b"\0" in os.fsencode(path):
            raise ValueError("it holds a NUL character")
    except (TypeError, ValueError, RuntimeError) as error:
        raise errors.NotAStore(f"{excerpt(given)} is not a path: {error}") from None
    if str(path) == ":memory:":
        raise errors.NotAStore(
            ":memory: cannot be shared by connections: pass the path of a temporary file"
        )
    try:
        if path.is_dir():
            raise errors.NotAStore(f"{path} is a folder: pass the path of a file in it")
        folder = path.absolute().parent
        if not folder.is_dir():
            raise errors.NotAStore(f"{path}: there is no folder {folder}: create it first")
        path.exists()
    except PermissionError as error:
        raise errors.AccessDenied(
            f"{path}: {error.strerror}: it takes the right to look into its folder"
        ) from None
    except OSError as error:
        raise errors.NotAStore(f"{path} is not a path: {error.strerror}") from None
    return path


def existing(given: str | os.PathLike[str]) -> Path:
    """Return the path of a file that holds something.

    Raises:
        NotAStore: there is none, or it is empty.
    """
    path = place_of(given)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise errors.NotAStore(f"{path}: there is no store: {error.strerror}") from None
    if not size:
        raise errors.NotAStore(f"{path}: there is no store, the file is empty")
    return path


def is_immutable(path: Path) -> bool:
    """Return whether a file can only be read as something that nobody changes.

    Without the right to write beside the file SQLite cannot share it.
    """
    return (
        path.exists()
        and not os.access(path.absolute().parent, os.W_OK)
        and not Path(f"{path}-wal").exists()
    )


def prepare(connection: SqliteConnection, name: str, timeout: float, *, create: bool) -> StoreRow:
    """Make the tables of the log, or bring older ones to today's format; return which log it is.

    Any number of processes may do so at once. A log of an older format that can only be read stays
    as it is.

    Raises:
        NotAStore: the file is a database of something else, or empty and `create` is false.
        StoreTooNew: a newer refold wrote it.
    """
    log_format, marked = _log_format(connection, name)
    if log_format == 0 and not create:
        raise errors.NotAStore(f"{name}: there is no store, the database is empty")
    # A copy that VACUUM INTO or .dump has made is in another mode.
    if connection.execute("PRAGMA journal_mode")[0][0] != "wal":
        with suppress(*[errors.StoreReadOnly] if log_format else []):
            _turn_wal_on(connection, timeout)
    if log_format < LOG_FORMAT or not marked:
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                tags = _lay_out(connection, name)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(errors.DBException):
                    connection.execute("ROLLBACK")
                raise
        except errors.StoreReadOnly:
            if log_format == 0:
                raise
            return StoreRow("", log_format, LEVEL, None, connection.head(), 1, None, None, 0)
        if tags is not None:
            bring_tag_into_file(connection, tags)  # alone, under any name, it is seen to be a store
    store = store_row(connection)
    key = log_key()
    if key is not None and store.key_id is None:
        with suppress(errors.StoreReadOnly):
            connection.execute(
                "UPDATE store SET key_id = ?, "
                "keyed_after = (SELECT coalesce(max(position), 0) FROM events) "
                "WHERE key_id IS NULL",
                (key_id(key),),
            )
            store = store_row(connection)
    return store


def _turn_wal_on(connection: SqliteConnection, timeout: float) -> None:
    # It needs the file for itself for a moment, and SQLite does not wait for that.
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except errors.StoreBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.01))


def _lay_out(connection: SqliteConnection, name: str) -> str | None:
    log_format, marked = _log_format(connection, name)  # another process may have been first
    if log_format == LOG_FORMAT and marked:
        return None
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    if log_format == 0:
        for statement in statements(section("log")):
            connection.execute(statement)
    else:
        for table in ("events", "streams"):
            columns = connection.execute(f"PRAGMA table_info({table})")
            if "digest" not in [name for _, name, *_ in columns]:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN digest BLOB")
    for statement in statements(section("store")):
        connection.execute(statement)
    ((count, head),) = connection.execute("SELECT count(*), coalesce(max(position), 0) FROM events")
    if not connection.execute("SELECT 1 FROM store"):
        connection.execute(
            f"INSERT INTO store ({', '.join(StoreRow._fields)}) VALUES ({marks(StoreRow._fields)})",
            new_store(head, gaps=count < head),
        )
    connection.execute(f"PRAGMA user_version = {LOG_FORMAT}")
    return begin_log(connection)


def _log_format(connection: SqliteConnection, name: str) -> tuple[int, bool]:
    """Return the format of the log that is there, and whether the file's header says so.

    Format 0: there is none, and one can be made.
    """
    # One statement, so that it sees one moment: another process may be making the store.
    ((application_id, log_format, tables),) = connection.execute(WHAT_IS_THERE)
    if application_id == APPLICATION_ID:
        if log_format > LOG_FORMAT:
            raise errors.StoreTooNew(
                f"{name} has log format {log_format}, this refold reads up to {LOG_FORMAT}: "
                f"upgrade refold"
            )
        return log_format, True
    if not application_id and _holds_a_log(connection):
        # A log that came here by `.dump`: what the header says does not come along.
        columns = connection.execute("PRAGMA table_info(store)")
        return (store_row(connection).format if columns else 1), False
    if application_id or tables:
        raise errors.NotAStore(
            f"{name} is a database of something else (it holds {tables or 'no tables'}): pass "
            f"another path; refold keeps its own file"
        )
    return 0, True


def _holds_a_log(connection: SqliteConnection) -> bool:
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(events)")}
    triggers = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = 'events_are_never_updated'"
    )
    return columns >= {*EventRow._fields} - {"digest"} and bool(triggers)


def show_as_today(connection: SqliteConnection) -> None:
    """Have a log of format 1, which can only be read, look as one of today's format."""
    for table in ("events", "streams"):
        connection.execute(
            f"CREATE TEMP VIEW {table} AS SELECT *, NULL AS digest FROM main.{table}"
        )
    connection.execute(
        f"CREATE TEMP VIEW store AS SELECT '' AS id, 1 AS format, {LEVEL} AS level, "
        f"NULL AS origin, (SELECT coalesce(max(position), 0) FROM main.events) AS unchecked, "
        f"1 AS gaps, NULL AS key_id, NULL AS keyed_after, 0 AS created_at"
    )


# Reading news costs one look at shared memory, about a microsecond; 100 looks a second are
# 0.1 % of a core and bound the delay of a subscription.
INTERVAL = 0.01


class SqliteWatch:
    """Looks for commits of any process at the database's counter of changes."""

    def __init__(
        self,
        connect: Callable[[], SqliteConnection | None],
        disconnect: Callable[[SqliteConnection], None],
        check: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._check = check
        self._connection: SqliteConnection | None = None
        self._seen: int | None = None
        self._closed = False
        self._bell = Bell()
        self._looking = Turn()

    def _news(self) -> bool:
        with Block(Having(self._looking)):
            if self._closed:
                return False
            if self._connection is None:
                self._connection = self._connect()
                if self._connection is None:  # in the middle of a fork
                    return False
            self._check()
            now = self._connection.changes()
            news, self._seen = now != self._seen, now
            return news

    def rest(self) -> None:
        """Disconnect until the next look, which then counts as news."""
        with Block(Having(self._looking)):
            if self._connection is not None:
                self._disconnect(self._connection)
            self._connection = self._seen = None

    def wait(self, timeout: float) -> bool:
        """Return True as soon as anything was committed since the last call that did."""
        deadline = time.monotonic() + timeout
        while not self._closed:
            if self._news():
                return True
            if time.monotonic() >= deadline:
                return False
            self._bell.wait_for(lambda: self._closed, INTERVAL)
        return False

    async def wait_async(self, timeout: float) -> bool:
        """Do as `wait` does, without blocking the event loop."""
        import asyncio  # half of what `import refold` would take, for those who do without

        deadline = time.monotonic() + timeout
        while not self._closed:
            if self._news():
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(INTERVAL)
        return False

    def close(self) -> None:
        """Stop watching; a `wait` under way returns."""
        self._closed = True
        self._bell.ring()
        self.rest()

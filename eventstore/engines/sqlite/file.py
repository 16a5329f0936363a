"""The file of a store: whether one can be at a path, how it is made, and news of commits in it."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from refold.eventstore import errors
from refold.eventstore.blocks import Bell, Block, Having, Turn
from refold.eventstore.engines.sqlite.connection import SqliteConnection
from refold.eventstore.sql import section, statements

APPLICATION_ID = 0x72666C64  # "rfld", in the header of the file: tells a store from other databases
LOG_FORMAT = 1  # PRAGMA user_version: of the tables of the log, not of events or views

WHAT_IS_THERE = """
    SELECT (SELECT application_id FROM pragma_application_id),
           (SELECT user_version FROM pragma_user_version),
           (SELECT group_concat(name, ', ') FROM (SELECT name FROM sqlite_master LIMIT 5))"""


def place_of(given: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be a store.

    Raises:
        NotAStore: none can be there; it says why, and what to pass instead.
    """
    try:
        path = Path(given).expanduser()
        if b"\0" in os.fsencode(path):
            raise ValueError("it holds a NUL character")
    except (TypeError, ValueError, RuntimeError) as error:
        raise errors.NotAStore(f"{given!r} is no path: {error}") from None
    if str(path) == ":memory:":
        raise errors.NotAStore(
            ":memory: cannot be shared by connections: pass the path of a temporary file"
        )
    if path.is_dir():
        raise errors.NotAStore(f"{path} is a folder: pass the path of a file in it")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise errors.NotAStore(f"{path}: there is no folder {folder}: create it first")
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


def prepare(connection: SqliteConnection, name: str, timeout: float, *, create: bool) -> None:
    """Make the tables of the log, unless they are there; any number of processes may do so at once.

    Raises:
        NotAStore: the file is a database of something else, or empty and `create` is false.
        StoreTooNew: a newer refold wrote it.
    """
    if _is_store(connection, name):
        return
    if not create:
        raise errors.NotAStore(f"{name}: there is no store, the database is empty")
    # Turning WAL on needs the file for itself for a moment, and SQLite does not wait for that.
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except errors.StoreBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.01))
    connection.execute("BEGIN IMMEDIATE")
    if not _is_store(connection, name):  # another process may have been first
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {LOG_FORMAT}")
        for statement in statements(section("log")):
            connection.execute(statement)
    connection.execute("COMMIT")
    # So that the file by itself, under any name, is seen to be a store.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _is_store(connection: SqliteConnection, name: str) -> bool:
    # One statement, so that it sees one moment: another process may be making the store.
    ((application_id, log_format, tables),) = connection.execute(WHAT_IS_THERE)
    if application_id == APPLICATION_ID:
        if log_format > LOG_FORMAT:
            raise errors.StoreTooNew(
                f"{name} has log format {log_format}, this refold reads up to {LOG_FORMAT}: "
                f"upgrade refold"
            )
        return True
    if application_id or tables:
        raise errors.NotAStore(
            f"{name} is a database of something else (it holds {tables or 'no tables'}): pass "
            f"another path; refold keeps its own file"
        )
    return False


# Reading news costs one look at shared memory, about a microsecond; 100 looks a second are
# 0.1 % of a core and bound the delay of a subscription.
INTERVAL = 0.01


class SqliteWatch:
    """Looks for commits of any process at the database's counter of changes."""

    def __init__(
        self,
        connect: Callable[[], SqliteConnection | None],
        disconnect: Callable[[SqliteConnection], None],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
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

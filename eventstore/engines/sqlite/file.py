"""The file of a store: whether one can be at a path, and how it is made."""

import os
import random
import time
from pathlib import Path

from refold.eventstore import errors
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


def prepare(connection: SqliteConnection, name: str, timeout: float) -> None:
    """Make the tables of the log, unless they are there; any number of processes may do so at once.

    Raises:
        NotAStore: the file is a database of something else.
        StoreTooNew: a newer refold wrote it.
    """
    if _is_store(connection, name):
        return
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

"""Which file a store is: it stays with the one that it was opened with, whatever its path does."""

import fcntl
import os
import secrets
import sqlite3
import time
import warnings
from contextlib import closing
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from refold.eventstore.engines.engine import Reader, Writer
from refold.eventstore.errors import StoreFailed, StoreWarning

Inode = tuple[int, int]
"""The device and the number of a file."""


def inode_of(path: str) -> Inode | None:
    """Return which file a path leads to; None: to none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


class Identity:
    """The file of a store and its write-ahead log, as they were when it was opened.

    SQLite opens both by their names for each connection. If a name leads to another file by then,
    that connection would read another database, or another log, than the rest.

    Args:
        path: absolute, without links.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._wal = str(path), f"{path}-wal"
        self.file: Inode | None = None
        self._log: Inode | None = None
        self.log_is_empty = False
        """Whether the write-ahead log held nothing at the last check."""

    def note(self) -> None:
        """Note which files they are, or check that they are still the same.

        Raises:
            StoreFailed: see `check`.
        """
        if self.file is None:
            self.file = inode_of(self._file)
        if self._log is None:
            self._log = inode_of(self._wal)
        self.check()

    def forget_log(self) -> None:
        """Note that no connection is open: then SQLite may remove its log and begin another."""
        self._log = None

    def check(self) -> None:
        """Check that the names still lead to the files that are open.

        Raises:
            StoreFailed: one of them was removed, replaced or moved.
        """
        self.check_file()
        log = self._log
        if log is not None and (found := self._look_at_log()) != log:
            self._refuse("has lost its write-ahead log" if found is None else "has another -wal")

    def check_file(self) -> None:
        """Check that of the store's file alone, which is enough for reading.

        Raises:
            StoreFailed: it was removed, replaced or moved.
        """
        if self.file is not None and (found := inode_of(self._file)) != self.file:
            self._refuse("is no longer there" if found is None else "was replaced by another file")

    def _refuse(self, what: str) -> NoReturn:
        raise StoreFailed(
            f"{self._file} {what} while this store was open: nothing was acknowledged that went "
            f"elsewhere, and this call may not have been kept. Put the file back with its -wal, or "
            f"close this store and open the path anew"
        )

    def _look_at_log(self) -> Inode | None:
        try:
            found = os.stat(self._wal)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self.log_is_empty = not found.st_size
        return found.st_dev, found.st_ino


# A process that was killed leaves its log behind. If a backup is then put in the place of the file,
# SQLite plays that log over the backup, silently. So a file bears a tag, drawn when a log is begun
# and brought into the file at once; the log says which tags the file may bear that it goes with.
# Copies by SQLite's own means, made meanwhile, bear the same, but are numbered otherwise.


def new_tag(connection: Reader) -> str:
    """Draw a tag, with the number of the schema at that time."""
    return f"{secrets.token_hex(4)}.{connection.execute('PRAGMA schema_version')[0][0]}"


def begin_log(connection: Writer) -> str:
    """Tag the file, in the first transaction of a log; return both tags that it may bear.

    The log must be empty when the transaction has begun: then the file bears the last tag.
    """
    found = connection.execute("SELECT tags FROM store")
    last = (found[0][0] if found else None) or NEW
    tags = f"{last.split()[-1]} {new_tag(connection)}"
    connection.execute("UPDATE store SET tags = ?", (tags,))
    return tags


def bring_tag_into_file(connection: Writer, tags: str) -> None:
    """After the commit of `begin_log`: from then on the file bears the new tag, and no other."""
    [(_, frames, written)] = connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    if frames == written:  # else a reader of an older moment is in the way
        connection.execute("UPDATE store SET tags = ? WHERE tags = ?", (tags.split()[-1], tags))


NEW = "new"
"""The tag of a file in which there is none yet."""


def set_foreign_log_aside(path: Path) -> None:
    """Set a write-ahead log aside that does not go with its file, and warn of it.

    What it cannot see: a copy of the file alone, by means of the file system, that was made since
    the log was begun. By itself it is no backup: what is in the log is missing there.

    Raises:
        StoreFailed: others have them open; or they are in a folder that cannot be written.
    """
    log = f"{path}-wal"
    for _ in range(TRIES):  # another process may do the same, or begin a log in between
        try:
            found = os.stat(log)
            if found.st_size <= WAL_HEADER or _belong_together(path):
                return
            aside = f"{log}.foreign-{secrets.token_hex(4)}"
            if _move_if_unused(path, found, aside):
                break
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreFailed(f"{_foreign(path)}, and cannot be set aside: {error}") from error
        time.sleep(0.01)
    else:
        raise StoreFailed(f"{_foreign(path)}. End the processes that have it open, and try again")
    warnings.warn(f"{_foreign(path)}. It was set aside as {aside}", StoreWarning, stacklevel=5)


TRIES = 10
WAL_HEADER = 32  # bytes
IN_USE = 128
"""The byte of -shm that each connection locks: https://www.sqlite.org/walformat.html"""


def _foreign(path: Path) -> str:
    return (
        f"{path}-wal does not belong to {path}: it is the write-ahead log of a file that was there "
        f"before, and would be played over this one, such as a backup that was put back"
    )


def _move_if_unused(path: Path, log: os.stat_result, aside: str) -> bool:
    descriptor = os.open(f"{path}-shm", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, IN_USE)
        except OSError:
            return False
        mine, its, now = os.fstat(descriptor), os.stat(f"{path}-shm"), os.stat(f"{path}-wal")
        if mine.st_ino != its.st_ino or (now.st_ino, now.st_mtime_ns) != (
            log.st_ino,
            log.st_mtime_ns,
        ):
            return False
        os.rename(f"{path}-wal", aside)
        os.unlink(f"{path}-shm")
        return True
    finally:
        os.close(descriptor)


def _belong_together(path: Path) -> bool:
    try:
        tag, _, schema = _tags(path, "immutable=1")
    except sqlite3.Error:
        return True  # no store, or in the middle of being brought up to date
    try:
        _, tags, latest = _tags(path, "mode=ro")
    except sqlite3.Error as error:
        return error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    begun = int(tag.partition(".")[2] or 0)
    return not tags or (tag in tags and begun <= schema <= latest)


def _tags(path: Path, how: str) -> tuple[str, list[str], int]:
    # Read-only, so that closing it does not write the log into the file.
    uri = f"file:{quote(os.fsencode(path))}?{how}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'store'").fetchone()
        found = connection.execute("SELECT tags FROM store").fetchone() if there else None
        [schema] = connection.execute("PRAGMA schema_version").fetchone()
    tags: list[str] = str((found and found[0]) or NEW).split()
    return tags[-1], tags, schema

"""Which file a store is: it stays with the one that it was opened with, whatever its path does."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from refold.eventstore.errors import StoreFailed

SALTS = 8, 16
"""How many bytes of the log, from where: https://www.sqlite.org/fileformat2.html#walformat"""

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
        self._descriptor: int | None = None

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
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def generation(self) -> str:
        """Return what tells the write-ahead log from those before it, which SQLite draws.

        A log begins anew, in the same file, after all of it has come into the store's file.
        """
        if self._descriptor is None:
            # Locks are on other files, so none is lost when this is closed.
            self._descriptor = os.open(self._wal, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._descriptor, *SALTS).hex()

    def check(self) -> None:
        """Check that the names still lead to the files that are open.

        Raises:
            StoreFailed: one of them was removed, replaced or moved.
        """
        if self.file is not None and (found := inode_of(self._file)) != self.file:
            what = "is no longer there" if found is None else "was replaced by another file"
        elif self._log is not None and (found := inode_of(self._wal)) != self._log:
            what = "has lost its write-ahead log" if found is None else "has another log (-wal)"
        else:
            return
        raise StoreFailed(
            f"{self._file} {what} while this store was open: nothing was acknowledged that went "
            f"elsewhere, and this call may not have been kept. Put the file back with its -wal, or "
            f"close this store and open the path anew"
        )


def refuse_foreign_log(path: Path) -> None:
    """Refuse a file beside a write-ahead log that does not belong to it.

    A process that was killed leaves its log behind. Beside a backup that was put in the place of
    the file, SQLite would play that log over the backup. So the file names the log that it goes
    with, and the log, in its first transaction, the file's: see `store.wal` in tables.sql.

    Raises:
        StoreFailed: they do not belong together.
    """
    for _ in range(TRIES):  # another process may begin a new log in between
        try:
            if os.stat(f"{path}-wal").st_size <= WAL_HEADER:
                return
            alone = _generations(path, "immutable=1")
            together = _generations(path, "mode=ro")
        except (OSError, sqlite3.Error):
            return  # an older format, no store, or not to be read: opening it will tell
        if together[0] is None or alone[0] in (None, *together):
            return
    raise StoreFailed(
        f"{path}-wal does not belong to {path}: it is the write-ahead log of a file that was there "
        f"before, and would be played over this one, such as a backup that was put back. To use "
        f"{path} as it is, remove {path}-wal and {path}-shm; to use what was there before, put "
        f"that file back"
    )


TRIES = 5
WAL_HEADER = 32  # bytes


def _generations(path: Path, how: str) -> tuple[str | None, str | None]:
    # Read-only, so that closing it does not write the log into the file.
    uri = f"file:{quote(os.fsencode(path))}?{how}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        [found] = connection.execute("SELECT wal, wal_before FROM store")
    return found

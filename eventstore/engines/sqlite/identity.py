"""Which file a store is: it stays with the one that it was opened with, whatever its path does."""

import os
from pathlib import Path

from refold.eventstore.errors import StoreFailed

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

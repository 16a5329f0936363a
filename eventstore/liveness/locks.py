"""Locks that tell whether a process is alive, on one host.

A process holds one for each event by which it has taken something on: a claim, or its joining. They
are locks on bytes of a small file, one for each position of the log. The kernel drops them with the
process, at once, whatever ends it; nothing has to be renewed, and a process that is busy, stopped
or in a debugger holds them still.

They are open-file-description locks (https://man7.org/linux/man-pages/man2/fcntl_locking.2.html),
not POSIX ones, which another part of the process would drop by closing any descriptor of the file.
They live as long as any copy of the descriptor, so the child of a fork closes its own.

A holder also marks the place in the file. So a free lock tells a death only where it was held:
nothing follows from one in a file that somebody has removed, or of a process on another host.
"""

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from refold.eventstore.forks import watch_forks

IS_SUPPORTED = hasattr(fcntl, "F_OFD_SETLK")
"""Whether the system has such locks; without them, nobody is ever seen to be alive or lost."""

CHECKED_EVERY = 1.0
"""Seconds from one look whether the file is still at its path to the next."""

_FLOCK = struct.Struct("hhqqi4x")
_MARK = struct.Struct("=I")


class Seen(NamedTuple):
    """What the lock of a position shows."""

    state: Literal["held", "free", "unknown"]
    process: int | None = None
    """The number that its process has, or had, on its host; None: nothing is known."""


UNKNOWN = Seen("unknown")


class Locks:
    """The locks that this process holds in a store, and a look at those of others.

    Args:
        path: of the file, which is made when a lock is held first.
        like: the file whose rights it gets; None: only this user may read and write it.
    """

    def __init__(self, path: Path, like: Path | None = None) -> None:
        self.path = path
        self._like = like
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        self._turn = threading.Lock()
        self._file: int | None = None
        self._held: set[int] = set()
        self._checked = 0.0
        self._mark = _MARK.pack(os.getpid())

    # --- one's own ------------------------------------------------------------------------

    def hold(self, position: int) -> bool:
        """Hold the lock of a position; return whether others can see it."""
        with self._turn:
            self._held.add(position)
            return self._make_sure((position,))

    def release(self, position: int) -> None:
        """Let go of the lock of a position."""
        with self._turn:
            self._held.discard(position)
            if self._file is not None:
                with suppress(OSError):
                    _lock(self._file, fcntl.F_UNLCK, position)

    def _make_sure(self, new: Iterable[int]) -> bool:
        """Hold these locks, and all others anew if the file is no longer the one at the path."""
        if not IS_SUPPORTED:
            return False
        now = time.monotonic()
        try:
            if self._file is not None and now > self._checked + CHECKED_EVERY:
                self._checked = now
                if not _is_at(self._file, self.path):
                    os.close(self._file)
                    self._file = None
            if self._file is None:
                self._file, new, self._checked = self._opened(), tuple(self._held), now
            for position in new:
                _lock(self._file, fcntl.F_RDLCK, position)
                os.pwrite(self._file, self._mark, _MARK.size * position)
        except OSError:  # no room, no right, a folder that is gone: the process works without it
            return False
        return True

    def _opened(self) -> int:
        if self._like is None:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            self._check_folder()
        try:
            return os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            mode = 0o600 if self._like is None else self._like.stat().st_mode & 0o777
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, mode)
            os.fchmod(file, mode)  # whatever the umask is
            return file

    def _check_folder(self) -> None:
        """Refuse a folder that is not this user's own: anybody may make one in its place."""
        folder = os.lstat(self.path.parent)
        if self._like is None and (folder.st_uid != os.getuid() or folder.st_mode & 0o022):
            raise PermissionError(f"{self.path.parent} is somebody else's")

    # --- others' --------------------------------------------------------------------------

    def look(self, positions: Iterable[int]) -> dict[int, Seen]:
        """Return what the locks of some positions show, whoever holds them."""
        positions = tuple(positions)
        if not IS_SUPPORTED or not positions:
            return dict.fromkeys(positions, UNKNOWN)
        try:
            # A descriptor of its own: the locks of this process are seen through another one only.
            self._check_folder()
            file = os.open(self.path, os.O_RDONLY)
        except OSError:
            return dict.fromkeys(positions, UNKNOWN)
        try:
            return {position: _seen(file, position) for position in positions}
        except OSError:
            return dict.fromkeys(positions, UNKNOWN)
        finally:
            os.close(file)

    # --- forks ----------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Have no thread in the middle of it."""
        self._turn.acquire()

    def after_fork(self, *, child: bool) -> None:
        """Go on; the child holds nothing."""
        if child:
            # To close it drops no lock of the parent's; to unlock would.
            if self._file is not None:
                os.close(self._file)
            self._begin()
        elif self._turn.locked():
            self._turn.release()


def _lock(file: int, kind: int, position: int) -> None:
    # Shared ones: who holds one never refuses another, and who looks asks for an exclusive one.
    where = _MARK.size * position
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, where, 1, 0))


def _seen(file: int, position: int) -> Seen:
    where = _MARK.size * position
    mark = os.pread(file, _MARK.size, where)
    process: int = _MARK.unpack(mark)[0] if len(mark) == _MARK.size else 0
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, where, 1, 0)
    found, *_ = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))
    if found != fcntl.F_UNLCK:
        return Seen("held", process or None)
    return Seen("free", process) if process else UNKNOWN


def _is_at(file: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except OSError:
        return False
    return os.path.samestat(os.fstat(file), there)

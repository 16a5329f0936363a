"""Every version that any row ever had, each with the events between which it was true."""

import os
import tempfile
import threading
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from eventstore.errors import DamagedEvent, UnknownEventType
from eventstore.forks import watch_forks
from eventstore.reader import read_events, read_head
from eventstore.sqlite.connection import SqliteConnection
from eventstore.store import EventStore
from projections.past.recorder import Recorder, connect
from projections.view import View, types_of

EVENTS_PER_FLUSH = 20_000

# What a process inherited from the one that it was forked from: to close it would disturb that one.
_inherited: list[Recorder | None] = []


class Versions:
    """The versions of all rows of some views, in a file of its own for as long as it is in use.

    A version is a row and `until`, the position of the event that ended it. So the views as of a
    position are a condition away, and what an event changed is the versions before and after. The
    file is folded from the log at first use and grows with it later; it lies in the system's
    folder for temporary files and takes about as much room as the log.

    Args:
        store: whose log it is.
        views: those whose rows are kept.
    """

    def __init__(self, store: EventStore, views: Sequence[View[Any]]) -> None:
        self.store = store
        self.views = tuple(views)
        self._begin_afresh()
        watch_forks(self)

    def _begin_afresh(self) -> None:
        self._lock = threading.RLock()
        self._let_go()

    def _let_go(self) -> None:
        self._path: Path | None = None
        self._recorder: Recorder | None = None
        self._reached = 0
        self._obstacle: DamagedEvent | UnknownEventType | None = None

    def before_fork(self) -> None:
        """Wait until no thread is building."""
        self._lock.acquire()

    def after_fork(self, *, child: bool) -> None:
        """Go on; the child makes a file of its own."""
        if child:
            _inherited.append(self._recorder)
            self._begin_afresh()
        else:
            self._lock.release()

    def has(self, position: int) -> bool:
        """Return whether the versions up to a position are there, so that asking costs nothing."""
        return self._path is not None and position <= self._reached

    def connect(self, position: int) -> SqliteConnection:
        """Return a connection for reading the versions up to a position and, maybe, beyond.

        Raises:
            DamagedEvent, UnknownEventType: an event up to there cannot be folded.
        """
        with self._lock:
            if not self.has(position):
                self._extend()
            if position > self._reached and self._obstacle is not None:
                raise self._obstacle
            assert self._path is not None
            return connect(self._path, f"{self.store.engine.name} as of position {position}")

    @contextmanager
    def reading(self, position: int) -> Generator[SqliteConnection, None, None]:
        """Lend such a connection."""
        connection = self.connect(position)
        try:
            yield connection
        finally:
            connection.raw.close()

    def _extend(self) -> None:
        # What a transaction of this thread has not committed has not happened yet.
        committed = self.store.engine.read
        recorder = self._recorder or self._create()
        self._obstacle = None
        end = read_head(committed)
        events = read_events(
            committed,
            self._reached,
            stream=None,
            types=types_of(self.views),
            limit=None,
            backwards=False,
            until=end,
        )
        try:
            with recorder.recording(self.store):
                try:
                    for count, recorded in enumerate(events, 1):
                        recorder.fold(recorded)
                        if count % EVENTS_PER_FLUSH == 0:
                            recorder.flush()
                except (DamagedEvent, UnknownEventType) as error:
                    self._obstacle = error
                    end = error.position - 1
        except BaseException:
            self._let_go()
            raise
        self._reached = end

    def _create(self) -> Recorder:
        folder = Path(tempfile.mkdtemp(prefix="refold-"))
        weakref.finalize(self, _remove, folder, os.getpid())
        self._path = folder / "versions.db"
        self._recorder = Recorder(self.views, self._path)
        return self._recorder


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a child
        rmtree(folder, ignore_errors=True)

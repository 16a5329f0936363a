"""Every version that any row ever had, each with the events between which it was true."""

import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from refold.eventstore.engines.sqlite.connection import SqliteConnection
from refold.eventstore.errors import (
    InvalidMoment,
    ProjectionFailed,
    StoreClosed,
    StoreFailed,
    UnreadableEvent,
)
from refold.eventstore.forks import FORK_PATIENCE, Gate, watch_forks
from refold.eventstore.log.reading import read_facts, read_head
from refold.eventstore.log.store import EventStore
from refold.projections.past.version_writer import VersionWriter, connect
from refold.projections.view import View, types_of

# What a process inherited from the one that it was forked from: to close it would disturb that one.
_inherited: list[VersionWriter | None] = []


class Versions:
    """The versions of all rows of some views, in a file of its own for as long as it is in use.

    A version is a row and the position of the event that ended it. So the views as of a
    position are a condition away, and what an event changed is the versions before and after. Each
    view is folded from the log when it is first asked for, and goes on with the log later. The file
    lies in the system's folder for temporary files and takes up to twice the room of the log.

    Args:
        store: whose log it is.
        views: those whose rows are kept.
    """

    def __init__(self, store: EventStore, views: Sequence[View[Any]]) -> None:
        self.store = store
        self.views = tuple(views)
        self._closed = False
        self._begin_afresh()
        watch_forks(self)

    def _begin_afresh(self) -> None:
        self.gate = Gate()
        """Whoever uses a connection to the file does so within it."""
        self._lock = threading.RLock()
        self._delete: Callable[[], object] = lambda: None
        self._let_go()

    def _let_go(self) -> None:
        self._delete()
        self._path: Path | None = None
        self._writer: VersionWriter | None = None
        self._reached = dict.fromkeys(self.views, -1)
        self._obstacles: dict[View[Any], UnreadableEvent | ProjectionFailed] = {}

    def before_fork(self) -> None:
        """Wait until no thread is folding or looking."""
        self.gate.shut(FORK_PATIENCE)

    def after_fork(self, *, child: bool) -> None:
        """Go on; the child makes a file of its own."""
        if child:
            _inherited.append(self._writer)
            self._begin_afresh()
            return
        self.gate.reopen()

    def close(self) -> None:
        """Delete the file; closing twice does nothing. A thread that is folding stops."""
        self._closed = True
        with self.gate.open(), self._lock:
            self._let_go()

    def has(self, view: View[Any], position: int) -> bool:
        """Return whether a view's versions up to a position are there, so that asking is cheap."""
        return position <= self._reached[view]

    def provide(self, views: Iterable[View[Any]], position: int) -> None:
        """Make sure that the versions of views are there, up to a position.

        Raises:
            DamagedEvent, UnknownEventType: an event up to there cannot be folded.
            ProjectionFailed: a view of a user's own fails on one.
        """
        with self.gate.open(), self._lock:
            _, writer = self._made()
            writer.fetch(self.store)
            behind: dict[int, list[View[Any]]] = {}
            for view in views:
                if not self.has(view, position):
                    behind.setdefault(self._reached[view], []).append(view)
            for reached, some in behind.items():
                self._extend(some, max(reached, 0))
                for view in some:
                    if not self.has(view, position):
                        raise self._obstacles.get(view) or InvalidMoment(
                            f"{self.store.engine.name}: event {position} is not committed yet: "
                            f"look again after its batch"
                        )

    def path(self) -> Path:
        """Return the path of the file; it is another one if somebody has swept the first away."""
        path = self._path
        if path is not None and path.exists():
            return path  # without waiting for a thread that folds
        with self.gate.open(), self._lock:
            return self._made()[0]

    @contextmanager
    def reading(
        self, views: Iterable[View[Any]], position: int
    ) -> Generator[SqliteConnection, None, None]:
        """Lend a connection on which the versions of views are, up to a position and beyond."""
        with self.gate.open():
            with self._lock:  # a fold that fails in another thread begins a new file
                self.provide(views, position)
                connection = connect(self.path(), self.store.engine.name)
            try:
                yield connection
            finally:
                connection.raw.close()

    def _extend(self, views: Sequence[View[Any]], after: int) -> None:
        # What a transaction of this thread has not committed has not happened yet.
        committed = self.store.engine.read
        _, writer = self._made()
        end = read_head(committed)
        pages = read_facts(committed, after, end, types_of(views))
        try:
            with writer.writing(views, self.store):
                try:
                    for page in pages:
                        self._refuse_if_closed()
                        writer.fold_page(page)
                except UnreadableEvent as error:
                    self._obstacles.update(dict.fromkeys(views, error))
                    end = error.position - 1
        except BaseException:
            self._let_go()
            raise
        self._reached.update(dict.fromkeys(views, end))
        for view, failed in writer.failed.items():
            self._obstacles[view] = failed
            self._reached[view] = failed.position - 1

    def _made(self) -> tuple[Path, VersionWriter]:
        self._refuse_if_closed()
        if self._path is not None and not self._path.exists():  # swept away with old files
            self._let_go()
        if self._path is None or self._writer is None:
            folder = self._folder()
            self._path = folder / "versions.db"
            self._writer = VersionWriter(self.views, self._path)
            self._delete = weakref.finalize(self, _remove, folder, self._writer.close, os.getpid())
        return self._path, self._writer

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreClosed(f"{self.store.engine.name} was closed: open it again")

    def _folder(self) -> Path:
        try:
            return Path(tempfile.mkdtemp(prefix="refold-"))
        except OSError as error:
            raise StoreFailed(
                f"{self.store.engine.name}: no temporary file can be made to look back: {error}: "
                f"let TMPDIR name a folder that has room"
            ) from error


def _remove(folder: Path, close: Callable[[], None], pid: int) -> None:
    if os.getpid() == pid:  # not in a child
        close()
        rmtree(folder, ignore_errors=True)

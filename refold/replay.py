"""Trying a view on the log before it ships."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import InvalidCommand, UnreadableEvent
from refold.eventstore.log.readable import Moment
from refold.eventstore.log.recorded import Recorded
from refold.face import Face
from refold.projections import View
from refold.projections.past.changes import Change

if TYPE_CHECKING:
    from refold.projections.past.trial import Trial


F = TypeVar("F", bound=Face)

WINDOW = 250
"""Events that are read at a time."""


class Step(Generic[F]):
    """A moment of a replay: an event has just happened."""

    def __init__(self, face: F, recorded: Recorded | None) -> None:
        self._face = face
        self.recorded = recorded
        """The event; None at the beginning, before the first."""

    def __repr__(self) -> str:
        return f"Step({self.recorded})"

    @property
    def position(self) -> int:
        """The event's position; 0 at the beginning."""
        return 0 if self.recorded is None else self.recorded.position

    @cached_property
    def changes(self) -> list[Change]:
        """What the event changed in the rows, by view and key."""
        return [] if self.recorded is None else self._face.changes_by(self.recorded)

    @cached_property
    def state(self) -> F:
        """The whole face as it was then."""
        return self._face.as_of(self.position)


class Replay(Generic[F]):
    """A walk through a log; as an iterator it goes on, in the direction of `step`, to its end."""

    def __init__(self, face: F, start: int, low: int, high: int, step: int) -> None:
        self._face = face
        self._low = low
        self._high = high
        self._step = step
        # The events around the present one, and its index; -1: the one before the first.
        self._events = list(face.store.read(until=start, limit=1, backwards=True, unknown=True))
        self._index = len(self._events) - 1

    @property
    def here(self) -> Step[F]:
        """The present moment."""
        return Step(self._face, None if self._index < 0 else self._events[self._index])

    def forward(self) -> Step[F] | None:
        """Let the next event happen (or the next few, see `step`); None: the end is reached.

        Raises:
            DamagedEvent: the next event cannot be read; `replay(db, start_at=…)` behind it goes on.
        """
        return self._go(self._forward)

    def back(self) -> Step[F] | None:
        """Undo the present event (or the last few); None: this is the beginning."""
        return self._go(self._back)

    def seek(self, where: Callable[[Recorded], bool], *, backwards: bool = False) -> Step[F] | None:
        """Go to the next event (or the one before) of which something is true; None: there is none.

        Then the walk stays where it is.
        """
        after, until = self.here.position, self._high
        if backwards:
            after, until = max(0, self._low - 1), max(0, after - 1)
        for recorded in self._face.store.read(
            after, until=until, backwards=backwards, unknown=True
        ):
            if where(recorded):
                self._events, self._index = [recorded], 0
                return self.here
        return None

    def __iter__(self) -> Iterator[Step[F]]:
        return self

    def __next__(self) -> Step[F]:
        step = self.forward() if self._step > 0 else self.back()
        if step is None:
            raise StopIteration
        return step

    def _go(self, move: Callable[[], bool]) -> Step[F] | None:
        moved = False
        try:
            for _ in range(abs(self._step)):
                if not move():
                    break
                moved = True
        except UnreadableEvent:
            if not moved:
                raise
        return self.here if moved else None

    def _forward(self) -> bool:
        if self._index + 1 == len(self._events):
            store = self._face.store
            del self._events[:-WINDOW]
            self._index = len(self._events) - 1
            self._events += _readable(
                store.read(self.here.position, until=self._high, limit=WINDOW, unknown=True)
            )
        moved = self._index + 1 < len(self._events)
        self._index += moved
        return moved

    def _back(self) -> bool:
        if self.here.position <= self._low:
            return False
        if self._index == 0:
            until = self.here.position - 1
            before = _readable(
                self._face.store.read(until=until, limit=WINDOW, backwards=True, unknown=True)
            )
            self._events[:0] = reversed(before)
            del self._events[len(before) + WINDOW :]
            self._index = len(before)
        self._index -= 1
        return True


def _readable(events: Iterator[Recorded]) -> list[Recorded]:
    """Return events as far as they can be read; raise only if not even the first can."""
    found: list[Recorded] = []
    try:
        found.extend(events)  # which keeps what came before an error
    except UnreadableEvent:
        if not found:
            raise
    return found


def replay(
    db: F, *, start_at: Moment | None = None, stop_at: Moment | None = None, step: int = 1
) -> Replay[F]:
    """Walk through a log, with the state at each event.

    Args:
        db: the face of a store.
        start_at: where to begin: by default before the first event, backwards at the last.
        stop_at: where to end: by default at the last event, backwards before the first.
        step: how many events to go at a time; a negative number goes backwards.

    Raises:
        InvalidMoment: a moment lies in the future, or is a time without zone.

    >>> from refold import RfDb, replay
    >>> db = RfDb("example.db")
    >>> run_id = db.create_run(db.create_experiment("digits"))
    >>> db.set_run_progress(run_id, current_chunk=1, current_epoch=0)
    >>> for moment in replay(db):
    ...     print(moment.position, moment.recorded.type, len(moment.state.get_all_runs()))
    1 ExperimentCreated 0
    2 RunCreated 1
    3 RunProgressed 1
    """
    if not isinstance(step, int) or not step:
        raise InvalidCommand(
            f"step is {excerpt(step)}: pass a number of events, negative to go backwards"
        )
    head = db.store.committed_head()
    first, last = (0, head) if step > 0 else (head, 0)
    start = first if start_at is None else db.position_at(start_at)
    stop = last if stop_at is None else db.position_at(stop_at)
    low, high = (0, stop) if step > 0 else (stop, head)
    return Replay(db, start, low, high, step)


def try_projection(db: Face, view: View[Any], *, at: Moment | None = None) -> "Trial":
    """Fold the log into a changed or new view, and tell how it differs from the live one.

    Nothing is touched: the rows go into a table of their own, out of everybody's sight. The view
    that is live under the same name need not be among the face's projections, unless a moment is
    asked for.

    Args:
        db: the face of a store, or of one as of a moment.
        view: the view, at whatever version.
        at: the moment at which both are compared; None: now.

    Raises:
        ProjectionFailed: the view raises on an event; its cause is what it raised.
        InvalidMoment: the moment lies in the future or before the first event, or has no zone.
        DamagedEvent, UnknownEventType: an event that the view folds cannot be decoded.

    >>> from refold.eventstore.events import RunProgressed
    >>> from refold.projections import Row, View
    >>> from refold import RfDb, try_projection
    >>> class Chunks(Row, frozen=True):
    ...     run_id: int
    ...     seen: int
    >>> chunks = View("chunks_seen", Chunks, version=1)
    >>> chunks.created_by(RunProgressed, lambda e: Chunks(e.run_id, e.current_chunk))
    >>> db = RfDb("example.db")
    >>> run_id = db.create_run(db.create_experiment("digits"))
    >>> db.set_run_progress(run_id, current_chunk=3, current_epoch=0)
    >>> print(try_projection(db, chunks))
    chunks_seen: 1 row from 1 event in ... s, as of position 3
    a new view
      chunks_seen 1 added: run_id 1, seen 3
    """
    if not isinstance(view, View):
        raise InvalidCommand(f"{excerpt(view)} is not a view: pass a projections.View")
    from refold.projections.past.trial import trial  # only those who try a view need it

    return trial((db if at is None else db.as_of(at)).views, view)

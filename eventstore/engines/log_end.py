"""The end of the log: what a transaction must know to append to it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from refold.eventstore.engines.engine import Lock, Projections, Reader, Slot, Values, Writer
from refold.eventstore.paging import chunks
from refold.eventstore.sql import marks


class EventRow(NamedTuple):
    """A row of the table `events`: its columns, in their order."""

    position: int
    stream: str
    version: int
    previous: int | None
    """The position of the stream's event before it; None if it is the first."""
    type: str
    schema_version: int
    data: str
    metadata: str
    recorded_at: int


INSERT_EVENT = f"""
    INSERT INTO events ({", ".join(EventRow._fields)})
    VALUES ({marks(EventRow._fields)})"""

STREAM_COLUMNS = ("stream", "version", "position")

NEW_HEAD = """
    ON CONFLICT (stream) DO UPDATE SET version = excluded.version, position = excluded.position"""

UPSERT_STREAM = f"INSERT INTO streams ({', '.join(STREAM_COLUMNS)}) VALUES (?, ?, ?) {NEW_HEAD}"

STREAM_HEAD = "SELECT version, position FROM streams WHERE stream = ?"

PROJECTIONS = "SELECT name, version, position FROM projections"

STREAMS_REMEMBERED = 50_000
"""Heads of streams that are remembered from one transaction to the next.

Beyond it they are forgotten all at once, which costs one SELECT each when they come again.
"""


def projections_of(reader: Reader) -> Projections:
    """Return the views that a store holds: by name, their version and how far they are folded."""
    return by_name(reader.execute(PROJECTIONS))


def by_name(rows: list[tuple[str, int, int | None]]) -> Projections:
    """Return what `PROJECTIONS` gives, by name."""
    return {name: (version, position) for name, version, position in rows}


class End(ABC):
    """What every end of the log knows: the heads of the streams, and the time."""

    writer: Writer

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.fresh = True
        self.position = 0
        self.projections: Projections = {}
        self._recorded_at = 0
        self._streams: dict[str, tuple[int, int]] = {}
        self._changed: dict[str, tuple[int, int]] = {}

    @property
    @abstractmethod
    def lock(self) -> Lock | None:
        """Locks names until the commit; None: the transaction is exclusive."""

    @abstractmethod
    def _learn(self, streams: Sequence[str]) -> None:
        """Make sure that the heads of these streams are known."""

    @abstractmethod
    def allot(self, streams: Sequence[str]) -> list[Slot]:
        """Return a slot for a next event of each of these streams, in this order."""

    def version(self, stream: str) -> int:
        """Return the number of a stream's events."""
        self._learn((stream,))
        return self._streams[stream][0]

    def _slot(self, stream: str, position: int) -> Slot:
        version, previous = self._streams[stream]
        self._streams[stream] = self._changed[stream] = (version + 1, position)
        self.position = position
        return Slot(position, version + 1, previous)

    def now(self) -> int:
        """Return the time, in microseconds since 1970-01-01 UTC; it never runs back."""
        # A clock that is set back must not make a later event look like an earlier one.
        self._recorded_at = max(self._clock(), self._recorded_at)
        return self._recorded_at

    def write(self, events: Sequence[Values]) -> None:
        """Insert events, and the new heads of their streams."""
        writer = self.writer
        if len(events) == 1:
            writer.run(INSERT_EVENT, events[0])
        else:
            writer.insert("events", EventRow._fields, events)
        heads = [(stream, *head) for stream, head in self._changed.items()]
        if len(heads) == 1:
            writer.run(UPSERT_STREAM, heads[0])
        else:
            writer.insert("streams", STREAM_COLUMNS, heads, NEW_HEAD)
        self._changed.clear()


class ExclusiveEnd(End):
    """The end of the log for an exclusive transaction, which counts the positions itself."""

    @property
    def lock(self) -> None:
        """None: nobody writes beside it."""
        return

    def allot(self, streams: Sequence[str]) -> list[Slot]:
        """Return a slot for a next event of each of these streams, in this order."""
        self._learn(streams)
        return [self._slot(stream, self.position + 1) for stream in streams]

    def accept(self, events: Sequence[Values]) -> None:
        """Take note of events that bring their slots along, as rows of the table."""
        self._make_room()
        for position, stream, version, *_ in events:
            self._streams[stream] = self._changed[stream] = (version, position)
        last = EventRow._make(events[-1])
        self.position, self._recorded_at = last.position, last.recorded_at

    def _make_room(self) -> None:
        if len(self._streams) >= STREAMS_REMEMBERED and not self._changed:
            self._streams.clear()

    def _learn(self, streams: Sequence[str]) -> None:
        if all(stream in self._streams for stream in streams):
            return
        self._make_room()
        if len(streams) == 1:
            found = self.writer.execute(STREAM_HEAD, streams)
            self._streams[streams[0]] = found[0] if found else (0, 0)
            return
        missing = [stream for stream in streams if stream not in self._streams]
        for part in chunks(missing):
            self._streams.update(dict.fromkeys(part, (0, 0)))
            for stream, version, position in self.writer.execute(
                f"SELECT stream, version, position FROM streams WHERE stream IN ({marks(part)})",
                part,
            ):
                self._streams[stream] = (version, position)

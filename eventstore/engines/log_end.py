"""The log's end, for a transaction that writes alone."""

import time
from collections.abc import Callable, Sequence

from refold.eventstore.engines.engine import Connection, Place, Projections, Values
from refold.eventstore.sql import chunks, marks

EVENT_COLUMNS = (
    "position",
    "stream",
    "version",
    "previous",
    "type",
    "schema_version",
    "data",
    "metadata",
    "recorded_at",
)

INSERT_EVENT = f"""
    INSERT INTO events ({", ".join(EVENT_COLUMNS)})
    VALUES ({marks(EVENT_COLUMNS)})"""

STREAM_COLUMNS = ("stream", "version", "position")

NEW_HEAD = """
    ON CONFLICT (stream) DO UPDATE SET version = excluded.version, position = excluded.position"""

UPSERT_STREAM = f"INSERT INTO streams ({', '.join(STREAM_COLUMNS)}) VALUES (?, ?, ?) {NEW_HEAD}"

PROJECTIONS = "SELECT name, version, position FROM projections"

# Heads of streams that are remembered from one transaction to the next; beyond it they are
# forgotten all at once, which costs one SELECT each when they come again.
STREAMS_REMEMBERED = 50_000


def microseconds() -> int:
    """Return this machine's time, in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000


def projections_of(connection: Connection) -> Projections:
    """Return the views that a store holds: by name, their version and how far they are folded."""
    return by_name(connection.execute(PROJECTIONS))


def by_name(rows: list[tuple[str, int, int | None]]) -> Projections:
    """Return what `PROJECTIONS` gives, by name."""
    return {name: (version, position) for name, version, position in rows}


class LoneHeads:
    """What the store knows of the log's end; true as long as nobody else has committed."""

    alone = True

    def __init__(self, clock: Callable[[], int] = microseconds) -> None:
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Know nothing, so that the next transaction looks."""
        self.fresh = True
        self._connection: Connection | None = None
        self._changes = -1
        self.position = 0
        self._recorded_at = 0
        self._streams: dict[str, tuple[int, int]] = {}
        self._changed: dict[str, tuple[int, int]] = {}
        self.projections: Projections = {}

    def look(self, connection: Connection) -> None:
        """Bring everything up to date, at the start of a transaction."""
        changes = connection.changes()
        self.fresh = connection is not self._connection or changes != self._changes
        if not self.fresh:
            return
        self.forget()
        last = connection.execute(
            "SELECT position, recorded_at FROM events ORDER BY position DESC LIMIT 1"
        )
        self.position, self._recorded_at = last[0] if last else (0, 0)
        self.projections = projections_of(connection)
        self._connection, self._changes = connection, changes

    def version(self, stream: str) -> int:
        """Return the number of a stream's events."""
        self._learn((stream,))
        return self._streams[stream][0]

    def allot(self, streams: Sequence[str]) -> list[Place]:
        """Return a place for a next event of each of these streams, in this order."""
        self._learn(streams)
        places: list[Place] = []
        for stream in streams:
            version, previous = self._streams[stream]
            self.position += 1
            places.append(Place(self.position, version + 1, previous))
            self._streams[stream] = self._changed[stream] = (version + 1, self.position)
        return places

    def accept(self, events: Sequence[Values]) -> None:
        """Take note of events that bring their places along, as rows of the table."""
        if len(self._streams) >= STREAMS_REMEMBERED and not self._changed:
            self._streams.clear()
        for position, stream, version, *_ in events:
            self._streams[stream] = self._changed[stream] = (version, position)
        self.position, self._recorded_at = events[-1][0], events[-1][-1]

    def _learn(self, streams: Sequence[str]) -> None:
        known = self._streams
        missing = [stream for stream in streams if stream not in known]
        if not missing:
            return
        assert self._connection is not None
        if len(known) >= STREAMS_REMEMBERED and not self._changed:
            known.clear()
            missing = list(streams)
        for part in chunks(missing):
            known.update(dict.fromkeys(part, (0, 0)))
            for stream, version, position in self._connection.execute(
                f"SELECT stream, version, position FROM streams WHERE stream IN ({marks(part)})",
                part,
            ):
                known[stream] = (version, position)

    def now(self) -> int:
        """Return the time, in microseconds since 1970-01-01 UTC; it never runs back."""
        # A clock that is set back must not make a later event look like an earlier one.
        self._recorded_at = max(self._clock(), self._recorded_at)
        return self._recorded_at

    def write(self, events: Sequence[Values]) -> None:
        """Insert events, and the new heads of their streams."""
        connection = self._connection
        assert connection is not None
        if len(events) == 1:
            connection.run(INSERT_EVENT, events[0])
        else:
            connection.insert("events", EVENT_COLUMNS, events)
        heads = [(stream, *head) for stream, head in self._changed.items()]
        if len(heads) == 1:
            connection.run(UPSERT_STREAM, heads[0])
        else:
            connection.insert("streams", STREAM_COLUMNS, heads, NEW_HEAD)
        self._changed.clear()

"""The end of the log: what a transaction must know to append to it."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from refold.eventstore import times
from refold.eventstore.digests import Signer, digest_of
from refold.eventstore.engines.engine import Lock, Projections, Reader, Slot, Values, Writer
from refold.eventstore.errors import InvalidCommand, StoreTooNew
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
    digest: bytes | None = None
    """Chains it to that event; None: a release wrote it that had no digests."""


def digest_of_row(event: Values, before: bytes | None, key: bytes | None) -> bytes:
    """Return the digest of an event, given as an `EventRow` has it; see `digest_of`."""
    position, stream, version, _, kind, schema, data, metadata, recorded_at, *_ = event
    return digest_of(
        before,
        position,
        stream.encode(),
        version,
        kind.encode(),
        schema,
        data.encode(),
        metadata.encode(),
        recorded_at,
        key,
    )


INSERT_EVENT = f"""
    INSERT INTO events ({", ".join(EventRow._fields)})
    VALUES ({marks(EventRow._fields)})"""

STREAM_COLUMNS = ("stream", "version", "position", "digest")

NEW_HEAD = """
    ON CONFLICT (stream) DO UPDATE
    SET version = excluded.version, position = excluded.position, digest = excluded.digest"""

UPSERT_STREAM = f"""
    INSERT INTO streams ({", ".join(STREAM_COLUMNS)}) VALUES ({marks(STREAM_COLUMNS)}) {NEW_HEAD}"""

STREAM_HEAD = "SELECT version, position, digest FROM streams WHERE stream = ?"

LOG_FORMAT = 2
"""Of the tables of the log, not of its events or of views."""

LEVEL = 2
"""Of the events that this release knows: `Event.store_level` says which raise it."""

# The level goes with them, under a name that no view has: both are looked at, at the same moments.
PROJECTIONS = """
    SELECT name, version, position FROM projections
    UNION ALL SELECT '', level, NULL FROM store"""

STREAMS_REMEMBERED = 50_000
"""Heads of streams that are remembered from one transaction to the next.

Beyond it they are forgotten all at once, which costs one SELECT each when they come again.
"""


def projections_of(reader: Reader) -> Projections:
    """Return the views that a store holds: by name, their version and how far they are folded.

    Raises:
        StoreTooNew: the log holds events that change views in ways that this release cannot know.
    """
    return by_name(reader.execute(PROJECTIONS))


def by_name(rows: list[tuple[str, int, int | None]]) -> Projections:
    """Return what `PROJECTIONS` gives, by name.

    Raises:
        StoreTooNew: see `projections_of`.
    """
    found = {name: (version, position) for name, version, position in rows}
    level, _ = found.pop("", (0, None))
    if level > LEVEL:
        raise StoreTooNew(
            f"the log has events of level {level}, this refold knows them up to level {LEVEL}: "
            f"upgrade refold"
        )
    return found


class StoreRow(NamedTuple):
    """The row of the table `store`: which log this is."""

    id: str
    format: int
    level: int
    origin: str | None
    unchecked: int
    """The position up to which events have no digest."""
    gaps: int
    """1: positions may be missing, as a server leaves some out; 0: each has its event."""
    key_id: str | None
    keyed_after: int | None
    """The position after which digests are signed with that key; None: they are not."""
    created_at: int


def new_store(unchecked: int = 0, *, gaps: bool = False) -> StoreRow:
    """Return the row of a log that begins now, or of an older one that had none."""
    return StoreRow(
        id=secrets.token_hex(16),
        format=LOG_FORMAT,
        level=LEVEL,
        origin=None,
        unchecked=unchecked,
        gaps=int(gaps),
        key_id=None,
        keyed_after=None,
        created_at=times.now(),
    )


def fork_of(log: StoreRow) -> StoreRow:
    """Return the row of a log that begins as another does, and then goes its own way."""
    begun = new_store()
    return log._replace(id=begun.id, origin=log.id, created_at=begun.created_at)


STORE = f"SELECT {', '.join(StoreRow._fields)} FROM store"


def store_row(reader: Reader) -> StoreRow:
    """Return which log a store holds."""
    [row] = reader.execute(STORE)
    return StoreRow._make(row)


SENT = "SELECT command, first, last, result FROM commands WHERE command_id = ?"

INSERT_COMMAND = """
    INSERT INTO commands (command_id, command, first, last, result) VALUES (?, ?, ?, ?, ?)"""


def name_of_command(command_id: str) -> str:
    """Return the name that is locked by who carries out a command with an id."""
    return f"command {command_id}"


class End(ABC):
    """What every end of the log knows: the heads of the streams, and the time."""

    writer: Writer

    def __init__(self, clock: Callable[[], int], signer: Signer) -> None:
        self._clock = clock
        self._signer = signer
        self.fresh = True
        self.position = 0
        self.projections: Projections = {}
        self._recorded_at = 0
        self._streams: dict[str, tuple[int, int]] = {}
        self._changed: dict[str, tuple[int, int]] = {}
        self._digests: dict[str, bytes | None] = {}
        """Of the last event of each of these streams."""

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

    def _know(self, stream: str, version: int, position: int, digest: bytes | None) -> None:
        self._streams[stream] = (version, position)
        self._digests[stream] = digest

    def _slot(self, stream: str, position: int) -> Slot:
        version, previous = self._streams[stream]
        self._streams[stream] = self._changed[stream] = (version + 1, position)
        self.position = position
        return Slot(position, version + 1, previous)

    def set_store(self, row: StoreRow) -> None:
        """Have the store hold the log that a row describes."""
        columns = ", ".join(f"{name} = ?" for name in StoreRow._fields)
        self.writer.run(f"UPDATE store SET {columns}", row)
        self.writer.need_digests(row.unchecked)
        self._signer.need(row.key_id)

    def now(self) -> int:
        """Return the time, in microseconds since 1970-01-01 UTC; it never runs back.

        Raises:
            InvalidCommand: the clock shows no time.
        """
        try:
            now = times.checked(self._clock())
        except ValueError as error:
            raise InvalidCommand(f"the clock is wrong: {error}") from None
        # A clock that is set back must not make a later event look like an earlier one.
        self._recorded_at = max(now, self._recorded_at)
        return self._recorded_at

    def sent(self, command_id: str) -> list[tuple[Any, ...]]:
        """Return the row of the command that had this id; see `LogEnd`."""
        if self.lock is not None:
            self.lock([name_of_command(command_id)])
        return self.writer.execute(SENT, (command_id,))

    def remember(self, command: Values) -> None:
        """Keep a row of the table `commands`."""
        self.writer.run(INSERT_COMMAND, command)

    def write(self, events: Sequence[Values]) -> None:
        """Insert events, each with its digest, and the new heads of their streams.

        Raises:
            AccessDenied: digests are signed with a key that this process does not have.
        """
        key, digests = self._signer.key(), self._digests
        rows: list[Values] = []
        for event in events:
            stream = event[1]
            digests[stream] = digest = digest_of_row(event, digests[stream], key)
            rows.append((*event, digest))
        self._insert(rows)

    def _insert(self, events: Sequence[Values]) -> None:
        writer = self.writer
        if len(events) == 1:
            writer.run(INSERT_EVENT, events[0])
        else:
            writer.insert("events", EventRow._fields, events)
        heads = [(stream, *head, self._digests[stream]) for stream, head in self._changed.items()]
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

    def accept(self, events: Sequence[EventRow]) -> None:
        """Insert events that bring their slots and digests along."""
        self._make_room()
        for event in events:
            self._streams[event.stream] = (event.version, event.position)
            self._changed[event.stream] = (event.version, event.position)
            self._digests[event.stream] = event.digest
        last = events[-1]
        self.position, self._recorded_at = last.position, last.recorded_at
        self._insert(events)

    def _make_room(self) -> None:
        if len(self._streams) >= STREAMS_REMEMBERED and not self._changed:
            self._streams.clear()
            self._digests.clear()

    def _learn(self, streams: Sequence[str]) -> None:
        if all(stream in self._streams for stream in streams):
            return
        self._make_room()
        if len(streams) == 1:
            found = self.writer.execute(STREAM_HEAD, streams)
            version, position, digest = found[0] if found else (0, 0, None)
            self._know(streams[0], version, position, digest)
            return
        missing = [stream for stream in streams if stream not in self._streams]
        for part in chunks(missing):
            for stream in part:
                self._know(stream, 0, 0, None)
            for head in self.writer.execute(
                f"SELECT {', '.join(STREAM_COLUMNS)} FROM streams WHERE stream IN ({marks(part)})",
                part,
            ):
                self._know(*head)

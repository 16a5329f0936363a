"""One write transaction on the log: what is appended in it commits together or not at all."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import Any, Protocol

import msgspec

from refold.eventstore.arguments import check_name, excerpt
from refold.eventstore.engines.engine import (
    Change,
    LogEnd,
    NotExclusive,
    Placed,
    Projections,
    Seen,
    Values,
)
from refold.eventstore.engines.log_end import EventRow, ExclusiveEnd, StoreRow
from refold.eventstore.errors import (
    CommandIdReused,
    InvalidEvent,
    InvalidPayload,
    TransactionFailed,
    WrongExpectedVersion,
)
from refold.eventstore.event import NO_METADATA, Event, Metadata, encode, encode_metadata, to_json
from refold.eventstore.log.recorded import Recorded

# A walk along the stream, back to where the change was decided.
SAID = """
    WITH RECURSIVE later AS (
        SELECT e.position, e.previous, e.type, e.schema_version, e.data, e.metadata
        FROM streams s JOIN events e ON e.position = s.position
        WHERE s.stream = ? AND e.position > ?
        UNION ALL
        SELECT e.position, e.previous, e.type, e.schema_version, e.data, e.metadata
        FROM later l JOIN events e ON e.position = l.previous WHERE l.previous > ?
    )
    SELECT max(position) FROM later
    WHERE type = ? AND schema_version = ? AND data = ? AND metadata = ?"""

LEAST_LEVEL = Event.store_level
"""Of a store; most events have it."""

LARGEST_PAYLOAD = 1_000_000_000
"""In bytes: what SQLite holds in a row; PostgreSQL holds a little more."""

_Encoded = tuple[str, type[Event], str, Event]
"""The stream, the type, the JSON text, and the event as the log will give it back."""


class Fold(Protocol):
    """Keeps something equal to the log while a transaction appends to it, such as the views."""

    def expect(self, events: Iterable[Event]) -> None:
        """Prepare for these events, before they are allotted their places.

        If other transactions write beside this one, lock whatever the events will change: so what
        changes a thing later also has the higher position.
        """
        ...

    def fold(self, recorded: Recorded) -> None:
        """Take in an event that the transaction has appended."""
        ...

    def flush(self) -> None:
        """Write what has changed; called before each query and before the commit."""
        ...

    def committed(self) -> None:
        """Take note that all of it is committed."""
        ...


class Recalled(Fold, Protocol):
    """Keeps equal to the log what is in memory alone; see `NotRemembered`."""

    def seen(self) -> list[Seen]:
        """Return the rows that were looked at, and what has become of them."""
        ...

    def place(self, placed: Placed) -> None:
        """Take note of where the event went that was taken in."""
        ...

    def moved(self, row: int | None) -> None:
        """Let go of one of the rows that were looked at; None: of all that is in memory."""
        ...


class Sent(msgspec.Struct, frozen=True):
    """A command that was sent with an id before: what became of it."""

    first: int | None
    """The position of its first event; None if it appended none."""
    last: int | None
    result: Any


class Outcome:
    """What became of a transaction: for what is true only if it is committed."""

    __slots__ = ("_then", "committed")

    def __init__(self) -> None:
        self.committed = False
        """False as long as it is open, too, and if nobody knows."""
        self._then: list[Callable[[bool], None]] = []

    def then(self, call: Callable[[bool], None]) -> None:
        """Have something called at its end, with whether it was committed."""
        self._then.append(call)

    def settle(self, committed: bool) -> None:
        """Note that it has ended."""
        self.committed = committed
        for call in self._then:
            call(committed)
        self._then.clear()


class Transaction:
    """Appends events and stores payloads; `EventStore.transaction()` opens one."""

    def __init__(self, end: LogEnd) -> None:
        self.writer = end.writer
        self.lock = end.lock
        """Locks names until the commit; None: the transaction is exclusive, none can be locked."""
        self.fresh = end.fresh
        """Whether somebody else may have written since this store's last transaction."""
        self.fold: Fold | None = None
        self.outcome = Outcome()
        self._end = end
        self._events: list[Values] = []
        self._strays: list[Values] = []
        self._broken = False

    @property
    def head(self) -> int:
        """The position of the last event, those of this transaction included; see `LogEnd`."""
        return self._end.position

    @property
    def projections(self) -> Projections:
        """The views that the store holds: by name, their version and how far they are folded."""
        return self._end.projections

    def set_projection(self, name: str, version: int, position: int | None) -> None:
        """Note how far a view is folded; None: to the end, and every append folds it."""
        self.writer.run(
            "INSERT INTO projections (name, version, position) VALUES (?, ?, ?) ON CONFLICT (name) "
            "DO UPDATE SET version = excluded.version, position = excluded.position",
            (name, version, position),
        )
        self._end.projections[name] = (version, position)

    @property
    def exclusive(self) -> bool:
        """Whether no other transaction writes beside this one."""
        return self.lock is None

    def be_exclusive(self) -> None:
        """Make sure that no other transaction writes beside this one.

        Raises:
            NotExclusive: one may; `EventStore.perform` then does all of it again, exclusively.
        """
        if not self.exclusive:
            raise NotExclusive

    def version(self, stream: str) -> int:
        """Return the version of a stream: the number of its events."""
        return self._end.version(stream)

    def append(
        self,
        events: Sequence[Event],
        *,
        stream: str | None = None,
        expected_version: int | None = None,
        metadata: Metadata = NO_METADATA,
    ) -> list[Recorded]:
        """Append events, each to `stream` or else to the stream that it names itself.

        Raises:
            InvalidEvent: one of them cannot be kept exactly; none was appended.
            WrongExpectedVersion: `stream` is not at `expected_version`; none was appended.
        """
        encoded = [
            (self._stream_name(event, stream), type(event), *encode(event)) for event in events
        ]
        strays = [] if stream is None else [_names_another(event, stream) for event in events]
        about = encode_metadata(metadata)
        if expected_version is not None and stream is None:
            raise InvalidEvent("expected_version needs the stream that it is about")
        if self.fold is not None and (len(encoded) > 1 or not self.exclusive):
            self.fold.expect([event for *_, event in encoded])
        if expected_version is not None and stream is not None:
            actual = self.version(stream)
            if actual != expected_version:
                raise WrongExpectedVersion(stream, expected_version, actual)
        if not encoded:
            return []
        try:
            appended = self._record(encoded, about, metadata)
        except BaseException:
            self._broken = True
            raise
        self._strays += [(recorded.position,) for recorded in compress(appended, strays)]
        return appended

    def _record(self, encoded: list[_Encoded], about: str, metadata: Metadata) -> list[Recorded]:
        """Give encoded events their slots, and have them folded."""
        slots = self._end.allot([name for name, *_ in encoded])
        now = self._end.now()
        appended: list[Recorded] = []
        for (name, cls, data, event), slot in zip(encoded, slots, strict=True):
            position, version, previous = slot
            kind = (cls.__name__, cls.schema_version)
            if cls.store_level > LEAST_LEVEL:
                self._raise_level(cls.store_level)
            # Plain: an `EventRow`, made and bound, would cost a fifth of a bulk append.
            self._events.append(
                (position, name, version, previous or None, *kind, data, about, now)
            )
            recorded = Recorded(position, name, version, event, metadata, now)
            appended.append(recorded)
            if self.fold is not None:
                self.fold.fold(recorded)
        return appended

    def _raise_level(self, level: int) -> None:
        self.writer.run("UPDATE store SET level = ? WHERE level < ?", (level, level))

    def append_rows(self, events: Sequence[EventRow], strays: Sequence[int] = ()) -> None:
        """Append events of another log as they are, with their places.

        They are not decoded, so nothing can fold them: views stay behind.

        Args:
            events: as the table holds them, with their digests.
            strays: the positions of those that are in another stream than the one they name.
        """
        self.be_exclusive()
        assert self.fold is None
        assert isinstance(self._end, ExclusiveEnd)
        self._end.accept(events)
        self._strays += [(position,) for position in strays]

    def set_store(self, row: StoreRow) -> None:
        """Have the store hold the log that a row describes: a copy, or a fork."""
        self.be_exclusive()
        assert isinstance(self._end, ExclusiveEnd)
        self._end.set_store(row)

    @staticmethod
    def _stream_name(event: Event, stream: str | None) -> str:
        if not isinstance(event, Event):
            raise InvalidEvent(
                f"{excerpt(event)} is not an event: subclass refold.eventstore.Event to define "
                f"your own"
            )
        name = event.stream if stream is None else stream
        try:
            check_name("name for a stream", name)
        except ValueError as error:
            raise InvalidEvent(str(error)) from None
        return name

    def put_payload(self, content: bytes) -> str:
        """Store bytes under their SHA-256, which is returned in hexadecimal; known ones once.

        Raises:
            InvalidPayload: they are none, or more than an engine can hold.
        """
        if not isinstance(content, bytes | bytearray | memoryview):
            raise InvalidPayload(f"a payload is bytes, not {excerpt(content)}")
        if len(content) > LARGEST_PAYLOAD:
            raise InvalidPayload(
                f"a payload of {len(content):,} bytes is too large: a store takes "
                f"{LARGEST_PAYLOAD:,} at most; put it into several, or store its path"
            )
        content = bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self.writer.run(
            "INSERT INTO payloads (digest, content) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING",
            (digest, content),
        )
        return digest

    def sent(self, command_id: str, command: str) -> Sent | None:
        """Return what became of a command that was sent with this id before, or None.

        Args:
            command_id: the id that the caller gave it.
            command: its name and, after a space, what tells it from others of that name.

        Raises:
            CommandIdReused: the id belongs to another command.
            InvalidEvent: the id is not text that can be stored.
        """
        try:
            check_name("command_id", command_id)
        except ValueError as error:
            raise InvalidEvent(str(error)) from None
        found = self._end.sent(command_id)
        if not found:
            return None
        ((known, first, last, result),) = found
        if known != command:
            before, now = known.split()[0], command.split()[0]
            what = f"other arguments of {now}" if before == now else f"{before}, not {now}"
            raise CommandIdReused(
                f"command id {excerpt(command_id)} was sent before with {what}: give each command "
                f"an id of its own"
            )
        return Sent(first, last, msgspec.json.decode(result))

    def remember(
        self, command_id: str, command: str, events: Sequence[Recorded], result: Any = None
    ) -> None:
        """Keep the result of a command, so that sending it again only returns it."""
        first, last = (events[0].position, events[-1].position) if events else (None, None)
        self._end.remember((command_id, command, first, last, to_json(result)))

    def said(self, change: Change) -> int | None:
        """Return the position of the last event that says what a change does, or None.

        Only those count behind which it was decided. Nobody writes one until the commit.
        """
        self.version(change.stream)
        decided = max(row.position for row in change.seen if row.after is not None)
        said = (change.type, change.schema_version, change.data, change.metadata)
        ((position,),) = self.writer.execute(SAID, (change.stream, decided, decided, *said))
        return position

    def doom(self, before: int) -> None:
        """Have the transaction fail at its end if its head is not where it was before.

        Half of what an inner block does must not be committed with the outer one.
        """
        self._broken = self._broken or self.head != before

    def flush(self) -> None:
        """Write out what was appended, so that statements on `connection` see it."""
        if self._broken:
            raise TransactionFailed(
                "a part of this transaction failed half way, so all of it is rolled back: leave "
                "its block and begin anew"
            )
        try:
            if self._events:
                self._end.write(self._events)
                self._events.clear()
            if self._strays:
                self.writer.insert("strays", ("position",), self._strays)
                self._strays.clear()
            if self.fold is not None:
                self.fold.flush()
        except BaseException:
            self._broken = True
            raise


def _names_another(event: Event, stream: str) -> bool:
    try:
        return event.stream != stream
    except InvalidEvent:  # it names none
        return False

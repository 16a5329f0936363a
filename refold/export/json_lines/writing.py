"""The lines of a log as JSON Lines, and writing them: first a `Log`, last an `End`."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime
from typing import Annotated, Any, BinaryIO

import msgspec

from refold.eventstore import times
from refold.eventstore.engines.log_end import EventRow, StoreRow, store_row
from refold.eventstore.errors import UnknownEventType, UnreadableEvent
from refold.eventstore.event import (
    Digest,
    Int,
    damaged,
    decode,
    decode_metadata,
    decode_unknown,
    event_type,
)
from refold.eventstore.log.past import PastStore
from refold.eventstore.log.readable import ReadableLog
from refold.eventstore.log.rows import command_rows, digests_in, event_rows, payload_rows
from refold.eventstore.paging import chunks
from refold.eventstore.progress import ProgressBar
from refold.export.columns import Source

FORMAT = 2
"""Raise it when a file of today could be misread by yesterday's `read`."""

Position = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Text = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\A[^\x00]*\Z")]
"""What both engines can keep."""


class Line(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True, gc=False):
    """A line; its `kind` says which."""


class StoreLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the table `store` says of a log, as far as it is the log's and not the store's."""

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    created_at: Int
    level: Int
    origin: str | None = None
    unchecked: Annotated[int, msgspec.Meta(ge=0)] = 0
    gaps: bool = False
    key_id: str | None = None
    keyed_after: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Log(Line, frozen=True, tag="log"):
    """The first: what follows."""

    format: int
    until: Annotated[int, msgspec.Meta(ge=0)]
    """The position up to which the log is here."""
    payloads: bool
    """Whether they are here as well, or the events hold digests of what stayed behind."""
    store: StoreLine | None = None
    """Which log it is; None: one of format 1."""


class EventLine(Line, frozen=True, tag="event", omit_defaults=True):
    """An event, with the very text of its data and metadata."""

    position: Position
    stream: Text
    version: Position
    type: Text
    schema_version: Int
    recorded_at: Annotated[datetime, msgspec.Meta(tz=True)] | Int
    """A time in UTC or, where it lies beyond the calendar, microseconds since 1970."""
    metadata: msgspec.Raw
    data: msgspec.Raw
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")] | None = None
    """In hexadecimal; None: a release wrote the event that had none."""
    stray: bool = False
    """Whether it is in another stream than the one that it names."""


class CommandLine(Line, frozen=True, tag="command"):
    """A command that was sent with an id, and its result."""

    command_id: Text
    command: Text
    first: Position | None
    last: Position | None
    result: msgspec.Raw


class PayloadLine(Line, frozen=True, tag="payload"):
    """A payload, in Base64."""

    digest: Digest
    content: bytes


class End(Line, frozen=True, tag="end"):
    """The last: how much there was, so that nothing can be missing."""

    events: int
    commands: int
    payloads: int

    def __str__(self) -> str:
        return f"{self.events} events, {self.commands} commands, {self.payloads} payloads"


def refuse_unreadable(row: EventRow) -> None:
    """Refuse an event that cannot be decoded; of types that are unknown here, any object can.

    Raises:
        DamagedEvent, UnknownEventType: it cannot.
    """
    try:
        decode(row.type, row.schema_version, row.data, row.position)
    except UnknownEventType:
        if event_type(row.type) is not None:
            raise
        decode_unknown(row.type, row.schema_version, row.data, row.position)
    try:
        decode_metadata(row.metadata)
    except msgspec.DecodeError as error:
        raise damaged(row.type, row.schema_version, row.position, error) from error


_encode = msgspec.json.Encoder().encode


def write(
    log: Source | ReadableLog,
    file: BinaryIO,
    *,
    payloads: bool = True,
    progress: bool | None = None,
) -> int:
    """Write the log as JSON Lines: its events, the results of commands, the payloads.

    Events that come in meanwhile are left out. Of a log as of a moment, it is the payloads that its
    events name.

    Args:
        log: a store, or the face of one; also as of a moment.
        file: open for writing bytes; a few megabytes of the log are in memory at a time.
        payloads: if not, the events keep the digests, and the file is for reading only: no log can
            be made of it again.
        progress: show a progress bar; None: only on a terminal.

    Returns:
        how many events were written.

    Raises:
        DamagedEvent, UnknownEventType: an event cannot be decoded; what comes before it has been
            written. Types of a user's own need not be defined here.
    """
    store = log if isinstance(log, ReadableLog) else log.store
    until = store.head()

    def put(lines: Iterable[Line]) -> int:
        count = 0
        for line in lines:
            file.write(_encode(line) + b"\n")
            count += 1
        return count

    strays = set(store.strays())
    with store.reading() as connection:
        put([Log(FORMAT, until, payloads, _store(store_row(connection), until))])
    counts = [0, 0, 0]
    bar = ProgressBar("exporting events", until, progress)
    with closing(_Named()) as named, bar:
        for page in event_rows(store, until):
            rows = [EventRow._make(row) for row in page]
            counts[0] += put(_event(row, row.position in strays) for row in rows)
            if payloads and isinstance(store, PastStore):
                named.take_in(row.data for row in rows)
            bar.update(rows[-1].position - bar.n)
        for page in command_rows(store, until):
            counts[1] += put(map(_command, page))
        if payloads:
            there = named.payloads(store) if isinstance(store, PastStore) else payload_rows(store)
            counts[2] = put(PayloadLine(digest, content) for digest, content in there)
    put([End(*counts)])
    return counts[0]


def _store(log: StoreRow, until: int) -> StoreLine | None:
    if log.format == 1:  # it can only be read here, so it could not be brought to today's
        return None
    keyed_after = log.keyed_after
    return StoreLine(
        id=log.id,
        created_at=log.created_at,
        level=log.level,
        origin=log.origin,
        unchecked=min(log.unchecked, until),
        gaps=bool(log.gaps),
        key_id=log.key_id,
        keyed_after=None if keyed_after is None else min(keyed_after, until),
    )


def _event(row: EventRow, stray: bool) -> EventLine:
    try:
        refuse_unreadable(row)
        if not (_is_bare(row.data) and _is_bare(row.metadata)):
            error = ValueError("it was altered, there are blanks or lines around it")
            raise damaged(row.type, row.schema_version, row.position, error)
    except UnreadableEvent as error:
        failure = type(error)(f"{error}. Export the log as of position {row.position - 1}")
        failure.position = row.position
        raise failure from error
    return EventLine(
        row.position,
        row.stream,
        row.version,
        row.type,
        row.schema_version,
        times.to_calendar(row.recorded_at),
        msgspec.Raw(row.metadata),
        msgspec.Raw(row.data),
        None if row.digest is None else row.digest.hex(),
        stray,
    )


def _is_bare(text: str) -> bool:
    return "\n" not in text and text == text.strip()


def _command(row: tuple[Any, ...]) -> CommandLine:
    command_id, command, first, last, result = row
    return CommandLine(command_id, command, first, last, msgspec.Raw(result))


class _Named:
    """The digests that events name, on disk, as there may be as many as events."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")  # a temporary file
        self._db.execute("CREATE TABLE named (digest TEXT PRIMARY KEY) WITHOUT ROWID")

    def take_in(self, data: Iterable[str]) -> None:
        """Note what can be a digest in the data of events, whatever their types."""
        digests = ((digest,) for text in data for digest in digests_in(text))
        self._db.executemany("INSERT OR IGNORE INTO named VALUES (?)", digests)

    def payloads(self, store: ReadableLog) -> Iterator[tuple[str, bytes]]:
        """Iterate over the payloads that they name."""
        found = self._db.execute("SELECT digest FROM named ORDER BY digest")
        for some in chunks(found):
            yield from store.get_payloads(digest for (digest,) in some)

    def close(self) -> None:
        """Remove them."""
        self._db.close()

"""What a line can be. The first is a `Log`, the last an `End`, events stand in their order."""

from datetime import datetime
from typing import Annotated

import msgspec

from refold.eventstore.codec import damaged, decode, decode_unknown
from refold.eventstore.errors import UnknownEventType
from refold.eventstore.event import Digest, Int, event_type
from refold.eventstore.log.recorded import EPOCH, MICROSECOND, decode_metadata

FORMAT = 1
"""Raise it when a file of today could be misread by yesterday's `read`."""

Position = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Text = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\A[^\x00]*\Z")]
"""What both engines can keep."""


class Line(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True, gc=False):
    """A line; its `kind` says which."""


class Log(Line, frozen=True, tag="log"):
    """The first: what follows."""

    format: int
    until: Annotated[int, msgspec.Meta(ge=0)]
    """The position up to which the log is here."""
    payloads: bool
    """Whether they are here as well, or the events hold digests of what stayed behind."""


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
    stray: bool = False
    """Whether it stands in another stream than the one that it names."""


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


def time_of(recorded_at: int) -> datetime | int:
    """Return microseconds as the time that they are, if the calendar has it."""
    try:
        return EPOCH + recorded_at * MICROSECOND
    except OverflowError:
        return recorded_at


def microseconds_of(time: datetime | int) -> int:
    """Return the microseconds that `time_of` was given."""
    return time if isinstance(time, int) else (time - EPOCH) // MICROSECOND


def refuse_unreadable(
    position: int, type_name: str, schema_version: int, data: str, metadata: str
) -> None:
    """Refuse an event that cannot be decoded; of types that are unknown here, any object can.

    Raises:
        DamagedEvent, UnknownEventType: it cannot.
    """
    try:
        decode(type_name, schema_version, data, position)
    except UnknownEventType:
        if event_type(type_name) is not None:
            raise
        decode_unknown(type_name, schema_version, data, position)
    try:
        decode_metadata(metadata)
    except msgspec.DecodeError as error:
        raise damaged(type_name, schema_version, position, error) from error

"""An event as it stands in the log."""

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from refold.eventstore import times
from refold.eventstore.codec import to_json
from refold.eventstore.errors import InvalidEvent
from refold.eventstore.event import Event, Id, Name, UnknownEvent


class ReadRow(NamedTuple):
    """What is read of such a row: all but the link of its stream's chain."""

    position: int
    stream: str
    version: int
    type: str
    schema_version: int
    data: str
    metadata: str
    recorded_at: int


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is known about how an event came to be; all of it is optional."""

    command_id: Name | None = None
    """The id of the command that led to it, if it was sent with one."""
    actor: str | None = None
    """Who acted, such as `controller`, `worker-0` or `dispatcher`."""
    correlation: str | None = None
    """What it belongs to, such as the id of a web request."""
    cause: Id | None = None
    """The position of the event that led to it."""


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An event with its place in the log."""

    position: int
    """Its place among all events: 1, 2, 3 …"""
    stream: str
    """The entity that it belongs to, such as `run-5`."""
    version: int
    """Its place within the stream: 1, 2, 3 …"""
    event: Event
    metadata: Metadata
    recorded_at: int
    """When it was appended, in microseconds since 1970-01-01 UTC."""

    @property
    def type(self) -> str:
        """The name of the event's type."""
        event = self.event
        return event.type if isinstance(event, UnknownEvent) else type(event).__name__

    @property
    def time(self) -> datetime:
        """When it was appended."""
        return times.to_datetime(self.recorded_at)


NO_METADATA = Metadata()

_decoder = msgspec.json.Decoder(Metadata)


def encode_metadata(metadata: Metadata) -> str:
    """Return metadata as the JSON text of the log.

    Raises:
        InvalidEvent: a field is of a wrong type.
    """
    try:
        return _encoded(metadata)
    except (TypeError, msgspec.ValidationError) as error:
        raise InvalidEvent(f"metadata is not valid: {error}") from error


@lru_cache(maxsize=1024)
def _encoded(metadata: Metadata) -> str:
    text = to_json(metadata)
    _decoder.decode(text)
    return text


@lru_cache(maxsize=1024)
def decode_metadata(text: str) -> Metadata:
    """Return the metadata that a JSON text of the log holds."""
    return _decoder.decode(text)

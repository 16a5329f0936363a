"""An event in the log."""

from datetime import datetime
from typing import NamedTuple

import msgspec

from refold.eventstore import times
from refold.eventstore.event import Event, Metadata, UnknownEvent


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
        return times.to_datetime(times.within(self.recorded_at))

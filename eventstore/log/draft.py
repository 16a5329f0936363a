"""A transaction that is decided from memory, to be written by one message to a server."""

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, cast

from refold.eventstore.engines.engine import (
    Change,
    NotRemembered,
    Projections,
    Seen,
    Slot,
    Values,
    Writer,
)
from refold.eventstore.engines.log_end import EventRow


class _NoWriter:
    """Nothing can be asked of the server before the decision is made."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NotRemembered


class Draft:
    """The end of the log, as a decision from memory appends to it: one event, without its place."""

    def __init__(self, projections: Projections) -> None:
        self.writer = cast(Writer, _NoWriter())
        self.fresh = False
        self.position = 0
        self.projections = projections
        self.event: EventRow | None = None
        self._sent: Values | None = None

    def lock(self, names: Iterable[str], /) -> NoReturn:
        """Refuse: what is not there yet is not in memory."""
        raise NotRemembered

    def version(self, stream: str) -> NoReturn:
        """Refuse: heads of streams are not in memory."""
        raise NotRemembered

    def allot(self, streams: Sequence[str]) -> list[Slot]:
        """Return a slot that says nothing: the server gives the place."""
        if len(streams) != 1:
            raise NotRemembered
        return [Slot(0, 0, 0)]

    def now(self) -> int:
        """Return no time: the server gives it."""
        return 0

    def sent(self, command_id: str) -> list[tuple[Any, ...]]:
        """Say that no command had this id: the server looks."""
        return []

    def remember(self, command: Values) -> None:
        """Keep a command, to be written along."""
        command_id, name, _, _, result = command
        self._sent = (command_id, name, result)

    def write(self, events: Sequence[Values]) -> None:
        """Keep the event, to be written."""
        if self.event is not None or len(events) != 1:
            raise NotRemembered
        self.event = EventRow(*events[0])

    @property
    def has_id(self) -> bool:
        """Whether the command has an id of its own."""
        return self._sent is not None

    def change(self, seen: Sequence[Seen]) -> Change:
        """Return what is to be written, decided on these rows."""
        event = self.event
        if event is None or all(row.after is None for row in seen):
            raise NotRemembered  # if no row changed, nothing would tell that it was written
        return Change(
            event.stream,
            event.type,
            event.schema_version,
            event.data,
            event.metadata,
            seen,
            self.projections,
            self._sent,
        )

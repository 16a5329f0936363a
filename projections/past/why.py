"""Why a row is as it is: the chain of causes, back to where it began."""

from collections.abc import Iterator
from typing import Any

import msgspec

from refold.eventstore.errors import NotFound
from refold.eventstore.events import (
    InteractiveControlCompleted,
    InteractiveControlFailed,
    InteractiveControlSkipped,
)
from refold.eventstore.recorded import Recorded
from refold.eventstore.store import EventStore
from refold.projections.entities import check_column, entity_of
from refold.projections.past.history import history
from refold.projections.view import Key, View
from refold.projections.views import Views

PROCESSED = (InteractiveControlCompleted, InteractiveControlFailed, InteractiveControlSkipped)


class Link(msgspec.Struct, frozen=True):
    """One event of a chain of causes."""

    recorded: Recorded
    processed: Recorded | None = None
    """If it is a request: the event that says what became of it."""

    def __str__(self) -> str:
        told = f"event {self.recorded.position}, {_told(self.recorded)}"
        if self.processed is not None:
            told += f"; processed by {_told(self.processed)}"
        return told


class Why(msgspec.Struct, frozen=True):
    """What a column of a row holds, and the events that led to it, the last first."""

    entity: str
    key: Key
    column: str
    value: Any
    links: tuple[Link, ...]
    lost: str | None = None
    """Why the chain ends, if the last event has a cause noted that can be none."""

    def __str__(self) -> str:
        first, *causes = map(str, self.links)
        lines = [f"{self.entity} {self.key}: {self.column} is {self.value!r} since {first}"]
        lines += [f"  because of {cause}" for cause in causes]
        if self.lost is not None:
            lines.append(f"  because of {self.lost}")
        elif not causes:
            lines.append("  no cause of it was noted")
        return "\n".join(lines)


def why(views: Views, view: View[Any], key: Key, column: str) -> Why:
    """Return the chain of causes of what a column of a row holds.

    Raises:
        NotFound: there is no such row, or no such column.
    """
    check_column(view, column)
    *_, last = touched = history(views, view, key)
    if last.change.after is None:
        raise NotFound(
            f"{view.name}: there is no {view.key} {key!r} any more, since event "
            f"{last.recorded.position}, {_told(last.recorded)}"
        )
    value = last.change.after[column]
    since = next(
        one
        for one in reversed(touched)
        if one.change.before is None or one.change.before[column] != value
    )
    links = tuple(_links(views.store, since.recorded))
    lost, cause = None, links[-1].recorded.metadata.cause
    if cause is not None:
        there = any(views.store.read_at([cause], unknown=True))
        lost = f"event {cause}, which {'came no earlier' if there else 'is not in the log'}"
    return Why(entity_of(view), key, column, value, links, lost)


def _links(store: EventStore, recorded: Recorded) -> Iterator[Link]:
    effect: Recorded | None = recorded
    while effect is not None:
        yield Link(effect, _processed(store, effect))
        cause = effect.metadata.cause
        # Only what came before can have led to it, whatever the caller noted.
        known = [cause] if cause is not None and cause < effect.position else []
        effect = next(store.read_at(known, unknown=True), None)


def _processed(store: EventStore, request: Recorded) -> Recorded | None:
    if not request.stream.startswith("ic-") or isinstance(request.event, PROCESSED):
        return None
    return next(store.read(request.position, stream=request.stream, types=PROCESSED, limit=1), None)


def _told(recorded: Recorded) -> str:
    """Return who did what when."""
    actor = recorded.metadata.actor
    by = f" by {actor}" if actor else ""
    return f"{recorded.type} in {recorded.stream}{by} at {recorded.time:%Y-%m-%dT%H:%M:%S.%fZ}"

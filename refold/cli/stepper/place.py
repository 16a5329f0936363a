"""One moment of the walk: the event, what it changed, and what that is about."""

from functools import cached_property
from typing import Any

import msgspec

from refold.cli.entity import Entity
from refold.eventstore.recorded import Recorded
from refold.projections.entities import entity_of
from refold.projections.ids import ids
from refold.projections.past.change import Change
from refold.projections.view import Key, View
from refold.replay import Step
from refold.rf_db import RfDb


class Place:
    """A moment of a replay, as the stepper shows it.

    Args:
        step: the moment.
        views: those of the store.
    """

    def __init__(self, step: Step[RfDb], views: tuple[View[Any], ...]) -> None:
        self._step = step
        self._views = {view.name: view for view in views}
        self.recorded = step.recorded
        self.position = step.position

    @cached_property
    def changes(self) -> list[Change]:
        """What the event changed; that ids have been given is told by what they were given to."""
        return [change for change in self._step.changes if change.view != ids.name]

    @cached_property
    def entity(self) -> Entity | None:
        """What the event is about: that of its stream, or else the first that it changed."""
        if self.recorded is None:
            return None
        for view in self._views.values():
            key = _key_in(self.recorded.stream, view)
            if key is not None:
                return Entity(entity_of(view), view, key)
        return self.entity_of(self.changes[0]) if self.changes else None

    def entity_of(self, change: Change) -> Entity:
        """Return what a change is about."""
        view = self._views[change.view]
        return Entity(entity_of(view), view, change.key)

    @cached_property
    def row(self) -> dict[str, Any] | None:
        """The entity's row after the event; None if there is none."""
        if self.entity is None:
            return None
        _, view, key = self.entity
        with self._step.state as past, past.views.reading() as connection:
            found = connection.execute(f"{view.select} WHERE {view.key} = ?", (key,))
        return dict(zip(view.columns, view.typed(found[0]), strict=True)) if found else None

    @cached_property
    def cause(self) -> Recorded | None:
        """The event that led to this one, if it was noted."""
        cause = None if self.recorded is None else self.recorded.metadata.cause
        if cause is None:
            return None
        return next(self._step.state.store.read_at([cause], unknown=True), None)

    def why(self, most: int) -> str:
        """Return why the changed rows are as they are, one column of each."""
        told: list[str] = []
        with self._step.state as past:
            for change in self.changes[:most]:
                columns = change.columns
                column = "status" if "status" in columns else next(iter(columns), None)
                if column is not None and change.after is not None:
                    told.append(str(past.why(change.view, change.key, column)))
        return "\n\n".join(told) or "the event changed nothing"


def _key_in(stream: str, view: View[Any]) -> Key | None:
    """Return the key of the row whose events stand in a stream, if the view has such rows."""
    if view.stream is None:
        return None
    begin, braces, end = view.stream.partition("{}")
    if not braces:
        return 1 if stream == begin else None
    if not stream.startswith(begin) or not stream.endswith(end):
        return None
    try:
        key = stream[len(begin) : len(stream) - len(end)]
        return msgspec.convert(key, view.key_type, strict=False)
    except msgspec.ValidationError:
        return None

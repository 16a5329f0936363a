"""Walking through a log: a place in it, and the steps from there."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec
import typer

from refold.cli.options import Entity, position
from refold.eventstore.errors import DBException
from refold.eventstore.event import UnknownEvent
from refold.eventstore.log.recorded import Recorded
from refold.projections.entities import entity_of
from refold.projections.experiments import ids
from refold.projections.past.changes import Change
from refold.projections.view import Key, View
from refold.replay import Step, replay
from refold.rf_db import RfDb


class Standpoint:
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
            # A member may have any name, such as that of another's stream.
            if key is not None and (view.stream != "{}" or self.recorded.type in view.handlers):
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
        answers: list[str] = []
        with self._step.state as past:
            for change in self.changes[:most]:
                columns = change.columns
                column = "status" if "status" in columns else next(iter(columns), None)
                if column is not None and change.after is not None:
                    answers.append(str(past.why(change.view, change.key, column)))
        return "\n\n".join(answers) or "the event changed nothing"


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


class Walk:
    """A walk through a log; a way that leads nowhere leaves a remark, and all as it was.

    Args:
        db: the store.
    """

    def __init__(self, db: RfDb) -> None:
        self.db = db
        self.remark = ""
        """What is to be said of the last way."""
        self._begin(0)
        self._look()

    def _begin(self, start: int) -> None:
        self.end = self.db.store.head()
        self._replay = replay(self.db, start_at=start)

    def _look(self) -> None:
        self.place = Standpoint(self._replay.here, self.db.views.views)

    def _go(self, way: Callable[[], str | None]) -> None:
        try:
            self.remark = way() or ""
        except DBException as error:
            self.remark = str(error)
        except typer.BadParameter as error:
            self.remark = error.message
        self._look()

    # --- ways -----------------------------------------------------------------------------

    def forward(self, count: int = 1) -> None:
        """Go this many events forward, or as far as there are any."""
        self._go(lambda: self._steps(self._replay.forward, count, "this is the last event"))

    def back(self, count: int = 1) -> None:
        """Go this many events back, or as far as there are any."""
        self._go(lambda: self._steps(self._replay.back, count, "this is the beginning"))

    def _steps(self, step: Callable[[], object], count: int, otherwise: str) -> str | None:
        for done in range(count):
            if step() is None:
                return None if done else otherwise
        return None

    def first(self) -> None:
        """Go to the first event."""
        self.go_to(0)
        self.forward()

    def last(self) -> None:
        """Go to the last event, of those that there are by now."""
        self._go(lambda: self._begin(self.db.store.head()))

    def go_to(self, position: int) -> None:
        """Go to the last event up to a position."""
        self._go(lambda: self._begin(position))

    def jump(self, moment: str) -> None:
        """Go to a moment, as people write it."""
        self._go(lambda: self._begin(position(self.db, moment)))

    def to_entity(self, *, backwards: bool = False) -> None:
        """Go to the next event, or the one before, that touches what this one is about."""
        entity = self._entity()
        if entity is None:
            self.remark = "this event is about no row"
        else:
            self._seek(lambda recorded: _touches(recorded, entity), f"of {entity}", backwards)

    def to_error(self, *, backwards: bool = False) -> None:
        """Go to the next error, or the one before."""
        self._seek(is_error, "that tells of an error", backwards)

    def _seek(self, where: Callable[[Recorded], bool], what: str, backwards: bool) -> None:
        def way() -> str | None:
            if self._replay.seek(where, backwards=backwards) is not None:
                return None
            return f"there is no event {what} {'before' if backwards else 'after'} this one"

        self._go(way)

    # --- what is here ---------------------------------------------------------------------

    def _entity(self) -> Entity | None:
        try:
            return self.place.entity
        except DBException:  # what the event changed cannot be told
            return None

    def why(self, most: int) -> str:
        """Return why the rows are as they are that the event changed."""
        try:
            return self.place.why(most)
        except DBException as error:
            return str(error)


def is_error(recorded: Recorded) -> bool:
    """Return whether an event tells that something went wrong."""
    name = recorded.type
    return name.endswith(("Failed", "ErrorRecorded")) or name == "ExperimentStatesReset"


def _touches(recorded: Recorded, entity: Entity) -> bool:
    view, event, name = entity.view, recorded.event, recorded.type
    if view.stream is not None and recorded.stream == view.stream.format(entity.key):
        return True
    if isinstance(event, UnknownEvent):
        return False
    return (name in view.clearing and view.clearing[name](event)) or (
        name in view.handlers and entity.key in view.handlers[name].touched(event)
    )

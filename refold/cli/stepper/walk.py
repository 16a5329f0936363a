"""Where somebody stands in a log, and the ways from there."""

from collections.abc import Callable

import typer

from refold.cli.entity import Entity
from refold.cli.moment import position
from refold.cli.stepper.place import Place
from refold.eventstore.errors import DBException
from refold.eventstore.events import UnknownEvent
from refold.eventstore.recorded import Recorded
from refold.replay import replay
from refold.rf_db import RfDb


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
        self.place = Place(self._replay.here, self.db.views.views)

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
        """Go so many events on, or as far as there are any."""
        self._go(lambda: self._steps(self._replay.forward, count, "this is the last event"))

    def back(self, count: int = 1) -> None:
        """Go so many events back, or as far as there are any."""
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

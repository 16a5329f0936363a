"""What the views of a store hold, and what the log makes of them."""

from collections.abc import Iterable
from typing import Any

from refold.eventstore import Recorded
from refold.face import Face
from refold.projections import ALL, UnitOfWork, View

Tables = dict[str, list[dict[str, Any]]]


def tables(db: Face) -> Tables:
    """Return all rows of all views, as they stand in the tables."""
    with db.views.reading() as connection:
        return {
            view.name: connection.select(f"SELECT * FROM {view.table} ORDER BY {view.key}")
            for view in db.views.views
        }


class Folding:
    """Folds a log in memory, event by event."""

    def __init__(self, views: Iterable[View[Any]] = ALL) -> None:
        self._unit = UnitOfWork(views)

    def fold(self, recorded: Recorded) -> None:
        """Take in one more event."""
        self._unit.fold(recorded)

    def tables(self) -> Tables:
        """Return all rows of all views, as the tables should hold them."""
        return {
            view.name: [
                dict(zip(view.columns, row, strict=True))
                for row in sorted(map(view.dump, self._unit.rows(view)))
            ]
            for view in self._unit.views
        }


def folded(events: Iterable[Recorded], views: Iterable[View[Any]] = ALL) -> Tables:
    """Return what a log makes of the views."""
    folding = Folding(views)
    for recorded in events:
        folding.fold(recorded)
    return folding.tables()

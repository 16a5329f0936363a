"""Where a view's table differs from what the log makes of it."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from refold.eventstore.engines.engine import Reader
from refold.eventstore.errors import ProjectionFailed
from refold.eventstore.log.faults import Fault
from refold.eventstore.log.reading import Fact
from refold.projections.unit_of_work import UnitOfWork
from refold.projections.view import Key, View


class Difference(msgspec.Struct, frozen=True):
    """One column of one row that is not as the log has it."""

    view: str
    key: Key
    column: str | None
    """None: the whole row is missing, or is one too many."""
    expected: Any
    """What the log makes of it; for a missing row, the row."""
    actual: Any

    def __str__(self) -> str:
        if self.column is not None:
            return (
                f"{self.view} {self.key}: {self.column} is {self.actual!r}, "
                f"the log makes it {self.expected!r}"
            )
        if self.actual is None:
            return f"{self.view} {self.key}: the row is missing"
        return f"{self.view} {self.key}: the log has no such row"


class Findings(list[Difference | Fault]):
    """What `verify` has found, which is nothing where all is right; and what it did not look at."""

    unchecked: tuple[str, ...] = ()
    """What was not looked at, each with what has it looked at."""


def differences(
    views: Iterable[View[Any]],
    pages: Iterable[Iterable[Fact]],
    connection: Reader,
    own: Iterable[View[Any]] = (),
) -> list[Difference | Fault]:
    """Fold events in memory, and return where the tables of views differ from that.

    Args:
        views: whose tables they are.
        pages: of the events.
        connection: to the tables.
        own: the views of a user's own: that one fails is a fault.
    """
    truth = UnitOfWork(views, own=own)
    for page in pages:
        for fact in page:
            truth.take_in(*fact)
    compared = (view for view in truth.views if view not in truth.failed)
    return [
        *map(behind, truth.failed.values()),
        *(found for view in compared for found in _of_view(view, truth, connection)),
    ]


def behind(failed: ProjectionFailed) -> Fault:
    """Return the fault that a view has failed and stays behind the log."""
    return Fault(f"view {failed.view}", str(failed))


def _of_view(view: View[Any], truth: UnitOfWork, connection: Reader) -> Iterator[Difference]:
    expected = {getattr(row, view.key): view.dump(row) for row in truth.rows(view)}
    for actual in connection.execute(f"{view.select} ORDER BY {view.key}"):
        key = actual[0]
        wanted = expected.pop(key, None)
        if wanted is None:
            yield Difference(view.name, key, None, None, actual)
        elif wanted != actual:
            for column, should, does in zip(view.columns, wanted, actual, strict=True):
                if should != does:
                    yield Difference(view.name, key, column, should, does)
    for key, wanted in expected.items():
        yield Difference(view.name, key, None, wanted, None)

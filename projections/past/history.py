"""The events that touched one row, and what each of them changed."""

from collections.abc import Iterator
from heapq import merge
from operator import attrgetter
from typing import Any

import msgspec

from eventstore.errors import NotFound
from eventstore.recorded import Recorded
from projections.past.change import Change, change
from projections.past.recorder import columns_of
from projections.unit_of_work import UnitOfWork
from projections.view import Key, View, types_of
from projections.views import Views

Values = tuple[Any, ...]


class Touched(msgspec.Struct, frozen=True):
    """An event, and what it changed in a row."""

    recorded: Recorded
    change: Change

    def __str__(self) -> str:
        by = self.recorded.metadata.actor
        return (
            f"{self.recorded.position}  {self.recorded.time:%Y-%m-%d %H:%M:%S.%f}  "
            f"{self.recorded.type}{f' by {by}' if by else ''}: {self.change}"
        )


def history(views: Views, view: View[Any], key: Key) -> list[Touched]:
    """Return the events that touched a row, in order, each with what it changed.

    Raises:
        NotFound: no event ever did.
    """
    end = views.store.head()
    touched: list[Touched] | None = None
    if not views.versions.has(end):
        touched = _from_streams(views, view, key, end)
    if touched is None:
        touched = list(_from_versions(views, view, key, end))
    if not touched:
        raise NotFound(f"{view.name}: no event up to {end} touches {view.key} {key!r}")
    return touched


def _from_versions(views: Views, view: View[Any], key: Key, end: int) -> Iterator[Touched]:
    with views.versions.reading(end) as connection:
        versions = connection.execute(
            f"SELECT {columns_of(view)}, position, until FROM {view.table} "
            f"WHERE {view.key} = ? AND position <= ? ORDER BY position",
            (key, end),
        )
    changes: dict[int, tuple[Values | None, Values | None]] = {}
    for *values, begun, ended in versions:
        before, _ = changes.get(begun, (None, None))
        changes[begun] = (before, tuple(values))
        if ended <= end:
            changes[ended] = (tuple(values), None)
    for recorded in views.store.read_at(changes):
        yield Touched(recorded, change(view, key, *changes[recorded.position]))


def _from_streams(views: Views, view: View[Any], key: Key, end: int) -> list[Touched] | None:
    """Fold the row alone, from the streams that it should stand in; None if that is not all."""
    if view.stream is None:
        return None
    unit = UnitOfWork((view,))
    touched: list[Touched] = []
    before: Values | None = None
    streams = (view.stream.format(key), "store")
    for recorded in merge(
        *(
            views.store.read(stream=stream, types=types_of((view,)), until=end)
            for stream in streams
        ),
        key=attrgetter("position"),
    ):
        unit.fold(recorded)
        row = unit.get(view, key)
        after = None if row is None else view.dump(row)
        if after != before:
            touched.append(Touched(recorded, change(view, key, before, after)))
            before = after
    with views.reading() as connection:
        found = connection.execute(f"{view.select} WHERE {view.key} = ?", (key,))
    return touched if (found[0] if found else None) == before else None

"""The events that touched one row, and what each of them changed."""

from collections.abc import Iterable, Iterator
from heapq import merge
from operator import attrgetter
from typing import Any

import msgspec

from refold.eventstore.engine import Values
from refold.eventstore.errors import NotFound
from refold.eventstore.recorded import Recorded
from refold.projections.entities import check_key
from refold.projections.past.change import Change, change
from refold.projections.past.layout import UNTIL, columns_of
from refold.projections.unit_of_work import UnitOfWork
from refold.projections.view import Key, View, types_of
from refold.projections.views import Views


class Touched(msgspec.Struct, frozen=True):
    """An event, and what it changed in a row."""

    recorded: Recorded
    change: Change

    def __str__(self) -> str:
        by = self.recorded.metadata.actor
        return (
            f"{self.recorded.position}  {self.recorded.time:%Y-%m-%dT%H:%M:%S.%fZ}  "
            f"{self.recorded.type}{f' by {by}' if by else ''}: {self.change}"
        )


def history(views: Views, view: View[Any], key: Key) -> list[Touched]:
    """Return the events that touched a row, in order, each with what it changed.

    Raises:
        NotFound: no event ever did.
        InvalidCommand: the key is of a wrong type.
    """
    check_key(view, key)
    end = views.store.head()
    if views.versions.has(view, end):
        touched = list(_from_versions(views, view, key, end))
    elif view.stream is not None:
        streams = (view.stream.format(key), "store")
        events = [
            views.store.read(stream=stream, types=types_of((view,)), until=end)
            for stream in streams
        ]
        strays = views.store.read_at(views.store.strays(), types=types_of((view,)))
        merged = merge(*events, strays, key=attrgetter("position"))
        touched = list(_folded(view, key, merged, end))
    elif views.store.current() is not None:  # the versions know only what is committed
        events = views.store.read(types=types_of((view,)), until=end)
        touched = list(_folded(view, key, events, end))
    else:
        touched = list(_from_versions(views, view, key, end))
    if not touched:
        raise NotFound(f"{view.name}: no event up to {end} touches {view.key} {key!r}")
    return touched


def _from_versions(views: Views, view: View[Any], key: Key, end: int) -> Iterator[Touched]:
    with views.versions.reading((view,), end) as connection:
        versions = connection.execute(
            f"SELECT {columns_of(view)}, position, {UNTIL} FROM {view.table} "
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


def _folded(view: View[Any], key: Key, events: Iterable[Recorded], end: int) -> Iterator[Touched]:
    unit = UnitOfWork((view,))
    before: Values | None = None
    position = 0
    for recorded in events:
        if not position < recorded.position <= end:  # a stray may have been met before
            continue
        position = recorded.position
        unit.fold(recorded)
        row = unit.get(view, key)
        after = None if row is None else view.dump(row)
        if after != before:
            yield Touched(recorded, change(view, key, before, after))
            before = after

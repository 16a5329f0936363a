"""The events that touched one row, what each of them changed, and why."""

from collections.abc import Iterable, Iterator
from heapq import merge
from operator import attrgetter
from typing import Any

import msgspec

from refold.eventstore import times
from refold.eventstore.arguments import excerpt
from refold.eventstore.engines.engine import Values
from refold.eventstore.errors import NotFound
from refold.eventstore.events import (
    InteractiveControlCompleted,
    InteractiveControlFailed,
    InteractiveControlSkipped,
)
from refold.eventstore.log.readable import ReadableLog
from refold.eventstore.log.recorded import Recorded
from refold.projections.entities import check_column, entity_of, key_of
from refold.projections.past.changes import Change, Told, change
from refold.projections.past.version_writer import UNTIL, columns_of
from refold.projections.past.versions import Versions
from refold.projections.unit_of_work import UnitOfWork
from refold.projections.view import Key, View, types_of


class Touched(Told, frozen=True):
    """An event, and what it changed in a row."""

    recorded: Recorded
    change: Change

    def __str__(self) -> str:
        by = self.recorded.metadata.actor
        return (
            f"{self.recorded.position}  {times.to_iso(times.within(self.recorded.recorded_at))}  "
            f"{self.recorded.type}{f' by {by}' if by else ''}: {self.change}"
        )


def history(store: ReadableLog, versions: Versions, view: View[Any], key: Key) -> list[Touched]:
    """Return the events that touched a row, in order, each with what it changed.

    Args:
        store: the log, now or as of a moment.
        versions: of the store's rows, in which the history of some views is looked up.
        view: the view of the row.
        key: the row's.

    Raises:
        NotFound: no event ever did.
        InvalidCommand: the key is of a wrong type.
    """
    key = key_of(view, key)
    end = store.head()
    if versions.has(view, end):
        touched = list(_from_versions(store, versions, view, key, end))
    elif view.stream is not None:
        streams = (view.stream.format(key), "store")
        events = [
            store.read(stream=stream, types=types_of((view,)), until=end) for stream in streams
        ]
        strays = store.read_at(store.strays(), types=types_of((view,)))
        merged = merge(*events, strays, key=attrgetter("position"))
        touched = list(_folded(view, key, merged, end))
    elif store.current() is not None:  # the versions know only what is committed
        events = store.read(types=types_of((view,)), until=end)
        touched = list(_folded(view, key, events, end))
    else:
        touched = list(_from_versions(store, versions, view, key, end))
    if not touched:
        raise NotFound(f"{view.name}: no event up to {end} touches {view.key} {excerpt(key)}")
    return touched


def _from_versions(
    store: ReadableLog, versions: Versions, view: View[Any], key: Key, end: int
) -> Iterator[Touched]:
    with versions.reading((view,), end) as connection:
        found = connection.execute(
            f"SELECT {columns_of(view)}, position, {UNTIL} FROM {view.table} "
            f"WHERE {view.key} = ? AND position <= ? ORDER BY position",
            (key, end),
        )
    changes: dict[int, tuple[Values | None, Values | None]] = {}
    for *values, begun, ended in found:
        before, _ = changes.get(begun, (None, None))
        changes[begun] = (before, tuple(values))
        if ended <= end:
            changes[ended] = (tuple(values), None)
    for recorded in store.read_at(changes):
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


PROCESSED = (InteractiveControlCompleted, InteractiveControlFailed, InteractiveControlSkipped)


class Link(msgspec.Struct, frozen=True):
    """One event of a chain of causes."""

    recorded: Recorded
    processed: Recorded | None = None
    """If it is a request: the event that says what became of it."""

    def __str__(self) -> str:
        text = f"event {self.recorded.position}, {_summary(self.recorded)}"
        if self.processed is not None:
            text += f"; processed by {_summary(self.processed)}"
        return text


class Why(Told, frozen=True):
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


def why(store: ReadableLog, versions: Versions, view: View[Any], key: Key, column: str) -> Why:
    """Return the chain of causes of what a column of a row holds.

    Raises:
        NotFound: there is no such row, or no such column.
    """
    check_column(view, column)
    *_, last = touched = history(store, versions, view, key)
    if last.change.after is None:
        raise NotFound(
            f"{view.name}: there is no {view.key} {key!r} any more, since event "
            f"{last.recorded.position}, {_summary(last.recorded)}"
        )
    value = last.change.after[column]
    since = next(
        one
        for one in reversed(touched)
        if one.change.before is None or one.change.before[column] != value
    )
    links = tuple(_links(store, since.recorded))
    lost, cause = None, links[-1].recorded.metadata.cause
    if cause is not None:
        there = any(store.read_at([cause], unknown=True))
        lost = f"event {cause}, which {'came no earlier' if there else 'is not in the log'}"
    return Why(entity_of(view), key, column, value, links, lost)


def _links(store: ReadableLog, recorded: Recorded) -> Iterator[Link]:
    effect: Recorded | None = recorded
    while effect is not None:
        yield Link(effect, _processed(store, effect))
        cause = effect.metadata.cause
        # Only what came before can have led to it, whatever the caller noted.
        known = [cause] if cause is not None and cause < effect.position else []
        effect = next(store.read_at(known, unknown=True), None)


def _processed(store: ReadableLog, request: Recorded) -> Recorded | None:
    if not request.stream.startswith("ic-") or isinstance(request.event, PROCESSED):
        return None
    return next(store.read(request.position, stream=request.stream, types=PROCESSED, limit=1), None)


def _summary(recorded: Recorded) -> str:
    """Return who did what when."""
    actor = recorded.metadata.actor
    by = f" by {actor}" if actor else ""
    at = times.to_iso(times.within(recorded.recorded_at))
    return f"{recorded.type} in {recorded.stream}{by} at {at}"

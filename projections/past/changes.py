"""What became of rows: between two moments, and by one event."""

from collections.abc import Collection, Iterable, Iterator
from html import escape
from typing import Any, Literal

import msgspec

from refold.eventstore.engines.engine import Reader, Values
from refold.eventstore.log.recorded import Recorded
from refold.projections.past.version_writer import UNTIL, columns_of
from refold.projections.past.versions import Versions
from refold.projections.view import Key, Row, View

BOOKKEEPING = frozenset(Row.__struct_fields__)
"""Columns that say when a row changed, not what changed in it."""


class Told(msgspec.Struct, frozen=True):
    """What notebooks show as its text."""

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


class Change(Told, frozen=True):
    """A row before and after. The columns are those of the view's table."""

    view: str
    key: Key
    before: dict[str, Any] | None
    """None: there was no such row."""
    after: dict[str, Any] | None
    """None: there is none any more."""

    @property
    def kind(self) -> Literal["added", "changed", "removed"]:
        """What became of the row."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    @property
    def columns(self) -> dict[str, tuple[Any, Any]]:
        """The columns that differ, each before and after; those that keep the books left out."""
        before, after = self.before or {}, self.after or {}
        return {
            name: (before.get(name), after.get(name))
            for name in (after or before)
            if name not in BOOKKEEPING and before.get(name) != after.get(name)
        }

    def __str__(self) -> str:
        pairs = ", ".join(
            f"{name} {before!r} -> {after!r}" if self.before and self.after else f"{name} {value!r}"
            for name, (before, after) in self.columns.items()
            for value in (before if after is None else after,)
        )
        return f"{self.view} {self.key} {self.kind}: {pairs or 'only when it was changed last'}"


def change(view: View[Any], key: Key, before: Values | None, after: Values | None) -> Change:
    """Return the change between two rows, given as the values of their columns."""
    return Change(view.name, key, _named(view, before), _named(view, after))


def _named(view: View[Any], values: Values | None) -> dict[str, Any] | None:
    return None if values is None else dict(zip(view.columns, view.typed(values), strict=True))


def diff(
    versions: Versions, a: int, b: int, wanted: Collection[View[Any]] | None = None
) -> list[Change]:
    """Return what became of the rows from position `a` to `b`, by view and key.

    If `b` lies before `a`, it is what would undo the events in between. Only the views that are
    wanted are looked at, and folded for it; None: all.
    """
    first, last = sorted((a, b))
    found: list[Change] = []
    views = [view for view in versions.views if wanted is None or view in wanted]
    with versions.reading(views, last) as connection:
        for view in views:
            # A row that differs has a version at one end that is not there at the other.
            ended = f"position <= {first} AND {UNTIL} > {first} AND {UNTIL} <= {last}"
            begun = f"position > {first} AND position <= {last} AND {UNTIL} > {last}"
            befores, afters = (_rows(connection, view, where) for where in (ended, begun))
            if a > b:
                befores, afters = afters, befores
            found += _changes(view, befores, afters)
    return found


def changes_by(versions: Versions, recorded: Recorded) -> list[Change]:
    """Return what an event changed in the rows, by view and key."""
    position, event, name = recorded.position, recorded.event, recorded.type
    views = [view for view in versions.views if name in view.handlers or name in view.clearing]
    found: list[Change] = []
    with versions.reading(views, position) as connection:
        for view in views:
            keys = view.handlers[name].touched(event) if name in view.handlers else ()
            if view.is_cleared_by(event):
                keys = None  # all rows
            ended = f"{UNTIL} = {position}"
            if keys is not None:  # a row may have as many versions as the log has events
                ended += f" AND position = ({_last_before(view, position)})"
            befores = _rows(connection, view, ended, keys)
            afters = _rows(connection, view, f"position = {position}", keys)
            found += _changes(view, befores, afters)
    return found


def _last_before(view: View[Any], position: int) -> str:
    same = f"same.{view.key} = {view.table}.{view.key}"
    return f"SELECT max(position) FROM {view.table} same WHERE {same} AND position < {position}"


def _rows(
    connection: Reader, view: View[Any], where: str, keys: Iterable[Key] | None = None
) -> dict[Key, Values]:
    sql = f"SELECT {columns_of(view)} FROM {view.table} WHERE {where}"
    if keys is None:
        return {values[0]: values for values in connection.execute(sql)}
    return {
        values[0]: values
        for key in keys
        for values in connection.execute(f"{sql} AND {view.key} = ?", (key,))
    }


def _changes(
    view: View[Any], befores: dict[Key, Values], afters: dict[Key, Values]
) -> Iterator[Change]:
    for key in sorted(befores.keys() | afters.keys()):
        yield change(view, key, befores.get(key), afters.get(key))

"""Which rows differ between two moments, and which ones an event has changed."""

from collections.abc import Iterable, Iterator
from typing import Any

from refold.eventstore.engine import Connection, Values
from refold.eventstore.recorded import Recorded
from refold.projections.past.change import Change, change
from refold.projections.past.layout import UNTIL, columns_of
from refold.projections.past.versions import Versions
from refold.projections.view import Key, View


def diff(versions: Versions, a: int, b: int) -> list[Change]:
    """Return what became of the rows from position `a` to `b`, by view and key.

    If `b` lies before `a`, it is what would undo the events in between.
    """
    first, last = sorted((a, b))
    found: list[Change] = []
    with versions.reading(versions.views, last) as connection:
        for view in versions.views:
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
            if name in view.clearing and view.clearing[name](event):
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
    connection: Connection, view: View[Any], where: str, keys: Iterable[Key] | None = None
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

"""`refold show`: everything about one entity."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import typer

from refold.as_json import event_as_json, select
from refold.cli.events import event_line
from refold.cli.open_face import open_face
from refold.cli.options import (
    DEFAULT_STORE,
    AllowDill,
    At,
    Entity,
    Imports,
    Json,
    Store,
    Words,
    entity,
)
from refold.cli.output import colour_of, paint, parsed, print_json, printable, shown
from refold.eventstore.errors import NotFound
from refold.eventstore.log.recorded import Recorded
from refold.projections import View
from refold.projections.entities import ENTITIES
from refold.rf_db import RfDb
from refold.rows import Row

NAMED = {("run", "requests"), ("run", "clones"), ("context", "pipelines")}
"""What belongs to an entity and is named one by one; all else is counted by status."""


def show(
    words: Words,
    allow_dill: AllowDill = False,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Show everything about an entity, or about an event.

    Examples:
        refold show run 5
        refold show run 5 --at 120
        refold show event 68
        refold show controller --json
    """
    with open_face(store, at=at, imports=imports, allow_dill=allow_dill) as db:
        if words[0] == "event":
            _show_event(_event(db, words[1:]), json)
            return
        found, rest = entity(words, db.views.views, db)
        if rest:
            raise typer.BadParameter(f"one entity at a time, not also {' '.join(rest)}")
        row = _row(db, found)
        belonging = _belonging(db, found)
        [last] = db.store.read_at([row["position"]], unknown=True)
    if json:
        print_json({**row, **belonging, "last_event": event_as_json(last)})
        return
    fields = {name: value for name, value in row.items() if value not in (None, {})}
    fields |= {name: value for name, value in belonging.items() if value}
    del fields["position"]
    _print_fields(str(found), {**fields, "last event": last})


def _event(db: RfDb, words: list[str]) -> Recorded:
    if len(words) != 1 or not words[0].isdecimal():
        raise typer.BadParameter("give an event's position, such as event 120")
    found = next(db.store.read_at([int(words[0])], unknown=True), None)
    if found is None:
        raise NotFound(f"there is no event {words[0]}: the last one is {db.store.head()}")
    return found


def _show_event(event: Recorded, json: bool) -> None:
    fields = event_as_json(event)
    if json:
        print_json(fields)
    else:
        _print_fields(f"event {fields.pop('position')}", fields)


def _row(db: RfDb, found: Entity) -> Row:
    view = found.view
    rows = select(db, view, {view.key: found.key}, config=True)
    if not rows:
        raise NotFound(
            f"there is no {found} in {view.name}; refold history {found} tells whether there was"
        )
    return rows[0]


def _belonging(db: RfDb, found: Entity) -> dict[str, dict[str, int] | list[int]]:
    """Return what belongs to an entity: how many by status, or which."""
    belonging: dict[str, dict[str, int] | list[int]] = {}
    for name, view, column in _views_of(found):
        where = f"FROM {view.table} WHERE {column} = ?"
        if (found.word, name) in NAMED:
            sql = f"SELECT {view.key} AS id {where} ORDER BY {view.key}"
            belonging[name] = [row["id"] for row in db.views.select(sql, found.key)]
        else:
            sql = f"SELECT status, count(*) AS n {where} GROUP BY status ORDER BY min(position)"
            rows = db.views.select(sql, found.key)
            belonging[name] = {row["status"]: row["n"] for row in rows}
    return belonging


def _views_of(found: Entity) -> Iterator[tuple[str, View[Any], str]]:
    """Iterate over the views whose rows name an entity by its key, each with the column."""
    key = found.view.key
    for word, view in ENTITIES.items():
        if view is not found.view and key in view.columns and ENTITIES.get(found.word):
            yield f"{word}s", view, key
        if view is found.view and f"parent_{key}" in view.columns:
            yield "clones", view, f"parent_{key}"


def _print_fields(title: str, fields: Mapping[str, Any]) -> None:
    print(paint(title, bold=True))
    width = max(map(len, fields))
    for name, value in fields.items():
        label = paint(f"  {printable(name):<{width}}  ", dim=True)
        for line in _lines(value):
            print(f"{label}{line}".rstrip())
            label = " " * (width + 4)


def _lines(value: Any) -> list[str]:
    if isinstance(value, Recorded):  # which comes in colours of its own
        return [event_line(value).strip()]
    value = parsed(value)
    if isinstance(value, Mapping) and value:
        fields = cast("Mapping[Any, Any]", value)
        width = max(len(str(key)) for key in fields)
        return [f"{printable(str(key)):<{width}}  {_cell(one)}" for key, one in fields.items()]
    return _cell(value).split("\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    text = shown(value)
    return paint(text, colour_of(text))

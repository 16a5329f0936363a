"""`refold show`: everything about one entity."""

from collections.abc import Mapping
from typing import Any, cast

import typer

from refold.cli.events import event_as_json, event_line
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
from refold.cli.output import COLOURS, paint, parsed, print_json, printable, shown
from refold.cli.rows import Row, select
from refold.eventstore.errors import NotFound
from refold.eventstore.log.recorded import Recorded
from refold.rf_db import RfDb

# What belongs to an entity: the heading, the view, the column that leads back, and the column by
# which it is counted; None: the rows are named by their ids.
BELONGING: dict[str, list[tuple[str, str, str, str | None]]] = {
    "experiment": [
        ("runs", "runs_folded", "experiment_id", "status"),
        ("pipelines", "pipelines", "experiment_id", "status"),
        ("actor_tasks", "actor_tasks", "experiment_id", "status"),
    ],
    "run": [
        ("tasks", "worker_task", "run_id", "status"),
        ("requests", "interactive_control_folded", "run_id", None),
        ("clones", "runs_folded", "parent_run_id", None),
    ],
    "worker": [("tasks", "worker_task", "worker_id", "status")],
    "context": [("pipelines", "pipelines", "context_id", None)],
    "pipeline": [("actor_tasks", "actor_tasks", "pipeline_id", "status")],
}
IDS = {"requests": "ic_id", "clones": "run_id", "pipelines": "pipeline_id"}


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
        found, rest = entity(words, db.views.views)
        if rest:
            raise typer.BadParameter(f"one entity at a time, not also {' '.join(rest)}")
        row = _row(db, found)
        belonging = dict(_belonging(db, found))
        [last] = db.store.read_at([row["position"]], unknown=True)
    if json:
        print_json({**row, **belonging, "last_event": event_as_json(last)})
        return
    fields = {name: value for name, value in row.items() if value not in (None, {})}
    fields |= {name: value for name, value in belonging.items() if value}
    del fields["position"]
    _print_fields(str(found), {**fields, "last event": event_line(last).strip()})


def _event(db: RfDb, words: list[str]) -> Recorded:
    if len(words) != 1 or not words[0].isdecimal():
        raise typer.BadParameter("give an event's position, such as event 120")
    found = next(db.store.read_at([int(words[0])], unknown=True), None)
    if found is None:
        raise NotFound(f"there is no event {words[0]}: the last one is {db.store.head()}")
    return found


def _show_event(event: Recorded, json: bool) -> None:
    told = event_as_json(event)
    if json:
        print_json(told)
    else:
        _print_fields(f"event {told.pop('position')}", told)


def _row(db: RfDb, found: Entity) -> Row:
    view = found.view
    table = view.name if view.name in view.objects else view.table
    rows = select(db, table, view.key, {view.key: found.key})
    if not rows:
        raise NotFound(
            f"there is no {found} in {view.name}; refold history {found} tells whether there was"
        )
    return rows[0]


def _belonging(db: RfDb, found: Entity) -> list[tuple[str, dict[str, int] | list[int]]]:
    """Return what belongs to an entity: how many by status, or which."""
    told: list[tuple[str, dict[str, int] | list[int]]] = []
    for name, table, column, by in BELONGING.get(found.word, []):
        where = f"FROM {table} WHERE {column} = ?"
        if by is None:
            sql = f"SELECT {IDS[name]} AS id {where} ORDER BY {IDS[name]}"
            told.append((name, [row["id"] for row in db.db.execute(sql, (found.key,))]))
        else:
            sql = f"SELECT {by} AS word, count(*) AS n {where} GROUP BY {by} ORDER BY min(position)"
            counts = db.db.execute(sql, (found.key,))
            told.append((name, {row["word"]: row["n"] for row in counts}))
    return told


def _print_fields(title: str, fields: Mapping[str, Any]) -> None:
    print(paint(title, bold=True))
    width = max(map(len, fields))
    for name, value in fields.items():
        label = paint(f"  {printable(name):<{width}}  ", dim=True)
        for line in _lines(value):
            print(f"{label}{line}".rstrip())
            label = " " * (width + 4)


def _lines(value: Any) -> list[str]:
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
    return paint(text, COLOURS.get(text.lower()))

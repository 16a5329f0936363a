"""`refold history`, `refold why`, `refold diff`: a row through time, all rows between moments."""

from typing import Annotated

import typer

from refold.as_json import change_as_json, event_as_json, why_as_json
from refold.cli.events import change_line, columns_in_words, event_line
from refold.cli.open_face import open_face
from refold.cli.options import (
    DEFAULT_STORE,
    At,
    Imports,
    Json,
    Store,
    Words,
    entity_and_column,
    position,
)
from refold.cli.output import note, print_json, printable
from refold.projections.entities import check_column
from refold.projections.experiments import ids


def history(
    words: Words,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Show the events that touched an entity, each with what it changed; also of one column.

    Examples:
        refold history run 5
        refold history run 5 status
        refold history controller --at 2026-01-31T12:00Z
    """
    with open_face(store, at=at, imports=imports) as db:
        found, column = entity_and_column(words, db)
        if column is not None:
            check_column(found.view, column)
        touched = [
            one
            for one in db.history(found.view.name, found.key)
            if column is None or column in one.change.columns
        ]
    if json:
        print_json(
            [
                {**event_as_json(one.recorded), "change": change_as_json(one.change)}
                for one in touched
            ]
        )
        return
    for one in touched:
        print(event_line(one.recorded, columns_in_words(one.change)))


def why(
    words: Words,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Tell why a column of an entity holds what it does, by the causes that were noted.

    Without a column, it is the status.

    Examples:
        refold why run 5
        refold why run 5 ended_by
        refold why request 3 --at 120
    """
    with open_face(store, at=at, imports=imports) as db:
        found, column = entity_and_column(words, db)
        reason = db.why(found.view.name, found.key, column or "status")
    if not json:
        print(printable(str(reason)))
        return
    print_json(why_as_json(reason))


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A position or a time: 120, 5m, now.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Likewise; now, if left out.")] = "now",
    entity: Annotated[
        list[str] | None,
        typer.Option("--entity", metavar="ENTITY", help="Only runs (run), tasks (task) …"),
    ] = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Show which rows were added (+), changed (~) or removed (-) from one moment to another.

    With B before A, it is what would undo that.

    Examples:
        refold diff 100 120
        refold diff 5m --entity run
        refold diff 2026-01-31T12:00Z 2026-01-31T13:00Z --json
    """
    with open_face(store, imports=imports) as db:
        views = {view.name: view for view in db.views.views}
        # Nobody asks about ids: that they have been given is told by what they were given to.
        words = entity or views.keys() - {ids.name}
        first, last = position(db, a), position(db, b)
        changes = [
            change
            for change in db.diff(first, last, entities=words)
            if change.columns or change.kind != "changed"
        ]
    if json:
        print_json([change_as_json(change) for change in changes])
        return
    if not changes:
        note(f"nothing differs between positions {first} and {last}")
    for change in changes:
        print(change_line(change, views[change.view]))

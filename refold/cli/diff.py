"""`refold diff`: what became of the rows between two moments."""

from typing import Annotated

import typer

from refold.cli.changes import change_as_json, change_line
from refold.cli.moment import position
from refold.cli.open_face import open_face
from refold.cli.options import DEFAULT_STORE, Imports, Json, Store
from refold.cli.output import note, print_json
from refold.projections.entities import view_of
from refold.projections.ids import ids


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
        chosen = {view_of(word, db.views.views).name for word in words}
        first, last = position(db, a), position(db, b)
        changes = [
            change
            for change in db.diff(first, last)
            if change.view in chosen and (change.columns or change.kind != "changed")
        ]
    if json:
        print_json([change_as_json(change) for change in changes])
        return
    if not changes:
        note(f"nothing differs between positions {first} and {last}")
    for change in changes:
        print(change_line(change, views[change.view]))

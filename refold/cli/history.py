"""`refold history`: the events that touched one row."""

from refold.cli.changes import change_as_json, columns_in_words
from refold.cli.entity import Words, entity_and_column
from refold.cli.events import event_as_json, event_line
from refold.cli.open_face import open_face
from refold.cli.options import DEFAULT_STORE, At, Imports, Json, Store
from refold.cli.output import print_json
from refold.projections.entities import check_column


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
        found, column = entity_and_column(words, db.views.views)
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

"""`refold why`: the chain of causes of what a column holds."""

from refold.cli.entity import Words, entity_and_column
from refold.cli.events import event_as_json
from refold.cli.open_face import open_face
from refold.cli.options import DEFAULT_STORE, At, Imports, Json, Store
from refold.cli.output import plain, print_json, printable


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
        found, column = entity_and_column(words, db.views.views)
        reason = db.why(found.view.name, found.key, column or "status")
    if not json:
        print(printable(str(reason)))
        return
    print_json(
        {
            "entity": reason.entity,
            "key": reason.key,
            "column": reason.column,
            "value": plain(reason.value),
            "links": [
                {
                    "event": event_as_json(link.recorded),
                    "processed": None if link.processed is None else event_as_json(link.processed),
                }
                for link in reason.links
            ],
        }
    )

"""How far the views of a store are behind its log."""

from refold.eventstore import EventStore
from refold.eventstore.heads import projections_of


def lag(store: EventStore) -> dict[str, int]:
    """Return the views that some process has left behind the log, and by how many positions.

    Whoever reads them next catches them up: so ask before a face is opened.
    """
    head = store.head()
    with store.reading() as connection:
        known = projections_of(connection)
    return {
        name: head - position
        for name, (_, position) in known.items()
        if position is not None and position < head
    }

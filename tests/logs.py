"""The log of a store, as its tables hold it."""

from typing import Any

from refold.eventstore import open_store
from refold.eventstore.engines.log_end import EventRow

Rows = list[tuple[Any, ...]]

LOG = {
    "events": "SELECT position, stream, version, previous, type, schema_version, data, metadata, "
    "recorded_at FROM events ORDER BY position",
    # A server keeps a line for a stream that somebody only looked at.
    "streams": "SELECT stream, version, position FROM streams WHERE version > 0 ORDER BY stream",
    "payloads": "SELECT digest, content FROM payloads ORDER BY digest",
    "commands": "SELECT command_id, command, first, last, result FROM commands ORDER BY command_id",
    "strays": "SELECT position FROM strays ORDER BY position",
}


def log(place: str) -> dict[str, Any]:
    """Return the whole log, table by table."""
    with open_store(place) as store, store.reading() as connection:
        tables = {name: connection.execute(query) for name, query in LOG.items()}
    return {**tables, "events": [EventRow(*row) for row in tables["events"]]}


def heads(events: Rows) -> Rows:
    """Return what the table `streams` should hold."""
    return sorted({stream: (stream, n, position) for position, stream, n, *_ in events}.values())

"""The log of a store, as its tables hold it."""

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from refold.eventstore import Transaction, open_store
from refold.eventstore.engines.log_end import EventRow, digest_of_row

Rows = list[tuple[Any, ...]]

LOG = {
    "events": "SELECT position, stream, version, previous, type, schema_version, data, metadata, "
    "recorded_at, digest FROM events ORDER BY position",
    # A server keeps a line for a stream that somebody only looked at.
    "streams": "SELECT stream, version, position, digest FROM streams WHERE version > 0 "
    "ORDER BY stream",
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
    found = {stream: (stream, n, at, digest) for at, stream, n, *_, digest in events}
    return sorted(found.values())


def append_rows(
    transaction: Transaction, rows: Iterable[EventRow], strays: Sequence[int] = ()
) -> None:
    """Append rows of the table `events` as they are; those that have no digest get theirs."""
    digests = dict(transaction.writer.execute("SELECT stream, digest FROM streams"))
    chained: list[EventRow] = []
    for row in rows:
        digest = row.digest
        if digest is None:
            try:
                digest = digest_of_row(row, digests.get(row.stream), None)
            except struct.error:  # it is a row that nobody could have appended
                digest = bytes(16)
        digests[row.stream] = digest
        chained.append(row._replace(digest=digest))
    transaction.append_rows(chained, strays)

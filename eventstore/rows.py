"""The tables of the log row by row, as they stand: nothing is decoded, whatever a row holds."""

from collections.abc import Iterator
from typing import Any

from eventstore.parcels import KEYS
from eventstore.past import PastStore
from eventstore.reader import PAGE, READ_COLUMNS
from eventstore.store import EventStore

Rows = list[tuple[Any, ...]]

EVENT_PAGE = f"""
    SELECT {", ".join(READ_COLUMNS)} FROM events WHERE position > ? AND position <= ?
    ORDER BY position LIMIT {PAGE}"""

# Of a command that appended nothing it is not known when it was sent.
COMMAND_PAGE = f"""
    SELECT command_id, command, first, last, result FROM commands
    WHERE command_id > ? AND coalesce(last, ?) <= ? ORDER BY command_id LIMIT {KEYS}"""

DIGEST_PAGE = f"SELECT digest FROM payloads WHERE digest > ? ORDER BY digest LIMIT {KEYS}"


def event_rows(store: EventStore, until: int) -> Iterator[Rows]:
    """Iterate over the events up to a position, page by page."""
    after = 0
    while page := _select(store, EVENT_PAGE, after, until):
        yield page
        after = page[-1][0]


def command_rows(store: EventStore, until: int) -> Iterator[Rows]:
    """Iterate over the commands whose events stand up to a position, page by page.

    Those that appended nothing come along with the whole log only.
    """
    past = isinstance(store, PastStore) and store.present.head() > until
    unknown = until + 1 if past else 0
    after = ""
    while page := _select(store, COMMAND_PAGE, after, unknown, until):
        yield page
        after = page[-1][0]


def payload_rows(store: EventStore) -> Iterator[tuple[str, bytes]]:
    """Iterate over all payloads, by digest."""
    after = ""
    while page := _select(store, DIGEST_PAGE, after):
        yield from store.get_payloads(digest for (digest,) in page)
        after = page[-1][0]


def _select(store: EventStore, sql: str, *parameters: Any) -> Rows:
    with store.reading() as connection:
        return connection.execute(sql, parameters)

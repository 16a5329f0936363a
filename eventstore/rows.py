"""The tables of the log row by row, as they stand: nothing is decoded, whatever a row holds."""

from collections.abc import Iterator
from typing import Any

from refold.eventstore.pages import Page, pages
from refold.eventstore.past import PastStore
from refold.eventstore.reader import READ_COLUMNS
from refold.eventstore.sql import KEYS
from refold.eventstore.store import EventStore

# Of a command that appended nothing it is not known when it was sent.
COMMAND_PAGE = f"""
    SELECT command_id, command, first, last, result FROM commands
    WHERE command_id > ? AND coalesce(last, ?) <= ? ORDER BY command_id LIMIT {KEYS}"""

DIGEST_PAGE = f"SELECT digest FROM payloads WHERE digest > ? ORDER BY digest LIMIT {KEYS}"


def event_rows(store: EventStore, until: int) -> Iterator[Page]:
    """Iterate over the events up to a position, page by page."""
    return pages(store.reading, READ_COLUMNS, 0, until)


def command_rows(store: EventStore, until: int) -> Iterator[Page]:
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


def _select(store: EventStore, sql: str, *parameters: Any) -> Page:
    with store.reading() as connection:
        return connection.execute(sql, parameters)

"""Reading the log: rows become events, page by page."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from operator import itemgetter
from typing import Any

import msgspec

from refold.eventstore.arguments import argument, excerpt, positions_of
from refold.eventstore.engines.engine import Reader
from refold.eventstore.errors import InvalidCommand, UnknownEventType, UnreadableEvent
from refold.eventstore.event import (
    Event,
    Id,
    damaged,
    decode,
    decode_metadata,
    decode_unknown,
    stored_names,
)
from refold.eventstore.log.recorded import ReadRow, Recorded
from refold.eventstore.paging import KEYS, PAGE, Page, chunks, pages
from refold.eventstore.sql import marks

Reading = Callable[[], AbstractContextManager[Reader]]

_type_of: Callable[[Sequence[Any]], str] = itemgetter(ReadRow._fields.index("type"))

Fact = tuple[int, Event, int]
"""An event with its position before it, and after it when it was recorded."""

FACT_COLUMNS = ("position", "type", "schema_version", "data", "recorded_at")
"""What a fold needs of it."""

STREAM_LINKS = """
    WITH RECURSIVE chain (position, previous, type, links) AS (
        SELECT e.position, e.previous, e.type, CAST(? AS BIGINT)
        FROM events e
        WHERE e.position = ? AND e.position > ?
        UNION ALL
        SELECT e.position, e.previous, e.type, c.links - 1
        FROM chain c JOIN events e ON e.position = c.previous
        WHERE c.previous > ? AND c.links <> 1
    )
    SELECT position, previous, type FROM chain"""
"""So many links of a stream's chain from a position back to another."""

LINKS = 16
"""What is walked first of a chain of which the last events are asked for."""


def read_events(
    reading: Reading,
    after: int,
    *,
    stream: str | None,
    types: Iterable[type[Event] | str] | None,
    limit: int | None,
    backwards: bool,
    until: int | None = None,
    unknown: bool = False,
) -> Iterator[Recorded]:
    """Iterate over the events after a position; see `EventStore.read`."""
    advice = "pass a number from 0, of 64 bits at most"
    after = argument("after", after, Id, advice=advice)
    until = None if until is None else argument("until", until, Id, advice=advice)
    limit = None if limit is None else argument("limit", limit, Id, advice=advice)
    if stream is not None and not isinstance(stream, str):
        raise InvalidCommand(f"stream is {excerpt(stream)}: pass its name, such as 'run-5'")
    names = None if types is None else sorted(stored_names(types))
    if names == []:
        return iter(())
    if stream is None:
        found = _log_pages(reading, after, until, names, limit, backwards)
    else:
        found = _stream_pages(reading, stream, after, until, names, limit, backwards)
    return islice(_decoded(found, unknown), limit)


def read_facts(
    reading: Reading, after: int, until: int, types: Iterable[str]
) -> Iterator[list[Fact]]:
    """Iterate over pages of events with no more about them than a fold needs.

    Raises:
        UnknownEventType, DamagedEvent: at the page that holds the event in question; those before
            it on the page are given as a page of their own.
    """
    names = sorted(stored_names(types))
    if not names:
        return
    # A fold looks for the rows of a page together.
    for rows in pages(reading, FACT_COLUMNS, after, until, names=names, size=KEYS, edge=True):
        page: list[Fact] = []
        try:
            for position, type_name, schema_version, data, recorded_at in rows:
                event = decode(type_name, schema_version, data, position)
                page.append((position, event, recorded_at))
        except UnreadableEvent:
            yield page
            raise
        yield page


def read_at(
    reading: Reading,
    positions: Iterable[int],
    *,
    types: Iterable[type[Event] | str] | None = None,
    unknown: bool = False,
) -> Iterator[Recorded]:
    """Iterate over the events at some positions, in order; see `EventStore.read_at`."""
    known = sorted({at for at in positions_of(positions) if 0 < at < 2**63})
    names = None if types is None else sorted(stored_names(types))
    return _decoded(_pages_at(reading, known, names, backwards=False), unknown)


def read_head(reading: Reading) -> int:
    """Return the position up to which the log is complete; 0 if there is no event."""
    with reading() as connection:
        return connection.head()


def _decoded(found: Iterator[Page], unknown: bool) -> Iterator[Recorded]:
    for page in found:
        for position, stream, version, type_name, schema_version, data, metadata, time in page:
            try:
                event = decode(type_name, schema_version, data, position)
            except UnknownEventType:
                if not unknown:
                    raise
                event = decode_unknown(type_name, schema_version, data, position)
            try:
                about = decode_metadata(metadata)
            except msgspec.DecodeError as error:
                raise damaged(type_name, schema_version, position, error) from error
            yield Recorded(position, stream, version, event, about, time)


def _log_pages(
    reading: Reading,
    after: int,
    until: int | None,
    names: list[str] | None,
    limit: int | None,
    backwards: bool,
) -> Iterator[Page]:
    last = read_head(reading) if until is None else until
    size = PAGE if limit is None else max(1, limit)
    edge = after == 0 if backwards else until is None
    yield from pages(
        reading,
        ReadRow._fields,
        after,
        last,
        names=names,
        size=size,
        backwards=backwards,
        edge=edge,
    )


def _stream_pages(
    reading: Reading,
    stream: str,
    after: int,
    until: int | None,
    names: list[str] | None,
    limit: int | None,
    backwards: bool,
) -> Iterator[Page]:
    with reading() as connection:
        found = connection.execute("SELECT position FROM streams WHERE stream = ?", (stream,))
    if not found:
        return
    ((start,),) = found
    near = limit if limit and names is None and until is None else LINKS
    walk = _chain(reading, start, after, until, names, near if backwards else -1)
    if backwards:
        for positions in walk:
            yield from _pages_at(reading, positions, names, backwards)
    else:
        positions = [position for part in walk for position in part]
        positions.reverse()
        yield from _pages_at(reading, positions, names, backwards)


def _chain(
    reading: Reading,
    start: int,
    after: int,
    until: int | None,
    names: list[str] | None,
    links: int,
) -> Iterator[list[int]]:
    """Walk the chain of a stream back from its last event; give positions, the last one first.

    What is asked for may be near the end: so the first step has some links, and each that follows
    has four times as many. -1: all in one step.
    """
    at: int | None = start
    while at is not None and at > after:
        with reading() as connection:
            walked = connection.execute(STREAM_LINKS, (links, at, after, after))
        if not walked:
            return
        yield [
            position
            for position, _, kind in walked
            if (until is None or position <= until) and (names is None or kind in names)
        ]
        at = walked[-1][1] if links > 0 else None
        links *= 4


def _pages_at(
    reading: Reading, positions: list[int], names: list[str] | None, backwards: bool
) -> Iterator[Page]:
    for part in chunks(positions):
        statement = (
            f"SELECT {', '.join(ReadRow._fields)} FROM events WHERE position IN ({marks(part)}) "
            f"ORDER BY position {'DESC' if backwards else 'ASC'}"
        )
        with reading() as connection:
            page = connection.execute(statement, part)
        yield page if names is None else [row for row in page if _type_of(row) in names]

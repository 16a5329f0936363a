"""Reading the log: page by page, so that no reader holds it open for longer than a page takes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import msgspec

from eventstore.engine import Connection
from eventstore.errors import InvalidCommand, UnknownEventType, UnreadableEvent
from eventstore.events import Event
from eventstore.events.codec import damaged, decode, decode_unknown
from eventstore.events.upcasting import stored_names
from eventstore.heads import EVENT_COLUMNS
from eventstore.recorded import Recorded, decode_metadata

Reading = Callable[[], AbstractContextManager[Connection]]
Page = list[tuple[Any, ...]]
Fact = tuple[int, Event, int]
"""An event with its position before it, and after it when it was recorded."""

PAGE = 2_000
"""Events that are read at a time."""

STREAM_PAGE = 500
"""Likewise from a stream: each takes a parameter of the statement."""

READ_COLUMNS = tuple(name for name in EVENT_COLUMNS if name != "previous")
"""What is read of an event: all but the link of its stream's chain."""

_COLUMNS = ", ".join(READ_COLUMNS)

STREAM_POSITIONS = """
    WITH RECURSIVE chain (position, previous, links) AS (
        SELECT e.position, e.previous, CAST(? AS BIGINT)
        FROM streams s JOIN events e ON e.position = s.position
        WHERE s.stream = ? AND e.position > ?
        UNION ALL
        SELECT e.position, e.previous, c.links - 1
        FROM chain c JOIN events e ON e.position = c.previous
        WHERE c.previous > ? AND c.links <> 1
    )
    SELECT position FROM chain"""


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
    for name, bound in (("after", after), ("until", until), ("limit", limit)):
        if bound is not None and (not isinstance(bound, int) or not 0 <= bound < 2**63):
            raise InvalidCommand(f"{name} is {bound!r}: pass a number from 0, of 64 bits at most")
    names = None if types is None else sorted(stored_names(types))
    if names == []:
        return iter(())
    if stream is None:
        pages = _pages(reading, after, until, names, limit, backwards)
    else:
        pages = _stream_pages(reading, stream, after, until, names, limit, backwards)
    return islice(_decoded(pages, unknown), limit)


def read_facts(
    reading: Reading, after: int, until: int, types: Iterable[str], page_size: int
) -> Iterator[list[Fact]]:
    """Iterate over pages of events with no more about them than a fold needs.

    Raises:
        UnknownEventType, DamagedEvent: at the page that holds the event in question; those before
            it on the page are given as a page of their own.
    """
    names = sorted(stored_names(types))
    if not names:
        return
    statement = (
        f"SELECT position, type, schema_version, data, recorded_at FROM events "
        f"WHERE position > ? AND position <= ? AND type IN ({_marks(names)}) "
        f"ORDER BY position LIMIT {page_size}"
    )
    while True:
        with reading() as connection:
            rows = connection.execute(statement, (after, until, *names))
        page: list[Fact] = []
        try:
            for position, type_name, schema_version, data, recorded_at in rows:
                event = decode(type_name, schema_version, data, position)
                page.append((position, event, recorded_at))
        except UnreadableEvent:
            yield page
            raise
        yield page
        if len(rows) < page_size:
            return
        after = rows[-1][0]


def read_at(
    reading: Reading,
    positions: Iterable[int],
    *,
    types: Iterable[type[Event] | str] | None = None,
    unknown: bool = False,
) -> Iterator[Recorded]:
    """Iterate over the events at some positions, in order; see `EventStore.read_at`."""
    wanted = list(positions)
    for position in wanted:
        if not isinstance(position, int):
            raise InvalidCommand(f"{position!r} is no position: pass a number")
    known = sorted({position for position in wanted if 0 < position < 2**63})
    names = None if types is None else sorted(stored_names(types))
    pages = _pages_at(reading, known, names, backwards=False)
    return _decoded(pages, unknown)


def read_head(reading: Reading) -> int:
    """Return the position up to which the log is complete; 0 if there is no event."""
    with reading() as connection:
        return connection.head()


def _decoded(pages: Iterator[Page], unknown: bool) -> Iterator[Recorded]:
    for page in pages:
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


def _pages(
    reading: Reading,
    after: int,
    until: int | None,
    names: list[str] | None,
    limit: int | None,
    backwards: bool,
) -> Iterator[Page]:
    page_size = PAGE if limit is None else max(1, min(limit, PAGE))
    chosen = "" if names is None else f"AND type IN ({_marks(names)})"
    statement = (
        f"SELECT {_COLUMNS} FROM events WHERE position > ? AND position <= ? {chosen} "
        f"ORDER BY position {_order(backwards)} LIMIT {page_size}"
    )
    first, last = after, read_head(reading) if until is None else until
    while first < last:
        with reading() as connection:
            page = connection.execute(statement, (first, last, *(names or ())))
        yield page
        if len(page) < page_size:
            return
        if backwards:
            last = page[-1][0] - 1
        else:
            first = page[-1][0]


def _stream_pages(
    reading: Reading,
    stream: str,
    after: int,
    until: int | None,
    names: list[str] | None,
    limit: int | None,
    backwards: bool,
) -> Iterator[Page]:
    # Backwards the chain need not be walked further than the limit.
    links = limit if limit is not None and backwards and names is None and until is None else -1
    with reading() as connection:
        found = connection.execute(STREAM_POSITIONS, (links, stream, after, after))
    positions = [position for (position,) in found if until is None or position <= until]
    if not backwards:
        positions.reverse()
    yield from _pages_at(reading, positions, names, backwards)


def _pages_at(
    reading: Reading, positions: list[int], names: list[str] | None, backwards: bool
) -> Iterator[Page]:
    for start in range(0, len(positions), STREAM_PAGE):
        part = positions[start : start + STREAM_PAGE]
        statement = (
            f"SELECT {_COLUMNS} FROM events WHERE position IN ({_marks(part)}) "
            f"ORDER BY position {_order(backwards)}"
        )
        with reading() as connection:
            page = connection.execute(statement, part)
        yield page if names is None else [row for row in page if row[3] in names]


def _marks(values: list[Any]) -> str:
    return ", ".join("?" * len(values))


def _order(backwards: bool) -> str:
    return "DESC" if backwards else "ASC"

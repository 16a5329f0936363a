"""Reading the log: rows become events, page by page."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from operator import itemgetter
from typing import Any

import msgspec

from refold.eventstore.codec import damaged, decode, decode_unknown
from refold.eventstore.engines.engine import Reader
from refold.eventstore.errors import InvalidCommand, UnknownEventType, UnreadableEvent
from refold.eventstore.event import Event, stored_names
from refold.eventstore.log.recorded import ReadRow, Recorded, decode_metadata
from refold.eventstore.sql import chunks, marks

Reading = Callable[[], AbstractContextManager[Reader]]
Page = Sequence[tuple[Any, ...]]

PAGE = 2_000
"""Events that are read at a time."""

# Most rows are taken apart as soon as they are read: to name them would cost a tenth of that.
position_of: Callable[[Sequence[Any]], int] = itemgetter(0)
"""Of a row whose first column it is, or a `Fact`."""
_type_of: Callable[[Sequence[Any]], str] = itemgetter(ReadRow._fields.index("type"))


def pages(
    reading: Reading,
    columns: Sequence[str],
    after: int,
    until: int,
    *,
    names: Sequence[str] | None = None,
    size: int = PAGE,
    backwards: bool = False,
    edge: bool = False,
) -> Iterator[Page]:
    """Iterate over the events after a position, up to another, as they stand.

    Args:
        reading: lends a connection, for each page anew.
        columns: of the table, `position` the first.
        names: only events of these types; None: of all.
        size: how many there are on a page.
        edge: whether the log ends where the iteration does.
    """
    near, far, order = ("<=", ">", "DESC") if backwards else (">", "<=", "ASC")
    # Of a range with two ends PostgreSQL believes, as long as it has no statistics, that it is
    # short, and would sort all that is left, for each page. So the far end is looked at here; but
    # a search for rare types must not run on beyond it.
    bounded = names is not None and not edge
    select = (
        f"SELECT {', '.join(columns)} FROM events WHERE position {near} ?"
        f"{f' AND position {far} ?' if bounded else ''}"
        f"{'' if names is None else f' AND type IN ({marks(names)})'}"
        f" ORDER BY position {order} LIMIT"
    )
    first, last = after, until
    while first < last:
        limit = min(size, last - first)
        ends = (last, first) if backwards else (first, last)
        parameters = (*(ends if bounded else ends[:1]), *(names or ()))
        with reading() as connection:
            rows = connection.execute(f"{select} {limit}", parameters)
        page = rows
        if rows and not first < position_of(rows[-1]) <= last:
            page = [row for row in rows if first < position_of(row) <= last]
        if page:
            yield page
        if len(page) < limit:
            return
        if backwards:
            last = position_of(page[-1]) - 1
        else:
            first = position_of(page[-1])


Fact = tuple[int, Event, int]
"""An event with its position before it, and after it when it was recorded."""

FACT_COLUMNS = ("position", "type", "schema_version", "data", "recorded_at")
"""What a fold needs of it."""

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
        found = _log_pages(reading, after, until, names, limit, backwards)
    else:
        found = _stream_pages(reading, stream, after, until, names, limit, backwards)
    return islice(_decoded(found, unknown), limit)


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
    for rows in pages(reading, FACT_COLUMNS, after, until, names=names, size=page_size, edge=True):
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
    wanted = list(positions)
    for position in wanted:
        if not isinstance(position, int):
            raise InvalidCommand(f"{position!r} is no position: pass a number")
    known = sorted({position for position in wanted if 0 < position < 2**63})
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
    size = PAGE if limit is None else max(1, min(limit, PAGE))
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
    for part in chunks(positions):
        statement = (
            f"SELECT {', '.join(ReadRow._fields)} FROM events WHERE position IN ({marks(part)}) "
            f"ORDER BY position {'DESC' if backwards else 'ASC'}"
        )
        with reading() as connection:
            page = connection.execute(statement, part)
        yield page if names is None else [row for row in page if _type_of(row) in names]

"""Much at a time, and never all at once: how much that is, and what is cut to it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from refold.eventstore.sql import marks

T = TypeVar("T")

Page = Sequence[tuple[Any, ...]]


class Answers(Protocol):
    """What answers a statement with its rows, such as a connection."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Page:
        """Run one statement and return all its rows."""
        ...


Lending = Callable[[], AbstractContextManager[Answers]]

PAGE = 2_000
"""Events that are read at a time."""

KEYS = 500
"""Keys that one statement looks for: each takes a parameter, of which there are not many more."""

PARCEL = 16 * 2**20
"""Bytes that are in memory at a time; a larger payload travels alone."""


# --- cutting ------------------------------------------------------------------------------------


def chunks(values: Iterable[T], size: int | None = None) -> Iterator[list[T]]:
    """Cut values into pieces of a size, `KEYS` by default; the last one is shorter."""
    rest = iter(values)
    while chunk := list(islice(rest, size or KEYS)):
        yield chunk


def parcels(weighed: Iterable[tuple[T, int]], most: int | None = None) -> Iterator[list[T]]:
    """Cut things, each with the bytes that it stands for, into parcels of `PARCEL` bytes.

    Args:
        weighed: the things.
        most: how many are in one parcel at most; None: any number.
    """
    parcel: list[T] = []
    weight = 0
    for thing, more in weighed:
        if parcel and (weight + more > PARCEL or len(parcel) == most):
            yield parcel
            parcel, weight = [], 0
        parcel.append(thing)
        weight += more
    if parcel:
        yield parcel


# --- reading ------------------------------------------------------------------------------------

# Most rows are taken apart as soon as they are read: to name them would cost a sixth of that.
position_of: Callable[[Sequence[Any]], int] = itemgetter(0)
"""Of a row whose first column it is, or a `Fact`."""


def pages(
    reading: Lending,
    columns: Sequence[str],
    after: int,
    until: int,
    *,
    names: Sequence[str] | None = None,
    size: int | None = None,
    backwards: bool = False,
    edge: bool = False,
) -> Iterator[Page]:
    """Iterate over the events after a position, up to another, as they stand.

    Args:
        reading: lends a connection, for each page anew.
        columns: of the table, `position` the first.
        names: only events of these types; None: of all.
        size: how many there are on a page, `PAGE` at most.
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
    size = min(size or PAGE, PAGE)
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


def pages_by_key(
    reading: Lending, table: str, columns: Sequence[str], where: str, parameters: Sequence[Any] = ()
) -> Iterator[Page]:
    """Iterate over chosen rows of a table by its key, `KEYS` of them on a page.

    Args:
        reading: lends a connection, for each page anew.
        table: its name.
        columns: what is read; the key, a text, is the first.
        where: the condition that chooses rows.
        parameters: of the condition.
    """
    key, *_ = columns
    select = (
        f"SELECT {', '.join(columns)} FROM {table} WHERE {key} > ? AND {where} "
        f"ORDER BY {key} LIMIT {KEYS}"
    )
    last = ""
    while True:
        with reading() as connection:
            page = connection.execute(select, (last, *parameters))
        if not page:
            return
        yield page
        last, *_ = page[-1]

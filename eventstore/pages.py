"""The rows of events, page by page: no reader holds the log open for longer than a page takes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from refold.eventstore.engine import Connection
from refold.eventstore.sql import marks

Reading = Callable[[], AbstractContextManager[Connection]]
Page = list[tuple[Any, ...]]

PAGE = 2_000
"""Events that are read at a time."""


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
        if rows and not first < rows[-1][0] <= last:
            page = [row for row in rows if first < row[0] <= last]
        if page:
            yield page
        if len(page) < limit:
            return
        if backwards:
            last = page[-1][0] - 1
        else:
            first = page[-1][0]

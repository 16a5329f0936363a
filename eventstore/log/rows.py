"""The tables of the log row by row, as they stand: read, and copied into another store."""

import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from refold.eventstore.engines.engine import Values
from refold.eventstore.engines.log_end import EventRow, fork_of, store_row
from refold.eventstore.errors import DamagedEvent, InvalidQuery, NotAStore, StoreBusy
from refold.eventstore.log.past import PastStore
from refold.eventstore.log.readable import ReadableLog
from refold.eventstore.log.store import EventStore
from refold.eventstore.log.transaction import Transaction
from refold.eventstore.paging import Page, chunks, pages, pages_by_key, parcels
from refold.eventstore.progress import ProgressBar
from refold.eventstore.sql import marks


def digests_in(text: str) -> Iterator[str]:
    """Iterate over what can be a digest in the data of an event, whatever its type."""
    for digits in _DIGITS.findall(text):
        for start in range(len(digits) - 63):
            yield digits[start : start + 64]


_DIGITS = re.compile("[0-9a-f]{64,}")


def event_rows(
    store: ReadableLog, until: int, columns: Sequence[str] = EventRow._fields
) -> Iterator[Page]:
    """Iterate over the events up to a position, page by page; the first column is `position`."""
    return pages(store.reading, columns, 0, until)


def command_rows(store: ReadableLog, until: int) -> Iterator[Page]:
    """Iterate over the commands whose events stand up to a position, page by page.

    Those that appended nothing come along with the whole log only.
    """
    past = isinstance(store, PastStore) and store.present.head() > until
    # Of a command that appended nothing it is not known when it was sent.
    unknown = until + 1 if past else 0
    yield from pages_by_key(store.reading, *COMMANDS, "coalesce(last, ?) <= ?", (unknown, until))


def payload_rows(store: ReadableLog) -> Iterator[tuple[str, bytes]]:
    """Iterate over all payloads, by digest."""
    for page in pages_by_key(store.reading, "payloads", ["digest"], "true"):
        yield from store.get_payloads(digest for (digest,) in page)


EVENTS = f"SELECT {', '.join(EventRow._fields)} FROM events"

AGAIN = 0.02
"""Seconds until another look at a log whose end is not settled."""


class _Table(NamedTuple):
    """A table whose rows never change, so that a row whose key is there need not be compared."""

    name: str
    columns: tuple[str, ...]
    """The key first; last the one that can be large."""


PAYLOADS = _Table("payloads", ("digest", "content"))
COMMANDS = _Table("commands", ("command_id", "command", "first", "last", "result"))


def copy_log(
    source: EventStore,
    target: EventStore,
    *,
    until: int | None = None,
    progress: bool | None = None,
) -> int:
    """Append to `target` what `source` holds beyond it: events, payloads, and results of commands.

    An interruption leaves the beginning of the log, and the next call goes on from there; in a
    transaction of the target it leaves nothing. Events that come in meanwhile are left to the next
    call. `target` must fold no views.

    Args:
        source: is only read.
        target: is empty, or holds the beginning of the same log.
        until: the position of the last event to copy; then only the payloads come along that one
            of the copied events names. None: all of the log.
        progress: show progress bars; None: only on a terminal.

    Returns:
        how many events were copied.

    Raises:
        NotAStore: the target holds other events; nothing was written.
        StoreBusy: something else writes into the target; or writers of the source have been
            holding back its end for the whole timeout.
        DamagedEvent: an event was altered to what the target's engine cannot hold.
    """
    end = _end(source) if until is None else until
    with source.reading() as connection:
        log = store_row(connection)
    if until is not None:
        log = fork_of(log)

    def begin(transaction: Transaction) -> int:
        # Alone: an earlier copy that was killed may still be committing on the server.
        transaction.be_exclusive()
        after = _beginning(source, target, end)
        there = store_row(transaction.writer)
        described = log._replace(gaps=log.gaps | there.gaps)
        if there != described:
            transaction.set_store(described)
        return after

    after = target.perform(begin)
    # Those of later events would promise what is not there. Of one that appended nothing it is
    # not known when it was sent.
    last = "coalesce(last, 0)" if until is None or until == source.head() else "last"
    if until is None:
        _copy_missing(source, target, PAYLOADS, "true", progress)
    copied = _copy_events(source, target, after, end, progress, named=until is not None)
    _copy_missing(source, target, COMMANDS, f"{last} <= {end}", progress)
    return copied


def _end(source: EventStore) -> int:
    """Return the position of the last event, once nothing can come in below it any more."""
    with source.reading() as connection:
        ((end,),) = connection.execute("SELECT coalesce(max(position), 0) FROM events")
    deadline = time.monotonic() + source.engine.timeout
    while source.head() < end:
        if time.monotonic() >= deadline:
            raise StoreBusy(
                f"{source.engine.name}: for {source.engine.timeout:g} s a transaction has been "
                f"open that began before event {end}: end it, and copy again"
            )
        time.sleep(AGAIN)
    return end


def _beginning(source: EventStore, target: EventStore, end: int) -> int:
    """Return the position of the target's last event, after which the copy goes on."""
    with target.reading() as connection:
        last = connection.execute(f"{EVENTS} ORDER BY position DESC LIMIT 1")
    if not last:
        return 0
    position = EventRow._make(last[0]).position
    counts: list[Any] = []
    for store in (source, target):
        with store.reading() as connection:
            counts += connection.execute(
                "SELECT count(*) FROM events WHERE position BETWEEN 1 AND ?", (position,)
            )
    with source.reading() as connection:
        same = connection.execute(f"{EVENTS} WHERE position = ?", (position,))
    if same != last or counts[0] != counts[1]:
        raise NotAStore(
            f"{target.engine.name} holds other events than {source.engine.name}: pass an empty "
            f"place, or one that an earlier copy of this log was made to"
        )
    if position > end:
        raise NotAStore(
            f"{target.engine.name} holds more of {source.engine.name} than its log up to event "
            f"{end}: pass an empty place"
        )
    return position


# --- events ---------------------------------------------------------------------------------


def _copy_events(
    source: EventStore,
    target: EventStore,
    after: int,
    end: int,
    progress: bool | None,
    *,
    named: bool,
) -> int:
    copied = 0
    with ProgressBar("copying events", max(0, end - after), progress) as bar:
        for page in pages(source.reading, EventRow._fields, after, end):
            rows = [EventRow._make(row) for row in page]
            if named:
                _copy_named(source, target, rows)
            last = rows[-1].position
            strays = _strays(source, after, last)
            target.perform(partial(_append, after=after, rows=rows, strays=strays))
            bar.update(last - after)
            copied, after = copied + len(rows), last
    return copied


def _strays(source: EventStore, after: int, last: int) -> list[int]:
    return [position for position in source.strays() if after < position <= last]


def _append(
    transaction: Transaction, after: int, rows: Sequence[EventRow], strays: Sequence[int]
) -> None:
    transaction.be_exclusive()
    if transaction.head != after:
        raise StoreBusy("something else writes into the target: leave it alone, and copy again")
    try:
        transaction.append_rows(rows, strays)
        transaction.flush()
        kept = transaction.writer.execute(
            f"{EVENTS} WHERE position > ? ORDER BY position", (after,)
        )
    except InvalidQuery as error:
        raise DamagedEvent(
            f"one of the events {rows[0].position} to {rows[-1].position} holds what the target "
            f"cannot: {error}"
        ) from error
    if kept != rows:
        raise DamagedEvent(_difference(rows, kept))


def _difference(rows: Sequence[EventRow], kept: Sequence[Values]) -> str:
    # Somebody has altered an event by hand, to what the other engine turns into something else.
    return next(
        f"event {row.position}: its {column} is {value!r:.60}, and the target makes it {here!r:.60}"
        for row, copy in zip(rows, kept, strict=True)
        for column, value, here in zip(row._fields, row, copy, strict=True)
        if value != here
    )


# --- payloads and commands ------------------------------------------------------------------


def _copy_missing(
    source: EventStore, target: EventStore, table: _Table, chosen: str, progress: bool | None
) -> None:
    """Copy the chosen rows of a table that are not there yet."""
    name, (key, *_, large) = table
    with source.reading() as connection:
        ((total,),) = connection.execute(f"SELECT count(*) FROM {name} WHERE {chosen}")
    weights = pages_by_key(source.reading, name, (key, f"length({large})"), chosen)
    with ProgressBar(f"copying {name}", total, progress, unit=name.removesuffix("s")) as bar:
        for page in weights:
            _copy_rows(source, target, table, page)
            bar.update(len(page))


def _copy_named(source: EventStore, target: EventStore, events: Sequence[EventRow]) -> None:
    """Copy the payloads whose digests the data of events holds."""
    digests = sorted({digest for row in events for digest in digests_in(str(row.data))})
    for some in chunks(digests):
        weights = _rows(source, "payloads", ("digest", "length(content)"), some)
        _copy_rows(source, target, PAYLOADS, weights)


def _copy_rows(source: EventStore, target: EventStore, table: _Table, weights: Page) -> None:
    """Copy rows, given as their keys, each with how much it holds, unless they are there."""
    keys = [key for key, _ in weights]
    there = {key for (key,) in _rows(target, table.name, table.columns[:1], keys)}
    missing: list[tuple[str, int]] = [(key, size) for key, size in weights if key not in there]
    for parcel in parcels(missing):
        rows = _rows(source, table.name, table.columns, parcel)
        target.perform(partial(_insert, table=table, rows=rows))


def _rows(
    store: ReadableLog, table: str, columns: Sequence[str], keys: Sequence[str]
) -> list[tuple[Any, ...]]:
    with store.reading() as connection:
        return connection.execute(
            f"SELECT {', '.join(columns)} FROM {table} WHERE {columns[0]} IN ({marks(keys)})", keys
        )


def _insert(transaction: Transaction, table: _Table, rows: Sequence[Values]) -> None:
    transaction.writer.insert(
        table.name, table.columns, rows, f"ON CONFLICT ({table.columns[0]}) DO NOTHING"
    )

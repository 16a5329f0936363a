"""Copying a log into another store, as it is: no row is decoded, whatever it holds."""

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from eventstore.engine import Values
from eventstore.errors import DamagedEvent, InvalidQuery, NotAStore, StoreBusy
from eventstore.heads import EVENT_COLUMNS
from eventstore.parcels import KEYS, parcels
from eventstore.reader import PAGE
from eventstore.store import EventStore
from eventstore.transaction import Transaction

if TYPE_CHECKING:
    from tqdm import tqdm

EVENTS = f"SELECT {', '.join(EVENT_COLUMNS)} FROM events"
EVENT_PAGE = f"{EVENTS} WHERE position > ? AND position <= ? ORDER BY position LIMIT {PAGE}"

AGAIN = 0.02
"""Seconds until another look at a log whose end is not settled."""


class _Table(NamedTuple):
    """A table whose rows never change, so that a row whose key is there need not be compared."""

    name: str
    columns: tuple[str, ...]
    """The key first; last the one that can be large."""
    chosen: str
    """Which rows are copied."""


def copy_log(source: EventStore, target: EventStore, *, progress: bool | None = None) -> int:
    """Append to `target` what `source` holds beyond it: events, payloads, and results of commands.

    An interruption leaves the beginning of the log, and the next call goes on from there. Events
    that come in meanwhile are left to the next call. `target` must fold no views.

    Args:
        source: is only read.
        target: is empty, or holds the beginning of the same log.
        progress: show progress bars; None: only on a terminal.

    Returns:
        how many events were copied.

    Raises:
        NotAStore: the target holds other events; nothing was written.
        StoreBusy: something else writes into the target; or writers of the source have been
            holding back its end for the whole timeout.
        DamagedEvent: an event was altered to what the target's engine cannot hold.
    """
    end = _end(source)
    after = _beginning(source, target)
    payloads = _Table("payloads", ("digest", "content"), "true")
    # Those of later events would promise what is not there.
    commands = _Table(
        "commands",
        ("command_id", "command", "first", "last", "result"),
        f"coalesce(last, 0) <= {end}",
    )
    _copy_missing(source, target, payloads, progress)
    copied = _copy_events(source, target, after, end, progress)
    _copy_missing(source, target, commands, progress)
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


def _beginning(source: EventStore, target: EventStore) -> int:
    """Return the position of the target's last event, after which the copy goes on."""
    with target.reading() as connection:
        last = connection.execute(f"{EVENTS} ORDER BY position DESC LIMIT 1")
    if not last:
        return 0
    position: int = last[0][0]
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
    return position


# --- events ---------------------------------------------------------------------------------


def _copy_events(
    source: EventStore, target: EventStore, after: int, end: int, progress: bool | None
) -> int:
    copied = 0
    with _bar("events", max(0, end - after), progress) as bar:
        while rows := _page(source, after, end):
            target.perform(partial(_append, after=after, rows=rows))
            last: int = rows[-1][0]
            bar.update(last - after)
            copied, after = copied + len(rows), last
    return copied


def _page(source: EventStore, after: int, end: int) -> list[tuple[Any, ...]]:
    with source.reading() as connection:
        return connection.execute(EVENT_PAGE, (after, end))


def _append(transaction: Transaction, after: int, rows: Sequence[Values]) -> None:
    transaction.be_alone()
    if transaction.head != after:
        raise StoreBusy("something else writes into the target: leave it alone, and copy again")
    first, last = rows[0][0], rows[-1][0]
    try:
        transaction.append_rows(rows)
        transaction.flush()
        kept = transaction.connection.execute(EVENT_PAGE, (after, last))
    except InvalidQuery as error:
        raise DamagedEvent(
            f"one of the events {first} to {last} holds what the target cannot: {error}"
        ) from error
    if kept != rows:
        raise DamagedEvent(_difference(rows, kept))


def _difference(rows: Sequence[Values], kept: Sequence[Values]) -> str:
    # Somebody has altered an event by hand, to what the other engine turns into something else.
    return next(
        f"event {row[0]}: its {column} is {value!r:.60}, and the target makes it {here!r:.60}"
        for row, copy in zip(rows, kept, strict=True)
        for column, value, here in zip(EVENT_COLUMNS, row, copy, strict=True)
        if value != here
    )


# --- payloads and commands ------------------------------------------------------------------


def _copy_missing(
    source: EventStore, target: EventStore, table: _Table, progress: bool | None
) -> None:
    name, (key, *_, large), chosen = table
    with source.reading() as connection:
        ((total,),) = connection.execute(f"SELECT count(*) FROM {name} WHERE {chosen}")
    weigh = (
        f"SELECT {key}, length({large}) FROM {name} WHERE {key} > ? AND {chosen} "
        f"ORDER BY {key} LIMIT {KEYS}"
    )
    last = ""
    with _bar(name, total, progress) as bar:
        while True:
            with source.reading() as connection:
                weights = dict(connection.execute(weigh, (last,)))
            if not weights:
                return
            *_, last = weights
            for (there,) in _rows(target, name, (key,), list(weights)):
                del weights[there]
                bar.update()
            for parcel in parcels(weights.items()):
                rows = _rows(source, name, table.columns, parcel)
                target.perform(partial(_insert, table=table, rows=rows))
                bar.update(len(rows))


def _rows(
    store: EventStore, table: str, columns: Sequence[str], keys: Sequence[str]
) -> list[tuple[Any, ...]]:
    marks = ", ".join("?" * len(keys))
    with store.reading() as connection:
        return connection.execute(
            f"SELECT {', '.join(columns)} FROM {table} WHERE {columns[0]} IN ({marks})", keys
        )


def _insert(transaction: Transaction, table: _Table, rows: Sequence[Values]) -> None:
    transaction.connection.insert(
        table.name, table.columns, rows, f"ON CONFLICT ({table.columns[0]}) DO NOTHING"
    )


def _bar(what: str, total: int, progress: bool | None) -> "tqdm[Any]":
    from tqdm import tqdm  # takes long to import

    return tqdm(
        desc=f"copying {what}",
        total=total,
        unit=what.removesuffix("s"),
        unit_scale=True,
        delay=0.5,
        leave=False,
        disable=None if progress is None else not progress,
    )

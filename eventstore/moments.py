"""A moment of the log: a position, or a time."""

from datetime import UTC, datetime

from eventstore.errors import InvalidMoment
from eventstore.recorded import EPOCH, MICROSECOND
from eventstore.store import EventStore

Moment = int | datetime
"""A position, or a time with its zone."""


def position_at(store: EventStore, moment: Moment) -> int:
    """Return the position that was the last at a moment.

    Raises:
        InvalidMoment: it lies in the future or before the first event, or is a time without zone.
    """
    name, head = store.engine.name, store.head()
    if isinstance(moment, datetime):
        return _position_at_time(store, moment, head)
    if not isinstance(moment, int) or isinstance(moment, bool):
        raise InvalidMoment(f"{moment!r} is no moment: pass a position, or a time with its zone")
    if not 0 <= moment <= head:
        raise InvalidMoment(f"{name}: there is no position {moment} yet: the last one is {head}")
    return moment


def _position_at_time(store: EventStore, time: datetime, head: int) -> int:
    name = store.engine.name
    if time.utcoffset() is None:
        raise InvalidMoment(
            f"the time {time} has no zone: pass it with one, such as "
            f"datetime(2026, 1, 31, 12, tzinfo=timezone.utc) or time.astimezone()"
        )
    if time > datetime.now(UTC):
        raise InvalidMoment(f"{name}: the time {time} lies in the future")
    first = next(store.read(limit=1), None)
    microseconds = (time - EPOCH) // MICROSECOND
    if first is None or microseconds < first.recorded_at:
        told = (
            "nothing has happened yet" if first is None else f"the first event is of {first.time}"
        )
        raise InvalidMoment(f"{name}: nothing had happened by {time}: {told}")
    low, high = first.position, head  # times follow positions
    while low < high:
        middle = (low + high + 1) // 2
        if _recorded_at(store, middle) <= microseconds:
            low = middle
        else:
            high = middle - 1
    return low


def _recorded_at(store: EventStore, position: int) -> int:
    """Return the time of the last event up to a position: not every position holds one."""
    with store.reading() as connection:
        ((recorded_at,),) = connection.execute(
            "SELECT recorded_at FROM events WHERE position <= ? ORDER BY position DESC LIMIT 1",
            (position,),
        )
    return recorded_at

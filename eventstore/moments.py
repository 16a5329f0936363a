"""A moment of the log: a position, or a time."""

from datetime import UTC, datetime

from refold.eventstore.engine import Connection
from refold.eventstore.errors import InvalidMoment
from refold.eventstore.recorded import EPOCH, MICROSECOND
from refold.eventstore.store import EventStore

Moment = int | datetime
"""A position, or a time with its zone."""


def position_at(store: EventStore, moment: Moment) -> int:
    """Return the position that was the last at a moment.

    Raises:
        InvalidMoment: it lies in the future or before the first event, or is a time without zone.
    """
    head = store.committed_head()
    if isinstance(moment, datetime):
        return _position_at_time(store, moment, head)
    if not isinstance(moment, int) or isinstance(moment, bool):
        raise InvalidMoment(f"{moment!r} is no moment: pass a position, or a time with its zone")
    if not 0 <= moment <= head:
        raise InvalidMoment(
            f"{store.engine.name}: there is no position {moment}: the last that was committed is "
            f"{head}"
        )
    return moment


def _position_at_time(store: EventStore, time: datetime, head: int) -> int:
    name = store.engine.name
    if time.utcoffset() is None:
        raise InvalidMoment(
            f"the time {time} has no zone: pass it with one, such as "
            f"datetime(2026, 1, 31, 12, tzinfo=timezone.utc) or time.astimezone()"
        )
    microseconds = (time - EPOCH) // MICROSECOND
    with store.reading() as connection:
        bounds = [
            connection.execute(
                f"SELECT position, recorded_at FROM events WHERE position <= ? "
                f"ORDER BY position {order} LIMIT 1",
                (head,),
            )
            for order in ("ASC", "DESC")
        ]
        if not bounds[0]:
            raise InvalidMoment(f"{name}: no event had happened by {time}: none has yet")
        (((low, first),), ((high, last),)) = bounds
        if microseconds < first:
            raise InvalidMoment(
                f"{name}: no event had happened by {time}: the first is of "
                f"{EPOCH + first * MICROSECOND}"
            )
        # The log's clock may be ahead of this machine's.
        if microseconds > last and time > datetime.now(UTC):
            raise InvalidMoment(f"{name}: the time {time} lies in the future")
        while low < high:  # times follow positions
            middle = (low + high + 1) // 2
            if _recorded_at(connection, middle) <= microseconds:
                low = middle
            else:
                high = middle - 1
    return low


def _recorded_at(connection: Connection, position: int) -> int:
    """Return the time of the last event up to a position: not every position holds one."""
    ((recorded_at,),) = connection.execute(
        "SELECT recorded_at FROM events WHERE position <= ? ORDER BY position DESC LIMIT 1",
        (position,),
    )
    return recorded_at

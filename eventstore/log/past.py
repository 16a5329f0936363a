"""A moment of the log, and a store as it was then: read-only, for ever the same."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import NoReturn, TypeVar

from refold.eventstore.engines.engine import Connection
from refold.eventstore.errors import InvalidMoment, WriteRefused
from refold.eventstore.event import Event
from refold.eventstore.log.recorded import EPOCH, MICROSECOND, Recorded
from refold.eventstore.log.store import EventStore
from refold.eventstore.log.subscription import Subscription
from refold.eventstore.log.transaction import Transaction

T = TypeVar("T")


class PastStore(EventStore):
    """The log up to a position; everything that would change it is refused.

    Args:
        present: the store, which stays open.
        position: of the last event.
    """

    def __init__(self, present: EventStore, position: int) -> None:
        self.present = present
        self.position = position
        self.engine = present.engine

    def before_fork(self) -> None:
        """Do nothing: it is the present store that lets go."""

    def after_fork(self, *, child: bool) -> None:
        """Likewise."""

    # --- what the past refuses ------------------------------------------------------------

    def perform(self, work: Callable[[Transaction], T]) -> T:
        """Refuse: nothing changes the past.

        Raises:
            WriteRefused: always.
        """
        self._refuse()

    @contextmanager
    def transaction(self) -> Generator[Transaction, None, None]:
        """Refuse likewise."""
        self._refuse()
        yield

    def _refuse(self) -> NoReturn:
        raise WriteRefused(
            f"{self.engine.name} as of position {self.position} can only be read: use the store "
            f"itself, or fork(db, at={self.position}, to=path) to go on from there"
        )

    def subscribe(
        self,
        after: int | None = 0,
        *,
        stream: str | None = None,
        types: Iterable[type[Event] | str] | None = None,
        unknown: bool = False,
    ) -> Subscription:
        """Refuse: no event will come.

        Raises:
            WriteRefused: always.
        """
        raise WriteRefused(
            f"{self.engine.name} as of position {self.position}: no event will come here: read() "
            f"gives those that there are; subscribe to the store itself"
        )

    # --- reading --------------------------------------------------------------------------

    def head(self) -> int:
        """Return the position."""
        return self.position

    def version(self, stream: str) -> int:
        """Return how many events a stream had."""
        last = next(self.read(stream=stream, backwards=True, limit=1, unknown=True), None)
        return 0 if last is None else last.version

    def get_payload(self, digest: str) -> bytes:
        """Return the bytes that were stored under a digest, by now."""
        return self.present.get_payload(digest)

    def get_payloads(self, digests: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Iterate over the payloads that have these digests, likewise."""
        return self.present.get_payloads(digests)

    def read(
        self,
        after: int = 0,
        *,
        stream: str | None = None,
        types: Iterable[type[Event] | str] | None = None,
        limit: int | None = None,
        backwards: bool = False,
        until: int | None = None,
        unknown: bool = False,
    ) -> Iterator[Recorded]:
        """Iterate over the events up to the position; see `EventStore.read`."""
        return self.present.read(
            after,
            stream=stream,
            types=types,
            limit=limit,
            backwards=backwards,
            until=self.position if until is None else min(until, self.position),
            unknown=unknown,
        )

    def read_at(
        self,
        positions: Iterable[int],
        *,
        types: Iterable[type[Event] | str] | None = None,
        unknown: bool = False,
    ) -> Iterator[Recorded]:
        """Iterate over the events at some positions; see `EventStore.read_at`."""
        # What is no position is for the present store to refuse.
        past = [at for at in positions if not isinstance(at, int) or at <= self.position]
        return self.present.read_at(past, types=types, unknown=unknown)

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection for reading, on which what came later is to be seen as well."""
        return self.present.reading()

    def committed_head(self) -> int:
        """Return the position."""
        return self.position

    def current(self) -> None:
        """Return None: no transaction is open here."""
        return

    @contextmanager
    def snapshot(self) -> Generator[None, None, None]:
        """Do nothing: all reads see one moment anyway."""
        yield

    def close(self) -> None:
        """Do nothing: the present store stays open."""


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

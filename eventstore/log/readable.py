"""What can be read of a log, now or as it was at a moment."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from refold.eventstore import times
from refold.eventstore.arguments import argument, converted, excerpt, listed, positions_of
from refold.eventstore.engines.engine import Engine, Reader
from refold.eventstore.errors import InvalidMoment, NotFound, PayloadRefused
from refold.eventstore.event import Event, Id
from refold.eventstore.log.faults import Fault, faults
from refold.eventstore.log.reading import read_at, read_events
from refold.eventstore.log.recorded import Recorded
from refold.eventstore.paging import chunks, parcels
from refold.eventstore.payloads import check_digest
from refold.eventstore.sql import marks

if TYPE_CHECKING:
    from refold.eventstore.log.transaction import Transaction

DIGEST = re.compile("[0-9a-f]{64}")

Moment = int | datetime
"""A position, or a time with its zone."""


class ReadableLog(ABC):
    """The events and payloads of a store; what changes them is for `EventStore`."""

    engine: Engine
    until: int | None = None
    """The position of the last event that there is to see; None: of the last that there is."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Reader]:
        """Lend a connection for reading."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """Have all reads of this thread within the block see one and the same moment."""

    @abstractmethod
    def is_held(self) -> bool:
        """Return whether this thread reads within a transaction or a snapshot."""

    @abstractmethod
    def current(self) -> "Transaction | None":
        """Return the transaction that this thread has open, or None."""

    @abstractmethod
    def head(self) -> int:
        """Return the position of the last event; 0 if there is none."""

    @abstractmethod
    def committed_head(self) -> int:
        """Return the head without what a transaction of this thread has not committed yet."""

    @abstractmethod
    def version(self, stream: str) -> int:
        """Return how many events a stream has."""

    # --- events ---------------------------------------------------------------------------

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
        """Iterate over the events after a position, in order or backwards.

        Args:
            after: the position behind which to begin (backwards: at which to end).
            stream: only the events of this stream.
            types: only events of these types, given as classes (which stand for their subclasses
                too) or names.
            limit: give at most this many.
            backwards: the latest first.
            until: the position of the last event to give; None: the last that there is.
            unknown: give events of types that are not defined here as `UnknownEvent`, rather than
                raise.

        Raises:
            InvalidCommand: `after`, `until` or `limit` is negative.
            UnknownEventType, DamagedEvent: when the event in question is reached; those before it
                have been given by then.
        """
        return read_events(
            self.reading,
            after,
            stream=stream,
            types=types,
            limit=limit,
            backwards=backwards,
            until=self._up_to(until),
            unknown=unknown,
        )

    def read_at(
        self,
        positions: Iterable[int],
        *,
        types: Iterable[type[Event] | str] | None = None,
        unknown: bool = False,
    ) -> Iterator[Recorded]:
        """Iterate over the events at some positions, in order; where there is none, none is given.

        Args:
            positions: in any order.
            types: only events of these types; see `read`.
            unknown: see `read`.

        Raises:
            UnknownEventType, DamagedEvent: when the event in question is reached.
        """
        there = positions
        if self.until is not None:
            there = [at for at in positions_of(positions) if at <= self.until]
        return read_at(self.reading, there, types=types, unknown=unknown)

    def _up_to(self, position: int | None) -> int | None:
        if self.until is None:
            return position
        position = argument("until", position, Id | None)
        return self.until if position is None else min(position, self.until)

    def strays(self) -> list[int]:
        """Return the positions of events that are in another stream than the one they name."""
        with self.reading() as connection:
            found = connection.execute("SELECT position FROM strays ORDER BY position")
        return [position for (position,) in found if self.until is None or position <= self.until]

    # --- moments --------------------------------------------------------------------------

    def position_at(self, moment: Moment) -> int:
        """Return the position that was the last at a moment.

        An event whose time lies ahead of this machine's clock comes from a clock that was wrong, as
        do those behind it, since times in a log never run back. They have happened by now, and when
        is not known: they count from the last event before them on.

        Raises:
            InvalidMoment: it lies in the future or before the first event, or has no zone.
        """
        head = self.committed_head()
        if isinstance(moment, datetime):
            return self._position_at_time(moment, head)
        try:
            position = converted(moment, int)
        except (TypeError, ValueError):
            raise InvalidMoment(
                f"{excerpt(moment)} is not a moment: pass a position, or a time with its zone"
            ) from None
        if not 0 <= position <= head:
            raise InvalidMoment(
                f"{self.engine.name}: there is no position {position}: the last that was committed "
                f"is {head}"
            )
        return position

    def _position_at_time(self, time: datetime, head: int) -> int:
        name = self.engine.name
        if time.utcoffset() is None:
            raise InvalidMoment(
                f"the time {time} has no zone: pass it with one, such as "
                f"datetime(2026, 1, 31, 12, tzinfo=timezone.utc) or time.astimezone()"
            )
        microseconds = times.from_datetime(time)
        now = times.now()
        with self.reading() as connection:
            first = _event(connection, ">=", 0)
            if first is None or first.position > head:
                raise InvalidMoment(f"{name}: no event had happened by {time}: none has yet")
            if microseconds < first.recorded_at:
                raise InvalidMoment(
                    f"{name}: no event had happened by {time}: the first is of "
                    f"{times.to_datetime(first.recorded_at)}"
                )
            last = _last_by(connection, microseconds, head)
            later = _event(connection, ">", last.position)
            if later is None or later.position > head:
                if microseconds > max(last.recorded_at, now):
                    raise InvalidMoment(f"{name}: the time {time} lies in the future")
            elif later.recorded_at > now and microseconds != last.recorded_at:
                return head
        return last.position

    def position_before(self, time: datetime) -> int:
        """Return the position before the first event whose time is the given one, or later.

        Those whose time lies ahead of this machine's clock have happened since.
        """
        head = self.committed_head()
        with self.reading() as connection:
            last = _last_by(connection, times.from_datetime(time) - 1, head)
        return last.position

    def faults(self, *, known: Collection[str] | None = None) -> list[Fault]:
        """Check the log: return what was altered, is missing, was inserted or swapped in it.

        Every event is compared with its digest. Payloads, results of commands and views are not
        looked at. Without a key (`REFOLD_LOG_KEY`) somebody who rewrites a stream together with
        its digests is not seen.

        Args:
            known: the names of the tables and SQL views of views: other tables are faults, too.
                None: they are not looked for.
        """
        with self.snapshot(), self.reading() as connection:
            return list(faults(connection, known=known, until=self.until))

    # --- payloads -------------------------------------------------------------------------

    def get_payload(self, digest: str) -> bytes:
        """Return the bytes that were stored under a digest.

        Raises:
            NotFound: there are none.
            PayloadRefused: they were altered: the digest is not theirs.
        """
        with self.reading() as connection:
            found = (
                connection.execute("SELECT content FROM payloads WHERE digest = ?", (digest,))
                if isinstance(digest, str) and DIGEST.fullmatch(digest)
                else []
            )
        if not found:
            raise NotFound(
                f"no payload has the digest {excerpt(digest)}: put_payload returns digests"
            )
        return check_digest(digest, found[0][0])

    def get_payloads(self, digests: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Iterate over the payloads that have these digests, as far as there are any.

        However many they are, some 16 MB of them are in memory at a time. They are given as they
        are stored, so that a copy is one: who decodes them compares them with their digests.
        """
        wanted = argument("digests", listed("digests", digests), list[str])
        for some in chunks(sorted(set(wanted))):
            weights = self._payloads("length(content)", some)
            for parcel in parcels(weights):
                yield from self._payloads("content", parcel)

    def payload_faults(self, named: Mapping[str, str] | None = None) -> list[Fault]:
        """Compare every payload with its digest: return those that were altered or are missing.

        Args:
            named: digests that something names, and what: payloads that must be there.
        """
        with self.reading() as connection:
            stored = [digest for (digest,) in connection.execute("SELECT digest FROM payloads")]
        there = set(stored)
        missing = {digest: who for digest, who in (named or {}).items() if digest not in there}
        found = [
            Fault(f"payload {digest}", f"it is missing, and {who} names it")
            for digest, who in missing.items()
        ]
        for digest, content in self.get_payloads(stored):
            try:
                check_digest(digest, content)
            except PayloadRefused:
                found.append(Fault(f"payload {digest}", "its digest is another: it was altered"))
        return found

    def _payloads(self, what: str, digests: Sequence[str]) -> list[tuple[str, Any]]:
        where = f"digest IN ({marks(digests)})"
        sql = f"SELECT digest, {what} FROM payloads WHERE {where} ORDER BY digest"
        with self.reading() as connection:
            return cast("list[tuple[str, Any]]", connection.execute(sql, digests))


class _Timed(NamedTuple):
    position: int
    recorded_at: int


def _event(connection: Reader, where: str, position: int) -> _Timed | None:
    """Return the event nearest to a position, in the direction that a comparison says."""
    order = "DESC" if "<" in where else "ASC"
    found = connection.execute(
        f"SELECT position, recorded_at FROM events WHERE position {where} ? "
        f"ORDER BY position {order} LIMIT 1",
        (position,),
    )
    return _Timed(*found[0]) if found else None


def _last_by(connection: Reader, microseconds: int, head: int) -> _Timed:
    """Return the last event up to a time; of position 0 if there is none."""
    low, high = 0, head
    while low < high:  # times follow positions
        middle = (low + high + 1) // 2
        found = _event(connection, "<=", middle)  # not every position holds one
        if found is None or found.recorded_at <= microseconds:
            low = middle
        else:
            high = middle - 1
    return _event(connection, "<=", low) or _Timed(0, 0)

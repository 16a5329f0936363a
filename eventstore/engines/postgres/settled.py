"""Up to where the log is complete, although writers commit side by side."""

import time
from typing import Any, Protocol

from refold.eventstore.engines.engine import Values

# A writer holds a transaction id before it draws positions, and its events are written under a
# later one than that (SharedEnd). So no transaction can commit an event below one whose row is
# older (`xmin`) than every transaction in flight: that event is settled. So is what follows on a
# settled one without a gap. An age that does not fit into 31 bits is negative.
HEAD = """
    WITH sure AS (
        SELECT coalesce((
            SELECT position FROM events
            WHERE position > known
              AND (age(xmin) > age(coalesce(bound, pg_snapshot_xmin(pg_current_snapshot())::xid))
                   OR age(xmin) < 0)
            ORDER BY position DESC LIMIT 1), known) AS position
        FROM (SELECT ?::bigint AS known, ?::xid AS bound) AS given
    ), later AS (
        SELECT e.position, e.position - row_number() OVER (ORDER BY e.position) AS base
        FROM events e, sure WHERE e.position > sure.position
    )
    SELECT coalesce((SELECT max(l.position) FROM later l WHERE l.base = sure.position),
                    sure.position),
           (SELECT max(position) FROM later)
    FROM sure"""

# What is in flight in the whole cluster holds everybody back, other stores and databases included.
# A closer look finds the oldest transaction that holds this store's lock. In this order: whoever
# comes after the first line has a transaction id that is not below it.
COUNTER = "SELECT age('3'::xid), pg_is_in_recovery()"
OLDEST_WRITER = """
    WITH locks AS MATERIALIZED (SELECT * FROM pg_locks WHERE granted)
    SELECT mine.transactionid::text
    FROM locks AS store JOIN locks AS mine USING (pid)
    WHERE store.locktype = 'advisory' AND store.objsubid = 1
      AND store.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND store.classid = ?::bigint::oid AND store.objid = ?::bigint::oid
      AND mine.locktype = 'transactionid' AND mine.mode = 'ExclusiveLock'
    ORDER BY age(mine.transactionid) DESC LIMIT 1"""


PATIENCE = 1.0  # seconds at most that a reader waits for what it has written itself
PAUSE = 0.002


class _Looking(Protocol):
    """The connection that looks: on a server, statements can go together."""

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]: ...

    def together(self, *statements: tuple[str, Values]) -> list[list[tuple[Any, ...]]]: ...


class Settled:
    """What a store knows of it: what is settled once is settled for ever.

    Args:
        lock: the key of the advisory lock that every writer of the store holds; None: no closer
            look is taken.
        known: a position that is settled.
    """

    def __init__(self, lock: int | None = None, known: int = 0) -> None:
        self._lock = lock
        self._position = known
        self._forgotten = 0
        self.waiting = False
        """Whether the last look saw events that cannot be given yet."""
        self.own = 0
        """The position of the last event that this store has committed itself."""

    def forget(self) -> None:
        """Know nothing, so that the next look looks at everything."""
        self._position = self.own = 0
        self._forgotten += 1

    def head(self, reader: _Looking) -> int:
        """Return the position up to which the log is complete.

        Whoever has just written finds it in there, once those have committed who draw positions
        before: that is a matter of milliseconds.
        """
        deadline = time.monotonic() + PATIENCE
        while (head := self._head(reader)) < self.own:
            if time.monotonic() >= deadline:
                self.own = 0  # once is enough: a host may be cut off
                break
            time.sleep(PAUSE)
        return head

    def _head(self, reader: _Looking) -> int:
        head, last = self._look(reader, None)
        if last is not None and last > head and self._lock is not None:
            head, last = self._look(reader, self._oldest_writer(reader, self._lock))
        self.waiting = last is not None and last > head
        self._position = max(self._position, head)
        return head

    def _look(self, reader: _Looking, bound: str | None) -> tuple[int, int | None]:
        while True:
            before = self._forgotten
            ((head, last),) = reader.execute(HEAD, (self._position, bound))
            if before == self._forgotten:  # else the answer came from another connection
                return head, last

    @staticmethod
    def _oldest_writer(reader: _Looking, lock: int) -> str | None:
        unsigned = lock % 2**64
        ((counted, standby),), oldest = reader.together(
            (COUNTER, ()), (OLDEST_WRITER, (unsigned >> 32, unsigned % 2**32))
        )
        if standby:  # whose writers are elsewhere
            return None
        return oldest[0][0] if oldest else str((counted + 3) % 2**32)

"""The log's end on a server: for an exclusive transaction, and for a shared one."""

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence

import msgspec

from refold.eventstore import times
from refold.eventstore.digests import Signer
from refold.eventstore.engines.engine import Lock, NotExclusive, Projections, Slot, Values, Writer
from refold.eventstore.engines.log_end import (
    PROJECTIONS,
    End,
    EventRow,
    ExclusiveEnd,
    by_name,
    projections_of,
)
from refold.eventstore.engines.postgres.connection import WriteConnection

# The transaction's id tells later whether it has ended, should the connection break in its commit.
ID_AND_TIME = f"pg_current_xact_id()::text, {times.NOW_ON_POSTGRES}"

LAST = "FROM events ORDER BY position DESC LIMIT 1"

NOW = f"""
    SELECT {ID_AND_TIME}, position, recorded_at
    FROM (SELECT 1) AS one
    LEFT JOIN
         (SELECT position, recorded_at {LAST}) AS last
    ON true"""

# Nobody else gets these streams, new ones included, until the commit. In order, so that two
# transactions cannot wait for each other.
LOCK_STREAMS = """
    INSERT INTO streams AS s (stream, version, position)
    SELECT name, 0, 0 FROM unnest(?::text[]) AS name ORDER BY name COLLATE "C"
    ON CONFLICT (stream) DO UPDATE SET version = s.version
    RETURNING stream, version, position, digest"""

# The same, and then, once all of them are locked and the transaction has an id (see settled.py),
# positions; all in one statement, which the server prepares.
DRAW = f"""
    WITH locked AS ({LOCK_STREAMS}
    ), heads AS MATERIALIZED (
        SELECT coalesce(json_object_agg(stream,
                   json_build_array(version, position, encode(digest, 'hex'))), '{{}}')::text
                   AS heads,
               count(*) AS locked
        FROM locked
    )
    SELECT heads, ARRAY(SELECT nextval('event_positions') FROM generate_series(1, ? + 0 * locked)),
           now.*
    FROM heads, LATERAL ({NOW} WHERE locked >= 0) AS now"""

# The same for one event of one stream, as most commands have it: half of the planner's work.
DRAW_ONE = f"""
    INSERT INTO streams AS s (stream, version, position) VALUES (?, 0, 0)
    ON CONFLICT (stream) DO UPDATE SET version = s.version
    RETURNING version, position, digest, nextval('event_positions'), {ID_AND_TIME},
              (SELECT position {LAST}), (SELECT recorded_at {LAST})"""

_decode_heads = msgspec.json.Decoder(dict[str, tuple[int, int, str | None]]).decode

SET_POSITION = "SELECT setval('event_positions', ?)"


class ServerEnd(End):
    """What is the same for both kinds of transaction on a server."""

    def __init__(
        self, writer: WriteConnection, clock: Callable[[], int] | None, signer: Signer
    ) -> None:
        super().__init__(self._server_time if clock is None else clock, signer)
        self.writer: Writer = writer
        self._server = writer
        self._ahead = 0
        self.transaction_id: str | None = None
        self.last: EventRow | None = None
        """The last event that was written: whether it stands there tells if the commit happened."""
        self.drawn = False
        """Whether positions were drawn that others may wait for."""

    @abstractmethod
    def look(self) -> None:
        """Look at what must be known before anything is decided."""

    def _server_time(self) -> int:
        return time.monotonic_ns() // 1_000 + self._ahead

    def _note(
        self, transaction_id: str, microseconds: int, last: int | None, recorded_at: int | None
    ) -> int:
        """Keep what NOW says, one clock for all machines; return the last event's position."""
        self.transaction_id = transaction_id
        self._ahead = microseconds - time.monotonic_ns() // 1_000
        self._recorded_at = max(self._recorded_at, recorded_at or 0)
        return last or 0

    def _insert(self, events: Sequence[Values]) -> None:
        super()._insert(events)
        self.last = EventRow._make(events[-1])

    def seal(self) -> None:
        """Do what remains to be done before the commit: nothing, unless a kind says otherwise."""


class ServerExclusiveEnd(ServerEnd, ExclusiveEnd):
    """The end of the log for an exclusive transaction on a server."""

    def look(self) -> None:
        """Look at the end of the log, behind the lock on the store."""
        projections, now = self._server.together((PROJECTIONS, ()), (NOW, ()))
        self.projections = by_name(projections)
        self.position = self._note(*now[0])

    def seal(self) -> None:
        """Have the next position drawn follow; one that nobody committed is given again."""
        if self.last is not None:
            self._server.run(SET_POSITION, (self.position,))


class SharedEnd(ServerEnd):
    """For a transaction that others write beside."""

    def __init__(
        self,
        writer: WriteConnection,
        clock: Callable[[], int] | None,
        signer: Signer,
        projections: Projections | None,
    ) -> None:
        super().__init__(writer, clock, signer)
        self._expected = projections

    @property
    def lock(self) -> Lock:
        """Locks names until the commit."""
        return self._server.lock

    def look(self) -> None:
        """Look at the views, together with the first load if they are likely to be as before."""
        if self._expected is None:
            self.projections = projections_of(self._server)
            return
        self.projections = dict(self._expected)
        self._server.later(PROJECTIONS, self._confirm)

    def _confirm(self, rows: list[tuple[str, int, int | None]]) -> None:
        # The look goes with the first load: one message less, and hardly ever is anything new.
        if by_name(rows) != self._expected:
            raise NotExclusive

    def allot(self, streams: Sequence[str]) -> list[Slot]:
        """Return a slot for a next event of each of these streams, in this order."""
        missing = sorted({stream for stream in streams if stream not in self._streams})
        self.drawn = True
        if missing and len(streams) == 1:
            ((version, last, digest, position, *now),) = self._server.execute(DRAW_ONE, missing)
            self._know(missing[0], version, last, digest)
            drawn = [position]
        else:
            ((heads, drawn, *now),) = self._server.execute(DRAW, (missing, len(streams)))
            for stream, (version, last, digest) in _decode_heads(heads).items():
                self._know(stream, version, last, None if digest is None else bytes.fromhex(digest))
        self._note(*now)
        return [
            self._slot(stream, position) for stream, position in zip(streams, drawn, strict=True)
        ]

    def _learn(self, streams: Sequence[str]) -> None:
        missing = [stream for stream in streams if stream not in self._streams]
        if missing:
            for head in self._server.execute(LOCK_STREAMS, (missing,)):
                self._know(*head)

    def _insert(self, events: Sequence[Values]) -> None:
        # A subtransaction has an id of its own, later than the positions: see HEAD.
        self._server.run("SAVEPOINT drawn")
        super()._insert(events)

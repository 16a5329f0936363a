"""The event store: append, read, subscribe."""

import hashlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import msgspec

from eventstore.engine import Connection, Engine
from eventstore.errors import InvalidEvent, NotFound
from eventstore.events import Event
from eventstore.events.codec import to_json
from eventstore.forks import FORK_PATIENCE, watch_forks
from eventstore.reader import read_events, read_head
from eventstore.recorded import NO_METADATA, Metadata, Recorded
from eventstore.subscription import Subscription
from eventstore.transaction import Fold, Heads, Transaction


def _digest(stream: str | None, events: list[Event]) -> str:
    told = to_json([stream, [type(event).__name__ for event in events], events])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _microseconds() -> int:
    return time.time_ns() // 1_000


class EventStore:
    """An append-only log of events in one database, safe for threads and processes.

    `open_store` opens one.

    >>> from eventstore import Event, open_store
    >>> class LossSeen(Event):
    ...     loss: float
    >>> with open_store("example.db") as store:
    ...     [first] = store.append("run-5", [LossSeen(0.7)], expected_version=0)
    ...     [recorded.event for recorded in store.read(stream="run-5")]
    [LossSeen(loss=0.7)]
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], int] = _microseconds) -> None:
        self.engine = engine
        self._clock = clock
        self._follow: Callable[[Transaction], Fold] | None = None
        self._followed: frozenset[str] = frozenset()
        self._begin_afresh()
        watch_forks(self)

    def _begin_afresh(self) -> None:
        self._heads = Heads()
        self._turn = threading.RLock()
        self._current: Transaction | None = None
        self._snapshots = threading.local()
        self._held = self._forkable = False

    def before_fork(self) -> None:
        """Let go of the database: nothing of SQLite's may be in the middle of a fork."""
        # A thread that waits for the one that forks must not hang the fork for ever.
        self._held = self._turn.acquire(timeout=FORK_PATIENCE)
        idle = self._held and self._current is None
        self._forkable = self.engine.before_fork(FORK_PATIENCE) if idle else False

    def after_fork(self, *, child: bool) -> None:
        """Go on, in the parent and in the child of a fork, with connections of their own."""
        if child:
            self.engine.after_fork(usable=self._forkable)
            self._begin_afresh()
        else:
            self.engine.resume()
            if self._held:
                self._turn.release()

    # --- writing --------------------------------------------------------------------------

    def append(
        self,
        stream: str | None,
        events: Iterable[Event],
        *,
        expected_version: int | None = None,
        command_id: str | None = None,
        metadata: Metadata | Mapping[str, Any] | None = None,
    ) -> list[Recorded]:
        """Append events to a stream, all or none, and return them with their positions.

        Args:
            stream: the entity, such as `run-5`; None: the one that each event names itself.
            events: what happened, in order.
            expected_version: the number of events that the stream must have (0: it is new).
            command_id: an id of the caller's own; with one that was used before, nothing is
                appended and what was appended then is returned.
            metadata: who, why: a `Metadata`, or a dict of its fields.

        Raises:
            WrongExpectedVersion: the stream has another version; nothing was appended.
            InvalidEvent: an event cannot be kept exactly; nothing was appended.
            CommandIdReused: `command_id` was used for something else.
        """
        if isinstance(events, Event):
            raise InvalidEvent(f"{events!r} stands alone: append a list, [event]")
        if not isinstance(metadata, Metadata):
            try:
                metadata = Metadata(**metadata) if metadata else NO_METADATA
            except TypeError as error:
                raise InvalidEvent(f"metadata is not valid: {error}") from None
        if command_id is not None:
            metadata = msgspec.structs.replace(metadata, command_id=command_id)
        events = list(events)
        with self.transaction() as transaction:
            told = ""
            if metadata.command_id is not None:
                told = f"append {_digest(stream, events)}"
                sent = transaction.sent(metadata.command_id, told)
                if sent is not None:
                    if sent.first is None or sent.last is None:
                        return []
                    return [
                        recorded
                        for recorded in self.read(sent.first - 1, limit=sent.last - sent.first + 1)
                        if recorded.metadata.command_id == metadata.command_id
                    ]
            appended = transaction.append(
                events, stream=stream, expected_version=expected_version, metadata=metadata
            )
            if metadata.command_id is not None:
                transaction.remember(metadata.command_id, told, appended)
        return appended

    @contextmanager
    def transaction(self) -> Generator[Transaction, None, None]:
        """Open a transaction; one that this thread has open already is joined.

        Everything appended in it commits at the end of the outermost block; an error that leaves
        that block takes all of it back.
        """
        with self._turn:
            if self._current is not None:
                yield from self._join(self._current)
                return
            try:
                with self.engine.write() as connection:
                    fresh = self._heads.look(connection)
                    transaction = Transaction(connection, self._heads, self._clock, fresh)
                    # From here on what this thread reads is what this transaction sees.
                    self._current = transaction
                    if fresh:
                        self._leave_behind(transaction)
                    if self._follow is not None:
                        transaction.fold = self._follow(transaction)
                    yield transaction
                    transaction.flush()
            except BaseException:
                self._heads.forget()
                raise
            finally:
                self._current = None

    @staticmethod
    def _join(transaction: Transaction) -> Generator[Transaction, None, None]:
        before = transaction.head
        try:
            yield transaction
        except BaseException:
            if transaction.head != before:
                transaction.doom()  # half of the inner block must not be committed with the outer
            raise

    def _leave_behind(self, transaction: Transaction) -> None:
        # Views that this process does not fold fall behind with what it appends; whoever reads
        # them catches them up.
        for name, (version, position) in transaction.projections.items():
            if position is None and name not in self._followed:
                transaction.set_projection(name, version, transaction.head)

    def follow(self, names: Iterable[str], begin: Callable[[Transaction], Fold]) -> None:
        """Have every transaction of this store fold its events into the views of these names."""
        with self._turn:
            self._follow = begin
            self._followed = frozenset(names)
            self._heads.forget()

    def put_payload(self, content: bytes) -> str:
        """Store bytes once, under their SHA-256 in hexadecimal, which is returned."""
        with self.transaction() as transaction:
            return transaction.put_payload(content)

    # --- reading --------------------------------------------------------------------------

    def head(self) -> int:
        """Return the position of the last event; 0 if there is none."""
        return read_head(self.reading)

    def version(self, stream: str) -> int:
        """Return how many events a stream has."""
        with self.reading() as connection:
            found = connection.execute("SELECT version FROM streams WHERE stream = ?", (stream,))
        return found[0][0] if found else 0

    def get_payload(self, digest: str) -> bytes:
        """Return the bytes that were stored under a digest.

        Raises:
            NotFound: there are none.
        """
        with self.reading() as connection:
            found = connection.execute("SELECT content FROM payloads WHERE digest = ?", (digest,))
        if not found:
            raise NotFound(f"no payload has the digest {digest!r}: put_payload returns digests")
        return found[0][0]

    def read(
        self,
        after: int = 0,
        *,
        stream: str | None = None,
        types: Iterable[type[Event] | str] | None = None,
        limit: int | None = None,
        backwards: bool = False,
    ) -> Iterator[Recorded]:
        """Iterate over the events after a position, in order or backwards.

        Args:
            after: the position behind which to begin (backwards: at which to end).
            stream: only the events of this stream.
            types: only events of these types, given as classes (which stand for their subclasses
                too) or names.
            limit: at most so many.
            backwards: the latest first.

        Raises:
            InvalidCommand: `after` or `limit` is negative.
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
        )

    def subscribe(
        self,
        after: int | None = 0,
        *,
        stream: str | None = None,
        types: Iterable[type[Event] | str] | None = None,
    ) -> Subscription:
        """Iterate over the events after a position, then over new ones as they are committed.

        The subscription is an iterator, an async iterator and a context manager; it ends when it
        is closed. Events of other processes arrive within some 10 ms.

        Args:
            after: the position behind which to begin; None: from now on.
            stream: only the events of this stream.
            types: only events of these types, given as classes (which stand for their subclasses
                too) or names.

        >>> from eventstore import open_store
        >>> from eventstore.events import RunStarted
        >>> with open_store("example.db") as store, store.subscribe() as events:
        ...     _ = store.append("run-5", [RunStarted(5)])
        ...     next(events).event
        RunStarted(run_id=5)
        """
        # What a transaction of this thread has not committed has not happened yet.
        committed = self.engine.read
        chosen = None if types is None else list(types)

        def read(position: int) -> Iterator[Recorded]:
            return read_events(
                committed, position, stream=stream, types=chosen, limit=None, backwards=False
            )

        start = read_head(committed) if after is None else after
        return Subscription(self.engine.watch(), lambda: read_head(committed), read, start)

    @contextmanager
    def reading(self) -> Generator[Connection, None, None]:
        """Lend a connection for reading: within a transaction of this thread, that one's."""
        transaction = self.current()
        if transaction is not None:
            transaction.flush()
            yield transaction.connection
        elif (snapshot := getattr(self._snapshots, "connection", None)) is not None:
            yield snapshot
        else:
            with self.engine.read() as connection:
                yield connection

    @contextmanager
    def snapshot(self) -> Generator[None, None, None]:
        """Have all reads of this thread within the block see one and the same moment."""
        if self.current() is not None or getattr(self._snapshots, "connection", None) is not None:
            yield
            return
        with self.engine.snapshot() as connection:
            self._snapshots.connection = connection
            try:
                yield
            finally:
                self._snapshots.connection = None

    def current(self) -> Transaction | None:
        """Return the transaction that this thread has open, or None."""
        if self._current is None:
            return None
        # Another thread's transaction is none of ours: its turn is not free.
        if not self._turn.acquire(blocking=False):
            return None
        try:
            return self._current
        finally:
            self._turn.release()

    # --- closing --------------------------------------------------------------------------

    def close(self) -> None:
        """Close the store; closing twice does nothing."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

"""The event store: opened by its path or URL, appended to, read, subscribed to."""

import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from refold.eventstore import times
from refold.eventstore.arguments import argument, excerpt, listed
from refold.eventstore.blocks import Block, Nested, Use
from refold.eventstore.engines.engine import (
    Change,
    Durability,
    Engine,
    LogEnd,
    Moved,
    NotExclusive,
    NotRemembered,
    Projections,
    Reader,
    Sender,
    Table,
)
from refold.eventstore.engines.sqlite.engine import SqliteEngine
from refold.eventstore.errors import (
    CommandIdReused,
    Conflict,
    ConnectionLost,
    DBException,
    IllegalTransition,
    InvalidArgument,
    InvalidCommand,
    InvalidEvent,
    NotAStore,
    NotFound,
    OutcomeUnknown,
    WrongExpectedVersion,
)
from refold.eventstore.event import NO_METADATA, Event, Id, Metadata, stored_names, to_json
from refold.eventstore.forks import FORK_PATIENCE, watch_forks
from refold.eventstore.log.draft import Draft
from refold.eventstore.log.readable import ReadableLog
from refold.eventstore.log.reading import read_events, read_head
from refold.eventstore.log.recorded import Recorded
from refold.eventstore.log.subscription import Subscription
from refold.eventstore.log.transaction import Fold, Recalled, Transaction
from refold.eventstore.payloads import is_storing

if TYPE_CHECKING:
    from refold.eventstore.engines.postgres.engine import PostgresEngine


T = TypeVar("T")


def _digest(stream: str | None, events: list[Event]) -> str:
    command = to_json([stream, [type(event).__name__ for event in events], events])
    return hashlib.sha256(command.encode()).hexdigest()[:16]


class _Overtaken(Exception):
    """An event says what was sent, and something else has happened to its rows since."""


class _InDoubt(Exception):
    """The connection broke behind a message: whether it was carried out is not known."""

    def __init__(self, change: Change, result: Any) -> None:
        super().__init__(change)
        self.change = change
        self.result = result


REFUSALS = (NotFound, IllegalTransition, CommandIdReused, WrongExpectedVersion, InvalidArgument)


def _drafted(draft: Draft, fold: Recalled, work: Callable[[Transaction], T]) -> T:
    """Do one thing in memory alone."""
    transaction = Transaction(draft)
    transaction.fold = fold
    result = work(transaction)
    transaction.flush()
    return result


class _Local(threading.local):
    """What a thread is doing with a store: the blocks that it is in."""

    writing: "_Writing | None" = None
    looking: "_Moment | None" = None


class _Writing(Nested[Transaction, LogEnd]):
    """A transaction, from its beginning to its commit."""

    def __init__(self, store: "EventStore", *, exclusive: bool) -> None:
        super().__init__(store.engine.write(exclusive=exclusive))
        self.transaction: Transaction | None = None
        self._store = store

    def begin(self) -> Transaction:
        """Begin it."""
        transaction = Transaction(self.enter())
        self.transaction = transaction
        self._store._has_begun(self, transaction)
        return transaction

    def end(self, error: BaseException | None) -> None:
        """Write out what is left, and commit; or roll back."""
        transaction, self.transaction = self.transaction, None
        committed = False
        try:
            if error is None and transaction is not None:
                transaction.flush()
            super().end(error)
            committed = error is None
        finally:
            if transaction is not None:
                transaction.outcome.settle(committed)
        if committed and transaction is not None and transaction.fold is not None:
            transaction.fold.committed()


class _Batch(Use[Transaction]):
    """A transaction, or a part of one that the thread has open already."""

    def __init__(self, store: "EventStore") -> None:
        super().__init__()
        self._store = store
        self._own: _Writing | None = None
        self._joined: Transaction | None = None
        self._before = 0

    def begin(self) -> Transaction:
        """Join the transaction, or begin one."""
        joined = self._store.current()
        if joined is not None:
            self._joined, self._before = joined, joined.head
            return joined
        self._own = _Writing(self._store, exclusive=True)
        return self._own.begin()

    def end(self, error: BaseException | None) -> None:
        """Commit it if it is one's own; half of what a part does is not committed with the rest."""
        if self._own is not None:
            self._own.end(error)
        elif self._joined is not None and error is not None:
            self._joined.doom(self._before)


class _Moment(Nested[None, Reader]):
    """A moment that all reads of a thread see."""

    def __init__(self, store: "EventStore") -> None:
        super().__init__(store.engine.snapshot())
        self.reader: Reader | None = None
        self._local = store._local

    def begin(self) -> None:
        """Stop the time."""
        self.reader = self.enter()
        self._local.looking = self

    def end(self, error: BaseException | None) -> None:
        """Let it go on."""
        self.reader = None
        super().end(error)


class EventStore(ReadableLog):
    """An append-only log of events in one database, safe for threads and processes.

    `open_store` opens one.

    >>> from refold.eventstore import Event, open_store
    >>> class LossSeen(Event):
    ...     loss: float
    >>> with open_store("example.db") as store:
    ...     [first] = store.append("run-5", [LossSeen(0.7)], expected_version=0)
    ...     [recorded.event for recorded in store.read(stream="run-5")]
    [LossSeen(loss=0.7)]
    """

    def __init__(
        self, engine: Engine, opens_again: "Callable[[], EventStore] | None" = None
    ) -> None:
        self.engine = engine
        self._opens_again = opens_again
        self._follow: Callable[[Transaction], Fold] | None = None
        self._recall: Callable[[Projections], Recalled] | None = None
        self._tables: Sequence[Table] = ()
        self._sender: Sender | None = None
        self._followed: frozenset[str] = frozenset()
        self._local = _Local()
        self._forkable = False
        watch_forks(self)

    def __reduce__(self) -> "tuple[Callable[[], EventStore], tuple[()]]":
        """Send it to another process, which opens one of its own: a connection cannot be shared.

        Raises:
            TypeError: it would be stored, with what opens it.
        """
        if is_storing() or self._opens_again is None:
            raise TypeError(
                "a store is a connection: store its place, and open it where it is used"
            )
        return self._opens_again, ()

    def before_fork(self) -> None:
        """Let go of the database: nothing of it may be in the middle of a fork."""
        self._forkable = self.engine.before_fork(FORK_PATIENCE)

    def after_fork(self, *, child: bool) -> None:
        """Go on, in the parent and in the child of a fork, with connections of their own."""
        if child:
            self._local = _Local()
            self.engine.after_fork(usable=self._forkable)
        else:
            self.engine.resume()
        self._forkable = False

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
            raise InvalidEvent(f"{excerpt(events)} stands alone: append a list, [event]")
        if not isinstance(metadata, Metadata):
            try:
                metadata = Metadata(**metadata) if metadata else NO_METADATA
            except TypeError as error:
                raise InvalidEvent(f"metadata is not valid: {error}") from None
        if command_id is not None:
            metadata = msgspec.structs.replace(metadata, command_id=command_id)
        events = listed("events", events, InvalidEvent)
        expected_version = argument("expected_version", expected_version, Id | None)
        about = metadata

        def work(transaction: Transaction) -> list[Recorded]:
            command = ""
            if about.command_id is not None:
                command = f"append {_digest(stream, events)}"
                sent = transaction.sent(about.command_id, command)
                if sent is not None:
                    if sent.first is None or sent.last is None:
                        return []
                    return [
                        recorded
                        for recorded in self.read(sent.first - 1, limit=sent.last - sent.first + 1)
                        if recorded.metadata.command_id == about.command_id
                    ]
            appended = transaction.append(
                events, stream=stream, expected_version=expected_version, metadata=about
            )
            if about.command_id is not None:
                transaction.remember(about.command_id, command, appended)
            return appended

        return self.perform(work)

    def perform(self, work: Callable[[Transaction], T], *, pure: bool = False) -> T:
        """Do one thing in a transaction, side by side with other writers where the engine can.

        If another writer or a lost connection undid it, it is done again, for as long as the
        store's `timeout`; so `work` must change nothing but by the transaction.

        Args:
            work: what to do.
            pure: it looks at nothing but what the transaction that it is given folds events into,
                so it may be done in memory first.

        Raises:
            Conflict, ConnectionLost: it was undone again and again; nothing of it is kept.
            OutcomeUnknown: the connection broke in the commit, and the server does not answer.
        """
        joined = self.current()
        if joined is not None:
            before = joined.head
            try:
                return work(joined)
            except BaseException:
                joined.doom(before)
                raise
        if not pure or self._sender is None:
            return self._transact(work)
        doubt = None
        try:
            return self._send(work)
        except NotRemembered:
            pass  # none of the caller's: it must not stand in the context of another error
        except _InDoubt as error:
            doubt = error
        return self._transact(work) if doubt is None else self._clear_up(doubt, work)

    def _send(self, work: Callable[[Transaction], T]) -> T:
        """Decide from memory, and have it written by one message.

        Raises:
            NotRemembered: that cannot be; nothing was written.
            _InDoubt: it may have been.
        """
        sender, recall = self._sender, self._recall
        projections = None if sender is None else sender.projections
        if sender is None or recall is None or projections is None:
            raise NotRemembered
        draft = Draft(projections)
        try:
            if self._left_behind(projections):
                raise NotRemembered
            fold = recall(projections)
            result = _drafted(draft, fold, work)
            change = draft.change(fold.seen())
            if not draft.has_id:
                # If the answer gets lost, an event that says the same must stand for this one. That
                # is so if the command changes nothing when it is sent again.
                again = Draft(projections)
                _drafted(again, fold, work)
                if again.event is not None:
                    raise NotRemembered
        except Exception as error:
            # What is remembered may be out of date: in a transaction it is refused, or not.
            raise NotRemembered from error
        try:
            placed = sender.send(change)
        except Moved as moved:
            fold.moved(moved.row)
            raise NotRemembered from moved
        except ConnectionLost as error:
            raise _InDoubt(change, result) from error
        fold.place(placed)
        return result

    def _clear_up(self, doubt: "_InDoubt", work: Callable[[Transaction], T]) -> T:
        """Find out whether a message was carried out of which no answer came; if not, do it."""
        change = doubt.change

        def once(transaction: Transaction) -> T:
            if change.sent is not None:  # the id of the command tells
                return work(transaction)
            position = transaction.said(change)
            if position is None:
                return work(transaction)
            if not self._stands(transaction, change, position):
                raise _Overtaken(f"event {position} says the same, and more has happened since")
            return doubt.result

        try:
            return self._transact(once)
        except REFUSALS:  # something else has come first, and the message will find that out
            raise
        except (DBException, _Overtaken) as error:
            raise OutcomeUnknown(
                f"{self.engine.name}: the connection broke while a {change.type} of "
                f"{change.stream} was written, and it could not be found out whether it was "
                f"({error}): look whether it is there; with a command id, it is safe to send the "
                f"command again"
            ) from error

    def _stands(self, transaction: Transaction, change: Change, position: int) -> bool:
        """Return whether the rows are still as the event at a position has left them."""
        for row in change.seen:
            table = self._tables[row.table]
            sql = f"SELECT position FROM {table.name} WHERE {table.columns[0]} = ? FOR UPDATE"
            if row.after is not None and transaction.writer.execute(sql, (row.key,)) != [
                (position,)
            ]:
                return False
        return True

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        exclusive = False
        deadline = 0.0
        while True:
            try:
                with Block(_Writing(self, exclusive=exclusive)) as transaction:
                    return work(transaction)
            except NotExclusive:
                exclusive = True
            except (Conflict, ConnectionLost):
                now = time.monotonic()
                deadline = deadline or now + self.engine.timeout
                if now >= deadline:
                    raise
                time.sleep(random.uniform(0.001, 0.02))

    def transaction(self) -> Block[Transaction]:
        """Open a transaction; one that this thread has open already is joined.

        Everything appended in it commits at the end of the outermost block; an error that leaves
        that block takes all of it back. Other writers wait for it.

        Raises:
            Conflict, ConnectionLost: nothing of it is kept: do it again.
            OutcomeUnknown: the connection broke in the commit, and the server does not answer.
        """
        return Block(_Batch(self))

    def _has_begun(self, writing: _Writing, transaction: Transaction) -> None:
        # From here on what this thread reads is what this transaction sees.
        self._local.writing = writing
        if transaction.fresh:
            self._leave_behind(transaction)
        if self._follow is not None:
            transaction.fold = self._follow(transaction)

    def _left_behind(self, projections: Projections) -> list[tuple[str, int]]:
        # Views that this process does not fold fall behind with what it appends; whoever reads
        # them catches them up.
        return [
            (name, version)
            for name, (version, position) in projections.items()
            if position is None and name not in self._followed
        ]

    def _leave_behind(self, transaction: Transaction) -> None:
        for name, version in self._left_behind(transaction.projections):
            transaction.be_exclusive()
            transaction.set_projection(name, version, transaction.head)

    def follow(
        self,
        names: Iterable[str],
        tables: Sequence[Table],
        begin: Callable[[Transaction], Fold],
        recall: Callable[[Projections], Recalled],
    ) -> None:
        """Have every transaction of this store fold its events into the views of these names.

        Args:
            names: of the views.
            tables: theirs.
            begin: returns what folds a transaction's events.
            recall: returns what folds them in memory alone; it raises `NotRemembered` if the views
                that the store holds, which it is given, are not these.
        """
        self._follow, self._recall = begin, recall
        self._followed = frozenset(names)
        self._tables = tables
        self._sender = self.engine.sender(tables)

    def put_payload(self, content: bytes) -> str:
        """Store bytes once, under their SHA-256 in hexadecimal, which is returned."""
        return self.perform(lambda transaction: transaction.put_payload(content))

    # --- reading --------------------------------------------------------------------------

    def head(self) -> int:
        """Return the position of the last event; 0 if there is none.

        On PostgreSQL: of the last below which nothing can come in any more.
        """
        return read_head(self.reading)

    def committed_head(self) -> int:
        """Return the head without what a transaction of this thread has not committed yet."""
        return self.head() if self.current() is None else read_head(self.engine.read)

    def version(self, stream: str) -> int:
        """Return how many events a stream has."""
        if not isinstance(stream, str):
            raise InvalidCommand(f"stream is {excerpt(stream)}: pass its name, such as 'run-5'")
        with self.reading() as connection:
            found = connection.execute("SELECT version FROM streams WHERE stream = ?", (stream,))
        return found[0][0] if found else 0

    def subscribe(
        self,
        after: int | None = 0,
        *,
        stream: str | None = None,
        types: Iterable[type[Event] | str] | None = None,
        unknown: bool = False,
    ) -> Subscription:
        """Iterate over the events after a position, then over new ones as they are committed.

        The subscription is an iterator, an async iterator and a context manager; it ends when it
        is closed. Events of other processes arrive within some 10 ms.

        Args:
            after: the position behind which to begin; None: from now on.
            stream: only the events of this stream.
            types: only events of these types, given as classes (which stand for their subclasses
                too) or names.
            unknown: see `read`.

        >>> from refold.eventstore import open_store
        >>> from refold.eventstore.events import RunStarted
        >>> with open_store("example.db") as store, store.subscribe() as events:
        ...     _ = store.append("run-5", [RunStarted(5)])
        ...     next(events).event
        RunStarted(run_id=5)
        """
        # What a transaction of this thread has not committed has not happened yet.
        committed = self.engine.read
        chosen = None if types is None else sorted(stored_names(types))

        def read(position: int) -> Iterator[Recorded]:
            return read_events(
                committed,
                position,
                stream=stream,
                types=chosen,
                limit=None,
                backwards=False,
                unknown=unknown,
            )

        start = read_head(committed) if after is None else argument("after", after, Id)
        return Subscription(self.engine.watch(), lambda: read_head(committed), read, start)

    def reading(self) -> AbstractContextManager[Reader]:
        """Lend a connection for reading: within a transaction of this thread, that one's."""
        transaction = self.current()
        if transaction is not None:
            transaction.flush()
            return nullcontext(transaction.writer)
        moment = self._moment()
        return self.engine.read() if moment is None else nullcontext(moment)

    def snapshot(self) -> AbstractContextManager[None]:
        """Have all reads of this thread within the block see one and the same moment."""
        return nullcontext() if self.is_held() else Block(_Moment(self))

    def is_held(self) -> bool:
        """Return whether this thread reads within a transaction or a snapshot."""
        return self.current() is not None or self._moment() is not None

    def current(self) -> Transaction | None:
        """Return the transaction that this thread has open, or None."""
        writing = self._local.writing
        if writing is None:
            return None
        if writing.is_left_over():
            writing.abandon()
        return writing.transaction

    def _moment(self) -> Reader | None:
        """Return the reader that shows the moment that this thread has stopped at, or None."""
        looking = self._local.looking
        if looking is None:
            return None
        if looking.is_left_over():
            looking.abandon()
        return looking.reader

    # --- closing --------------------------------------------------------------------------

    def backup(self, to: str | os.PathLike[str], *, progress: bool | None = None) -> int:
        """Copy the whole store to a new file, while others go on; see `Face.backup`."""
        if self.current() is not None:
            raise InvalidCommand(
                "a backup in the middle of a batch would lack what the batch has done: leave it "
                "first"
            )
        return self.engine.backup(to, progress)

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


class _Opening:
    """Opens a store in another process; other than a `partial` it shows no password."""

    def __init__(self, place: str | os.PathLike[str], **options: Any) -> None:
        self._place = place
        self._options = options

    def __call__(self) -> EventStore:
        return open_store(self._place, **self._options, create=False)


def open_store(
    path_or_url: str | os.PathLike[str],
    *,
    durability: Durability = "normal",
    timeout: float = 30,
    clock: Callable[[], int] | None = None,
    create: bool = True,
) -> EventStore:
    """Open the event store at a path or on a server, and create it if there is none.

    Args:
        path_or_url: a path, `sqlite:///path` or `postgresql://user@host/database?schema=name`.
        durability: `"normal"` or `"full"`, see `SqliteEngine`; a server is always asked for the
            latter.
        timeout: seconds to wait for other writers, and to reach a server again.
        clock: returns the time in microseconds since 1970-01-01 UTC; for tests and replays.
        create: make the store if there is none.

    Raises:
        NotAStore: nothing at that place can be a store; or there is none, and `create` is false.
        StoreUnreachable, AccessDenied: the server does not answer, or refuses.
        StoreTooNew: a newer refold wrote it.
    """
    path = path_or_url
    again = _Opening(absolute(path), durability=durability, timeout=timeout, clock=clock)
    if isinstance(path, str) and re.match("postgres(ql)?:(?!//)", path):
        raise NotAStore("a URL of a server begins with postgresql://")
    if isinstance(path, str) and "://" in path:
        scheme, _, rest = path.partition("://")
        if scheme in ("postgresql", "postgres"):
            return EventStore(
                _postgres()(
                    path, durability=durability, timeout=timeout, clock=clock, create=create
                ),
                again,
            )
        if scheme != "sqlite":
            raise NotAStore(
                f"{scheme}:// is not supported: pass a path, sqlite:///path or "
                f"postgresql://user@host/database"
            )
        if not rest.startswith("/"):
            raise NotAStore("a URL that begins with sqlite:// names no file: pass sqlite:///path")
        path = rest[1:]
    return EventStore(
        SqliteEngine(
            path,
            durability=durability,
            timeout=timeout,
            clock=clock or times.now,
            create=create,
        ),
        again,
    )


def absolute(place: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return a place that stays the same when the process goes to another folder."""
    if isinstance(place, str) and "://" in place and not place.startswith("sqlite:///"):
        return place
    try:
        return os.path.abspath(_path(place))
    except (TypeError, ValueError):  # it is none: opening it says so
        return place


def is_same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Return whether two places are one file, whatever paths lead to it. Nothing is opened.

    SQLite must not open a file by two names at once: each name has a write-ahead log of its own.
    """
    try:
        return os.path.samefile(_path(one), _path(other))
    except (OSError, TypeError, ValueError):  # one of them is no file, or not there
        return False


def _path(place: str | os.PathLike[str]) -> str | os.PathLike[str]:
    path = place.removeprefix("sqlite:///") if isinstance(place, str) else place
    return os.path.expanduser(path)


def _postgres() -> "type[PostgresEngine]":
    try:
        from refold.eventstore.engines.postgres.engine import PostgresEngine  # psycopg is an extra
    except ImportError as error:
        raise NotAStore(
            f"postgresql:// needs psycopg ({error}): pip install 'refold[postgres]'"
        ) from error
    return PostgresEngine

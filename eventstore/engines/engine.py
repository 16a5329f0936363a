"""What the log asks of a database: connections, write transactions, and news of commits."""

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol, get_args

from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import InvalidCommand, StoreBusy

Values = Sequence[Any]

Durability = Literal["normal", "full"]

Projections = dict[str, tuple[int, int | None]]
"""The views that a store holds: by name, their version and how far they are folded."""


Lock = Callable[[Iterable[str]], None]


class Definition(NamedTuple):
    """Tables and SQL views that belong together."""

    objects: Sequence[str]
    """Their names."""
    schema: Sequence[str]
    """The statements that create them and what belongs to them."""


def check_options(durability: str, timeout: float) -> None:
    """Refuse what no engine can be opened with.

    Raises:
        InvalidCommand: one of them is not what it should be.
    """
    if durability not in get_args(Durability):
        raise InvalidCommand(f"durability is {excerpt(durability)}: pass 'normal' or 'full'")
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidCommand(f"timeout is {excerpt(timeout)}: pass seconds, 0 or more")


def busy(name: str, timeout: float) -> StoreBusy:
    """Return the error of a writer that has waited for its turn for the whole timeout."""
    return StoreBusy(
        f"{name}: somebody else (another process, or another store of this one) has been writing, "
        f"or rebuilding views, for {timeout:g} s: try again, or open the store with a larger "
        f"timeout"
    )


class Reader(Protocol):
    """A connection that speaks the SQL of `tables.sql`, with `?` for parameters."""

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        ...

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        ...

    def select_together(
        self, first: str, sql: str, parameters: Values, /
    ) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]]]:
        """Run two statements in one round trip; return the rows of both, the second's as dicts."""
        ...

    def head(self) -> int:
        """Return the position up to which the log is complete: nothing comes in at or below it."""
        ...

    def changes(self) -> int | None:
        """Return a number that differs after any other connection has committed.

        None: the engine cannot tell whether one has.
        """
        ...

    def exact_events(self, after: int, limit: int, /) -> list[tuple[Any, ...]]:
        """Return events after a position, each as an `EventRow`, texts as their bytes in UTF-8.

        What is no text in a column of text is None.
        """
        ...

    def foreign(self, known: Collection[str] | None, /) -> list[tuple[str, str]]:
        """Return what is not as refold made it: tables, columns and triggers, and what of them.

        Args:
            known: the names of the tables and SQL views of views; None: others do not matter.
        """
        ...


class Writer(Reader, Protocol):
    """The connection of a write transaction."""

    def run(self, sql: str, parameters: Values = (), /) -> None:
        """Run one statement that returns no rows; its error may come with a later statement's."""
        ...

    def executemany(self, sql: str, rows: Sequence[Values], /) -> None:
        """Run one statement for each row of parameters."""
        ...

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Values], on_conflict: str = "", /
    ) -> None:
        """Insert rows in bulk.

        Args:
            on_conflict: the clause that says what becomes of rows that are there already.
        """
        ...

    def need_digests(self, unchecked: int, /) -> None:
        """Refuse events without a digest from now on, except up to a position."""
        ...

    def renewed(self, tables: Sequence[Definition], /) -> AbstractContextManager[None]:
        """Lay out tables and SQL views anew, empty, and have the block fill them.

        Readers see the old ones until the commit.
        """
        ...


class Slot(NamedTuple):
    """Where an event goes."""

    position: int
    version: int
    previous: int
    """The position of the stream's event before it; 0 if it is the first."""


class LogEnd(Protocol):
    """The end of the log, as a write transaction appends to it."""

    writer: Writer
    fresh: bool
    """Whether somebody else may have written since the store's last transaction."""
    projections: Projections
    position: int
    """The position of the last event, those of this transaction included.

    If the transaction is shared: of the last that it was allotted, 0 before.
    """

    @property
    def lock(self) -> Lock | None:
        """Locks names until the commit; None: the transaction is exclusive, so nobody could.

        The names stand for things that are not in the database yet, which no lock on a row can
        protect. It waits until no transaction beside this one has locked one of them.
        """
        ...

    def version(self, stream: str) -> int:
        """Return the number of a stream's events; nobody else adds to it until the commit."""
        ...

    def allot(self, streams: Sequence[str]) -> list[Slot]:
        """Return a slot for a next event of each of these streams, in this order."""
        ...

    def now(self) -> int:
        """Return the time, in microseconds since 1970-01-01 UTC."""
        ...

    def sent(self, command_id: str) -> list[tuple[Any, ...]]:
        """Return the row of the command that had this id; nobody else sends one until the commit.

        Its columns: command, first, last, result.
        """
        ...

    def remember(self, command: Values) -> None:
        """Keep a row of the table `commands`."""
        ...

    def write(self, events: Sequence[Values]) -> None:
        """Insert events, as rows of the table, into the slots that were allotted to them."""
        ...


class Table(NamedTuple):
    """The table of a view, as rows of it are written in one message."""

    name: str
    version: int
    """Of its view."""
    columns: Sequence[str]
    """The key first; the times of creation and change and the position last."""


class Seen(NamedTuple):
    """A row that a decision was made on."""

    table: int
    """Which of the tables that the sender was given."""
    key: int | str
    position: int
    """Of the event that changed it last: if another has since, the decision is void."""
    after: Values | None
    """What it becomes, time and position aside; None: it stays as it is."""


class Change(NamedTuple):
    """One event that was decided from memory, with all that is written along with it."""

    stream: str
    type: str
    schema_version: int
    data: str
    metadata: str
    seen: Sequence[Seen]
    projections: Projections
    """The views that the store holds, as far as is known: if they are others, all is void."""
    sent: Values | None
    """The id of its command, the command, and its result; None: it has no id."""


class Placed(NamedTuple):
    """Where a change went."""

    position: int
    version: int
    recorded_at: int


class Sender(Protocol):
    """Writes changes that were decided from memory, each in one message."""

    @property
    def projections(self) -> Projections | None:
        """The views that the store holds, as its last writer found them.

        None: that is not known, or nothing can be sent.
        """
        ...

    def send(self, change: Change) -> Placed:
        """Write a change, and commit.

        Raises:
            Moved: what was remembered is not so any more; nothing was written.
            ConnectionLost: whether it was written is not known.
        """
        ...


class Watch(Protocol):
    """Tells when the store may hold new events, without reading it."""

    def wait(self, timeout: float) -> bool:
        """Return True as soon as anything was committed since the last call that did.

        Waits `timeout` seconds at most. The first call returns True at once.
        """
        ...

    async def wait_async(self, timeout: float) -> bool:
        """Do as `wait` does, without blocking the event loop."""
        ...

    def close(self) -> None:
        """Stop watching; a `wait` under way returns."""
        ...


Sql = Literal["sqlite", "postgresql"]
"""Whose SQL queries are written in."""


class Engine(Protocol):
    """A database that holds a store."""

    @property
    def name(self) -> str:
        """The path or URL, without any password, for messages."""
        ...

    @property
    def sql(self) -> Sql:
        """Whose SQL queries are written in."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds to wait for other writers, and to try again what a lost connection undid."""
        ...

    def write(self, *, exclusive: bool) -> AbstractContextManager[LogEnd]:
        """Open a write transaction: commit at the end, or roll back if an error leaves it.

        Args:
            exclusive: no other transaction writes beside it. A shared one locks what it looks at;
                where the engine knows no such thing, the transaction is exclusive anyway.

        Raises:
            Conflict, ConnectionLost: nothing of it is kept, and trying again may succeed.
            OutcomeUnknown: the connection broke in the commit and nobody can be asked.
        """
        ...

    def sender(self, tables: Sequence[Table]) -> Sender | None:
        """Return what writes changes to these tables in one message; None: that spares nothing."""
        ...

    def read(self) -> AbstractContextManager[Reader]:
        """Lend a connection for reading; each statement sees the last commit."""
        ...

    def snapshot(self) -> AbstractContextManager[Reader]:
        """Lend a connection for reading on which all statements see one and the same moment."""
        ...

    def query(
        self, sql: str, parameters: Values, *, within: Reader | None = None
    ) -> list[dict[str, Any]]:
        """Answer a statement of a user's own as dicts; refuse one that would write.

        With `within`, it sees what the transaction open on that connection has done so far.
        """
        ...

    def backup(self, to: str | os.PathLike[str], progress: bool | None) -> int:
        """Copy the whole database to a new file; return the position of its last event.

        Args:
            to: a path where nothing is.
            progress: show a progress bar; None: only on a terminal.

        Raises:
            InvalidCommand: something is there; or the store is on a server.
        """
        ...

    def identity(self) -> tuple[Any, ...]:
        """Return what tells the store from all others, whatever path or URL leads to it."""
        ...

    def watch(self) -> Watch:
        """Begin to watch for commits."""
        ...

    def before_fork(self, timeout: float) -> bool:
        """Let go of what two processes must not share; return False if some of it is in use."""
        ...

    def resume(self) -> None:
        """In the parent, after a fork: lend connections again."""
        ...

    def after_fork(self, *, usable: bool) -> None:
        """In the child of a fork, begin anew; unless it is usable, refuse all use."""
        ...

    def close(self) -> None:
        """Close all connections; closing twice does nothing."""
        ...


class NotExclusive(Exception):
    """The transaction turns out to need the store for itself: do it again, exclusively."""


class NotRemembered(Exception):
    """A decision needs what is not in memory: make it in a transaction."""


class Moved(Exception):
    """A decision was made on what is not so any more: make it again, in a transaction."""

    def __init__(self, row: int | None) -> None:
        super().__init__(row)
        self.row = row
        """Which of the rows that it was made on; None: something else."""

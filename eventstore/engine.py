"""What the log asks of a database: connections, one writer at a time, and news of commits."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Values = Sequence[Any]


class Connection(Protocol):
    """A connection that speaks the SQL of `tables.sql`, with `?` for parameters."""

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        ...

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        ...

    def executemany(self, sql: str, rows: Iterable[Values], /) -> None:
        """Run one statement for each row of parameters."""
        ...

    def drop(self, name: str, /) -> None:
        """Drop a table or an SQL view, if there is one of that name."""
        ...

    def changes(self) -> int:
        """Return a number that is another one after any other connection has committed."""
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


class Engine(Protocol):
    """A database that holds a store."""

    @property
    def name(self) -> str:
        """The path or URL, without any password, for messages."""
        ...

    def write(self) -> AbstractContextManager[Connection]:
        """Open a write transaction: commit at the end, or roll back if an error leaves it."""
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """Lend a connection for reading; each statement sees the last commit."""
        ...

    def snapshot(self) -> AbstractContextManager[Connection]:
        """Lend a connection for reading on which all statements see one and the same moment."""
        ...

    def query(
        self, sql: str, parameters: Values, *, within: Connection | None = None
    ) -> list[dict[str, Any]]:
        """Answer a statement of a user's own as dicts; refuse one that would write.

        With `within`, it sees what the transaction open on that connection has done so far.
        """
        ...

    def watch(self) -> Watch:
        """Begin to watch for commits."""
        ...

    def before_fork(self, timeout: float) -> bool:
        """Close all connections, once they are idle; return False if some stay in use."""
        ...

    def resume(self) -> None:
        """In the parent, after a fork: lend connections again."""
        ...

    def after_fork(self, *, usable: bool) -> None:
        """In the child of a fork, begin anew; refuse all use if connections were inherited."""
        ...

    def close(self) -> None:
        """Close all connections; closing twice does nothing."""
        ...

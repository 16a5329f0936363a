"""Connections that are lent, each to one user at a time."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from eventstore.sqlite.connection import SqliteConnection


class Pool:
    """Lends connections and keeps them for the next; closed, it closes each when it comes back.

    SQLite's connections must not be closed under someone who is using them.
    """

    def __init__(
        self,
        connect: Callable[[], SqliteConnection],
        disconnect: Callable[[SqliteConnection], None],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._turn = threading.Condition()
        self._idle: list[SqliteConnection] = []
        self._closed = self._shut = False
        self._lent = 0

    @contextmanager
    def lend(self) -> Generator[SqliteConnection, None, None]:
        """Lend a connection for the length of the block."""
        with self._turn:
            self._turn.wait_for(lambda: not self._shut)
            connection = self._idle.pop() if self._idle else None
            self._lent += 1
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        finally:
            with self._turn:
                self._lent -= 1
                self._turn.notify_all()
                if connection is not None and connection.kept and not self._closed:
                    self._idle.append(connection)
                elif connection is not None:
                    self._disconnect(connection)

    def shut(self, timeout: float) -> bool:
        """Lend nothing more until `reopen`; return whether all came back within the timeout."""
        with self._turn:
            self._shut = True
            return self._turn.wait_for(lambda: not self._lent, timeout)

    def reopen(self) -> None:
        """Lend again."""
        with self._turn:
            self._shut = False
            self._turn.notify_all()

    def empty(self) -> None:
        """Close the connections that nobody uses."""
        with self._turn:
            while self._idle:
                self._disconnect(self._idle.pop())

    def close(self) -> None:
        """Close the connections that nobody uses now, and the others when they come back."""
        self._closed = True
        self.empty()

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
        self._lock = threading.Lock()
        self._idle: list[SqliteConnection] = []
        self._closed = False
        self.lent = 0
        """How many connections are in use."""

    @contextmanager
    def lend(self) -> Generator[SqliteConnection, None, None]:
        """Lend a connection for the length of the block."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            self.lent += 1
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        finally:
            with self._lock:
                self.lent -= 1
                if connection is not None and self._closed:
                    self._disconnect(connection)
                elif connection is not None:
                    self._idle.append(connection)

    def empty(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            while self._idle:
                self._disconnect(self._idle.pop())

    def close(self) -> None:
        """Close the connections that nobody uses now, and the others when they come back."""
        self._closed = True
        self.empty()

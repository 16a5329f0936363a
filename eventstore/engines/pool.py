"""Connections that are lent, each to one user at a time."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

C = TypeVar("C")

KEPT = 8
"""Connections that are kept while nobody uses them."""


class Pool(Generic[C]):
    """Lends connections and keeps them for the next; closed, it closes each when it comes back.

    A connection must not be closed under someone who is using it.

    Args:
        connect: opens one, in the thread that wants it; what it raises, that thread gets.
        disconnect: closes one.
        usable: whether one that comes back may be lent again.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        disconnect: Callable[[C], None],
        usable: Callable[[C], bool],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._usable = usable
        self._turn = threading.Condition()
        self._idle: list[C] = []
        self._shut = False
        self._lent = 0
        self.closed = False

    def take(self) -> C:
        """Take a connection, which must be given back."""
        with self._turn:
            while self._shut:
                self._turn.wait()
            self._lent += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._connect()
        except BaseException:
            self._returned()
            raise

    def give_back(self, connection: C) -> None:
        """Give back a connection that was taken."""
        with self._turn:
            if self._usable(connection) and not self.closed and len(self._idle) < KEPT:
                self._idle.append(connection)
            else:
                self._disconnect(connection)
            self._returned()

    def add(self, connection: C) -> None:
        """Keep a connection that was opened elsewhere, if it may be lent."""
        with self._turn:
            if self._usable(connection):
                self._idle.append(connection)
            else:
                self._disconnect(connection)

    def _returned(self) -> None:
        with self._turn:
            self._lent -= 1
            if self._shut:
                self._turn.notify_all()

    @contextmanager
    def lend(self) -> Generator[C, None, None]:
        """Lend a connection for the length of the block."""
        connection = self.take()
        try:
            yield connection
        finally:
            self.give_back(connection)

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
        self.closed = True
        self.empty()

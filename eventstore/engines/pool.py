"""Connections that are lent, each to one user at a time."""

from collections.abc import Callable
from typing import Generic, TypeVar

from refold.eventstore.blocks import Bell, Block, Use
from refold.eventstore.errors import DBException

C = TypeVar("C")

KEPT = 8
"""Connections that are kept while nobody uses them."""


class Pool(Generic[C]):
    """Lends connections and keeps them for the next; closed, it closes each when it comes back.

    A connection must not be closed under someone who is using it. There is no lock: each step is
    one that no other thread can come into, and an interrupt between two of them loses a connection
    at most, which then closes itself.

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
        self._idle: list[C] = []
        self._loans: set[Loan[C]] = set()
        self._shut = False
        self._bell = Bell()
        self.closed = False

    def take(self) -> C:
        """Take a connection, which must be given back."""
        connection = self.take_idle()
        return self._connect() if connection is None else connection

    def take_idle(self) -> C | None:
        """Take one that nobody uses, if there is one."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def give_back(self, connection: C) -> None:
        """Give back a connection that was taken."""
        if self._usable(connection) and len(self._idle) < KEPT:
            self._idle.append(connection)
            if self.closed:
                self.empty()
        else:
            self._disconnect(connection)

    def discard(self, connection: C) -> None:
        """Close a connection that was taken."""
        self._disconnect(connection)

    def lend(self) -> Block[C]:
        """Lend a connection for the length of the block."""
        return Block(Loan(self))

    def begin(self, loan: "Loan[C]") -> None:
        """Take note of a loan; if the pool is shut, wait until it lends again."""
        while True:
            self._loans.add(loan)
            if not self._shut:
                return
            self.end(loan)
            self._bell.wait_for(lambda: not self._shut)

    def end(self, loan: "Loan[C]") -> None:
        """Take note of the end of a loan."""
        self._loans.discard(loan)
        if self._shut:
            self._bell.ring()

    @property
    def _lent(self) -> int:
        """How many connections are lent; what was left over is taken back first."""
        for loan in self._loans.copy():
            if loan.is_left_over():
                loan.abandon()
        return len(self._loans)

    def shut(self, timeout: float) -> bool:
        """Lend nothing more until `reopen`; return whether all came back within the timeout."""
        self._shut = True
        return self._bell.wait_for(lambda: not self._lent, timeout)

    def reopen(self) -> None:
        """Lend again."""
        self._shut = False
        self._bell.ring()

    def empty(self) -> None:
        """Close the connections that nobody uses."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            self._disconnect(connection)

    def close(self) -> None:
        """Close the connections that nobody uses now, and the others when they come back."""
        self.closed = True
        self.empty()


class Loan(Use[C]):
    """The use of a connection of a pool.

    It goes back only from a block that ended well, or with an error of ours. Any other may have
    come in the middle of a statement, so the connection is closed: a statement that is not
    finished, held by a traceback that somebody keeps, would show an old moment for ever.
    """

    def __init__(self, pool: Pool[C]) -> None:
        super().__init__()
        self._pool = pool
        self._connection: C | None = None

    def begin(self) -> C:
        """Take a connection."""
        self._pool.begin(self)
        connection = self._connection = self._pool.take()
        return connection

    def end(self, error: BaseException | None) -> None:
        """Give it back."""
        connection, self._connection = self._connection, None
        if connection is not None:  # from here on it is lost, if anything comes in between
            if error is None or isinstance(error, DBException):
                self._pool.give_back(connection)
            else:
                self._pool.discard(connection)
        self._pool.end(self)

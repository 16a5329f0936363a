"""News of commits in an SQLite file."""

import threading
import time
from collections.abc import Callable

from refold.eventstore.engines.sqlite.connection import SqliteConnection

# Reading news costs one look at shared memory, about a microsecond; 100 looks a second are
# 0.1 % of a core and bound the delay of a subscription.
INTERVAL = 0.01


class SqliteWatch:
    """Looks for commits of any process at the database's counter of changes."""

    def __init__(
        self,
        connect: Callable[[], SqliteConnection | None],
        disconnect: Callable[[SqliteConnection], None],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._connection: SqliteConnection | None = None
        self._seen: int | None = None
        self._closed = threading.Event()
        self._looking = threading.Lock()

    def _news(self) -> bool:
        with self._looking:
            if self._closed.is_set():
                return False
            if self._connection is None:
                self._connection = self._connect()
                if self._connection is None:  # in the middle of a fork
                    return False
            now = self._connection.changes()
            news, self._seen = now != self._seen, now
            return news

    def rest(self) -> None:
        """Disconnect until the next look, which then counts as news."""
        with self._looking:
            if self._connection is not None:
                self._disconnect(self._connection)
            self._connection = self._seen = None

    def wait(self, timeout: float) -> bool:
        """Return True as soon as anything was committed since the last call that did."""
        deadline = time.monotonic() + timeout
        while not self._closed.is_set():
            if self._news():
                return True
            if time.monotonic() >= deadline:
                return False
            self._closed.wait(INTERVAL)
        return False

    async def wait_async(self, timeout: float) -> bool:
        """Do as `wait` does, without blocking the event loop."""
        import asyncio  # half of what `import refold` would take, for those who do without

        deadline = time.monotonic() + timeout
        while not self._closed.is_set():
            if self._news():
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(INTERVAL)
        return False

    def close(self) -> None:
        """Stop watching; a `wait` under way returns."""
        self._closed.set()
        self.rest()

    def __del__(self) -> None:
        # A subscription that nobody closed must not keep its connection: no child of a fork could
        # use the store.
        self.close()

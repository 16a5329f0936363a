"""News of commits on a server."""

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
from psycopg import sql

from refold.eventstore.engines.postgres.failures import fail_to_connect
from refold.eventstore.engines.postgres.server import Raw
from refold.eventstore.engines.postgres.settled import Settled
from refold.eventstore.errors import StoreUnreachable

AGAIN = 0.02  # seconds until another look, while an event waits for one below it
RETRY = (
    0.1  # seconds between attempts to reach a server that does not answer, or to look at a replica
)

SIGNALS = 1.0  # seconds until a signal is heard that came just before the system began to wait

# Connections of a process that this one was forked from: never used here, never closed.
_inherited: list[Raw] = []


class PostgresWatch:
    """Waits for the announcements that follow commits, on a connection of its own.

    Args:
        name: of the store, for messages.
        connect: opens a connection.
        channel: where commits are announced.
        settled: whether the last look at the log saw events that cannot be given yet.
        timeout: seconds to try to reach a server that does not answer.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Raw],
        channel: str,
        settled: Settled,
        timeout: float,
    ) -> None:
        self._name = name
        self._connect = connect
        self._channel = channel
        self._settled = settled
        self._timeout = timeout
        self._raw: Raw | None = None
        self._connecting = threading.Lock()
        self._anew = False
        """Whether the connection is new, so that anything may have happened before."""
        self._deaf = False
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._bell, self._ringer = _bell()

    def wait(self, timeout: float) -> bool:
        """Return True as soon as anything was committed since the last call that did.

        Raises:
            StoreUnreachable: the server has not answered for the store's timeout.
        """
        deadline = time.monotonic() + timeout
        while not self._closed.is_set():
            raw = self._listening()
            if raw is None:
                return False
            if self._anew:
                self._anew = False
                return True
            if self._heard(raw):
                return True
            if raw.closed:
                continue
            left, short = self._patience(deadline)
            try:
                with selectors.DefaultSelector() as selector:
                    selector.register(raw.fileno(), selectors.EVENT_READ)
                    selector.register(self._bell, selectors.EVENT_READ)
                    selector.select(min(left, SIGNALS))
            except (psycopg.Error, OSError, ValueError):  # closed under us, by close() or a fork
                continue
            if self._heard(raw) or self._rung() or (short and not self._closed.is_set()):
                return True
            if time.monotonic() >= deadline:
                return False
        return False

    async def wait_async(self, timeout: float) -> bool:
        """Do as `wait` does, without blocking the event loop."""
        import asyncio  # half of what `import refold` would take, for those who do without

        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + timeout
        while not self._closed.is_set():
            raw = await asyncio.to_thread(self._listening)
            if raw is None:
                return False
            if self._anew:
                self._anew = False
                return True
            if self._heard(raw):
                return True
            if raw.closed:
                continue
            left, short = self._patience(deadline)
            stirred = asyncio.Event()
            try:
                sockets = [raw.fileno(), self._bell.fileno()]
            except psycopg.Error:  # closed under us
                continue
            try:
                for each in sockets:
                    loop.add_reader(each, stirred.set)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stirred.wait(), left)
            finally:
                for each in sockets:
                    loop.remove_reader(each)
            if self._heard(raw) or self._rung() or (short and not self._closed.is_set()):
                return True
            if time.monotonic() >= deadline:
                return False
        return False

    def _patience(self, deadline: float) -> tuple[float, bool]:
        left = max(0.0, deadline - time.monotonic())
        # Whoever holds a lower position back may end without a word: a killed process does.
        again = AGAIN if self._settled.waiting else RETRY if self._deaf else left
        return min(again, left), again < left

    def _listening(self) -> Raw | None:
        """Return the connection, which may be a new one; None if the watch was closed."""
        # A task that was cancelled leaves a thread behind that still connects.
        with self._connecting:
            return self._connected()

    def _connected(self) -> Raw | None:
        if self._pid != os.getpid():
            if self._raw is not None:
                _inherited.append(self._raw)
            self._raw, self._pid = None, os.getpid()
            self._bell.close()
            self._ringer.close()
            self._bell, self._ringer = _bell()
        if self._raw is not None and not self._raw.closed:
            return self._raw
        deadline = time.monotonic() + self._timeout
        while not self._closed.is_set():
            try:
                self._raw = self._begin()
                self._anew = True
                if self._closed.is_set():
                    break
                return self._raw
            except StoreUnreachable:
                if time.monotonic() >= deadline:
                    raise
            self._closed.wait(RETRY)
        if self._raw is not None:
            self._raw.close()
        return None

    def _begin(self) -> Raw:
        raw = self._connect()
        try:
            # A replica announces nothing, and a pooler hands no announcement on.
            self._deaf = raw.pooled or raw.info.parameter_status("in_hot_standby") == "on"
            if not self._deaf:
                raw.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        except psycopg.Error as error:
            raw.close()
            fail_to_connect(self._name, error)
        return raw

    def _heard(self, raw: Raw) -> bool:
        try:
            raw.pgconn.consume_input()
            heard = False
            while raw.pgconn.notifies() is not None:
                heard = True
        except psycopg.Error:
            raw.close()
            return False
        return heard

    def _rung(self) -> bool:
        if self._closed.is_set():
            return False
        with suppress(BlockingIOError):
            return bool(self._bell.recv(16))
        return False

    def ring(self) -> None:
        """Wake whoever waits, as if something had been committed."""
        with suppress(OSError):  # it is closed, or has been rung often
            self._ringer.send(b"!")

    def close(self) -> None:
        """Stop watching; a `wait` under way returns."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._ringer.close()  # which wakes whoever waits
        if self._raw is not None and self._pid == os.getpid():
            self._raw.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # an interrupt may have come before it was made
            self.close()
            self._bell.close()


def _bell() -> tuple[socket.socket, socket.socket]:
    bell, ringer = socket.socketpair()
    bell.setblocking(False)
    ringer.setblocking(False)
    return bell, ringer

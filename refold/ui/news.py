"""What is new in a store, for any number of viewers: one subscription, one thread."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import NamedTuple

from refold.eventstore.errors import DBException, UnreadableEvent
from refold.face import Face

HEARTBEAT = 10.0
"""Seconds after which a viewer is told that nothing is new."""

AGAIN = 1.0
"""Seconds between two attempts to reach a store that is away."""


class State(NamedTuple):
    """How far the log is."""

    position: int
    trouble: str | None = None
    """Why the store cannot be read just now."""


class News:
    """Follows a log from the first viewer on.

    Args:
        face: of the store.
    """

    def __init__(self, face: Face) -> None:
        self._face = face
        self._state: State | None = None
        self._viewers: set[_Viewer] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def __len__(self) -> int:
        return len(self._viewers)

    async def follow(self) -> AsyncGenerator[State, None]:
        """Give the state, then each change of it, and the same again every few seconds."""
        viewer = _Viewer(asyncio.get_running_loop())
        self._begin()
        with self._lock:
            self._viewers.add(viewer)
        told: State | None = None
        try:
            while not self._closed.is_set():
                viewer.changed.clear()  # before it looks: what comes after it is news again
                if self._state == told:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(viewer.changed.wait(), HEARTBEAT)
                        continue
                told = self._state
                if told is not None:
                    yield told
        finally:
            with self._lock:
                self._viewers.discard(viewer)

    def close(self) -> None:
        """End the subscription, and the streams of all viewers; callable from a signal handler."""
        self._closed.set()
        for viewer in tuple(self._viewers):
            viewer.tell()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="news", daemon=True)
                self._thread.start()

    def _tell(self, state: State) -> None:
        with self._lock:
            self._state = state
            viewers = tuple(self._viewers)
        for viewer in viewers:
            viewer.tell()

    def _watch(self) -> None:
        after = 0
        while not self._closed.is_set():
            try:
                after = after or self._face.store.head()
                with self._face.subscribe(after) as events:
                    self._tell(State(after))
                    while not self._closed.is_set():
                        if events.wait(AGAIN):
                            after = events.position
                            self._tell(State(after))
            except UnreadableEvent as error:  # it has happened, whatever it tells
                after = max(after, error.position)
            except DBException as error:
                self._tell(State(after, str(error)))
                self._closed.wait(AGAIN)


class _Viewer:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.changed = asyncio.Event()
        self._loop = loop

    def tell(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.changed.set)

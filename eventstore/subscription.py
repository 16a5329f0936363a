"""A subscription: what has happened, then what happens."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Self

from eventstore.engine import Watch
from eventstore.recorded import Recorded

PAGE = 1_000  # events that are read ahead
PATIENCE = 60.0  # seconds between two looks at a log that nobody seems to write to


class Subscription(Iterator[Recorded], AsyncIterator[Recorded]):
    """Iterates over events for ever, waiting for new ones; `close()` ends it from any thread."""

    def __init__(
        self, watch: Watch, read: Callable[[int, int], Iterator[Recorded]], after: int
    ) -> None:
        self._watch = watch
        self._read = read
        self._page: deque[Recorded] = deque()
        self._at_end = True
        self._closed = False
        self.position = after
        """The position of the last event that was given."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Recorded:
        while not self._page:
            if self._closed:
                raise StopIteration
            # The watch looks before the read begins: what is committed meanwhile is news again.
            if not self._at_end or self._watch.wait(PATIENCE):
                self._turn_page()
        return self._give()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Recorded:
        while not self._page:
            if self._closed:
                raise StopAsyncIteration
            if not self._at_end or await self._watch.wait_async(PATIENCE):
                await asyncio.to_thread(self._turn_page)
        return self._give()

    def _turn_page(self) -> None:
        for recorded in self._read(self.position, PAGE):
            self._page.append(recorded)
        self._at_end = len(self._page) < PAGE

    def _give(self) -> Recorded:
        recorded = self._page.popleft()
        self.position = recorded.position
        return recorded

    def close(self) -> None:
        """End the subscription; an iteration that waits stops."""
        self._closed = True
        self._page.clear()
        self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

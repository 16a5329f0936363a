"""A subscription: what has happened, then what happens."""

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Self

from eventstore.engine import Watch
from eventstore.recorded import Recorded

PATIENCE = 60.0  # seconds between two looks at a log that nobody seems to write to


class Subscription(Iterator[Recorded], AsyncIterator[Recorded]):
    """Iterates over events for ever, waiting for new ones; `close()` ends it from any thread."""

    def __init__(
        self, watch: Watch, read: Callable[[int], Iterator[Recorded]], after: int
    ) -> None:
        self._watch = watch
        self._read = read
        self._events: Iterator[Recorded] = iter(())
        self._closed = False
        self.position = after
        """The position of the last event that was given."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Recorded:
        while (recorded := self._next()) is None:
            if self._closed:
                raise StopIteration
            if self._watch.wait(PATIENCE):
                self._events = self._read(self.position)
        return recorded

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Recorded:
        while (recorded := self._next()) is None:
            if self._closed:
                raise StopAsyncIteration
            if await self._watch.wait_async(PATIENCE):
                self._events = self._read(self.position)
        return recorded

    def _next(self) -> Recorded | None:
        # The watch looked before this read began, so what is committed meanwhile is news again.
        recorded = next(self._events, None) if not self._closed else None
        if recorded is not None:
            self.position = recorded.position
        return recorded

    def close(self) -> None:
        """End the subscription; an iteration that waits stops."""
        self._closed = True
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

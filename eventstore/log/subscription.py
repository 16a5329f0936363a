"""A subscription: what has happened, then what happens."""

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import NamedTuple, Self

from refold.eventstore.engines.engine import Watch
from refold.eventstore.errors import DBException
from refold.eventstore.log.recorded import Recorded
from refold.eventstore.paging import PAGE

PATIENCE = 60.0  # seconds between two looks at a log that nobody seems to write to


class Catch(NamedTuple):
    """A read that catches up with the log."""

    head: int
    """The head before the read began."""
    events: Iterator[Recorded]


class Subscription(Iterator[Recorded], AsyncIterator[Recorded]):
    """Iterates over events for ever, waiting for new ones; `close()` ends it from any thread."""

    def __init__(
        self,
        watch: Watch,
        head: Callable[[], int],
        read: Callable[[int], Iterator[Recorded]],
        after: int,
    ) -> None:
        self._watch = watch
        self._head = head
        self._read = read
        # Where to read on: events of other types or streams are not looked at twice.
        self._looked_to = after
        self._catch: Catch | None = None
        self._page: deque[Recorded] = deque()
        self._error: DBException | None = None
        self._news = False
        self._closed = False
        self.position = after
        """The position of the last event that was given."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Recorded:
        while not self._closed:
            if self._page or self._error:
                return self._give()
            # The watch looks before the read begins: what is committed meanwhile is news again.
            self._news = self._news or self._watch.wait(PATIENCE)
            if self._news:
                self._turn_to(*self._read_page())
        raise StopIteration

    def wait(self, timeout: float) -> list[Recorded]:
        """Return all events that are there, or as soon as some are; none after the timeout.

        Args:
            timeout: seconds.
        """
        deadline = time.monotonic() + timeout
        while not self._closed and not self._page and self._error is None:
            left = deadline - time.monotonic()
            self._news = self._news or self._watch.wait(min(max(0, left), PATIENCE))
            if not self._news:
                if left > PATIENCE:
                    continue
                break
            # There may be news and nothing to give yet: of others, or behind a gap.
            self._turn_to(*self._read_page())
            if left <= 0:
                break
        if self._closed or not (self._page or self._error):
            return []
        return [self._give() for _ in range(len(self._page) or 1)]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Recorded:
        import asyncio  # see SqliteWatch.wait_async

        while not self._closed:
            if self._page or self._error:
                return self._give()
            self._news = self._news or await self._watch.wait_async(PATIENCE)
            if self._news:
                try:
                    read = await asyncio.to_thread(self._read_page)
                except asyncio.CancelledError:
                    self._catch = None  # what the thread reads is dropped, and read again
                    raise
                self._turn_to(*read)
        raise StopAsyncIteration

    def _read_page(self) -> tuple[list[Recorded], Catch | None, DBException | None]:
        # What is read on is kept, because a stream is walked from its end each time.
        catch = self._catch or Catch(self._head(), self._read(self._looked_to))
        page: list[Recorded] = []
        try:
            page.extend(islice(catch.events, PAGE))
        except DBException as error:
            # It is about the event behind those that could be read, so they come first.
            return page, None, error
        return page, catch, None

    def _turn_to(
        self, page: list[Recorded], catch: Catch | None, error: DBException | None
    ) -> None:
        self._page.extend(page)
        self._error = error
        end = page[-1].position if page else self._looked_to
        if catch is not None and len(page) < PAGE:
            # The read may have seen more than the head before it, which may have seen more than
            # this subscription is about.
            end = max(end, catch.head)
            catch = None
        self._looked_to = end
        self._catch = catch
        self._news = catch is not None or error is not None

    def _give(self) -> Recorded:
        if not self._page:
            error, self._error = self._error, None
            assert error is not None
            raise error
        recorded = self._page.popleft()
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

"""The async faces: every method of the sync ones, awaited, off the event loop's thread.

They are derived from `RfDb` and `RFDatabase`, not written again; `asynchronous.pyi` tells type
checkers what comes out.
"""

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial, wraps
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, cast

from refold.eventstore.errors import StoreClosed
from refold.eventstore.log.readable import Moment
from refold.eventstore.log.store import absolute
from refold.face import About, Face
from refold.metrics import MetricsLog
from refold.rf_database import RFDatabase
from refold.rf_db import RfDb

T = TypeVar("T")

# The batches that the present task is in, of whatever faces.
_batches: ContextVar[tuple[object, ...]] = ContextVar("batches", default=())


class AsyncFace:
    """Runs one face on one thread of its own, call by call.

    Takes the arguments of the face that it wraps, which is opened at the first use.
    """

    face_type: type[Face]

    def __init__(
        self, path_or_url: str | os.PathLike[str] = "rapidfire.db", **options: Any
    ) -> None:
        # The process may be in another folder when it is opened.
        self._begin(partial(self.face_type, absolute(path_or_url), **options))

    def __reduce__(self) -> tuple[Callable[..., "AsyncFace"], tuple[Any, ...]]:
        """Send it to another process, which opens one of its own."""
        return _begun, (type(self), self._open)

    def _begin(self, open_face: Callable[[], Face]) -> None:
        self._open = open_face
        self._face: Face | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.face_type.__name__)
        # Held through a batch, so that no other task's command slips into it.
        self._turn = asyncio.Lock()
        self._open_batch: object = None
        self._closed = False

    def __init_subclass__(cls, face: type[Face]) -> None:
        cls.face_type = face
        for name, method in inspect.getmembers(face, inspect.isfunction):
            if not name.startswith("_") and not hasattr(cls, name):
                setattr(cls, name, cls._awaited(method))

    @staticmethod
    def _awaited(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        async def call(self: "AsyncFace", *args: Any, **kwargs: Any) -> Any:
            return await self._call(lambda face: method(face, *args, **kwargs))

        return call

    def _start(self, call: Callable[[Face], T]) -> asyncio.Future[T]:
        def run() -> T:
            if self._face is None:
                self._face = self._open()
            return call(self._face)

        if self._closed:
            raise StoreClosed(f"this {type(self).__name__} was closed: make a new one")
        return asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def _finish(self, call: Callable[[Face], T]) -> T:
        # A thread cannot be stopped, so whoever is cancelled here still waits for its end.
        future = self._start(call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def _in_batch(self) -> bool:
        return self._open_batch is not None and self._open_batch in _batches.get()

    async def _call(self, call: Callable[[Face], T]) -> T:
        if self._in_batch():
            return await self._start(call)
        async with self._turn:
            return await self._start(call)

    @asynccontextmanager
    async def batch(self) -> AsyncGenerator[None, None]:
        """Put the commands of the block into one transaction: all of them happen or none.

        Other tasks' calls on this face wait for its end.
        """
        if self._in_batch():
            async with self._transaction():
                yield
            return
        async with self._turn:
            batch = self._open_batch = object()
            token = _batches.set((*_batches.get(), batch))
            try:
                async with self._transaction():
                    yield
            finally:
                _batches.reset(token)
                self._open_batch = None

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[None, None]:
        block = ExitStack()
        try:
            await self._finish(lambda face: block.enter_context(face.batch()))
            yield
        except BaseException as error:
            leave = (type(error), error, error.__traceback__)
            await self._finish(lambda _: block.__exit__(*leave))
            raise
        await self._finish(lambda _: block.__exit__(None, None, None))

    @asynccontextmanager
    async def watching(self) -> AsyncGenerator[None, None]:
        """Have a thread call `recover` as soon as somebody dies, until the end of the block."""
        block = ExitStack()
        await self._call(lambda face: block.enter_context(face.watching()))
        try:
            yield
        finally:
            await self._finish(lambda _: block.close())

    async def as_of(self, moment: Moment) -> Self:
        """Return this face as it was at a moment, on a thread of its own; close it when done.

        Raises:
            InvalidMoment: it lies in the future or before the first event, or has no zone.
        """
        past = await self._call(lambda face: face.as_of(moment))
        return _begun(type(self), partial(_as_it_is, past))

    async def execute(self, query: str, params: Any = ()) -> list[dict[str, Any]]:
        """Answer a SELECT as dicts: `db.db.execute` of the sync face.

        Raises:
            WriteRefused: the statement would write.
            InvalidQuery: the SQL or the parameters are wrong.
        """
        return await self._call(lambda face: face.db.execute(query, params))

    async def close(self) -> None:
        """Close the store; closing twice does nothing."""
        if self._closed:
            return
        if self._face is not None:
            with suppress(StoreClosed):  # another task was first
                await self._call(lambda face: face.close())
        self._closed = True
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        await self._call(lambda _: None)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


F = TypeVar("F", bound=AsyncFace)


def _begun(kind: type[F], open_face: Callable[[], Face]) -> F:
    """Return an async face on the face that a function returns."""
    face = object.__new__(kind)
    face._begin(open_face)  # pyright: ignore[reportPrivateUsage]
    return face


def _as_it_is(face: Face) -> Face:
    return face


class AsyncRfDb(AsyncFace, face=RfDb):
    """`RfDb` with every method awaited.

    >>> async def main() -> int:
    ...     async with AsyncRfDb("example.db") as db:
    ...         return await db.create_experiment("digits")
    >>> asyncio.run(main())
    1
    """

    @asynccontextmanager
    async def metrics(
        self, run_id: int, *, attempt: int | None = None, **about: Unpack[About]
    ) -> AsyncGenerator[MetricsLog, None]:
        """Log metrics from a training loop, in a microsecond or two for each point.

        What the block gets is called without `await`; see `RfDb.metrics`.
        """
        log = await self._call(
            lambda face: RfDb.metrics(cast("RfDb", face), run_id, attempt=attempt, **about)
        )
        try:
            yield log
        finally:
            await self._finish(lambda _: log.close())


class AsyncRFDatabase(AsyncFace, face=RFDatabase):
    """`RFDatabase` with every method awaited."""

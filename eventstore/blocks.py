"""Blocks (`with`) that no interrupt leaves half entered, half left or open.

A `KeyboardInterrupt` comes between any two instructions: before the first one of an `__exit__`,
too, and within a `finally`. So nothing that has begun can rely on code of its own to end it. But as
long as a block is under way, the interpreter holds what it will call to leave the block, and drops
it however the block ends, even if somebody keeps the traceback. Here this is an object that nobody
else holds. If it has gone and the use has not ended, the use was left over: it is abandoned at
once or, if another interrupt comes in between, by whoever comes upon it next.
"""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

T = TypeVar("T")
InnerT = TypeVar("InnerT")

LOOK = 1.0
"""Seconds between two looks of whoever waits for a use to end: the bell may not have been rung."""


class Use(Generic[T]):
    """A use of something, such as a connection that is lent, for the length of a block.

    `begin` and `end` may be interrupted anywhere. `end` is called again then, with an error: it
    ends what is left, and does nothing if nothing is.
    """

    def __init__(self) -> None:
        self.block: weakref.ref[Any] | None = None
        """Dead: the block has gone, and the use has not ended; None: there is no block now."""

    def begin(self) -> T:
        """Begin it; what is returned is what the block gets."""
        raise NotImplementedError

    def end(self, error: BaseException | None) -> None:
        """End it, well or with the error that leaves the block."""

    def abandon(self) -> None:
        """End it in the place of its block, in any thread."""
        self.end(GeneratorExit())  # as a generator is ended that nobody goes on with

    def is_left_over(self) -> bool:
        """Return whether its block has gone without ending it."""
        return self.block is not None and self.block() is None

    def hang_on(self, block: object) -> None:
        """Have it abandoned when an object goes, unless it has ended by then."""
        self.block = weakref.ref(block, self._gone)

    def _gone(self, _: object) -> None:
        self.abandon()


class Block(Generic[T]):
    """What `with` enters and leaves for a use; once."""

    __slots__ = ("__weakref__", "_use")

    def __init__(self, use: Use[T]) -> None:
        self._use = use

    def __enter__(self) -> T:
        use = self._use
        if use.block is None:  # an ExitStack, which holds the block itself
            use.hang_on(self)
        try:
            return use.begin()
        except BaseException as error:
            _end(use, error)
            raise

    if TYPE_CHECKING:

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None: ...

    else:

        class _Exit:
            """Binds as a method does, to an object that nobody but the interpreter holds."""

            def __get__(self, block: "Block[Any] | None", _: object = None) -> Any:
                if block is None:
                    return self
                use = block._use
                leave = partial(_leave, use)
                use.hang_on(leave)
                return leave

            def __call__(self, block: "Block[Any]", *error: Any) -> None:
                _leave(block._use, *error)

        __exit__ = _Exit()


def _leave(use: Use[Any], _: object, error: BaseException | None, __: object) -> None:
    try:
        _end(use, error)
    except BaseException as failure:
        _end(use, failure)
        raise


def _end(use: Use[Any], error: BaseException | None) -> None:
    use.end(error)
    use.block = None


class Nested(Use[T], Generic[T, InnerT]):
    """A use that rests on the block of another."""

    def __init__(self, block: AbstractContextManager[InnerT]) -> None:
        super().__init__()
        self._inner: AbstractContextManager[InnerT] | None = block

    def enter(self) -> InnerT:
        """Enter the block."""
        assert self._inner is not None
        return self._inner.__enter__()

    def enter_anew(self, block: AbstractContextManager[InnerT]) -> InnerT:
        """Leave the block, and enter another in its place."""
        self._leave(None)
        self._inner = block
        return self.enter()

    def end(self, error: BaseException | None) -> None:
        """Leave the block, well or with an error."""
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        if self._inner is None:
            return
        if error is None:
            self._inner.__exit__(None, None, None)
        else:
            self._inner.__exit__(type(error), error, error.__traceback__)
        self._inner = None  # not before: an interrupt would leave nobody who knows it


class Bell:
    """Wakes whoever waits for something to become true; it locks nothing that could stay locked."""

    def __init__(self) -> None:
        self._waiting: deque[threading.Lock] = deque()

    def wait_for(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until a condition is true, and return whether it is.

        Args:
            condition: whoever makes it true rings.
            timeout: seconds; None: for ever.
        """
        if condition():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            waiting = threading.Lock()
            waiting.acquire()
            self._waiting.append(waiting)
            if condition():  # since it was made true before somebody could know that we wait
                return True
            left = LOOK if deadline is None else min(LOOK, deadline - time.monotonic())
            if left <= 0 or not waiting.acquire(timeout=left):
                with suppress(ValueError):  # it has just been rung
                    self._waiting.remove(waiting)
            if left <= 0:
                return False

    def ring(self) -> bool:
        """Have all who wait look again; return whether anybody waits."""
        anybody = False
        with suppress(IndexError):
            while self._waiting:
                self._waiting.popleft().release()
                anybody = True
        return anybody


HANDOVER = 10
"""Tenths of a millisecond that the next has to take the turn."""


class Turn:
    """What one use has at a time. It takes it from one that was left over."""

    def __init__(self) -> None:
        self._bell = Bell()
        self._held: dict[str, tuple[Use[Any], int]] = {}
        """Who has it, and in which thread, under a name; one step puts it in if there is none."""

    @property
    def owner(self) -> Use[Any] | None:
        """Who has it."""
        return self._held.get("", (None, 0))[0]

    def take(self, use: Use[Any], timeout: float | None = None) -> bool:
        """Wait for the turn; return whether it is this use's, or another's of this thread.

        Args:
            use: who wants it.
            timeout: seconds; None: for ever.
        """
        return self._bell.wait_for(partial(self._taken, (use, threading.get_ident())), timeout)

    def _taken(self, wanted: tuple[Use[Any], int]) -> bool:
        owner, thread = held = self._held.setdefault("", wanted)
        if held is wanted:
            return True
        within = thread == wanted[1]
        # Of one without a block its own thread would know.
        if owner.is_left_over() or (within and owner.block is None):
            owner.abandon()
            self.give_back(owner)
            return self._taken(wanted)
        return within

    def give_back(self, use: Use[Any]) -> None:
        """Let the next have it, if it is this use's."""
        if self.owner is use:
            self._held.pop("", None)
            if self._bell.ring():
                # Who has just had it would have it again before those who wait are awake.
                for _ in range(HANDOVER):
                    time.sleep(0.0001)
                    if self._held:
                        break


class Having(Use[None]):
    """Having the turn."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn

    def begin(self) -> None:
        """Wait for it."""
        self._turn.take(self)

    def end(self, error: BaseException | None) -> None:
        """Give it back."""
        self._turn.give_back(self)

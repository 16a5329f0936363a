"""Real processes for tests: a function runs in a new interpreter and talks to its parent."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

_SPAWN = multiprocessing.get_context("spawn")
_WARM = multiprocessing.get_context("forkserver")
_IMPORTED = ("pytest", "hypothesis", "refold", "refold.eventstore.engines.postgres.engine")
_WARM.set_forkserver_preload([*_IMPORTED])


class Parent:
    """What a child's function sees of its parent."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def tell(self, message: Any) -> None:
        """Send the parent a message; it has left this process when the call returns."""
        self._pipe.send(message)

    def hear(self) -> Any:
        """Return the parent's next message; wait for it."""
        return self._pipe.recv()


class Child:
    """A function of a test module in a process of its own.

    The function is given its `Parent` and then the arguments; what it returns is its last
    message. If it raises, the traceback goes to the standard error, which pytest shows.
    """

    _context: Any = _SPAWN

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._pipe, far_end = self._context.Pipe()
        everything = (far_end, dict(os.environ), work, arguments)
        self._process = self._context.Process(target=_run, args=everything)
        self._process.start()
        far_end.close()

    def tell(self, message: Any) -> None:
        """Send the child a message."""
        self._pipe.send(message)

    def hear(self) -> Any:
        """Return the child's next message; wait for it.

        Raises:
            EOFError: there is none, and the child has ended.
        """
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):  # the latter if it never heard what we told it
            self._process.join()  # whoever kills it now would cut its traceback off
            raise EOFError from None

    def kill(self) -> None:
        """Kill the child with SIGKILL, wherever it is."""
        self._process.kill()
        self._process.join()

    def has_ended(self) -> bool:
        """Return whether the child has ended, well or not."""
        return not self._process.is_alive()

    def last_words(self) -> list[Any]:
        """Return the messages that nobody has heard yet, once the child has ended."""
        heard: list[Any] = []
        try:
            while True:
                heard.append(self.hear())
        except EOFError:
            return heard

    def result(self) -> Any:
        """Return what the child's function returns; wait for it."""
        *_, result = self.last_words() or [None]
        self._process.join()
        code = self._process.exitcode
        assert code == 0, f"the child ended with {code}: see its standard error"
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._process.close()
        self._pipe.close()


class WarmChild(Child):
    """Likewise, forked from a process that has only imported what children need.

    That costs a tenth of the time of a new interpreter, whose imports are most of what a child
    does: for tests with many children. It ends by `os._exit`, so for how an interpreter ends it is
    not the right one.
    """

    _context = _WARM


def _run(
    pipe: Connection,
    environment: dict[str, str],
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.clear()  # a warm child has that of the first test that had one
    os.environ.update(environment)
    pipe.send(work(Parent(pipe), *arguments))


def call(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a process of its own and return what it returns."""
    with Child(work, *arguments) as child:
        return child.result()

"""A store as it was when a position was the last: read-only, for ever the same."""

import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import NoReturn, Self, TypeVar

from refold.eventstore.engines.engine import Reader
from refold.eventstore.errors import WriteRefused
from refold.eventstore.log.readable import ReadableLog
from refold.eventstore.log.store import EventStore
from refold.eventstore.log.transaction import Transaction

T = TypeVar("T")


class PastStore(ReadableLog):
    """The log up to a position; everything that would change it is refused.

    Args:
        present: the store, which stays open.
        position: of the last event.
    """

    def __init__(self, present: EventStore, position: int) -> None:
        self.present = present
        self.position = self.until = position
        self.engine = present.engine

    # --- reading --------------------------------------------------------------------------

    def reading(self) -> AbstractContextManager[Reader]:
        """Lend a connection for reading, which also sees what came later."""
        return self.present.reading()

    def snapshot(self) -> AbstractContextManager[None]:
        """Have all reads of this thread within the block see one and the same moment."""
        return self.present.snapshot()

    def is_held(self) -> bool:
        """Return whether this thread reads within a transaction or a snapshot."""
        return self.present.is_held()

    def current(self) -> None:
        """Return None: what a transaction of this thread has not committed is not of the past."""
        return

    def head(self) -> int:
        """Return the position."""
        return self.position

    def committed_head(self) -> int:
        """Return the position."""
        return self.position

    def version(self, stream: str) -> int:
        """Return how many events a stream had."""
        last = next(self.read(stream=stream, backwards=True, limit=1, unknown=True), None)
        return 0 if last is None else last.version

    # --- what the past refuses ------------------------------------------------------------

    def append(self, *_: object, **__: object) -> NoReturn:
        """Refuse: nothing changes the past.

        Raises:
            WriteRefused: always.
        """
        self.refuse()

    def put_payload(self, content: bytes) -> NoReturn:
        """Refuse likewise."""
        self.refuse()

    def perform(self, work: Callable[[Transaction], T]) -> T:
        """Refuse likewise."""
        self.refuse()

    def backup(self, to: str | os.PathLike[str], *, progress: bool | None = None) -> NoReturn:
        """Refuse likewise: a fork copies the past."""
        self.refuse()

    @contextmanager
    def transaction(self) -> Generator[Transaction, None, None]:
        """Refuse likewise."""
        self.refuse()
        yield

    def subscribe(self, *_: object, **__: object) -> NoReturn:
        """Refuse: no event will come.

        Raises:
            WriteRefused: always.
        """
        raise WriteRefused(
            f"{self.engine.name} as of position {self.position}: no event will come here: read() "
            f"gives those that there are; subscribe to the store itself"
        )

    def refuse(self) -> NoReturn:
        """Refuse to change anything.

        Raises:
            WriteRefused: always.
        """
        raise WriteRefused(
            f"{self.engine.name} as of position {self.position} can only be read: use the store "
            f"itself, or fork(db, at={self.position}, to=path) to go on from there"
        )

    # --- closing --------------------------------------------------------------------------

    def close(self) -> None:
        """Do nothing: the present store stays open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""A store as it was when a position was the last: read-only, for ever the same."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NoReturn, TypeVar

from refold.eventstore.engine import Connection
from refold.eventstore.errors import WriteRefused
from refold.eventstore.events import Event
from refold.eventstore.recorded import Recorded
from refold.eventstore.store import EventStore
from refold.eventstore.subscription import Subscription
from refold.eventstore.transaction import Transaction

T = TypeVar("T")


class PastStore(EventStore):
    """The log up to a position; everything that would change it is refused.

    Args:
        present: the store, which stays open.
        position: of the last event.
    """

    def __init__(self, present: EventStore, position: int) -> None:
        self.present = present
        self.position = position
        self.engine = present.engine

    def before_fork(self) -> None:
        """Do nothing: it is the present store that lets go."""

    def after_fork(self, *, child: bool) -> None:
        """Likewise."""

    # --- what the past refuses ------------------------------------------------------------

    def perform(self, work: Callable[[Transaction], T]) -> T:
        """Refuse: nothing changes the past.

        Raises:
            WriteRefused: always.
        """
        self._refuse()

    @contextmanager
    def transaction(self) -> Generator[Transaction, None, None]:
        """Refuse likewise."""
        self._refuse()
        yield

    def _refuse(self) -> NoReturn:
        raise WriteRefused(
            f"{self.engine.name} as of position {self.position} can only be read: use the store "
            f"itself, or fork(db, at={self.position}, to=path) to go on from there"
        )

    def subscribe(
        self,
        after: int | None = 0,
        *,
        stream: str | None = None,
        types: Iterable[type[Event] | str] | None = None,
        unknown: bool = False,
    ) -> Subscription:
        """Refuse: no event will come.

        Raises:
            WriteRefused: always.
        """
        raise WriteRefused(
            f"{self.engine.name} as of position {self.position}: no event will come here: read() "
            f"gives those that there are; subscribe to the store itself"
        )

    # --- reading --------------------------------------------------------------------------

    def head(self) -> int:
        """Return the position."""
        return self.position

    def version(self, stream: str) -> int:
        """Return how many events a stream had."""
        last = next(self.read(stream=stream, backwards=True, limit=1, unknown=True), None)
        return 0 if last is None else last.version

    def get_payload(self, digest: str) -> bytes:
        """Return the bytes that were stored under a digest, by now."""
        return self.present.get_payload(digest)

    def get_payloads(self, digests: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Iterate over the payloads that have these digests, likewise."""
        return self.present.get_payloads(digests)

    def read(
        self,
        after: int = 0,
        *,
        stream: str | None = None,
        types: Iterable[type[Event] | str] | None = None,
        limit: int | None = None,
        backwards: bool = False,
        until: int | None = None,
        unknown: bool = False,
    ) -> Iterator[Recorded]:
        """Iterate over the events up to the position; see `EventStore.read`."""
        return self.present.read(
            after,
            stream=stream,
            types=types,
            limit=limit,
            backwards=backwards,
            until=self.position if until is None else min(until, self.position),
            unknown=unknown,
        )

    def read_at(
        self,
        positions: Iterable[int],
        *,
        types: Iterable[type[Event] | str] | None = None,
        unknown: bool = False,
    ) -> Iterator[Recorded]:
        """Iterate over the events at some positions; see `EventStore.read_at`."""
        # What is no position is for the present store to refuse.
        past = [at for at in positions if not isinstance(at, int) or at <= self.position]
        return self.present.read_at(past, types=types, unknown=unknown)

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection for reading, on which what came later is to be seen as well."""
        return self.present.reading()

    def committed_head(self) -> int:
        """Return the position."""
        return self.position

    def current(self) -> None:
        """Return None: no transaction is open here."""
        return

    @contextmanager
    def snapshot(self) -> Generator[None, None, None]:
        """Do nothing: all reads see one moment anyway."""
        yield

    def close(self) -> None:
        """Do nothing: the present store stays open."""

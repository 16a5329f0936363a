"""Opening a store by its path or URL."""

import os
from collections.abc import Callable

from eventstore.errors import NotAStore
from eventstore.sqlite import Durability, SqliteEngine
from eventstore.store import EventStore


def open_store(
    path_or_url: str | os.PathLike[str],
    *,
    durability: Durability = "normal",
    timeout: float = 30,
    clock: Callable[[], int] | None = None,
) -> EventStore:
    """Open the event store at a path, and create it if there is none.

    Args:
        path_or_url: a path, or `sqlite:///path`.
        durability: `"normal"` or `"full"`, see `SqliteEngine`.
        timeout: seconds to wait for another process's write.
        clock: returns the time in microseconds since 1970-01-01 UTC; for tests and replays.

    Raises:
        NotAStore: nothing at that place can be a store.
        StoreTooNew: a newer refold wrote it.
    """
    path = path_or_url
    if isinstance(path, str) and "://" in path:
        scheme, _, rest = path.partition("://")
        if scheme != "sqlite":
            raise NotAStore(
                f"{scheme}:// is not supported by this release of refold: pass a path, or "
                f"sqlite:///path"
            )
        if not rest.startswith("/"):
            raise NotAStore(f"{path} names no file: pass sqlite:///path")
        path = rest[1:]
    engine = SqliteEngine(path, durability=durability, timeout=timeout)
    return EventStore(engine) if clock is None else EventStore(engine, clock=clock)

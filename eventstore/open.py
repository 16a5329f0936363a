"""Opening a store by its path or URL."""

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from refold.eventstore.engine import Durability
from refold.eventstore.errors import NotAStore
from refold.eventstore.heads import microseconds
from refold.eventstore.sqlite import SqliteEngine
from refold.eventstore.store import EventStore

if TYPE_CHECKING:
    from refold.eventstore.postgres import PostgresEngine


def open_store(
    path_or_url: str | os.PathLike[str],
    *,
    durability: Durability = "normal",
    timeout: float = 30,
    clock: Callable[[], int] | None = None,
) -> EventStore:
    """Open the event store at a path or on a server, and create it if there is none.

    Args:
        path_or_url: a path, `sqlite:///path` or `postgresql://user@host/database?schema=name`.
        durability: `"normal"` or `"full"`, see `SqliteEngine`; a server is always asked for the
            latter.
        timeout: seconds to wait for other writers, and to reach a server again.
        clock: returns the time in microseconds since 1970-01-01 UTC; for tests and replays.

    Raises:
        NotAStore: nothing at that place can be a store.
        StoreUnreachable, AccessDenied: the server does not answer, or refuses.
        StoreTooNew: a newer refold wrote it.
    """
    path = path_or_url
    if isinstance(path, str) and re.match("postgres(ql)?:(?!//)", path):
        raise NotAStore("a URL of a server begins with postgresql://")
    if isinstance(path, str) and "://" in path:
        scheme, _, rest = path.partition("://")
        if scheme in ("postgresql", "postgres"):
            return EventStore(
                _postgres()(path, durability=durability, timeout=timeout, clock=clock)
            )
        if scheme != "sqlite":
            raise NotAStore(
                f"{scheme}:// is not supported: pass a path, sqlite:///path or "
                f"postgresql://user@host/database"
            )
        if not rest.startswith("/"):
            raise NotAStore(f"{path} names no file: pass sqlite:///path")
        path = rest[1:]
    return EventStore(
        SqliteEngine(path, durability=durability, timeout=timeout, clock=clock or microseconds)
    )


def _postgres() -> "type[PostgresEngine]":
    try:
        from refold.eventstore.postgres import PostgresEngine  # psycopg is an extra
    except ImportError as error:
        raise NotAStore(
            f"postgresql:// needs psycopg ({error}): pip install 'refold[postgres]'"
        ) from error
    return PostgresEngine

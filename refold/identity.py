"""Which store is at a place: found out without making one there."""

import os
from typing import Any

from refold.eventstore.errors import NotAStore

TIMEOUT = 30
"""Seconds to wait for a lock of the server's, as everywhere by default."""

# Which server, by the moment of its start; which database of it; which table.
IDENTITY = """
    SELECT extract(epoch FROM pg_postmaster_start_time()), current_database(),
           to_regclass('events')::oid"""


def identity(place: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Return what tells a store from all others.

    Args:
        place: a path or URL.

    Raises:
        NotAStore: there is none, and opening the place would make one.
    """
    if isinstance(place, str) and place.startswith(("postgresql://", "postgres://")):
        return _identity_on_server(place)
    path = place.removeprefix("sqlite:///") if isinstance(place, str) else place
    try:
        found = os.stat(os.path.expanduser(path))
    except (OSError, TypeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise NotAStore(f"{place}: there is no store: {why}") from None
    if not found.st_size:
        raise NotAStore(f"{place}: there is no store, the file is empty")
    return found.st_dev, found.st_ino


def _identity_on_server(url: str) -> tuple[Any, ...]:
    try:
        from refold.eventstore.postgres.connect import connect
        from refold.eventstore.postgres.connection import PostgresConnection
        from refold.eventstore.postgres.place import place_of
    except ImportError:  # open_store says what to install
        return (url,)
    place = place_of(url)
    with connect(place, TIMEOUT) as raw:
        [found] = PostgresConnection(raw, place.name).execute(IDENTITY)
    if None in found:
        raise NotAStore(f"{place.name}: there is no store in schema {place.schema!r}")
    return found

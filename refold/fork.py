"""Going another way from some moment on: a store of its own with the log up to there."""

import os
from contextlib import suppress
from copy import copy
from typing import Any, TypeVar

from refold.eventstore import EventStore, open_store
from refold.eventstore.copying import copy_log
from refold.eventstore.errors import InvalidCommand, NotAStore
from refold.eventstore.moments import Moment
from refold.eventstore.past import PastStore
from refold.eventstore.sqlite import SqliteEngine
from refold.face import Face
from refold.identity import IDENTITY, identity
from refold.projections import ALL, Views
from refold.queries import Queries

F = TypeVar("F", bound=Face)


def fork(
    db: F,
    *,
    at: Moment | None = None,
    to: str | os.PathLike[str],
    progress: bool | None = None,
) -> F:
    """Make a new, independent store that holds the log up to a moment, to go on from there.

    The payloads that its events name come along, and the results of commands that were sent with
    ids up to then, so that sending one again changes nothing there either. The store itself is
    only read. The fork is there as a whole or not at all: whatever interrupts it leaves an empty
    store, to which it can be made again.

    Args:
        db: the face of a store, or of one as of a moment.
        at: a position, whose event is the last to come along; or a time with its zone. None: all
            that has happened.
        to: a path or URL where no store is yet, or one that holds the beginning of this log.
        progress: show progress bars; None: only on a terminal.

    Returns:
        a face of the same kind, with the same actor and views, of the new store: close it.

    Raises:
        InvalidMoment: the moment lies in the future or before the first event, or has no zone.
        NotAStore: the place holds other events, or can be no store.
        InvalidCommand: the place is the store itself; or this thread is in the middle of a batch.
        DamagedEvent, UnknownEventType: an event up to the moment cannot be folded.

    >>> from refold import RfDb, fork
    >>> db = RfDb("example.db")
    >>> run_id = db.create_run(db.create_experiment("digits"))
    >>> db.set_run_progress(run_id, current_chunk=3, current_epoch=0)
    >>> with fork(db, at=2, to="fork.db") as other:
    ...     other.set_run_progress(run_id, current_chunk=9, current_epoch=9)
    ...     other.store.head()
    3
    >>> db.get_run(run_id)["current_chunk"]
    3
    """
    origin = db.store.present if isinstance(db.store, PastStore) else db.store
    if origin.current() is not None:
        raise InvalidCommand(
            "a fork in the middle of a batch would hold what may never happen: leave it first"
        )
    end = db.store.head() if at is None else db.position_at(at)
    with suppress(NotAStore):  # it is about to become one
        if identity(to) == _identity_of(origin):
            raise InvalidCommand(
                f"{origin.engine.name} cannot be forked to itself: pass another place"
            )
    store = open_store(to, timeout=origin.engine.timeout)
    try:
        with store.transaction():
            copy_log(origin, store, until=end, progress=progress)
            views = Views(store, db.views.views[len(ALL) :])
            views.rebuild(progress=progress)
    except BaseException:
        store.close()
        raise
    face = copy(db)
    face.store, face.views, face.db = store, views, Queries(views)
    return face


def _identity_of(store: EventStore) -> tuple[Any, ...]:
    if isinstance(store.engine, SqliteEngine):
        return identity(store.engine.name)
    with store.reading() as connection:
        [found] = connection.execute(IDENTITY)
    return found

"""A store at another place: a copy of it, or a fork that goes another way."""

import os
from collections.abc import Iterable
from typing import Any, TypeVar

from refold.eventstore import open_store
from refold.eventstore.errors import InvalidCommand
from refold.eventstore.log.past import PastStore
from refold.eventstore.log.readable import Moment
from refold.eventstore.log.rows import copy_log
from refold.eventstore.log.store import is_same_file
from refold.face import Face
from refold.projections import ALL, View, Views

F = TypeVar("F", bound=Face)


def copy_store(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    projections: Iterable[View[Any]] = (),
    progress: bool | None = None,
) -> int:
    """Copy a whole store to another place, and build its views there.

    Events are copied as they are, with their positions and times, whatever their type; so are
    payloads, and the ids of commands. Call it again after an interruption, or when the source has
    grown, and it brings what is missing. The source may be in use; the target is for the copy
    alone, until nobody writes to the source any more and a last call has returned.

    Args:
        source: a path or URL; it is only read.
        target: a path or URL where no store is yet, or an earlier copy of this one.
        projections: views of your own, to be built there like the others.
        progress: show progress bars; None: only on a terminal.

    Returns:
        how many events were copied.

    Raises:
        NotAStore: there is none at the source, or the target holds other events; nothing was
            written.
        InvalidCommand: both are the same store.
        StoreBusy: something else writes into the target.
        DamagedEvent: somebody has altered an event, to what the target's engine cannot hold.
        UnknownEventType, DamagedEvent: all was copied, but an event stands in the way of a view.

    >>> from refold import RfDb, copy_store
    >>> with RfDb("example.db") as db:
    ...     experiment_id = db.create_experiment("digits")
    >>> copy_store("example.db", "copy.db")
    1
    >>> with RfDb("copy.db") as db:
    ...     db.get_experiment(experiment_id)["experiment_name"]
    'digits'
    """
    if is_same_file(source, target):
        raise InvalidCommand("source and target are the same store: pass another place")
    with open_store(source, create=False) as origin, open_store(target) as copy:
        if origin.engine.identity() == copy.engine.identity():
            raise InvalidCommand("source and target are the same store: pass another place")
        copied = copy_log(origin, copy, progress=progress)
        with Views(copy, projections, progress=progress).reading():
            pass  # they are up to date, or it is told why they cannot be
    return copied


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
    itself = InvalidCommand(f"{origin.engine.name} cannot be forked to itself: pass another place")
    if is_same_file(origin.engine.name, to):
        raise itself
    store = open_store(to, timeout=origin.engine.timeout)
    try:
        if store.engine.identity() == origin.engine.identity():
            raise itself
        with store.transaction():
            copy_log(origin, store, until=end, progress=progress)
            views = Views(store, db.views.views[len(ALL) :])
            views.rebuild(progress=progress)
    except BaseException:
        store.close()
        raise
    return db._on(views)  # pyright: ignore[reportPrivateUsage]

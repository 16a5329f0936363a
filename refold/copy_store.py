"""Moving a store to another place: between SQLite and PostgreSQL, or from one to another."""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from refold.eventstore import open_store
from refold.eventstore.copying import copy_log
from refold.eventstore.errors import InvalidCommand, NotAStore
from refold.identity import identity
from refold.projections import View, Views


def copy_store(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    projections: Iterable[View[Any]] = (),
    progress: bool | None = None,
) -> int:
    """Copy a whole store to another place, and build its views there.

    Events come along as they are, with their positions and times and of whatever type; so do
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
    original = identity(source)
    with suppress(NotAStore):  # it is about to become one
        if identity(target) == original:
            raise InvalidCommand("source and target are the same store: pass another place")
    with open_store(source) as origin, open_store(target) as copy:
        copied = copy_log(origin, copy, progress=progress)
        with Views(copy, projections, progress=progress).reading():
            pass  # they are up to date, or it is told why they cannot be
    return copied

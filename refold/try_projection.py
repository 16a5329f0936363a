"""Trying a view on the log before it ships."""

from typing import TYPE_CHECKING, Any

from refold.eventstore.errors import InvalidCommand
from refold.eventstore.moments import Moment
from refold.face import Face
from refold.projections import View

if TYPE_CHECKING:
    from refold.projections.past.trial import Trial


def try_projection(db: Face, view: View[Any], *, at: Moment | None = None) -> "Trial":
    """Fold the log into a changed or new view, and tell how it differs from the live one.

    Nothing is touched: the rows go into a table of their own, out of everybody's sight. The view
    that is live under the same name need not be among the face's projections, unless a moment is
    asked for.

    Args:
        db: the face of a store, or of one as of a moment.
        view: the view, at whatever version.
        at: the moment as of which both are compared; None: now.

    Raises:
        ProjectionFailed: the view raises on an event; its cause is what it raised.
        InvalidMoment: the moment lies in the future or before the first event, or has no zone.
        DamagedEvent, UnknownEventType: an event that the view folds cannot be decoded.

    >>> from refold.eventstore.events import RunProgressed
    >>> from refold.projections import Row, View
    >>> from refold import RfDb, try_projection
    >>> class Chunks(Row, frozen=True):
    ...     run_id: int
    ...     seen: int
    >>> chunks = View("chunks_seen", Chunks, version=1)
    >>> chunks.created_by(RunProgressed, lambda e: Chunks(e.run_id, e.current_chunk))
    >>> db = RfDb("example.db")
    >>> run_id = db.create_run(db.create_experiment("digits"))
    >>> db.set_run_progress(run_id, current_chunk=3, current_epoch=0)
    >>> print(try_projection(db, chunks))
    chunks_seen: 1 row from 1 event in ... s, as of position 3
    a new view
      chunks_seen 1 added: run_id 1, seen 3
    """
    if not isinstance(view, View):
        raise InvalidCommand(f"{view!r} is no view: pass a projections.View")
    from refold.projections.past.trial import trial  # only those who try a view need it

    return trial((db if at is None else db.as_of(at)).views, view)

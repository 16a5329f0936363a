"""An event type and a view of a user's own, which the command line knows only by `--import`."""

from refold.eventstore.events import RunEvent
from refold.projections import Row, View


class GradientClipped(RunEvent, frozen=True):
    norm: float


class Clipping(Row, frozen=True):
    run_id: int
    norm: float


clippings = View("clippings", Clipping, version=1)
clippings.created_by(GradientClipped, lambda e: Clipping(e.run_id, e.norm))

"""What users ask of a run while it trains, and what became of it."""

from refold.eventstore.events.event import Digest, Event, Id


class InteractiveControlEvent(Event, frozen=True):
    """Something happened to a request."""

    ic_id: Id

    @property
    def stream(self) -> str:
        """`ic-3`."""
        return f"ic-{self.ic_id}"


class StopRequested(InteractiveControlEvent, frozen=True):
    """A user asked to stop a run."""

    run_id: Id


class ResumeRequested(InteractiveControlEvent, frozen=True):
    """A user asked to let a stopped run go on."""

    run_id: Id


class DeleteRequested(InteractiveControlEvent, frozen=True):
    """A user asked to delete a run."""

    run_id: Id


class CloneModifyRequested(InteractiveControlEvent, frozen=True):
    """A user asked for a copy of a run with another configuration."""

    run_id: Id
    config: Digest | None = None
    warm_start: bool = False


class InteractiveControlCompleted(InteractiveControlEvent, frozen=True):
    """The controller did what was asked."""


class InteractiveControlFailed(InteractiveControlEvent, frozen=True):
    """The controller tried and could not."""

    error: str | None = None


class InteractiveControlSkipped(InteractiveControlEvent, frozen=True):
    """The controller found that nothing was to be done."""

    error: str | None = None

"""The view `interactive_control`: what users asked for and what became of it."""

from msgspec.structs import replace

from refold.eventstore.events import (
    CloneModifyRequested,
    DeleteRequested,
    InteractiveControlCompleted,
    InteractiveControlFailed,
    InteractiveControlSkipped,
    ResumeRequested,
    StopRequested,
    TablesReset,
)
from refold.eventstore.schema import section
from refold.projections.view import Row, View


class Request(Row, frozen=True):
    """A row of `interactive_control`; `config_digest` is read as `config_leaf`."""

    ic_id: int
    run_id: int
    operation: str
    status: str = "PENDING"
    config_digest: str | None = None
    warm_start: bool = False
    error: str | None = None


interactive_control = View(
    "interactive_control",
    Request,
    version=1,
    schema=section("interactive_control"),
    table="interactive_control_folded",
    stream="ic-{}",
)

interactive_control.created_by(StopRequested, lambda e: Request(e.ic_id, e.run_id, "STOP"))
interactive_control.created_by(ResumeRequested, lambda e: Request(e.ic_id, e.run_id, "RESUME"))
interactive_control.created_by(DeleteRequested, lambda e: Request(e.ic_id, e.run_id, "DELETE"))
interactive_control.created_by(
    CloneModifyRequested,
    lambda e: Request(
        e.ic_id, e.run_id, "CLONE_MODIFY", config_digest=e.config, warm_start=e.warm_start
    ),
)
interactive_control.on(InteractiveControlCompleted, lambda row, _: replace(row, status="COMPLETED"))
interactive_control.on(
    InteractiveControlFailed, lambda row, e: replace(row, status="FAILED", error=e.error)
)
interactive_control.on(
    InteractiveControlSkipped, lambda row, e: replace(row, status="SKIPPED", error=e.error)
)
interactive_control.cleared_by(TablesReset)

"""Commands by which users steer runs, and by which the controller answers."""

import hashlib

from refold.commands.command import Command, Decision, existing
from refold.commands.transitions import REQUEST, check_move
from refold.eventstore.errors import IllegalTransition
from refold.eventstore.events import (
    CloneModifyRequested,
    DeleteRequested,
    Id,
    InteractiveControlCompleted,
    InteractiveControlFailed,
    InteractiveControlSkipped,
    ResumeRequested,
    StopRequested,
)
from refold.eventstore.statuses import RunStatus, TaskStatus
from refold.projections.ids import next_id
from refold.projections.interactive_control import interactive_control
from refold.projections.runs import runs
from refold.projections.unit_of_work import Rows


def _next_ic_id(rows: Rows, run_id: int) -> int:
    if existing(rows, runs, run_id, "run").status == RunStatus.KILLED:
        raise IllegalTransition(
            f"run {run_id} is KILLED; no interactive control can follow: create a new run"
        )
    return next_id(rows, "ic")


class RequestStop(Command, frozen=True):
    """Ask to stop a run; the result is the id of the request."""

    run_id: Id

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.run_id)
        return Decision([StopRequested(ic_id, self.run_id)], ic_id)


class RequestResume(Command, frozen=True):
    """Ask to let a run go on; the result is the id of the request."""

    run_id: Id

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.run_id)
        return Decision([ResumeRequested(ic_id, self.run_id)], ic_id)


class RequestDelete(Command, frozen=True):
    """Ask to delete a run; the result is the id of the request."""

    run_id: Id

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.run_id)
        return Decision([DeleteRequested(ic_id, self.run_id)], ic_id)


class RequestCloneModify(Command, frozen=True):
    """Ask for a copy of a run with another configuration; the result is the request's id."""

    run_id: Id
    config_leaf: bytes | None = None
    warm_start: bool = False

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.run_id)
        config = self.config_leaf
        digest = None if config is None else hashlib.sha256(config).hexdigest()
        requested = CloneModifyRequested(ic_id, self.run_id, digest, self.warm_start)
        return Decision([requested], ic_id, () if config is None else (config,))


def _may_become(rows: Rows, ic_id: int, after: TaskStatus) -> bool:
    before = TaskStatus(existing(rows, interactive_control, ic_id, "request").status)
    if before is after:
        return False
    check_move(f"request {ic_id}", REQUEST, before, after)
    return True


class MarkICOpsCompleted(Command, frozen=True):
    """Note that a request was carried out."""

    ic_id: Id

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if not _may_become(rows, self.ic_id, TaskStatus.COMPLETED):
            return Decision()
        return Decision([InteractiveControlCompleted(self.ic_id)])


class MarkICOpsFailed(Command, frozen=True):
    """Note that a request could not be carried out."""

    ic_id: Id
    error: str | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if not _may_become(rows, self.ic_id, TaskStatus.FAILED):
            return Decision()
        return Decision([InteractiveControlFailed(self.ic_id, self.error)])


class MarkICOpsSkipped(Command, frozen=True):
    """Note that nothing was to be done for a request."""

    ic_id: Id
    error: str | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if not _may_become(rows, self.ic_id, TaskStatus.SKIPPED):
            return Decision()
        return Decision([InteractiveControlSkipped(self.ic_id, self.error)])

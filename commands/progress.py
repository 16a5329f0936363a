"""Commands by which the controller and the workers tell what they do."""

from refold.commands.command import Command, Decision
from refold.eventstore.events import ControllerTaskSet, Id, WorkerProgressed
from refold.eventstore.statuses import ControllerTask, TaskStatus, WorkerTask
from refold.projections.progress import CONTROLLER, controller_progress, worker_progress
from refold.projections.unit_of_work import Rows


class SetControllerTask(Command, frozen=True):
    """Note what the controller does."""

    task: ControllerTask
    status: TaskStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = rows.get(controller_progress, CONTROLLER)
        if row is not None and (row.task, row.status) == (self.task, self.status):
            return Decision()
        return Decision([ControllerTaskSet(self.task, self.status)])


class SetWorkerProgress(Command, frozen=True):
    """Note what a worker does."""

    worker_id: Id
    task: WorkerTask
    status: TaskStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = rows.get(worker_progress, self.worker_id)
        if row is not None and (row.task, row.status) == (self.task, self.status):
            return Decision()
        return Decision([WorkerProgressed(self.worker_id, self.task, self.status)])

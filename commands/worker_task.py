"""Commands on the tasks of workers."""

from refold.commands.command import Command, Decision, existing
from refold.commands.transitions import WORKER_TASK, check_move
from refold.eventstore.errors import InvalidCommand
from refold.eventstore.events import Id, Int, TaskCompleted, TaskFailed, TaskScheduled, TaskStarted
from refold.eventstore.statuses import TaskStatus
from refold.projections.ids import next_id
from refold.projections.runs import runs
from refold.projections.unit_of_work import Rows
from refold.projections.worker_task import worker_task

_BECAME = {
    TaskStatus.IN_PROGRESS: TaskStarted,
    TaskStatus.COMPLETED: TaskCompleted,
}


class CreateWorkerTask(Command, frozen=True):
    """Schedule a chunk of a run for a worker; the result is the task's id."""

    run_id: Id
    worker_id: Id
    chunk_id: Int
    epoch: Int = 0

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        existing(rows, runs, self.run_id, "run")
        task_id = next_id(rows, "task")
        scheduled = TaskScheduled(task_id, self.run_id, self.worker_id, self.chunk_id, self.epoch)
        return Decision([scheduled], task_id)


class SetWorkerTaskStatus(Command, frozen=True):
    """Move a task to a status; a late report on a task that has ended is refused."""

    task_id: Id
    status: TaskStatus
    error: str | None = None
    """Why it failed."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if self.error is not None and self.status is not TaskStatus.FAILED:
            raise InvalidCommand(
                f"worker task {self.task_id}: an error goes with {TaskStatus.FAILED}, not with "
                f"{self.status}"
            )
        before = TaskStatus(existing(rows, worker_task, self.task_id, "worker task").status)
        if before is self.status:
            return Decision()
        check_move(f"worker task {self.task_id}", WORKER_TASK, before, self.status)
        if self.status is TaskStatus.FAILED:
            return Decision([TaskFailed(self.task_id, self.error)])
        return Decision([_BECAME[self.status](self.task_id)])


class ClaimNextWorkerTask(Command, frozen=True):
    """Start the oldest scheduled task of a worker; the result is its id, or None."""

    worker_id: Id

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        task = rows.first(worker_task, status=TaskStatus.SCHEDULED, worker_id=self.worker_id)
        if task is None:
            return Decision()
        return Decision([TaskStarted(task.task_id)], task.task_id)

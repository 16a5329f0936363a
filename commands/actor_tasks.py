"""Commands on the tasks of actors."""

from refold.commands.command import Command, Decision, existing
from refold.commands.transitions import ACTOR_TASK, check_move
from refold.eventstore.errors import InvalidCommand
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskEndTimeRecorded,
    ActorTaskErrorRecorded,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ActorTaskStartTimeRecorded,
    Id,
    Int,
    Name,
)
from refold.eventstore.statuses import ActorTaskStatus
from refold.projections.actor_tasks import ActorTask, actor_tasks
from refold.projections.experiments import experiments
from refold.projections.ids import next_id
from refold.projections.pipelines import pipelines
from refold.projections.unit_of_work import Rows

_BECAME = {
    ActorTaskStatus.IN_PROGRESS: ActorTaskStarted,
    ActorTaskStatus.COMPLETED: ActorTaskCompleted,
    ActorTaskStatus.FAILED: ActorTaskFailed,
}


def _task(rows: Rows, task_id: int) -> ActorTask:
    return existing(rows, actor_tasks, task_id, "actor task")


class CreateActorTask(Command, frozen=True):
    """Schedule a shard of a pipeline for an actor; the result is the task's id."""

    experiment_id: Id
    pipeline_id: Id
    actor_id: Id
    shard_id: Int

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        existing(rows, experiments, self.experiment_id, "experiment")
        pipeline = existing(rows, pipelines, self.pipeline_id, "pipeline")
        if pipeline.experiment_id != self.experiment_id:
            raise InvalidCommand(
                f"pipeline {self.pipeline_id} belongs to experiment {pipeline.experiment_id}, "
                f"not to {self.experiment_id}: pass that one"
            )
        task_id = next_id(rows, "actor_task")
        scheduled = ActorTaskScheduled(
            task_id, self.experiment_id, self.pipeline_id, self.actor_id, self.shard_id
        )
        return Decision([scheduled], task_id)


class SetActorTaskStatus(Command, frozen=True):
    """Move a task to a status; a late report on a task that has ended is refused."""

    task_id: Id
    status: ActorTaskStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        before = ActorTaskStatus(_task(rows, self.task_id).status)
        if before is self.status:
            return Decision()
        check_move(f"actor task {self.task_id}", ACTOR_TASK, before, self.status)
        return Decision([_BECAME[self.status](self.task_id)])


class ClaimNextActorTask(Command, frozen=True):
    """Start the oldest scheduled task of an actor; the result is its id, or None."""

    actor_id: Id

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        task = rows.first(actor_tasks, status=ActorTaskStatus.SCHEDULED, actor_id=self.actor_id)
        if task is None:
            return Decision()
        return Decision([ActorTaskStarted(task.task_id)], task.task_id)


class SetActorTaskStartTime(Command, frozen=True):
    """Note when the work on a task began."""

    task_id: Id
    started_at: Name

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if _task(rows, self.task_id).started_at == self.started_at:
            return Decision()
        return Decision([ActorTaskStartTimeRecorded(self.task_id, self.started_at)])


class SetActorTaskEndTime(Command, frozen=True):
    """Note when the work on a task ended, and how many seconds it took."""

    task_id: Id
    completed_at: Name
    duration_seconds: float | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = _task(rows, self.task_id)
        if (row.completed_at, row.duration_seconds) == (self.completed_at, self.duration_seconds):
            return Decision()
        return Decision(
            [ActorTaskEndTimeRecorded(self.task_id, self.completed_at, self.duration_seconds)]
        )


class SetActorTaskError(Command, frozen=True):
    """Note a task's error message."""

    task_id: Id
    error: str

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if _task(rows, self.task_id).error == self.error:
            return Decision()
        return Decision([ActorTaskErrorRecorded(self.task_id, self.error)])

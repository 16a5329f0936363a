"""The view `actor_tasks`."""

from msgspec.structs import replace

from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskEndTimeRecorded,
    ActorTaskErrorRecorded,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ActorTaskStartTimeRecorded,
    ExperimentStatesReset,
    TablesReset,
)
from refold.eventstore.schema import section
from refold.projections.view import Row, View


class ActorTask(Row, frozen=True):
    """A row of `actor_tasks`."""

    task_id: int
    experiment_id: int
    pipeline_id: int
    actor_id: int
    shard_id: int
    status: str
    error: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_seconds: float | None = None


actor_tasks = View(
    "actor_tasks", ActorTask, version=1, schema=section("actor_tasks"), stream="actor_task-{}"
)

actor_tasks.created_by(
    ActorTaskScheduled,
    lambda e: ActorTask(
        e.task_id, e.experiment_id, e.pipeline_id, e.actor_id, e.shard_id, "scheduled"
    ),
)
actor_tasks.on(ActorTaskStarted, lambda row, _: replace(row, status="in_progress"))
actor_tasks.on(ActorTaskCompleted, lambda row, _: replace(row, status="completed"))
actor_tasks.on(ActorTaskFailed, lambda row, _: replace(row, status="failed"))
actor_tasks.on(ActorTaskStartTimeRecorded, lambda row, e: replace(row, started_at=e.started_at))
actor_tasks.on(
    ActorTaskEndTimeRecorded,
    lambda row, e: replace(row, completed_at=e.completed_at, duration_seconds=e.duration_seconds),
)
actor_tasks.on(ActorTaskErrorRecorded, lambda row, e: replace(row, error=e.error))
actor_tasks.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status="failed"),
    keys=lambda e: e.actor_tasks,
)
actor_tasks.cleared_by(TablesReset)

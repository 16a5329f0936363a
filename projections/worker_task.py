"""The view `worker_task`."""

from msgspec.structs import replace

from refold.eventstore.events import (
    ExperimentStatesReset,
    TablesReset,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from refold.eventstore.schema import section
from refold.projections.view import Row, View


class Task(Row, frozen=True):
    """A row of `worker_task`."""

    task_id: int
    run_id: int
    worker_id: int
    chunk_id: int
    epoch: int
    status: str
    error: str | None = None


worker_task = View("worker_task", Task, version=1, schema=section("worker_task"), stream="task-{}")

worker_task.created_by(
    TaskScheduled,
    lambda e: Task(e.task_id, e.run_id, e.worker_id, e.chunk_id, e.epoch, "SCHEDULED"),
)
worker_task.on(TaskStarted, lambda row, _: replace(row, status="IN_PROGRESS"))
worker_task.on(TaskCompleted, lambda row, _: replace(row, status="COMPLETED"))
worker_task.on(TaskFailed, lambda row, e: replace(row, status="FAILED", error=e.error))
worker_task.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status="FAILED"),
    keys=lambda e: e.worker_tasks,
)
worker_task.cleared_by(TablesReset)

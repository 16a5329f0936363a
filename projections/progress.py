"""The views `controller_progress` and `worker_progress`."""

from msgspec.structs import replace

from refold.eventstore.events import (
    ControllerTaskSet,
    ExperimentStatesReset,
    TablesReset,
    WorkerProgressed,
)
from refold.eventstore.schema import section
from refold.projections.view import Row, View

CONTROLLER = 1
"""The key of the one row of `controller_progress`."""


class ControllerProgress(Row, frozen=True):
    """The row of `controller_progress`."""

    controller_id: int
    task: str
    status: str


controller_progress = View(
    "controller_progress",
    ControllerProgress,
    version=1,
    schema=section("controller_progress"),
    stream="controller",
)
controller_progress.put_by(
    ControllerTaskSet,
    lambda row, e: (
        ControllerProgress(CONTROLLER, e.task.value, e.status.value)
        if row is None
        else replace(row, task=e.task.value, status=e.status.value)
    ),
    key=lambda _: CONTROLLER,
)
controller_progress.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status="FAILED"),
    keys=lambda e: (CONTROLLER,) if e.controller else (),
)
controller_progress.cleared_by(TablesReset)


class WorkerProgress(Row, frozen=True):
    """A row of `worker_progress`."""

    worker_id: int
    task: str
    status: str


worker_progress = View(
    "worker_progress",
    WorkerProgress,
    version=1,
    schema=section("worker_progress"),
    stream="worker-{}",
)
worker_progress.put_by(
    WorkerProgressed,
    lambda row, e: (
        WorkerProgress(e.worker_id, e.task.value, e.status.value)
        if row is None
        else replace(row, task=e.task.value, status=e.status.value)
    ),
    key=lambda e: e.worker_id,
)
worker_progress.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status="FAILED"),
    keys=lambda e: e.workers,
)
worker_progress.cleared_by(TablesReset)

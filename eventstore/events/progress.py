"""What the controller and the workers report of themselves."""

from refold.eventstore.events.event import Event, Id
from refold.eventstore.statuses import ControllerTask, TaskStatus, WorkerTask


class ControllerTaskSet(Event, frozen=True):
    """The controller turned to a task, or got further with it."""

    task: ControllerTask
    status: TaskStatus

    @property
    def stream(self) -> str:
        """`controller`: there is one."""
        return "controller"


class WorkerProgressed(Event, frozen=True):
    """A worker turned to a task, or got further with it."""

    worker_id: Id
    task: WorkerTask
    status: TaskStatus

    @property
    def stream(self) -> str:
        """`worker-0`."""
        return f"worker-{self.worker_id}"

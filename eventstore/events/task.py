"""What happens to a worker's task: one run, one chunk of data, one epoch."""

from refold.eventstore.events.event import Event, Id, Int


class TaskEvent(Event, frozen=True):
    """Something happened to a worker's task."""

    task_id: Id

    @property
    def stream(self) -> str:
        """`task-17`."""
        return f"task-{self.task_id}"


class TaskScheduled(TaskEvent, frozen=True):
    """The controller gave a worker a chunk to train a run on."""

    run_id: Id
    worker_id: Id
    chunk_id: Int
    epoch: Int = 0


class TaskStarted(TaskEvent, frozen=True):
    """The worker took the task up."""


class TaskCompleted(TaskEvent, frozen=True):
    """The worker finished the task."""


class TaskFailed(TaskEvent, frozen=True):
    """The task ended with an error."""

    error: str | None = None

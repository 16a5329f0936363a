"""What happens to an actor's task: one pipeline, one shard of data."""

from refold.eventstore.events.event import Event, Id, Int, Name


class ActorTaskEvent(Event, frozen=True):
    """Something happened to an actor's task."""

    task_id: Id

    @property
    def stream(self) -> str:
        """`actor_task-9`."""
        return f"actor_task-{self.task_id}"


class ActorTaskScheduled(ActorTaskEvent, frozen=True):
    """An actor was given a shard to run a pipeline on."""

    experiment_id: Id
    pipeline_id: Id
    actor_id: Id
    shard_id: Int


class ActorTaskStarted(ActorTaskEvent, frozen=True):
    """The actor took the task up."""


class ActorTaskCompleted(ActorTaskEvent, frozen=True):
    """The actor finished the task."""


class ActorTaskFailed(ActorTaskEvent, frozen=True):
    """The task ended with an error."""


class ActorTaskStartTimeRecorded(ActorTaskEvent, frozen=True):
    """It was noted when the work began."""

    started_at: Name


class ActorTaskEndTimeRecorded(ActorTaskEvent, frozen=True):
    """It was noted when the work ended and how many seconds it took."""

    completed_at: Name
    duration_seconds: float | None = None


class ActorTaskErrorRecorded(ActorTaskEvent, frozen=True):
    """An error message was noted for the task."""

    error: str

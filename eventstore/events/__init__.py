"""Everything that can happen: one frozen struct for each kind of event."""

from refold.eventstore.events.actor_task import (
    ActorTaskCompleted,
    ActorTaskEndTimeRecorded,
    ActorTaskErrorRecorded,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ActorTaskStartTimeRecorded,
)
from refold.eventstore.events.context import (
    ContextBuildStarted,
    ContextCreated,
    ContextEndTimeRecorded,
    ContextErrorRecorded,
    ContextFailed,
    ContextReady,
    ContextStartTimeRecorded,
)
from refold.eventstore.events.event import Digest, Event, Id, Int, Name, UnknownEvent, event_type
from refold.eventstore.events.experiment import (
    ExperimentCompleted,
    ExperimentCreated,
    ExperimentErrorRecorded,
    ExperimentFailed,
    ExperimentStarted,
)
from refold.eventstore.events.interactive_control import (
    CloneModifyRequested,
    DeleteRequested,
    InteractiveControlCompleted,
    InteractiveControlFailed,
    InteractiveControlSkipped,
    ResumeRequested,
    StopRequested,
)
from refold.eventstore.events.pipeline import (
    PipelineCompleted,
    PipelineCreated,
    PipelineDeleted,
    PipelineErrorRecorded,
    PipelineFailed,
    PipelineProgressed,
    PipelineResumed,
    PipelineStarted,
    PipelineStopped,
    ShardCompleted,
)
from refold.eventstore.events.progress import ControllerTaskSet, WorkerProgressed
from refold.eventstore.events.run import (
    RunCompleted,
    RunCreated,
    RunEnded,
    RunFailed,
    RunKilled,
    RunMetricsRecorded,
    RunProgressed,
    RunResumed,
    RunStarted,
    RunStopped,
)
from refold.eventstore.events.store import ExperimentStatesReset, TablesReset
from refold.eventstore.events.task import TaskCompleted, TaskFailed, TaskScheduled, TaskStarted
from refold.eventstore.events.upcasting import upcaster

__all__ = [
    "ActorTaskCompleted",
    "ActorTaskEndTimeRecorded",
    "ActorTaskErrorRecorded",
    "ActorTaskFailed",
    "ActorTaskScheduled",
    "ActorTaskStartTimeRecorded",
    "ActorTaskStarted",
    "CloneModifyRequested",
    "ContextBuildStarted",
    "ContextCreated",
    "ContextEndTimeRecorded",
    "ContextErrorRecorded",
    "ContextFailed",
    "ContextReady",
    "ContextStartTimeRecorded",
    "ControllerTaskSet",
    "DeleteRequested",
    "Digest",
    "Event",
    "ExperimentCompleted",
    "ExperimentCreated",
    "ExperimentErrorRecorded",
    "ExperimentFailed",
    "ExperimentStarted",
    "ExperimentStatesReset",
    "Id",
    "Int",
    "InteractiveControlCompleted",
    "InteractiveControlFailed",
    "InteractiveControlSkipped",
    "Name",
    "PipelineCompleted",
    "PipelineCreated",
    "PipelineDeleted",
    "PipelineErrorRecorded",
    "PipelineFailed",
    "PipelineProgressed",
    "PipelineResumed",
    "PipelineStarted",
    "PipelineStopped",
    "ResumeRequested",
    "RunCompleted",
    "RunCreated",
    "RunEnded",
    "RunFailed",
    "RunKilled",
    "RunMetricsRecorded",
    "RunProgressed",
    "RunResumed",
    "RunStarted",
    "RunStopped",
    "ShardCompleted",
    "StopRequested",
    "TablesReset",
    "TaskCompleted",
    "TaskFailed",
    "TaskScheduled",
    "TaskStarted",
    "UnknownEvent",
    "WorkerProgressed",
    "event_type",
    "event_types",
    "upcaster",
]


def event_types() -> list[type[Event]]:
    """Return the event types of refold itself, without their bases and those of users."""
    named = [globals()[name] for name in __all__]
    return [
        cls
        for cls in named
        if isinstance(cls, type) and issubclass(cls, Event) and cls not in (Event, UnknownEvent)
    ]

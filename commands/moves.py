"""Which status can follow which, and by which event: one table for each entity."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from refold.commands.command import Decision
from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import IllegalTransition, StoreDamaged
from refold.eventstore.event import Event
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskCompletionWithdrawn,
    ActorTaskFailed,
    ActorTaskStarted,
    ContextBuildStarted,
    ContextDeleted,
    ContextFailed,
    ContextReady,
    ExperimentCancelled,
    ExperimentCompleted,
    ExperimentFailed,
    ExperimentStarted,
    InteractiveControlCompleted,
    InteractiveControlFailed,
    InteractiveControlSkipped,
    InteractiveControlStarted,
    PipelineCompleted,
    PipelineDeleted,
    PipelineFailed,
    PipelineRequestCompleted,
    PipelineRequestFailed,
    PipelineRequestSkipped,
    PipelineRequestStarted,
    PipelineResumed,
    PipelineStarted,
    PipelineStopped,
    RunCompleted,
    RunFailed,
    RunKilled,
    RunResumed,
    RunStarted,
    RunStopped,
    TaskCompleted,
    TaskFailed,
    TaskStarted,
)
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ExperimentStatus,
    PipelineRequestStatus,
    PipelineStatus,
    RunStatus,
    TaskStatus,
    Word,
)

W = TypeVar("W", bound=Word)

Moves = Mapping[W, Mapping[W, Callable[..., Event]]]
"""By the status before and the status after: the event that leads from one to the other."""


def _moves(events: Mapping[W, tuple[type[Event], ...]]) -> Moves[W]:
    leading: dict[W, dict[Any, type[Event]]] = {
        before: {event.leads_to: event for event in follow} for before, follow in events.items()
    }
    return leading


EXPERIMENT = _moves(
    {
        ExperimentStatus.NEW: (
            ExperimentStarted,
            ExperimentCompleted,
            ExperimentFailed,
            ExperimentCancelled,
        ),
        ExperimentStatus.RUNNING: (ExperimentCompleted, ExperimentFailed, ExperimentCancelled),
        ExperimentStatus.FAILED: (ExperimentStarted,),
        ExperimentStatus.COMPLETED: (ExperimentStarted,),
        ExperimentStatus.CANCELLED: (ExperimentStarted,),
    }
)

RUN = _moves(
    {
        RunStatus.NEW: (RunStarted, RunStopped, RunFailed, RunKilled),
        RunStatus.ONGOING: (RunCompleted, RunStopped, RunFailed, RunKilled),
        RunStatus.STOPPED: (RunResumed, RunFailed, RunKilled),
        RunStatus.FAILED: (RunResumed, RunKilled),
        RunStatus.COMPLETED: (RunResumed, RunKilled),
        RunStatus.KILLED: (),
    }
)

WORKER_TASK = _moves(
    {
        TaskStatus.SCHEDULED: (TaskStarted, TaskFailed),
        TaskStatus.IN_PROGRESS: (TaskCompleted, TaskFailed),
        TaskStatus.COMPLETED: (),
        TaskStatus.FAILED: (),
    }
)

REQUEST = _moves(
    {
        TaskStatus.PENDING: (
            InteractiveControlStarted,
            InteractiveControlCompleted,
            InteractiveControlFailed,
            InteractiveControlSkipped,
        ),
        TaskStatus.IN_PROGRESS: (
            InteractiveControlCompleted,
            InteractiveControlFailed,
            InteractiveControlSkipped,
        ),
        TaskStatus.COMPLETED: (),
        TaskStatus.FAILED: (),
        TaskStatus.SKIPPED: (),
    }
)

CONTEXT = _moves(
    {
        ContextStatus.PENDING: (ContextBuildStarted, ContextReady, ContextFailed, ContextDeleted),
        ContextStatus.BUILDING: (ContextReady, ContextFailed, ContextDeleted),
        ContextStatus.FAILED: (ContextBuildStarted, ContextDeleted),
        ContextStatus.READY: (ContextBuildStarted, ContextDeleted),
        ContextStatus.DELETED: (),
    }
)

PIPELINE = _moves(
    {
        PipelineStatus.NEW: (PipelineStarted, PipelineStopped, PipelineFailed, PipelineDeleted),
        PipelineStatus.ONGOING: (
            PipelineCompleted,
            PipelineStopped,
            PipelineFailed,
            PipelineDeleted,
        ),
        PipelineStatus.STOPPED: (PipelineResumed, PipelineFailed, PipelineDeleted),
        PipelineStatus.FAILED: (PipelineResumed, PipelineDeleted),
        PipelineStatus.COMPLETED: (PipelineResumed, PipelineDeleted),
        PipelineStatus.DELETED: (),
    }
)

ACTOR_TASK = _moves(
    {
        ActorTaskStatus.SCHEDULED: (ActorTaskStarted, ActorTaskFailed),
        ActorTaskStatus.IN_PROGRESS: (ActorTaskCompleted, ActorTaskFailed),
        ActorTaskStatus.COMPLETED: (),
        ActorTaskStatus.FAILED: (),
    }
)

PIPELINE_REQUEST = _moves(
    {
        PipelineRequestStatus.PENDING: (
            PipelineRequestStarted,
            PipelineRequestCompleted,
            PipelineRequestFailed,
            PipelineRequestSkipped,
        ),
        PipelineRequestStatus.IN_PROGRESS: (
            PipelineRequestCompleted,
            PipelineRequestFailed,
            PipelineRequestSkipped,
        ),
        PipelineRequestStatus.COMPLETED: (),
        PipelineRequestStatus.FAILED: (),
        PipelineRequestStatus.SKIPPED: (),
    }
)


# --- moves that only the face for RapidFire AI may make -------------------------------------------


def _and(moves: Moves[W], events: Mapping[W, tuple[type[Event], ...]]) -> Moves[W]:
    more = _moves(events)
    return {before: {**after, **more.get(before, {})} for before, after in moves.items()}


RAPIDFIRE_EXPERIMENT = _and(
    EXPERIMENT,
    {
        # It ends what a user has cancelled, or what has failed.
        ExperimentStatus.FAILED: (ExperimentCompleted, ExperimentCancelled),
        ExperimentStatus.CANCELLED: (ExperimentCompleted, ExperimentFailed),
    },
)

RAPIDFIRE_RUN = _and(
    RUN,
    {
        # One of several workers fails, and the controller sees the end of another's shard.
        RunStatus.FAILED: (RunCompleted, RunStopped),
    },
)

RAPIDFIRE_CONTEXT = _and(
    CONTEXT,
    {
        ContextStatus.FAILED: (ContextReady,),
        ContextStatus.READY: (ContextFailed,),
    },
)

RAPIDFIRE_PIPELINE = _and(
    PIPELINE,
    {
        PipelineStatus.NEW: (PipelineCompleted,),
        # It was stopped while its last shard was being processed.
        PipelineStatus.STOPPED: (PipelineCompleted,),
        PipelineStatus.FAILED: (PipelineCompleted, PipelineStopped),
        PipelineStatus.COMPLETED: (PipelineStopped, PipelineFailed),
    },
)

RAPIDFIRE_ACTOR_TASK = _and(
    ACTOR_TASK,
    {
        # Its pipeline was stopped while the actor was being made ready.
        ActorTaskStatus.SCHEDULED: (ActorTaskCompleted,),
        # The results of a shard could not be merged.
        ActorTaskStatus.COMPLETED: (ActorTaskCompletionWithdrawn,),
    },
)


def status_of(entity: str, kind: type[W], text: str) -> W:
    """Return the status that a row holds.

    Raises:
        StoreDamaged: it is none.
    """
    try:
        return kind(text)
    except ValueError:
        raise StoreDamaged(
            f"{entity} is {excerpt(text)}, which is no {kind.__name__}: somebody has altered its "
            f"row; rebuild() makes it anew from the log"
        ) from None


def move(entity: str, moves: Moves[W], status: str, after: W, *fields: object) -> Decision:
    """Decide that an entity goes from one status to another; if they are the same, nothing.

    Args:
        entity: its name in messages, such as `run 5`.
        moves: its table.
        status: its present one, as its row holds it.
        after: the one that was asked for.
        fields: of the event that leads there.

    Raises:
        IllegalTransition: the one cannot follow the other; the message says what can.
        StoreDamaged: the row holds no status.
    """
    before = status_of(entity, type(after), status)
    if before is after:
        return Decision()
    # A status that only a foreign event can have set has no row here, and so no way out.
    can_follow = moves.get(before, {})
    if after not in can_follow:
        ways = ", ".join(word for word in moves if word in can_follow)
        raise IllegalTransition(
            f"{entity} is {before}; it cannot become {after}: "
            + (f"only {ways} can follow" if ways else "nothing can follow")
        )
    return Decision([can_follow[after](*fields)])

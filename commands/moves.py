"""Which status can follow which, and by which event: one table for each entity."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from refold.commands.command import Decision
from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import IllegalTransition, StoreDamaged
from refold.eventstore.event import Event
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskFailed,
    ActorTaskStarted,
    ContextBuildStarted,
    ContextFailed,
    ContextReady,
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
        ExperimentStatus.NEW: (ExperimentStarted, ExperimentCompleted, ExperimentFailed),
        ExperimentStatus.RUNNING: (ExperimentCompleted, ExperimentFailed),
        ExperimentStatus.FAILED: (ExperimentStarted,),
        ExperimentStatus.COMPLETED: (ExperimentStarted,),
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
        ContextStatus.PENDING: (ContextBuildStarted, ContextReady, ContextFailed),
        ContextStatus.BUILDING: (ContextReady, ContextFailed),
        ContextStatus.FAILED: (ContextBuildStarted,),
        ContextStatus.READY: (ContextBuildStarted,),
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

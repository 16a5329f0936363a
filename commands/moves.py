"""Which status can follow which: one table for each entity."""

from collections.abc import Mapping, Set
from typing import TypeVar

from refold.eventstore.errors import IllegalTransition
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
Moves = Mapping[W, Set[W]]

EXPERIMENT: Moves[ExperimentStatus] = {
    ExperimentStatus.NEW: {
        ExperimentStatus.RUNNING,
        ExperimentStatus.COMPLETED,
        ExperimentStatus.FAILED,
    },
    ExperimentStatus.RUNNING: {ExperimentStatus.COMPLETED, ExperimentStatus.FAILED},
    ExperimentStatus.FAILED: {ExperimentStatus.RUNNING},
    ExperimentStatus.COMPLETED: {ExperimentStatus.RUNNING},
}

RUN: Moves[RunStatus] = {
    RunStatus.NEW: {RunStatus.ONGOING, RunStatus.STOPPED, RunStatus.FAILED, RunStatus.KILLED},
    RunStatus.ONGOING: {
        RunStatus.COMPLETED,
        RunStatus.STOPPED,
        RunStatus.FAILED,
        RunStatus.KILLED,
    },
    RunStatus.STOPPED: {RunStatus.ONGOING, RunStatus.FAILED, RunStatus.KILLED},
    RunStatus.FAILED: {RunStatus.ONGOING, RunStatus.KILLED},
    RunStatus.COMPLETED: {RunStatus.ONGOING, RunStatus.KILLED},
    RunStatus.KILLED: set(),
}

WORKER_TASK: Moves[TaskStatus] = {
    TaskStatus.SCHEDULED: {TaskStatus.IN_PROGRESS, TaskStatus.FAILED},
    TaskStatus.IN_PROGRESS: {TaskStatus.COMPLETED, TaskStatus.FAILED},
    TaskStatus.COMPLETED: set(),
    TaskStatus.FAILED: set(),
}

REQUEST: Moves[TaskStatus] = {
    TaskStatus.PENDING: {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.SKIPPED},
    TaskStatus.COMPLETED: set(),
    TaskStatus.FAILED: set(),
    TaskStatus.SKIPPED: set(),
}

CONTEXT: Moves[ContextStatus] = {
    ContextStatus.PENDING: {ContextStatus.BUILDING, ContextStatus.READY, ContextStatus.FAILED},
    ContextStatus.BUILDING: {ContextStatus.READY, ContextStatus.FAILED},
    ContextStatus.FAILED: {ContextStatus.BUILDING},
    ContextStatus.READY: {ContextStatus.BUILDING},
}

PIPELINE: Moves[PipelineStatus] = {
    PipelineStatus.NEW: {
        PipelineStatus.ONGOING,
        PipelineStatus.STOPPED,
        PipelineStatus.FAILED,
        PipelineStatus.DELETED,
    },
    PipelineStatus.ONGOING: {
        PipelineStatus.COMPLETED,
        PipelineStatus.STOPPED,
        PipelineStatus.FAILED,
        PipelineStatus.DELETED,
    },
    PipelineStatus.STOPPED: {
        PipelineStatus.ONGOING,
        PipelineStatus.FAILED,
        PipelineStatus.DELETED,
    },
    PipelineStatus.FAILED: {PipelineStatus.ONGOING, PipelineStatus.DELETED},
    PipelineStatus.COMPLETED: {PipelineStatus.ONGOING, PipelineStatus.DELETED},
    PipelineStatus.DELETED: set(),
}

ACTOR_TASK: Moves[ActorTaskStatus] = {
    ActorTaskStatus.SCHEDULED: {ActorTaskStatus.IN_PROGRESS, ActorTaskStatus.FAILED},
    ActorTaskStatus.IN_PROGRESS: {ActorTaskStatus.COMPLETED, ActorTaskStatus.FAILED},
    ActorTaskStatus.COMPLETED: set(),
    ActorTaskStatus.FAILED: set(),
}


def check_move(entity: str, moves: Moves[W], before: W, after: W) -> None:
    """Refuse a status that cannot follow the present one.

    Raises:
        IllegalTransition: names the entity, its status and what can follow.
    """
    # A status that only a foreign event can have set has no row here, and so no way out.
    can_follow = moves.get(before, set())
    if after not in can_follow:
        ways = ", ".join(word for word in moves if word in can_follow)
        raise IllegalTransition(
            f"{entity} is {before}; it cannot become {after}: "
            + (f"only {ways} can follow" if ways else "nothing can follow")
        )

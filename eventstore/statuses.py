"""The words for states: fit in capitals, evals in small letters."""

from enum import Enum, StrEnum
from typing import Self

from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import InvalidCommand


class Stage(Enum):
    """What a status means, whichever entity has it."""

    WAITING = "NEW PENDING SCHEDULED"
    UNDER_WAY = "ONGOING RUNNING IN_PROGRESS BUILDING"
    HALTED = "STOPPED SKIPPED CANCELLED"
    DONE = "COMPLETED READY"
    FAILED = "FAILED KILLED DELETED"


STAGES: dict[str, Stage] = {word: stage for stage in Stage for word in stage.value.split()}
"""The stage of each status, which is written in capitals."""


def stage_of(status: str) -> Stage | None:
    """Return the stage of a status in either case; None if the word is no status."""
    return STAGES.get(status.upper())


class Word(StrEnum):
    """A string enum that reads its values in either case.

    >>> RunStatus("ongoing") is RunStatus.ONGOING
    True
    """

    @classmethod
    def of(cls, value: object) -> Self:
        """Return the member that a string or a member of another enum names.

        Raises:
            InvalidCommand: it names none.
        """
        try:
            if isinstance(value, str):
                return cls(value)
            raise TypeError
        except (ValueError, TypeError):
            raise InvalidCommand(
                f"{excerpt(value)} is no {cls.__name__}: it is one of {', '.join(cls)}"
            ) from None

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if isinstance(value, str):
            for member in cls:
                if member.value.lower() == value.lower():
                    return member
        return None


class ExperimentStatus(Word):
    """Where a training experiment (fit) stands."""

    NEW = "NEW"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class RunStatus(Word):
    """Where a run stands; KILLED is for ever."""

    NEW = "NEW"
    ONGOING = "ONGOING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    KILLED = "KILLED"


class RunSource(Word):
    """Where a run came from."""

    USER = "USER"
    CLONE_MODIFY = "CLONE_MODIFY"


class RunEndedBy(Word):
    """How a run ended."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    KILLED = "KILLED"
    STOPPED = "STOPPED"


class TaskStatus(Word):
    """Where a worker task, a request or a progress row stands."""

    PENDING = "PENDING"
    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class ControllerTask(Word):
    """What the controller is doing."""

    IDLE = "IDLE"
    CREATE_MODELS = "CREATE_MODELS"
    RUN_FIT = "RUN_FIT"
    EPOCH_BOUNDARY = "EPOCH_BOUNDARY"
    GET_RUN_METRICS = "GET_RUN_METRICS"
    IC_STOP = "IC_STOP"
    IC_RESUME = "IC_RESUME"
    IC_DELETE = "IC_DELETE"
    IC_CLONE_MODIFY = "IC_CLONE_MODIFY"
    IC_CLONE_MODIFY_WARM = "IC_CLONE_MODIFY_WARM"


class WorkerTask(Word):
    """What a worker is doing."""

    IDLE = "IDLE"
    CREATE_MODELS = "CREATE_MODELS"
    TRAIN_VAL = "TRAIN_VAL"


class ICOperation(Word):
    """What a user asked for while a run trains (interactive control)."""

    CLONE_MODIFY = "CLONE_MODIFY"
    STOP = "STOP"
    RESUME = "RESUME"
    DELETE = "DELETE"


class MemberStatus(Word):
    """Whether a worker, an actor or the controller takes part."""

    JOINED = "JOINED"
    LEFT = "LEFT"
    LOST = "LOST"


class InferenceStatus(Word):
    """Where an inference experiment (evals) stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ContextStatus(Word):
    """Where the building of a context (RAG) stands; deleted is for ever."""

    PENDING = "pending"
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"
    DELETED = "deleted"


class PipelineStatus(Word):
    """Where an inference pipeline stands; deleted is for ever."""

    NEW = "new"
    ONGOING = "ongoing"
    COMPLETED = "completed"
    STOPPED = "stopped"
    DELETED = "deleted"
    FAILED = "failed"


class PipelineOperation(Word):
    """What a user asked for while pipelines run (interactive control of inference)."""

    STOP = "stop"
    RESUME = "resume"
    DELETE = "delete"
    CLONE = "clone"


class PipelineRequestStatus(Word):
    """Where a request about a pipeline stands."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class ActorTaskStatus(Word):
    """Where an actor's task stands."""

    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"

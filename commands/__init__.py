"""Floor 3, what someone asks for: commands that decide, from the rows, which events follow."""

from commands.actor_tasks import (
    ClaimNextActorTask,
    CreateActorTask,
    SetActorTaskEndTime,
    SetActorTaskError,
    SetActorTaskStartTime,
    SetActorTaskStatus,
)
from commands.command import Command, Decision
from commands.contexts import (
    CreateContext,
    SetContextEndTime,
    SetContextError,
    SetContextStartTime,
    SetContextStatus,
)
from commands.execute import execute
from commands.experiments import CreateExperiment, SetExperimentError, SetExperimentStatus
from commands.interactive_control import (
    MarkICOpsCompleted,
    MarkICOpsFailed,
    MarkICOpsSkipped,
    RequestCloneModify,
    RequestDelete,
    RequestResume,
    RequestStop,
)
from commands.pipelines import (
    CreatePipeline,
    SetPipelineError,
    SetPipelineProgress,
    SetPipelineStatus,
)
from commands.progress import SetControllerTask, SetWorkerProgress
from commands.runs import CreateRun, SetRunEndedBy, SetRunProgress, SetRunStatus, UpdateRunMetrics
from commands.store import ResetAllTables, ResetExperimentStates
from commands.worker_task import ClaimNextWorkerTask, CreateWorkerTask, SetWorkerTaskStatus

__all__ = [
    "ClaimNextActorTask",
    "ClaimNextWorkerTask",
    "Command",
    "CreateActorTask",
    "CreateContext",
    "CreateExperiment",
    "CreatePipeline",
    "CreateRun",
    "CreateWorkerTask",
    "Decision",
    "MarkICOpsCompleted",
    "MarkICOpsFailed",
    "MarkICOpsSkipped",
    "RequestCloneModify",
    "RequestDelete",
    "RequestResume",
    "RequestStop",
    "ResetAllTables",
    "ResetExperimentStates",
    "SetActorTaskEndTime",
    "SetActorTaskError",
    "SetActorTaskStartTime",
    "SetActorTaskStatus",
    "SetContextEndTime",
    "SetContextError",
    "SetContextStartTime",
    "SetContextStatus",
    "SetControllerTask",
    "SetExperimentError",
    "SetExperimentStatus",
    "SetPipelineError",
    "SetPipelineProgress",
    "SetPipelineStatus",
    "SetRunEndedBy",
    "SetRunProgress",
    "SetRunStatus",
    "SetWorkerProgress",
    "SetWorkerTaskStatus",
    "UpdateRunMetrics",
    "execute",
]

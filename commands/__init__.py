"""Floor 3, what someone asks for: commands that decide, from the rows, which events follow."""

# A checkout has this folder at its top. Under that name everything would be loaded twice.
if __name__ == "commands":
    raise ImportError("import refold.commands instead of commands")

from refold.commands.actor_tasks import (
    ClaimNextActorTask,
    CreateActorTask,
    SetActorTaskEndTime,
    SetActorTaskError,
    SetActorTaskStartTime,
    SetActorTaskStatus,
)
from refold.commands.command import Command, Decision
from refold.commands.contexts import (
    CreateContext,
    SetContextEndTime,
    SetContextError,
    SetContextStartTime,
    SetContextStatus,
)
from refold.commands.execute import execute
from refold.commands.experiments import CreateExperiment, SetExperimentError, SetExperimentStatus
from refold.commands.interactive_control import (
    MarkICOpsCompleted,
    MarkICOpsFailed,
    MarkICOpsSkipped,
    RequestCloneModify,
    RequestDelete,
    RequestResume,
    RequestStop,
)
from refold.commands.pipelines import (
    CreatePipeline,
    SetPipelineError,
    SetPipelineProgress,
    SetPipelineStatus,
)
from refold.commands.progress import SetControllerTask, SetWorkerProgress
from refold.commands.runs import (
    CreateRun,
    SetRunEndedBy,
    SetRunProgress,
    SetRunStatus,
    UpdateRunMetrics,
)
from refold.commands.store import ResetAllTables, ResetExperimentStates
from refold.commands.worker_task import ClaimNextWorkerTask, CreateWorkerTask, SetWorkerTaskStatus

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

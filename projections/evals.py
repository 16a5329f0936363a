"""The views of inference: contexts, pipelines, tasks of actors."""

from functools import partial

from msgspec import UNSET
from msgspec.structs import replace

from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskCompletionWithdrawn,
    ActorTaskEndTimeRecorded,
    ActorTaskErrorRecorded,
    ActorTaskEvent,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ActorTaskStartTimeRecorded,
    ContextBuildStarted,
    ContextCreated,
    ContextDeleted,
    ContextEndTimeRecorded,
    ContextErrorRecorded,
    ContextEvent,
    ContextFailed,
    ContextReady,
    ContextRebuildStarted,
    ContextStartTimeRecorded,
    ExperimentStatesReset,
    PipelineCloneRequested,
    PipelineCompleted,
    PipelineCreated,
    PipelineDeleted,
    PipelineDeleteRequested,
    PipelineErrorRecorded,
    PipelineEvent,
    PipelineFailed,
    PipelineProgressed,
    PipelineRequestCompleted,
    PipelineRequestEvent,
    PipelineRequestFailed,
    PipelineRequestSkipped,
    PipelineRequestStarted,
    PipelineResumed,
    PipelineResumeRequested,
    PipelineStarted,
    PipelineStopped,
    PipelineStopRequested,
    ShardCompleted,
    TablesReset,
    WorkerLost,
)
from refold.eventstore.sql import section
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    PipelineOperation,
    PipelineRequestStatus,
    PipelineStatus,
)
from refold.projections.experiments import is_of
from refold.projections.liveness import cause_of
from refold.projections.view import Row, View


class Context(Row, frozen=True):
    """A row of `contexts`."""

    context_id: int
    context_hash: str
    rag_config_json: str | None
    prompt_config_json: str | None
    status: str
    error: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_seconds: float | None = None


contexts = View(
    "contexts", Context, version=2, schema=section("contexts"), stream=ContextEvent.stream_of
)

contexts.created_by(
    ContextCreated,
    lambda e: Context(
        e.context_id, e.context_hash, e.rag_config_json, e.prompt_config_json, e.status.value
    ),
)
contexts.moved_by(ContextBuildStarted, ContextReady, ContextFailed, ContextDeleted)
contexts.on(
    ContextRebuildStarted,
    lambda row, e: replace(
        row,
        status=str(e.leads_to),
        error=None,
        started_at=e.started_at,
        completed_at=None,
        duration_seconds=None,
    ),
)
contexts.on(ContextStartTimeRecorded, lambda row, e: replace(row, started_at=e.started_at))
contexts.on(
    ContextEndTimeRecorded,
    lambda row, e: replace(row, completed_at=e.completed_at, duration_seconds=e.duration_seconds),
)
contexts.on(ContextErrorRecorded, lambda row, e: replace(row, error=e.error))
contexts.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status=ContextStatus.FAILED.value),
    keys=lambda e: e.contexts,
)
contexts.cleared_by(TablesReset, when=is_of("evals"))


class Pipeline(Row, frozen=True):
    """A row of `pipelines`."""

    pipeline_id: int
    experiment_id: int
    context_id: int | None
    pipeline_name: str
    pipeline_type: str
    model_config_json: str | None
    sampling_params_json: str | None
    status: str
    current_shard_id: int | None = None
    shards_completed: int = 0
    total_samples_processed: int = 0
    error: str | None = None


def _progressed(row: Pipeline, event: PipelineProgressed | ShardCompleted) -> Pipeline:
    return replace(
        row,
        current_shard_id=event.current_shard_id,
        shards_completed=event.shards_completed,
        total_samples_processed=event.total_samples_processed,
    )


pipelines = View(
    "pipelines", Pipeline, version=1, schema=section("pipelines"), stream=PipelineEvent.stream_of
)

pipelines.created_by(
    PipelineCreated,
    lambda e: Pipeline(
        pipeline_id=e.pipeline_id,
        experiment_id=e.experiment_id,
        context_id=e.context_id,
        pipeline_name=e.pipeline_name,
        pipeline_type=e.pipeline_type,
        model_config_json=e.model_config_json,
        sampling_params_json=e.sampling_params_json,
        status=e.status.value,
    ),
)
pipelines.moved_by(
    PipelineStarted,
    PipelineResumed,
    PipelineStopped,
    PipelineCompleted,
    PipelineDeleted,
    PipelineFailed,
)
pipelines.on(PipelineProgressed, _progressed)
pipelines.on(ShardCompleted, _progressed)
pipelines.on(PipelineErrorRecorded, lambda row, e: replace(row, error=e.error))
pipelines.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status=PipelineStatus.FAILED.value),
    keys=lambda e: e.pipelines,
)
pipelines.cleared_by(TablesReset, when=is_of("evals"))


class ActorTask(Row, frozen=True):
    """A row of `actor_tasks`."""

    task_id: int
    experiment_id: int
    pipeline_id: int
    actor_id: int
    shard_id: int
    status: str
    error: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_seconds: float | None = None
    claim: int | None = None
    attempts: int = 0
    offered_after: int | None = None


actor_tasks = View(
    "actor_tasks",
    ActorTask,
    version=2,
    schema=section("actor_tasks"),
    stream=ActorTaskEvent.stream_of,
)

actor_tasks.created_by(
    ActorTaskScheduled,
    lambda e: ActorTask(
        e.task_id,
        e.experiment_id,
        e.pipeline_id,
        e.actor_id,
        e.shard_id,
        ActorTaskStatus.SCHEDULED.value,
    ),
)
actor_tasks.on(
    ActorTaskStarted,
    lambda row, e: replace(
        row,
        status=ActorTaskStatus.IN_PROGRESS.value,
        actor_id=row.actor_id if e.actor_id is UNSET else e.actor_id,
        error=None,
        attempts=row.attempts + 1,
        offered_after=None,
    ),
    marks="claim",
)
actor_tasks.moved_by(ActorTaskCompleted, ActorTaskFailed, ActorTaskCompletionWithdrawn)
actor_tasks.on(ActorTaskStartTimeRecorded, lambda row, e: replace(row, started_at=e.started_at))
actor_tasks.on(
    ActorTaskEndTimeRecorded,
    lambda row, e: replace(row, completed_at=e.completed_at, duration_seconds=e.duration_seconds),
)
actor_tasks.on(ActorTaskErrorRecorded, lambda row, e: replace(row, error=e.error))
actor_tasks.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status=ActorTaskStatus.FAILED.value),
    keys=lambda e: e.actor_tasks,
)


def _lost(row: ActorTask, event: WorkerLost) -> ActorTask:
    for offered in event.offered_actor_tasks:
        if offered.task_id == row.task_id:
            return replace(
                row,
                status=ActorTaskStatus.SCHEDULED.value,
                error=cause_of(event),
                claim=None,
                offered_after=offered.after,
            )
    return replace(row, status=ActorTaskStatus.FAILED.value, error=cause_of(event))


actor_tasks.on(
    WorkerLost,
    _lost,
    keys=lambda e: (
        *e.failed_actor_tasks,
        *(offered.task_id for offered in e.offered_actor_tasks),
    ),
)
actor_tasks.cleared_by(TablesReset, when=is_of("evals"))


class PipelineRequest(Row, frozen=True):
    """A row of `pipeline_requests`."""

    ic_id: int
    pipeline_id: int | None
    operation: str
    status: str
    request_data: str | None
    error: str | None = None


pipeline_requests = View(
    "pipeline_requests",
    PipelineRequest,
    version=1,
    schema=section("pipeline_requests"),
    stream=PipelineRequestEvent.stream_of,
)


def _requested(
    operation: PipelineOperation,
    event: PipelineStopRequested
    | PipelineResumeRequested
    | PipelineDeleteRequested
    | PipelineCloneRequested,
) -> PipelineRequest:
    return PipelineRequest(
        event.ic_id,
        event.pipeline_id,
        operation.value,
        PipelineRequestStatus.PENDING.value,
        event.request_data,
    )


pipeline_requests.created_by(PipelineStopRequested, partial(_requested, PipelineOperation.STOP))
pipeline_requests.created_by(PipelineResumeRequested, partial(_requested, PipelineOperation.RESUME))
pipeline_requests.created_by(PipelineDeleteRequested, partial(_requested, PipelineOperation.DELETE))
pipeline_requests.created_by(PipelineCloneRequested, partial(_requested, PipelineOperation.CLONE))
pipeline_requests.moved_by(PipelineRequestStarted, PipelineRequestCompleted)
for _unfulfilled in (PipelineRequestFailed, PipelineRequestSkipped):
    pipeline_requests.on(
        _unfulfilled, lambda row, e: replace(row, status=str(e.leads_to), error=e.error)
    )
pipeline_requests.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status=PipelineRequestStatus.FAILED.value),
    keys=lambda e: e.pipeline_requests,
)
pipeline_requests.cleared_by(TablesReset, when=is_of("evals"))

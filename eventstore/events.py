"""Everything that can happen: one frozen struct for each kind of event."""

from typing import Annotated, Literal, TypeGuard

import msgspec
from msgspec import UNSET, UnsetType

from refold.eventstore.event import Digest, Event, Id, Int, Name
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ControllerTask,
    ExperimentStatus,
    PipelineRequestStatus,
    PipelineStatus,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    WorkerTask,
)
from refold.eventstore.words import NotANumber


class StoreEvent(Event, frozen=True):
    """Something happened to the store."""

    stream_of = "store"


class TablesReset(StoreEvent, frozen=True):
    """All views were emptied, the experiments only if it says so. The history stays.

    If it names a kind, the views of that kind were emptied, and those experiments are gone that it
    names.
    """

    experiments: bool
    kind: Literal["fit", "evals"] | UnsetType = UNSET
    experiment_ids: tuple[Id, ...] | UnsetType = UNSET


class ExperimentStatesReset(StoreEvent, frozen=True):
    """After a crash, what was in progress was declared failed: the compensating event.

    It names every row that it fails, so that a replay needs no rule of its own.
    """

    worker_tasks: tuple[Id, ...] = ()
    actor_tasks: tuple[Id, ...] = ()
    contexts: tuple[Id, ...] = ()
    workers: tuple[Id, ...] = ()
    controller: bool = False
    runs: tuple[Id, ...] = ()
    pipelines: tuple[Id, ...] = ()
    requests: tuple[Id, ...] = ()
    pipeline_requests: tuple[Id, ...] = ()


class Offered(msgspec.Struct, frozen=True, gc=False):
    """That a task can be claimed again."""

    task_id: Id
    after: Int
    """When, in microseconds since 1970-01-01 UTC."""


class WorkerLost(StoreEvent, frozen=True, omit_defaults=True):
    """A worker, an actor or the controller was lost: what it was doing failed, or is offered again.

    It names every row that it changes, so that a replay needs no rule of its own.
    """

    name: Name
    """Such as `worker-0`, `actor-1` or `controller`."""
    known_by: Literal["lock", "person", "successor"]
    """How it is known: its lock is free; somebody said so; or another took over."""
    heard_at: Int
    """When the last event was recorded that the store has of it, in microseconds."""
    process: Int | None = None
    """The number that its process had."""
    claims: tuple[Id, ...] = ()
    """Those that it held: what it was doing."""
    failed_tasks: tuple[Id, ...] = ()
    offered_tasks: tuple[Offered, ...] = ()
    failed_actor_tasks: tuple[Id, ...] = ()
    offered_actor_tasks: tuple[Offered, ...] = ()


class RetriesSet(StoreEvent, frozen=True):
    """It was decided how often the tasks of an experiment, run or pipeline are offered again."""

    scope: Name
    """Such as `experiment-1`, `run-5` or `pipeline-4`."""
    max_attempts: Int
    wait: float
    """Seconds until the second attempt; each further one waits twice as long."""


class MemberEvent(Event, frozen=True):
    """A worker, an actor or the controller came or went."""

    name: Name
    """Such as `worker-0`, `actor-1` or `controller`."""

    stream_of = "{}"


class WorkerJoined(MemberEvent, frozen=True):
    """It takes part: its process holds the lock of this event's position."""


class WorkerLeft(MemberEvent, frozen=True):
    """It has ended its work by itself."""


class ExperimentEvent(Event, frozen=True):
    """Something happened to an experiment."""

    experiment_id: Id

    stream_of = "experiment-{}"


class ExperimentCreated(ExperimentEvent, frozen=True):
    """An experiment was set up, for training (fit) or for inference (evals)."""

    kind: Literal["fit", "evals"]
    experiment_name: Name
    status: Literal[
        "NEW",
        "RUNNING",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "running",
        "completed",
        "failed",
        "cancelled",
    ]
    experiments_path: str | None = None
    num_shards: Int | None = None
    num_actors: Int | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None


class ExperimentStarted(ExperimentEvent, frozen=True):
    """The experiment began to run, or went on after a failure."""

    leads_to = ExperimentStatus.RUNNING


class ExperimentCompleted(ExperimentEvent, frozen=True):
    """The experiment finished."""

    leads_to = ExperimentStatus.COMPLETED


class ExperimentFailed(ExperimentEvent, frozen=True):
    """The experiment ended with an error."""

    leads_to = ExperimentStatus.FAILED


class ExperimentCancelled(ExperimentEvent, frozen=True):
    """A user put an end to what the experiment did."""

    leads_to = ExperimentStatus.CANCELLED


class ExperimentDetailsRecorded(ExperimentEvent, frozen=True):
    """More was noted about the experiment; what the event does not hold stays as it was."""

    metric_experiment_id: str | UnsetType | None = UNSET
    """Its id in MLflow, or where else metrics are logged."""
    current_task: Name | UnsetType = UNSET
    options: Digest | UnsetType = UNSET
    num_shards: Int | UnsetType | None = UNSET
    num_actors: Int | UnsetType | None = UNSET
    num_cpus: float | UnsetType | None = UNSET
    num_gpus: float | UnsetType | None = UNSET


class ExperimentErrorRecorded(ExperimentEvent, frozen=True):
    """An error message was noted for the experiment."""

    error: str


Scalar = Int | float | str | bool | None
Group = Scalar | list[Scalar] | dict[str, Scalar]
Table = Scalar | list[Group] | dict[str, Group]
Metric = Scalar | list[Table] | dict[str, Table]
"""What a metric can be: a number or text, or lists and named groups of them, three deep."""


class RunEvent(Event, frozen=True):
    """Something happened to a run."""

    run_id: Id

    stream_of = "run-{}"


class RunCreated(RunEvent, frozen=True):
    """A configuration was given a run, by a user or by cloning another run."""

    experiment_id: Id
    run_name: Name
    status: RunStatus = RunStatus.NEW
    source: RunSource = RunSource.USER
    mlflow_run_id: str | None = None
    parent_run_id: Id | None = None
    warm_start: bool = False
    config: Digest | None = None
    seed: Int | None = None
    num_chunks: Int | None = None


class RunStarted(RunEvent, frozen=True):
    """The run's training began."""

    leads_to = RunStatus.ONGOING


class RunResumed(RunEvent, frozen=True):
    """A stopped or failed run went on."""

    leads_to = RunStatus.ONGOING


class RunStopped(RunEvent, frozen=True):
    """The run was halted; it can be resumed."""

    leads_to = RunStatus.STOPPED


class RunCompleted(RunEvent, frozen=True):
    """The run trained on all its data."""

    leads_to = RunStatus.COMPLETED


class RunFailed(RunEvent, frozen=True):
    """The run ended with an error."""

    leads_to = RunStatus.FAILED


class RunKilled(RunEvent, frozen=True):
    """The run was deleted, for ever."""

    leads_to = RunStatus.KILLED


class RunEnded(RunEvent, frozen=True):
    """It was noted how the run ended."""

    ended_by: RunEndedBy


class RunDetailsRecorded(RunEvent, frozen=True):
    """More was noted about the run; what the event does not hold stays as it was."""

    config: Digest | UnsetType = UNSET
    """The configuration that took the place of the one before."""
    mlflow_run_id: str | UnsetType | None = UNSET
    flattened_config: str | UnsetType = UNSET
    """JSON."""
    completed_steps: Int | UnsetType = UNSET
    total_steps: Int | UnsetType = UNSET
    shards_visited: Int | UnsetType = UNSET
    """In the current epoch."""
    epochs_completed: Int | UnsetType = UNSET
    shard_offset: Int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    ended_by: str | UnsetType = UNSET
    warm_started_from: Int | UnsetType | None = UNSET
    cloned_from: Int | UnsetType | None = UNSET
    estimated_runtime: float | UnsetType = UNSET
    required_workers: Int | UnsetType = UNSET
    controller_progress: float | UnsetType = UNSET
    """In percent, as the controller sees it."""
    worker_progress: float | UnsetType = UNSET
    """In percent of the current shard."""


class RunProgressed(RunEvent, frozen=True):
    """The run came to a chunk of an epoch."""

    current_chunk: Int
    current_epoch: Int
    claim: Id | UnsetType = UNSET
    """Of the task that it came from, if a worker reported it."""


class RunMetricsRecorded(RunEvent, frozen=True, omit_defaults=True):
    """The run's metrics were measured.

    Those that are NaN or infinite are not among the numbers: a word stands for each, by its path.
    """

    metrics: dict[str, Metric]
    words: dict[str, NotANumber] = msgspec.field(default_factory=dict)
    attempt: Id | UnsetType = UNSET
    """The claim of the task that was worked on meanwhile."""


class Measured(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was measured of one metric: a point, or all points since the event of before."""

    last: Int | float | None = None
    """The last value; None: the word tells it."""
    step: Int | None = None
    """Its step."""
    word: NotANumber | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 1
    first: float | None = None
    """The first value, if there are more than one; likewise its step, and the extremes."""
    first_step: Int | None = None
    min: float | None = None
    min_step: Int | None = None
    max: float | None = None
    max_step: Int | None = None


class MetricsLogged(RunEvent, frozen=True):
    """Some metrics of the run were measured; the others keep their values."""

    metrics: dict[Name, Measured]
    points: Digest | UnsetType = UNSET
    """Names the payload with all points, where the metrics are summaries of many."""
    attempt: Id | UnsetType = UNSET
    """The position of the event that began the attempt in which it was measured."""
    left_out: Int | UnsetType = UNSET
    """How many points before these were left out, since the store could not take them in time."""


class RunCheckpointSaved(RunEvent, frozen=True):
    """The run's state was saved, here or elsewhere, so that training can go on from it."""

    step: Int | UnsetType = UNSET
    epoch: Int | UnsetType = UNSET
    chunk: Int | UnsetType = UNSET
    state: Digest | UnsetType = UNSET
    """Names the payload."""
    location: Name | UnsetType = UNSET
    """A path or URL, if it is elsewhere."""
    checksum: Name | UnsetType = UNSET
    """Of what is there."""


class TaskEvent(Event, frozen=True):
    """Something happened to a worker's task."""

    task_id: Id

    stream_of = "task-{}"


class TaskScheduled(TaskEvent, frozen=True):
    """The controller gave a worker a chunk to train a run on."""

    run_id: Id
    worker_id: Id
    chunk_id: Int
    epoch: Int = 0


class TaskDetailsRecorded(TaskEvent, frozen=True):
    """It was noted what the task is and what it needs."""

    worker_id: Id
    task_type: Name
    multi_worker_details: str = "{}"
    """JSON."""
    options: Digest | None = None


class TaskStarted(TaskEvent, frozen=True):
    """The worker claimed the task: the position of this event is the claim."""

    leads_to = TaskStatus.IN_PROGRESS

    worker_id: Id | UnsetType = UNSET
    """The worker, if the task was scheduled for another one."""


class TaskCompleted(TaskEvent, frozen=True):
    """The worker finished the task."""

    leads_to = TaskStatus.COMPLETED

    claim: Id | UnsetType = UNSET
    """The claim that the report belongs to; none: it is an administrative act."""


class TaskFailed(TaskEvent, frozen=True):
    """The task ended with an error."""

    leads_to = TaskStatus.FAILED

    error: str | None = None
    claim: Id | UnsetType = UNSET
    """The claim that the report belongs to; none: it is an administrative act."""


class ControllerTaskSet(Event, frozen=True):
    """The controller turned to a task, or got further with it."""

    task: ControllerTask
    status: TaskStatus

    stream_of = "controller"


class WorkerProgressed(Event, frozen=True):
    """A worker turned to a task, or got further with it."""

    worker_id: Id
    task: WorkerTask
    status: TaskStatus

    stream_of = "worker-{}"


class InteractiveControlEvent(Event, frozen=True):
    """Something happened to a request."""

    ic_id: Id

    stream_of = "ic-{}"


class StopRequested(InteractiveControlEvent, frozen=True):
    """A user asked to stop a run."""

    run_id: Id
    config: Digest | UnsetType = UNSET
    """The configuration that came with the request."""


class ResumeRequested(InteractiveControlEvent, frozen=True):
    """A user asked to let a stopped run go on."""

    run_id: Id
    config: Digest | UnsetType = UNSET


class DeleteRequested(InteractiveControlEvent, frozen=True):
    """A user asked to delete a run."""

    run_id: Id
    config: Digest | UnsetType = UNSET


class CloneModifyRequested(InteractiveControlEvent, frozen=True):
    """A user asked for a copy of a run with another configuration."""

    run_id: Id
    config: Digest | None = None
    warm_start: bool = False


class InteractiveControlStarted(InteractiveControlEvent, frozen=True):
    """The controller began to do what was asked."""

    leads_to = TaskStatus.IN_PROGRESS


class InteractiveControlCompleted(InteractiveControlEvent, frozen=True):
    """The controller did what was asked."""

    leads_to = TaskStatus.COMPLETED


class InteractiveControlFailed(InteractiveControlEvent, frozen=True):
    """The controller tried and could not."""

    leads_to = TaskStatus.FAILED

    error: str | None = None


class InteractiveControlSkipped(InteractiveControlEvent, frozen=True):
    """The controller found that nothing was to be done."""

    leads_to = TaskStatus.SKIPPED

    error: str | None = None


class ContextEvent(Event, frozen=True):
    """Something happened to a context."""

    context_id: Id

    stream_of = "context-{}"


class ContextCreated(ContextEvent, frozen=True):
    """A context was described; the hash of its description tells it from all others."""

    context_hash: Name
    rag_config_json: str | None = None
    prompt_config_json: str | None = None
    status: ContextStatus = ContextStatus.PENDING


class ContextBuildStarted(ContextEvent, frozen=True):
    """The building of the context began."""

    leads_to = ContextStatus.BUILDING


class ContextReady(ContextEvent, frozen=True):
    """The context was built."""

    leads_to = ContextStatus.READY


class ContextFailed(ContextEvent, frozen=True):
    """The building of the context ended with an error."""

    leads_to = ContextStatus.FAILED


class ContextDeleted(ContextEvent, frozen=True):
    """The context was deleted, for ever."""

    leads_to = ContextStatus.DELETED


class ContextRebuildStarted(ContextEvent, frozen=True):
    """The building of the context began anew: what a build before it left is void."""

    leads_to = ContextStatus.BUILDING

    started_at: Name
    seconds: float | UnsetType = UNSET
    """The same time in seconds since 1970, if it was given so."""


class ContextStartTimeRecorded(ContextEvent, frozen=True):
    """It was noted when the building began."""

    started_at: Name
    seconds: float | UnsetType = UNSET
    """The same time in seconds since 1970, if it was given so."""


class ContextEndTimeRecorded(ContextEvent, frozen=True):
    """It was noted when the building ended and how many seconds it took."""

    completed_at: Name
    duration_seconds: float | None = None
    seconds: float | UnsetType = UNSET
    """When it ended in seconds since 1970, if it was given so."""


class ContextDetailsRecorded(ContextEvent, frozen=True):
    """It was noted what the context is built on."""

    enable_gpu: bool = False
    vector_store_json: str | None = None


class ContextErrorRecorded(ContextEvent, frozen=True):
    """An error message was noted for the context."""

    error: str


class PipelineEvent(Event, frozen=True):
    """Something happened to a pipeline."""

    pipeline_id: Id

    stream_of = "pipeline-{}"


class PipelineCreated(PipelineEvent, frozen=True):
    """A model with its sampling parameters was given a pipeline."""

    experiment_id: Id
    pipeline_name: Name
    pipeline_type: Name
    model_config_json: str | None = None
    sampling_params_json: str | None = None
    context_id: Id | None = None
    status: PipelineStatus = PipelineStatus.NEW


class PipelineStarted(PipelineEvent, frozen=True):
    """The pipeline took up its first shard."""

    leads_to = PipelineStatus.ONGOING


class PipelineResumed(PipelineEvent, frozen=True):
    """A stopped or failed pipeline went on."""

    leads_to = PipelineStatus.ONGOING


class PipelineStopped(PipelineEvent, frozen=True):
    """The pipeline was halted; it can be resumed."""

    leads_to = PipelineStatus.STOPPED


class PipelineCompleted(PipelineEvent, frozen=True):
    """All shards were processed."""

    leads_to = PipelineStatus.COMPLETED


class PipelineDeleted(PipelineEvent, frozen=True):
    """The pipeline was deleted, for ever."""

    leads_to = PipelineStatus.DELETED


class PipelineFailed(PipelineEvent, frozen=True):
    """The pipeline ended with an error."""

    leads_to = PipelineStatus.FAILED


class PipelineProgressed(PipelineEvent, frozen=True):
    """The pipeline got further within a shard, or turned to another."""

    current_shard_id: Int | None
    shards_completed: Int
    total_samples_processed: Int
    claim: Id | UnsetType = UNSET
    """Of the task that it came from, if an actor reported it."""


class ShardCompleted(PipelineEvent, frozen=True):
    """One more shard of the data was processed."""

    current_shard_id: Int | None
    shards_completed: Int
    total_samples_processed: Int
    claim: Id | UnsetType = UNSET


class PipelineDetailsRecorded(PipelineEvent, frozen=True):
    """More was noted about the pipeline; what the event does not hold stays as it was."""

    config: Digest | UnsetType = UNSET
    config_json: str | UnsetType = UNSET
    """What of the configuration people see: JSON."""
    flattened_config: str | UnsetType = UNSET
    """JSON."""
    metric_run_id: str | UnsetType | None = UNSET


class PipelineErrorRecorded(PipelineEvent, frozen=True):
    """An error message was noted for the pipeline."""

    error: str


class PipelineRequestEvent(Event, frozen=True):
    """Something happened to a request about a pipeline."""

    ic_id: Id

    stream_of = "pipeline_ic-{}"


class PipelineStopRequested(PipelineRequestEvent, frozen=True):
    """A user asked to stop a pipeline."""

    pipeline_id: Id
    request_data: str | None = None


class PipelineResumeRequested(PipelineRequestEvent, frozen=True):
    """A user asked to let a stopped pipeline go on."""

    pipeline_id: Id
    request_data: str | None = None


class PipelineDeleteRequested(PipelineRequestEvent, frozen=True):
    """A user asked to delete a pipeline."""

    pipeline_id: Id
    request_data: str | None = None


class PipelineCloneRequested(PipelineRequestEvent, frozen=True):
    """A user asked for a copy of a pipeline with another configuration."""

    pipeline_id: Id | None = None
    """None: the request's data name it."""
    request_data: str | None = None


class PipelineRequestStarted(PipelineRequestEvent, frozen=True):
    """The controller began to do what was asked."""

    leads_to = PipelineRequestStatus.IN_PROGRESS


class PipelineRequestCompleted(PipelineRequestEvent, frozen=True):
    """The controller did what was asked."""

    leads_to = PipelineRequestStatus.COMPLETED


class PipelineRequestFailed(PipelineRequestEvent, frozen=True):
    """The controller tried and could not."""

    leads_to = PipelineRequestStatus.FAILED

    error: str | None = None


class PipelineRequestSkipped(PipelineRequestEvent, frozen=True):
    """The controller found that nothing was to be done."""

    leads_to = PipelineRequestStatus.SKIPPED

    error: str | None = None


class ActorTaskEvent(Event, frozen=True):
    """Something happened to an actor's task."""

    task_id: Id

    stream_of = "actor_task-{}"


class ActorTaskScheduled(ActorTaskEvent, frozen=True):
    """An actor was given a shard to run a pipeline on."""

    experiment_id: Id
    pipeline_id: Id
    actor_id: Id
    shard_id: Int


class ActorTaskStarted(ActorTaskEvent, frozen=True):
    """The actor claimed the task: the position of this event is the claim."""

    leads_to = ActorTaskStatus.IN_PROGRESS

    actor_id: Id | UnsetType = UNSET
    """The actor, if the task was scheduled for another one."""


class ActorTaskCompleted(ActorTaskEvent, frozen=True):
    """The actor finished the task."""

    leads_to = ActorTaskStatus.COMPLETED

    claim: Id | UnsetType = UNSET
    """The claim that the report belongs to; none: it is an administrative act."""


class ActorTaskFailed(ActorTaskEvent, frozen=True):
    """The task ended with an error."""

    leads_to = ActorTaskStatus.FAILED

    claim: Id | UnsetType = UNSET
    """The claim that the report belongs to; none: it is an administrative act."""


class ActorTaskCompletionWithdrawn(ActorTaskEvent, frozen=True):
    """The task, reported as finished, was found to have failed by who had reported it."""

    leads_to = ActorTaskStatus.FAILED

    claim: Id | UnsetType = UNSET
    """The claim that the report belongs to; none: it is an administrative act."""


class ActorTaskStartTimeRecorded(ActorTaskEvent, frozen=True):
    """It was noted when the work began."""

    started_at: Name
    seconds: float | UnsetType = UNSET
    """The same time in seconds since 1970, if it was given so."""


class ActorTaskEndTimeRecorded(ActorTaskEvent, frozen=True):
    """It was noted when the work ended and how many seconds it took."""

    completed_at: Name
    duration_seconds: float | None = None
    seconds: float | UnsetType = UNSET
    """When it ended in seconds since 1970, if it was given so."""


class ActorTaskErrorRecorded(ActorTaskEvent, frozen=True):
    """An error message was noted for the task."""

    error: str


def event_types() -> list[type[Event]]:
    """Return the event types of refold itself, without their bases and those of users."""
    bases = {base for cls in list(globals().values()) if _is_event(cls) for base in cls.__bases__}
    return [cls for cls in list(globals().values()) if _is_event(cls) and cls not in bases]


def _is_event(thing: object) -> TypeGuard[type[Event]]:
    return isinstance(thing, type) and issubclass(thing, Event) and thing.__module__ == __name__

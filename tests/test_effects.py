"""What every event does to the row of every view that takes it in: the row before, the row after.

The tables below are data. A test proves that they are complete: a handler that is added to a view
needs its lines here.
"""

from itertools import chain
from typing import Any

import pytest
from msgspec.structs import asdict, replace

from refold.eventstore.event import Event
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskCompletionWithdrawn,
    ActorTaskEndTimeRecorded,
    ActorTaskErrorRecorded,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ActorTaskStartTimeRecorded,
    CloneModifyRequested,
    ContextBuildStarted,
    ContextCreated,
    ContextDeleted,
    ContextDetailsRecorded,
    ContextEndTimeRecorded,
    ContextErrorRecorded,
    ContextFailed,
    ContextReady,
    ContextRebuildStarted,
    ContextStartTimeRecorded,
    ControllerTaskSet,
    DeleteRequested,
    ExperimentCancelled,
    ExperimentCompleted,
    ExperimentCreated,
    ExperimentDetailsRecorded,
    ExperimentErrorRecorded,
    ExperimentFailed,
    ExperimentStarted,
    ExperimentStatesReset,
    InteractiveControlCompleted,
    InteractiveControlFailed,
    InteractiveControlSkipped,
    InteractiveControlStarted,
    Measured,
    MetricsLogged,
    Offered,
    PipelineCloneRequested,
    PipelineCompleted,
    PipelineCreated,
    PipelineDeleted,
    PipelineDeleteRequested,
    PipelineDetailsRecorded,
    PipelineErrorRecorded,
    PipelineFailed,
    PipelineProgressed,
    PipelineRequestCompleted,
    PipelineRequestFailed,
    PipelineRequestSkipped,
    PipelineRequestStarted,
    PipelineResumed,
    PipelineResumeRequested,
    PipelineStarted,
    PipelineStopped,
    PipelineStopRequested,
    ResumeRequested,
    RetriesSet,
    RunCompleted,
    RunCreated,
    RunDetailsRecorded,
    RunEnded,
    RunFailed,
    RunKilled,
    RunMetricsRecorded,
    RunProgressed,
    RunResumed,
    RunStarted,
    RunStopped,
    ShardCompleted,
    StopRequested,
    StoreEvent,
    TablesReset,
    TaskCompleted,
    TaskDetailsRecorded,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerProgressed,
)
from refold.eventstore.sql import section, statements
from refold.eventstore.statuses import (
    ContextStatus,
    ControllerTask,
    PipelineStatus,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    WorkerTask,
)
from refold.projections import ALL, Row, UnitOfWork, View
from refold.projections.evals import (
    ActorTask,
    Context,
    Pipeline,
    PipelineRequest,
    actor_tasks,
    contexts,
    pipeline_requests,
    pipelines,
)
from refold.projections.experiments import Experiment, LastId, experiments, ids
from refold.projections.fit import (
    ControllerProgress,
    Request,
    Run,
    RunMetric,
    Task,
    WorkerProgress,
    controller_progress,
    interactive_control,
    run_metrics,
    runs,
    worker_progress,
    worker_task,
)
from refold.projections.liveness import Member, Retry, members, retries
from refold.projections.rapidfire import (
    ActorTaskTimes,
    ContextDetails,
    ExperimentDetails,
    PipelineDetails,
    RunDetails,
    TaskDetails,
    Worker,
    rapidfire_actor_tasks,
    rapidfire_contexts,
    rapidfire_experiments,
    rapidfire_pipelines,
    rapidfire_runs,
    rapidfire_tasks,
    rapidfire_workers,
)

# When the row before was created and last changed, and the event that happens to it.
CREATED_AT, UPDATED_AT, POSITION = 1_000, 2_000, 10
RECORDED_AT, NEXT = 3_000, 20

BEFORE: dict[str, Any] = {
    "created_at": CREATED_AT,
    "updated_at": UPDATED_AT,
    "position": POSITION,
}
NEW: dict[str, Any] = {"created_at": RECORDED_AT, "updated_at": RECORDED_AT, "position": NEXT}
CHANGED: dict[str, Any] = {"created_at": CREATED_AT, "updated_at": RECORDED_AT, "position": NEXT}

DIGEST = "9f86d081" * 8

# --- the rows before: no two columns alike, so that none can be taken for another -------------

FIT = Experiment(1, "digits", "fit", "S", "/data", 2, 3, 4.5, 5.5, "E", **BEFORE)
EVALS = replace(FIT, kind="evals")
RUN = Run(
    run_id=5,
    experiment_id=1,
    run_name="run_5",
    mlflow_run_id="abc",
    status="S",
    source="USER",
    ended_by="E",
    parent_run_id=4,
    warm_start=True,
    config_digest=DIGEST,
    seed=42,
    num_chunks=8,
    current_chunk=6,
    current_epoch=2,
    metrics='{"loss":1}',
    **BEFORE,
)
METRIC = RunMetric("5/loss", 5, "loss", 3, 1.5, 6, None, 2.5, 4, 0.5, 5, 3.5, 1, **BEFORE)
TASK = Task(17, 5, 1, 2, 3, "S", "E", 11, 2, 70, **BEFORE)
CONTROLLER = ControllerProgress(1, "T", "S", **BEFORE)
WORKER = WorkerProgress(3, "T", "S", **BEFORE)
REQUEST = Request(8, 5, "STOP", "S", DIGEST, True, "E", **BEFORE)
CONTEXT = Context(2, "a1b2", "{rag}", "{prompt}", "S", "E", "8:00", "9:00", 3600.5, **BEFORE)
PIPELINE = Pipeline(
    4, 1, 2, "baseline", "vllm", "{model}", "{sampling}", "S", 6, 5, 700, "E", **BEFORE
)
ACTOR_TASK = ActorTask(9, 1, 4, 0, 2, "S", "E", "8:00", "9:00", 3600.5, 11, 2, 70, **BEFORE)
MEMBER = Member("worker-3", "S", 11, "K", 80, 90, **BEFORE)
RETRY = Retry("run-5", 7, 1.5, **BEFORE)
PIPELINE_REQUEST = PipelineRequest(6, 4, "stop", "S", "{data}", "E", **BEFORE)
EXPERIMENT_DETAILS = ExperimentDetails(1, "M", "T", DIGEST, **BEFORE)
RUN_DETAILS = RunDetails(
    5, "{f}", 1, 2, 3, 4, 6, "E", "S", "B", 7, 8, 9.5, 10, 11.5, 12.5, **BEFORE
)
TASK_DETAILS = TaskDetails(17, "T", "{m}", DIGEST, **BEFORE)
LAST_TASK = Worker(3, 17, **BEFORE)
CONTEXT_DETAILS = ContextDetails(2, 10.5, 20.5, True, "{v}", **BEFORE)
PIPELINE_DETAILS = PipelineDetails(4, DIGEST, "{c}", "{f}", "M", **BEFORE)
ACTOR_TASK_TIMES = ActorTaskTimes(9, 10.5, 20.5, **BEFORE)

# --- events that begin a row: the row that they begin, whatever was there ---------------------

EXPERIMENT_CREATED = ExperimentCreated(1, "evals", "qwen", "running", "/e", 6, 7, 8.5, 9.5)
RUN_CREATED = RunCreated(
    run_id=5,
    experiment_id=1,
    run_name="clone",
    status=RunStatus.ONGOING,
    source=RunSource.CLONE_MODIFY,
    mlflow_run_id="def",
    parent_run_id=3,
    warm_start=True,
    config="0" * 64,
    seed=7,
    num_chunks=9,
)
PIPELINE_CREATED = PipelineCreated(
    pipeline_id=4,
    experiment_id=1,
    pipeline_name="tuned",
    pipeline_type="api",
    model_config_json="{m}",
    sampling_params_json="{s}",
    context_id=2,
    status=PipelineStatus.ONGOING,
)

BEGINS: list[tuple[View[Any], Event, Row]] = [
    (
        experiments,
        EXPERIMENT_CREATED,
        Experiment(1, "qwen", "evals", "running", "/e", 6, 7, 8.5, 9.5, None, **NEW),
    ),
    (
        experiments,
        ExperimentCreated(1, "fit", "digits", "NEW"),
        Experiment(1, "digits", "fit", "NEW", None, None, None, None, None, None, **NEW),
    ),
    (
        runs,
        RUN_CREATED,
        Run(
            run_id=5,
            experiment_id=1,
            run_name="clone",
            mlflow_run_id="def",
            status="ONGOING",
            source="CLONE_MODIFY",
            ended_by=None,
            parent_run_id=3,
            warm_start=True,
            config_digest="0" * 64,
            seed=7,
            num_chunks=9,
            current_chunk=0,
            current_epoch=0,
            metrics="{}",
            **NEW,
        ),
    ),
    (worker_task, TaskScheduled(17, 5, 1, 2, 3), Task(17, 5, 1, 2, 3, "SCHEDULED", None, **NEW)),
    (
        interactive_control,
        StopRequested(8, 5),
        Request(8, 5, "STOP", "PENDING", None, False, None, **NEW),
    ),
    (
        interactive_control,
        ResumeRequested(8, 5),
        Request(8, 5, "RESUME", "PENDING", None, False, None, **NEW),
    ),
    (
        interactive_control,
        DeleteRequested(8, 5),
        Request(8, 5, "DELETE", "PENDING", None, False, None, **NEW),
    ),
    (
        interactive_control,
        CloneModifyRequested(8, 5, DIGEST, True),
        Request(8, 5, "CLONE_MODIFY", "PENDING", DIGEST, True, None, **NEW),
    ),
    (
        contexts,
        ContextCreated(2, "c3d4", "{r}", "{p}", ContextStatus.READY),
        Context(2, "c3d4", "{r}", "{p}", "ready", None, None, None, None, **NEW),
    ),
    (
        pipelines,
        PIPELINE_CREATED,
        Pipeline(4, 1, 2, "tuned", "api", "{m}", "{s}", "ongoing", None, 0, 0, None, **NEW),
    ),
    (
        actor_tasks,
        ActorTaskScheduled(9, 1, 4, 0, 2),
        ActorTask(9, 1, 4, 0, 2, "scheduled", None, None, None, None, **NEW),
    ),
    (
        interactive_control,
        StopRequested(8, 5, DIGEST),
        Request(8, 5, "STOP", "PENDING", DIGEST, False, None, **NEW),
    ),
    (
        pipeline_requests,
        PipelineStopRequested(6, 4, "{d}"),
        PipelineRequest(6, 4, "stop", "pending", "{d}", None, **NEW),
    ),
    (
        pipeline_requests,
        PipelineResumeRequested(6, 4),
        PipelineRequest(6, 4, "resume", "pending", None, None, **NEW),
    ),
    (
        pipeline_requests,
        PipelineDeleteRequested(6, 4),
        PipelineRequest(6, 4, "delete", "pending", None, None, **NEW),
    ),
    (
        pipeline_requests,
        PipelineCloneRequested(6, None, "{d}"),
        PipelineRequest(6, None, "clone", "pending", "{d}", None, **NEW),
    ),
    (
        rapidfire_tasks,
        TaskDetailsRecorded(17, 3, "Train Validation", "{w}", DIGEST),
        TaskDetails(17, "Train Validation", "{w}", DIGEST, **NEW),
    ),
]

# --- events that change a row: the row before, and what is then in which columns --------------

FAILURES = ExperimentStatesReset(
    worker_tasks=(17, 99),
    actor_tasks=(9, 99),
    contexts=(2, 99),
    workers=(3, 99),
    controller=True,
    runs=(5, 99),
    pipelines=(4, 99),
    requests=(8, 99),
    pipeline_requests=(6, 99),
)

LOST = WorkerLost(
    "worker-3", "lock", 85, 95, (11,), failed_tasks=(17, 99), failed_actor_tasks=(9, 99)
)
GONE = "worker-3 was lost (its process is gone)"
OFFERED = WorkerLost(
    "worker-3",
    "lock",
    85,
    offered_tasks=(Offered(99, 74), Offered(17, 75)),
    offered_actor_tasks=(Offered(99, 74), Offered(9, 76)),
)
STARTED: dict[str, Any] = {"claim": NEXT, "attempts": 3, "error": None, "offered_after": None}

ALL_RUN_DETAILS: dict[str, Any] = {
    "flattened_config": "{g}",
    "completed_steps": 21,
    "total_steps": 22,
    "shards_visited": 23,
    "epochs_completed": 24,
    "shard_offset": 25,
    "error": "none",
    "source": "Initial",
    "ended_by": "Epoch Completed",
    "warm_started_from": 26,
    "cloned_from": 27,
    "estimated_runtime": 28.5,
    "required_workers": 29,
    "controller_progress": 30.5,
    "worker_progress": 31.5,
}
ALL_PIPELINE_DETAILS: dict[str, Any] = {
    "config": "0" * 64,
    "config_json": "{d}",
    "flattened_config": "{g}",
    "metric_run_id": "abc",
}

CHANGES: list[tuple[View[Any], Row, Event, dict[str, Any]]] = [
    (experiments, FIT, ExperimentStarted(1), {"status": "RUNNING"}),
    (experiments, EVALS, ExperimentStarted(1), {"status": "running"}),
    (experiments, FIT, ExperimentCompleted(1), {"status": "COMPLETED"}),
    (experiments, EVALS, ExperimentCompleted(1), {"status": "completed"}),
    (experiments, FIT, ExperimentFailed(1), {"status": "FAILED"}),
    (experiments, EVALS, ExperimentFailed(1), {"status": "failed"}),
    (experiments, FIT, ExperimentErrorRecorded(1, "no data"), {"error": "no data"}),
    (runs, RUN, RunStarted(5), {"status": "ONGOING"}),
    (runs, RUN, RunResumed(5), {"status": "ONGOING"}),
    (runs, RUN, RunStopped(5), {"status": "STOPPED"}),
    (runs, RUN, RunCompleted(5), {"status": "COMPLETED"}),
    (runs, RUN, RunFailed(5), {"status": "FAILED"}),
    (runs, RUN, RunKilled(5), {"status": "KILLED"}),
    (runs, RUN, RunEnded(5, RunEndedBy.KILLED), {"ended_by": "KILLED"}),
    (runs, RUN, RunProgressed(5, 7, 3), {"current_chunk": 7, "current_epoch": 3}),
    (
        runs,
        RUN,
        RunMetricsRecorded(5, {"loss": 0.5, "by": [1]}),
        {"metrics": '{"loss":0.5,"by":[1]}'},
    ),
    (
        runs,
        RUN,
        RunMetricsRecorded(5, {"accuracy": 0.5}, {"loss": "nan"}),
        {"metrics": '{"accuracy":0.5}', "metric_words": '{"loss":"nan"}'},
    ),
    (
        runs,
        replace(RUN, metric_words='{"a":"inf","b/0":"nan"}'),
        MetricsLogged(5, {"a": Measured(last=2, step=3), "b": Measured(word="-inf", step=3)}),
        {"metrics": '{"loss":1,"a":2}', "metric_words": '{"b":"-inf"}'},
    ),
    (
        run_metrics,
        METRIC,
        MetricsLogged(5, {"loss": Measured(last=0.25, step=9)}),
        {"count": 4, "last": 0.25, "last_step": 9, "min": 0.25, "min_step": 9},
    ),
    (
        run_metrics,
        METRIC,
        MetricsLogged(5, {"loss": Measured(last=8.5, step=9)}),
        {"count": 4, "last": 8.5, "last_step": 9, "max": 8.5, "max_step": 9},
    ),
    (
        run_metrics,
        METRIC,
        MetricsLogged(5, {"loss": Measured(word="nan", step=9)}),
        {"count": 4, "last": None, "last_step": 9, "last_word": "nan"},
    ),
    (
        run_metrics,
        replace(
            METRIC, last=None, last_word="nan", min=None, min_step=None, max=None, max_step=None
        ),
        MetricsLogged(5, {"loss": Measured(0.25, 9, None, 5, 4.5, 2, 0.125, 3, 5.5, 7)}),
        {
            "count": 8,
            "last": 0.25,
            "last_step": 9,
            "last_word": None,
            "min": 0.125,
            "min_step": 3,
            "max": 5.5,
            "max_step": 7,
        },
    ),
    (
        run_metrics,
        METRIC,
        RunMetricsRecorded(5, {"loss": 2, "by": [1], "best": True}, {"by/0": "nan"}),
        {"count": 4, "last": 2.0, "last_step": None},
    ),
    (
        run_metrics,
        METRIC,
        RunMetricsRecorded(5, {}, {"loss": "inf"}),
        {"count": 4, "last": None, "last_step": None, "last_word": "inf"},
    ),
    (runs, RUN, FAILURES, {"status": "FAILED"}),
    (
        worker_task,
        TASK,
        TaskStarted(17),
        {"status": "IN_PROGRESS", **STARTED},
    ),
    (
        worker_task,
        TASK,
        TaskStarted(17, 4),
        {"status": "IN_PROGRESS", "worker_id": 4, **STARTED},
    ),
    (worker_task, TASK, LOST, {"status": "FAILED", "error": GONE}),
    (
        worker_task,
        TASK,
        OFFERED,
        {"status": "SCHEDULED", "error": GONE, "claim": None, "offered_after": 75},
    ),
    (worker_progress, WORKER, LOST, {"status": "FAILED"}),
    (controller_progress, CONTROLLER, WorkerLost("controller", "lock", 5), {"status": "FAILED"}),
    (members, MEMBER, WorkerLeft("worker-3"), {"status": "LEFT"}),
    (
        members,
        MEMBER,
        WorkerJoined("worker-3"),
        {"status": "JOINED", "joined": NEXT, "known_by": None, "heard_at": None, "process": None},
    ),
    (
        members,
        MEMBER,
        LOST,
        {"status": "LOST", "known_by": "lock", "heard_at": 85, "process": 95},
    ),
    (retries, RETRY, RetriesSet("run-5", 3, 0.5), {"max_attempts": 3, "wait": 0.5}),
    (worker_task, TASK, TaskCompleted(17), {"status": "COMPLETED"}),
    (worker_task, TASK, TaskFailed(17, "no GPU"), {"status": "FAILED", "error": "no GPU"}),
    (worker_task, TASK, TaskFailed(17), {"status": "FAILED", "error": None}),
    (worker_task, TASK, FAILURES, {"status": "FAILED"}),
    (
        controller_progress,
        CONTROLLER,
        ControllerTaskSet(ControllerTask.RUN_FIT, TaskStatus.PENDING),
        {"task": "RUN_FIT", "status": "PENDING"},
    ),
    (controller_progress, CONTROLLER, FAILURES, {"status": "FAILED"}),
    (
        worker_progress,
        WORKER,
        WorkerProgressed(3, WorkerTask.TRAIN_VAL, TaskStatus.SKIPPED),
        {"task": "TRAIN_VAL", "status": "SKIPPED"},
    ),
    (worker_progress, WORKER, FAILURES, {"status": "FAILED"}),
    (interactive_control, REQUEST, InteractiveControlStarted(8), {"status": "IN_PROGRESS"}),
    (interactive_control, REQUEST, FAILURES, {"status": "FAILED"}),
    (interactive_control, REQUEST, InteractiveControlCompleted(8), {"status": "COMPLETED"}),
    (
        interactive_control,
        REQUEST,
        InteractiveControlFailed(8, "gone"),
        {"status": "FAILED", "error": "gone"},
    ),
    (
        interactive_control,
        REQUEST,
        InteractiveControlFailed(8),
        {"status": "FAILED", "error": None},
    ),
    (
        interactive_control,
        REQUEST,
        InteractiveControlSkipped(8, "done"),
        {"status": "SKIPPED", "error": "done"},
    ),
    (contexts, CONTEXT, ContextBuildStarted(2), {"status": "building"}),
    (contexts, CONTEXT, ContextReady(2), {"status": "ready"}),
    (contexts, CONTEXT, ContextFailed(2), {"status": "failed"}),
    (contexts, CONTEXT, ContextStartTimeRecorded(2, "7:00"), {"started_at": "7:00"}),
    (
        contexts,
        CONTEXT,
        ContextEndTimeRecorded(2, "7:01", 60.5),
        {"completed_at": "7:01", "duration_seconds": 60.5},
    ),
    (contexts, CONTEXT, ContextErrorRecorded(2, "no index"), {"error": "no index"}),
    (contexts, CONTEXT, FAILURES, {"status": "failed"}),
    (pipelines, PIPELINE, PipelineStarted(4), {"status": "ongoing"}),
    (pipelines, PIPELINE, PipelineResumed(4), {"status": "ongoing"}),
    (pipelines, PIPELINE, PipelineStopped(4), {"status": "stopped"}),
    (pipelines, PIPELINE, PipelineCompleted(4), {"status": "completed"}),
    (pipelines, PIPELINE, PipelineDeleted(4), {"status": "deleted"}),
    (pipelines, PIPELINE, PipelineFailed(4), {"status": "failed"}),
    (
        pipelines,
        PIPELINE,
        PipelineProgressed(4, 7, 8, 900),
        {"current_shard_id": 7, "shards_completed": 8, "total_samples_processed": 900},
    ),
    (
        pipelines,
        PIPELINE,
        ShardCompleted(4, 7, 8, 900),
        {"current_shard_id": 7, "shards_completed": 8, "total_samples_processed": 900},
    ),
    (pipelines, PIPELINE, PipelineErrorRecorded(4, "no memory"), {"error": "no memory"}),
    (pipelines, PIPELINE, FAILURES, {"status": "failed"}),
    (
        actor_tasks,
        ACTOR_TASK,
        ActorTaskStarted(9),
        {"status": "in_progress", **STARTED},
    ),
    (
        actor_tasks,
        ACTOR_TASK,
        ActorTaskStarted(9, 4),
        {"status": "in_progress", "actor_id": 4, **STARTED},
    ),
    (actor_tasks, ACTOR_TASK, LOST, {"status": "failed", "error": GONE}),
    (
        actor_tasks,
        ACTOR_TASK,
        OFFERED,
        {"status": "scheduled", "error": GONE, "claim": None, "offered_after": 76},
    ),
    (actor_tasks, ACTOR_TASK, ActorTaskCompleted(9), {"status": "completed"}),
    (actor_tasks, ACTOR_TASK, ActorTaskFailed(9), {"status": "failed"}),
    (actor_tasks, ACTOR_TASK, ActorTaskStartTimeRecorded(9, "7:00"), {"started_at": "7:00"}),
    (
        actor_tasks,
        ACTOR_TASK,
        ActorTaskEndTimeRecorded(9, "7:01", 60.5),
        {"completed_at": "7:01", "duration_seconds": 60.5},
    ),
    (actor_tasks, ACTOR_TASK, ActorTaskErrorRecorded(9, "no GPU"), {"error": "no GPU"}),
    (actor_tasks, ACTOR_TASK, FAILURES, {"status": "failed"}),
    (actor_tasks, ACTOR_TASK, ActorTaskCompletionWithdrawn(9), {"status": "failed"}),
    (experiments, FIT, ExperimentCancelled(1), {"status": "CANCELLED"}),
    (experiments, EVALS, ExperimentCancelled(1), {"status": "cancelled"}),
    (
        experiments,
        EVALS,
        ExperimentDetailsRecorded(1, num_shards=6, num_actors=7, num_cpus=8.5, num_gpus=None),
        {"num_shards": 6, "num_actors": 7, "num_cpus": 8.5, "num_gpus": None},
    ),
    (
        runs,
        RUN,
        RunDetailsRecorded(5, config="0" * 64, mlflow_run_id="def"),
        {"config_digest": "0" * 64, "mlflow_run_id": "def"},
    ),
    (runs, RUN, RunDetailsRecorded(5, config="0" * 64), {"config_digest": "0" * 64}),
    (runs, RUN, RunDetailsRecorded(5, mlflow_run_id=None), {"mlflow_run_id": None}),
    (contexts, CONTEXT, ContextDeleted(2), {"status": "deleted"}),
    (
        contexts,
        CONTEXT,
        ContextRebuildStarted(2, "7:00", 5.5),
        {
            "status": "building",
            "error": None,
            "started_at": "7:00",
            "completed_at": None,
            "duration_seconds": None,
        },
    ),
    (pipeline_requests, PIPELINE_REQUEST, PipelineRequestStarted(6), {"status": "in_progress"}),
    (pipeline_requests, PIPELINE_REQUEST, PipelineRequestCompleted(6), {"status": "completed"}),
    (
        pipeline_requests,
        PIPELINE_REQUEST,
        PipelineRequestFailed(6, "gone"),
        {"status": "failed", "error": "gone"},
    ),
    (
        pipeline_requests,
        PIPELINE_REQUEST,
        PipelineRequestSkipped(6, "done"),
        {"status": "skipped", "error": "done"},
    ),
    (pipeline_requests, PIPELINE_REQUEST, FAILURES, {"status": "failed"}),
    (
        rapidfire_experiments,
        EXPERIMENT_DETAILS,
        ExperimentDetailsRecorded(
            1, metric_experiment_id="7", current_task="Idle", options="0" * 64
        ),
        {"metric_experiment_id": "7", "current_task": "Idle", "options": "0" * 64},
    ),
    (rapidfire_runs, RUN_DETAILS, RunDetailsRecorded(5, **ALL_RUN_DETAILS), ALL_RUN_DETAILS),
    (rapidfire_runs, RUN_DETAILS, RunDetailsRecorded(5, error=""), {"error": ""}),
    (rapidfire_workers, LAST_TASK, TaskDetailsRecorded(18, 3, "T"), {"task_id": 18}),
    (rapidfire_workers, LAST_TASK, TaskDetailsRecorded(16, 3, "T"), {"task_id": 17}),
    (
        rapidfire_contexts,
        CONTEXT_DETAILS,
        ContextDetailsRecorded(2, False, "{w}"),
        {"enable_gpu": False, "vector_store_json": "{w}"},
    ),
    (
        rapidfire_contexts,
        CONTEXT_DETAILS,
        ContextStartTimeRecorded(2, "7:00", 5.5),
        {"started_at": 5.5},
    ),
    (
        rapidfire_contexts,
        CONTEXT_DETAILS,
        ContextStartTimeRecorded(2, "7:00"),
        {"started_at": None},
    ),
    (
        rapidfire_contexts,
        CONTEXT_DETAILS,
        ContextEndTimeRecorded(2, "7:00", 60.5, 5.5),
        {"completed_at": 5.5},
    ),
    (
        rapidfire_contexts,
        CONTEXT_DETAILS,
        ContextRebuildStarted(2, "7:00", 5.5),
        {"started_at": 5.5, "completed_at": None},
    ),
    (
        rapidfire_pipelines,
        PIPELINE_DETAILS,
        PipelineDetailsRecorded(4, **ALL_PIPELINE_DETAILS),
        ALL_PIPELINE_DETAILS,
    ),
    (
        rapidfire_actor_tasks,
        ACTOR_TASK_TIMES,
        ActorTaskStartTimeRecorded(9, "7:00", 5.5),
        {"started_at": 5.5},
    ),
    (
        rapidfire_actor_tasks,
        ACTOR_TASK_TIMES,
        ActorTaskEndTimeRecorded(9, "7:00"),
        {"completed_at": None},
    ),
]

# --- events that change a row or, where there is none, begin it -------------------------------

PUTS: list[tuple[View[Any], Event, Row]] = [
    (members, WorkerJoined("worker-3"), Member("worker-3", "JOINED", NEXT, **NEW)),
    (members, LOST, Member("worker-3", "LOST", None, "lock", 85, 95, **NEW)),
    (retries, RetriesSet("run-5", 3, 0.5), Retry("run-5", 3, 0.5, **NEW)),
    (
        controller_progress,
        ControllerTaskSet(ControllerTask.RUN_FIT, TaskStatus.PENDING),
        ControllerProgress(1, "RUN_FIT", "PENDING", **NEW),
    ),
    (
        worker_progress,
        WorkerProgressed(3, WorkerTask.TRAIN_VAL, TaskStatus.SKIPPED),
        WorkerProgress(3, "TRAIN_VAL", "SKIPPED", **NEW),
    ),
    (
        run_metrics,
        MetricsLogged(5, {"loss": Measured(0.25, 9)}),
        RunMetric("5/loss", 5, "loss", 1, 0.25, 9, None, 0.25, 9, 0.25, 9, 0.25, 9, **NEW),
    ),
    (
        run_metrics,
        MetricsLogged(5, {"loss": Measured(word="nan", step=9)}),
        RunMetric("5/loss", 5, "loss", 1, None, 9, "nan", None, 9, None, None, None, None, **NEW),
    ),
    (
        run_metrics,
        MetricsLogged(5, {"a/b": Measured(0.25, 9, None, 5, 4.5, 2, 0.125, 3, 5.5, 7)}),
        RunMetric("5/a/b", 5, "a/b", 5, 0.25, 9, None, 4.5, 2, 0.125, 3, 5.5, 7, **NEW),
    ),
    (
        run_metrics,
        RunMetricsRecorded(5, {"loss": 2}),
        RunMetric("5/loss", 5, "loss", 1, 2.0, None, None, 2.0, None, 2.0, None, 2.0, None, **NEW),
    ),
    (
        rapidfire_experiments,
        ExperimentDetailsRecorded(1, current_task="Idle"),
        ExperimentDetails(1, None, "Idle", None, **NEW),
    ),
    (
        rapidfire_runs,
        RunDetailsRecorded(5, **ALL_RUN_DETAILS),
        RunDetails(5, **ALL_RUN_DETAILS, **NEW),
    ),
    (
        rapidfire_runs,
        RunDetailsRecorded(5, total_steps=8),
        RunDetails(5, "{}", 0, 8, 0, 0, 0, "", "", "", None, None, 0.0, 0, 0.0, 0.0, **NEW),
    ),
    (rapidfire_workers, TaskDetailsRecorded(17, 3, "T"), Worker(3, 17, **NEW)),
    (
        rapidfire_contexts,
        ContextDetailsRecorded(2, True, "{w}"),
        ContextDetails(2, None, None, True, "{w}", **NEW),
    ),
    (
        rapidfire_contexts,
        ContextStartTimeRecorded(2, "7:00", 5.5),
        ContextDetails(2, 5.5, None, False, None, **NEW),
    ),
    (
        rapidfire_contexts,
        ContextEndTimeRecorded(2, "7:00", None, 5.5),
        ContextDetails(2, None, 5.5, False, None, **NEW),
    ),
    (
        rapidfire_contexts,
        ContextRebuildStarted(2, "7:00", 5.5),
        ContextDetails(2, 5.5, None, False, None, **NEW),
    ),
    (
        rapidfire_pipelines,
        PipelineDetailsRecorded(4, metric_run_id="abc"),
        PipelineDetails(4, None, None, "{}", "abc", **NEW),
    ),
    (
        rapidfire_actor_tasks,
        ActorTaskStartTimeRecorded(9, "7:00", 5.5),
        ActorTaskTimes(9, 5.5, None, **NEW),
    ),
    (
        rapidfire_actor_tasks,
        ActorTaskEndTimeRecorded(9, "7:00", None, 5.5),
        ActorTaskTimes(9, None, 5.5, **NEW),
    ),
]

# The id that an event gives to an entity of a kind.
GIVES: list[tuple[Event, str, int]] = [
    (EXPERIMENT_CREATED, "experiment", 1),
    (RUN_CREATED, "run", 5),
    (TaskScheduled(17, 5, 1, 2, 3), "task", 17),
    (StopRequested(8, 5), "ic", 8),
    (ResumeRequested(8, 5), "ic", 8),
    (DeleteRequested(8, 5), "ic", 8),
    (CloneModifyRequested(8, 5), "ic", 8),
    (ContextCreated(2, "a1b2"), "context", 2),
    (PIPELINE_CREATED, "pipeline", 4),
    (ActorTaskScheduled(9, 1, 4, 0, 2), "actor_task", 9),
    (PipelineStopRequested(6, 4), "pipeline_ic", 6),
    (PipelineResumeRequested(6, 4), "pipeline_ic", 6),
    (PipelineDeleteRequested(6, 4), "pipeline_ic", 6),
    (PipelineCloneRequested(6), "pipeline_ic", 6),
]

# --- events that empty a view, by the rows that are there before ------------------------------

FIT_ROWS: list[tuple[View[Any], Row]] = [
    (runs, RUN),
    (run_metrics, METRIC),
    (worker_task, TASK),
    (controller_progress, CONTROLLER),
    (worker_progress, WORKER),
    (interactive_control, REQUEST),
    (rapidfire_runs, RUN_DETAILS),
    (rapidfire_tasks, TASK_DETAILS),
    (rapidfire_workers, LAST_TASK),
]
EVALS_ROWS: list[tuple[View[Any], Row]] = [
    (contexts, CONTEXT),
    (pipelines, PIPELINE),
    (actor_tasks, ACTOR_TASK),
    (pipeline_requests, PIPELINE_REQUEST),
    (rapidfire_contexts, CONTEXT_DETAILS),
    (rapidfire_pipelines, PIPELINE_DETAILS),
    (rapidfire_actor_tasks, ACTOR_TASK_TIMES),
]

CLEARS: list[tuple[View[Any], Row, Event]] = [
    (experiments, FIT, TablesReset(True)),
    (rapidfire_experiments, EXPERIMENT_DETAILS, TablesReset(True)),
    *[
        (view, row, TablesReset(experiments_too))
        for view, row in (*FIT_ROWS, *EVALS_ROWS)
        for experiments_too in (False, True)
    ],
    *[(view, row, TablesReset(True, "fit")) for view, row in FIT_ROWS],
    *[(view, row, TablesReset(False, "evals")) for view, row in EVALS_ROWS],
]

# --- events that delete a row -----------------------------------------------------------------

DELETES: list[tuple[View[Any], Row, Event]] = [
    (experiments, FIT, TablesReset(True, "fit", (1, 99))),
    (rapidfire_experiments, EXPERIMENT_DETAILS, TablesReset(True, "fit", (1, 99))),
]

# --- events that leave a row as it is, though they change others ------------------------------

LEAVES: list[tuple[View[Any], Row, Event]] = [
    (experiments, FIT, TablesReset(False)),
    (ids, LastId("run", 5, **BEFORE), TablesReset(True)),
    (controller_progress, CONTROLLER, ExperimentStatesReset(runs=(1,), controller=False)),
    (experiments, FIT, FAILURES),
    (interactive_control, REQUEST, ExperimentStatesReset(runs=(5,), controller=True)),
    (experiments, EVALS, TablesReset(True, "fit", (2,))),
    (experiments, FIT, ExperimentDetailsRecorded(1, current_task="Idle")),
    (rapidfire_experiments, EXPERIMENT_DETAILS, ExperimentDetailsRecorded(1, num_shards=6)),
    (runs, RUN, RunDetailsRecorded(5, completed_steps=3)),
    (rapidfire_runs, RUN_DETAILS, RunDetailsRecorded(5, mlflow_run_id="def")),
    *[(view, row, TablesReset(True, "evals")) for view, row in FIT_ROWS],
    *[(view, row, TablesReset(True, "fit")) for view, row in EVALS_ROWS],
]

ROWS: dict[str, Any] = {view.name: row for view, row, _, _ in CHANGES} | {
    "ids": LastId("run", 5, **BEFORE),
    "rapidfire_tasks": TASK_DETAILS,
}


def fold(view: View[Any], rows: list[Row], event: Event) -> list[Row]:
    """Return what an event makes of the rows of a view."""
    unit = UnitOfWork([view])
    for row in rows:
        unit.put(view, getattr(row, view.key), row)
    unit.take_in(NEXT, event, RECORDED_AT)
    return unit.rows(view)


def beside(row: Any) -> Row:
    """Return another row of the same view."""
    key = row.__struct_fields__[0]
    other = 12_345 if isinstance(getattr(row, key), int) else "another"
    return replace(row, **{key: other})


def name_of(value: object) -> str | None:
    if isinstance(value, View):
        return value.name
    return type(value).__name__ if isinstance(value, Event) else "-"


@pytest.mark.parametrize(("view", "event", "after"), BEGINS, ids=name_of)
def test_an_event_begins_a_row(view: View[Any], event: Event, after: Row) -> None:
    before = ROWS[view.name]
    assert fold(view, [], event) == [after]
    assert fold(view, [beside(before)], event) == [beside(before), after]


@pytest.mark.parametrize(("view", "event", "after"), BEGINS, ids=name_of)
def test_a_row_that_is_there_begins_anew(view: View[Any], event: Event, after: Row) -> None:
    assert fold(view, [ROWS[view.name]], event) == [after]


@pytest.mark.parametrize(("view", "before", "event", "changes"), CHANGES, ids=name_of)
def test_an_event_changes_the_row_that_it_names(
    view: View[Any], before: Row, event: Event, changes: dict[str, Any]
) -> None:
    after = type(before)(**{**asdict(before), **CHANGED, **changes})
    assert fold(view, [beside(before), before], event) == [beside(before), after]


@pytest.mark.parametrize(
    ("view", "before", "event"),
    [
        (view, before, event)
        for view, before, event, _ in CHANGES
        if not view.handlers[type(event).__name__].begins
    ],
    ids=name_of,
)
def test_no_row_no_change(view: View[Any], before: Row, event: Event) -> None:
    assert fold(view, [], event) == []
    assert fold(view, [beside(before)], event) == [beside(before)]


@pytest.mark.parametrize(("view", "event", "after"), PUTS, ids=name_of)
def test_an_event_begins_a_row_where_there_is_none(
    view: View[Any], event: Event, after: Row
) -> None:
    other = beside(ROWS[view.name])
    assert fold(view, [other], event) == [other, after]


@pytest.mark.parametrize(("event", "kind", "given"), GIVES, ids=name_of)
@pytest.mark.parametrize("less", [0, 1])
def test_the_last_id_of_a_kind(event: Event, kind: str, given: int, less: int) -> None:
    other = LastId("another", given, **BEFORE)
    assert fold(ids, [other], event) == [other, LastId(kind, given, **NEW)]
    before = LastId(kind, given - less, **BEFORE)
    assert fold(ids, [other, before], event) == [other, LastId(kind, given, **CHANGED)]


@pytest.mark.parametrize(("event", "kind", "given"), GIVES, ids=name_of)
def test_the_last_id_never_gets_less(event: Event, kind: str, given: int) -> None:
    before = LastId(kind, given + 1, **BEFORE)
    assert fold(ids, [before], event) == [LastId(kind, given + 1, **CHANGED)]


def test_a_reset_of_states_changes_every_row_that_it_names() -> None:
    rows = [replace(RUN, run_id=n) for n in (1, 2, 3, 4)]
    failed = {"status": "FAILED", **CHANGED}
    assert fold(runs, rows, ExperimentStatesReset(runs=(4, 2))) == [
        rows[0],
        replace(rows[1], **failed),
        rows[2],
        replace(rows[3], **failed),
    ]


@pytest.mark.parametrize(("view", "before", "event"), CLEARS, ids=name_of)
def test_an_event_empties_a_view(view: View[Any], before: Row, event: Event) -> None:
    assert fold(view, [before, beside(before)], event) == []


@pytest.mark.parametrize(("view", "before", "event"), DELETES, ids=name_of)
def test_an_event_deletes_a_row(view: View[Any], before: Row, event: Event) -> None:
    assert fold(view, [before, beside(before)], event) == [beside(before)]


@pytest.mark.parametrize(
    ("view", "event"),
    [
        (rapidfire_contexts, ContextStartTimeRecorded(2, "7:00")),
        (rapidfire_actor_tasks, ActorTaskEndTimeRecorded(9, "7:00")),
        (rapidfire_runs, RunDetailsRecorded(5, mlflow_run_id="def")),
    ],
    ids=name_of,
)
def test_what_is_of_no_concern_begins_no_row(view: View[Any], event: Event) -> None:
    assert fold(view, [], event) == []


@pytest.mark.parametrize(("view", "before", "event"), LEAVES, ids=name_of)
def test_an_event_leaves_a_row_as_it_is(view: View[Any], before: Row, event: Event) -> None:
    assert fold(view, [before, beside(before)], event) == [before, beside(before)]


# --- the tables are complete ------------------------------------------------------------------


def test_every_event_of_every_view_has_its_line() -> None:
    begins = {(view.name, type(event).__name__) for view, event, _ in BEGINS}
    changes = {(view.name, type(event).__name__) for view, _, event, _ in CHANGES}
    gives = {("ids", type(event).__name__) for event, _, _ in GIVES}
    deletes = {(view.name, type(event).__name__) for view, _, event in DELETES}
    assert begins | changes | gives | deletes == {
        (view.name, name) for view in ALL for name in view.handlers
    }
    clears = {(view.name, type(event).__name__) for view, _, event in CLEARS}
    assert clears == {(view.name, name) for view in ALL for name in view.clearing}


def test_every_event_that_may_begin_a_row_has_its_line() -> None:
    lines = {(view.name, type(event).__name__) for view, event, _ in chain(BEGINS, PUTS)}
    lines |= {("ids", type(event).__name__) for event, _, _ in GIVES}
    assert lines == {
        (view.name, name)
        for view in ALL
        for name, handler in view.handlers.items()
        if handler.begins
    }


# --- where a view stands ----------------------------------------------------------------------

PLACES = {
    "experiments": (2, "experiments", "experiment_id", "experiment-{}"),
    "runs": (4, "runs_folded", "run_id", "run-{}"),
    "worker_task": (2, "worker_task", "task_id", "task-{}"),
    "controller_progress": (1, "controller_progress", "controller_id", "controller"),
    "worker_progress": (1, "worker_progress", "worker_id", "worker-{}"),
    "run_metrics": (1, "run_metrics", "metric_key", None),
    "interactive_control": (2, "interactive_control_folded", "ic_id", "ic-{}"),
    "contexts": (2, "contexts", "context_id", "context-{}"),
    "pipelines": (1, "pipelines", "pipeline_id", "pipeline-{}"),
    "actor_tasks": (2, "actor_tasks", "task_id", "actor_task-{}"),
    "pipeline_requests": (1, "pipeline_requests", "ic_id", "pipeline_ic-{}"),
    "members": (1, "members", "name", "{}"),
    "retries": (1, "retries", "scope", None),
    "ids": (2, "ids", "kind", None),
    "rapidfire_experiments": (1, "rapidfire_experiments", "experiment_id", "experiment-{}"),
    "rapidfire_runs": (1, "rapidfire_runs", "run_id", "run-{}"),
    "rapidfire_tasks": (1, "rapidfire_tasks", "task_id", "task-{}"),
    "rapidfire_workers": (1, "rapidfire_workers", "worker_id", None),
    "rapidfire_contexts": (1, "rapidfire_contexts", "context_id", "context-{}"),
    "rapidfire_pipelines": (1, "rapidfire_pipelines", "pipeline_id", "pipeline-{}"),
    "rapidfire_actor_tasks": (1, "rapidfire_actor_tasks", "task_id", "actor_task-{}"),
}


def test_the_version_the_table_the_key_and_the_stream_of_every_view() -> None:
    """A version that is raised without need would have every store fold the view anew."""
    places = {view.name: (view.version, view.table, view.key, view.stream) for view in ALL}
    assert places == PLACES


@pytest.mark.parametrize("view", ALL, ids=name_of)
def test_the_table_of_every_view_is_that_of_the_schema(view: View[Any]) -> None:
    assert view.schema == statements(section(view.name))
    assert f"CREATE TABLE {view.table} (" in "".join(view.schema)


@pytest.mark.parametrize("view", [view for view in ALL if view.stream], ids=name_of)
def test_a_rows_events_stand_in_the_stream_that_its_view_names(view: View[Any]) -> None:
    stream = (view.stream or "").format(getattr(ROWS[view.name], view.key))
    happened = [event for of, event, _ in chain(BEGINS, PUTS) if of is view]
    happened += [event for of, _, event, _ in CHANGES if of is view]
    happened = [event for event in happened if not isinstance(event, StoreEvent)]
    assert {event.stream for event in happened} == {stream}

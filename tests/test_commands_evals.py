"""What every command of inference (evals) decides: given, when, then; no database."""

import pytest
from ids import told

from refold.commands import (
    ClaimNextActorTask,
    CreateActorTask,
    CreateContext,
    CreateExperiment,
    CreatePipeline,
    SetActorTaskEndTime,
    SetActorTaskError,
    SetActorTaskStartTime,
    SetActorTaskStatus,
    SetContextEndTime,
    SetContextError,
    SetContextStartTime,
    SetContextStatus,
    SetPipelineError,
    SetPipelineProgress,
    SetPipelineStatus,
)
from refold.eventstore.errors import IllegalTransition, InvalidCommand, NotFound
from refold.eventstore.events import (
    ActorTaskEndTimeRecorded,
    ActorTaskErrorRecorded,
    ActorTaskScheduled,
    ActorTaskStarted,
    ActorTaskStartTimeRecorded,
    ContextCreated,
    ContextEndTimeRecorded,
    ContextErrorRecorded,
    ContextStartTimeRecorded,
    ExperimentCreated,
    ExperimentStatesReset,
    PipelineCreated,
    PipelineErrorRecorded,
    PipelineProgressed,
    ShardCompleted,
)
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ExperimentStatus,
    PipelineStatus,
)
from refold.testing import given

EXPERIMENT = ExperimentCreated(1, "evals", "qwen", "running")
CONTEXT = ContextCreated(2, "a1b2")
PIPELINE = PipelineCreated(4, 1, "baseline", "vllm")
TASK = ActorTaskScheduled(9, 1, 4, 0, 2)

MORNING = "2026-01-01T08:00:00+00:00"
NOON = "2026-01-01T12:00:00+00:00"


# --- experiments ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["RUNNING", "COMPLETED", "FAILED"])
def test_create_experiment(status):
    command = CreateExperiment(
        kind="evals",
        experiment_name="qwen",
        status=ExperimentStatus(status),
        experiments_path="/data",
        num_shards=5,
        num_actors=4,
        num_cpus=8,
        num_gpus=0.5,
    )
    given().when(command).then(
        ExperimentCreated(1, "evals", "qwen", status.lower(), "/data", 5, 4, 8.0, 0.5)
    ).result(1)


def test_an_experiment_of_inference_is_never_new():
    given().when(CreateExperiment("evals", "qwen", ExperimentStatus.NEW)).refused(
        InvalidCommand, "cannot be new", "running", "completed", "failed"
    )


# --- contexts -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ContextStatus)
def test_create_context(status):
    given(CONTEXT).when(CreateContext("c3", '{"k": 3}', '{"shots": 2}', status)).then(
        ContextCreated(3, "c3", '{"k": 3}', '{"shots": 2}', status)
    ).result(3)
    given().when(CreateContext("c3")).then(ContextCreated(1, "c3")).result(1)


def test_a_known_hash_gives_the_id_of_the_existing_context():
    given(CONTEXT).when(CreateContext("a1b2", '{"k": 9}')).then().result(2)


def test_of_several_contexts_with_a_hash_the_oldest_is_given():
    given(ContextCreated(3, "a1b2"), CONTEXT).when(CreateContext("a1b2")).then().result(2)


@pytest.mark.parametrize(
    ("command", "event"),
    [
        (SetContextStartTime(2, MORNING), ContextStartTimeRecorded(2, MORNING)),
        (SetContextEndTime(2, NOON), ContextEndTimeRecorded(2, NOON)),
        (SetContextEndTime(2, NOON, 4.5), ContextEndTimeRecorded(2, NOON, 4.5)),
        (SetContextError(2, "no index"), ContextErrorRecorded(2, "no index")),
    ],
    ids=told,
)
def test_what_is_noted_for_a_context(command, event):
    given(CONTEXT).when(command).then(event).result(None)
    given(CONTEXT, event).when(command).then()


def test_what_was_noted_for_a_context_can_be_corrected():
    noted = (
        ContextStartTimeRecorded(2, NOON),
        ContextEndTimeRecorded(2, NOON, 1.0),
        ContextErrorRecorded(2, "?"),
    )
    for command, event in (
        (SetContextStartTime(2, MORNING), ContextStartTimeRecorded(2, MORNING)),
        (SetContextEndTime(2, NOON, 2.0), ContextEndTimeRecorded(2, NOON, 2.0)),
        (SetContextEndTime(2, MORNING, 1.0), ContextEndTimeRecorded(2, MORNING, 1.0)),
        (SetContextError(2, ""), ContextErrorRecorded(2, "")),
    ):
        given(CONTEXT, *noted).when(command).then(event)


# --- pipelines ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", PipelineStatus)
def test_create_pipeline(status):
    command = CreatePipeline(
        experiment_id=1,
        pipeline_name="baseline",
        pipeline_type="vllm",
        model_config_json='{"model": "qwen"}',
        sampling_params_json='{"temperature": 0.7}',
        context_id=2,
        status=status,
    )
    given(EXPERIMENT, CONTEXT, PIPELINE).when(command).then(
        PipelineCreated(
            pipeline_id=5,
            experiment_id=1,
            pipeline_name="baseline",
            pipeline_type="vllm",
            model_config_json='{"model": "qwen"}',
            sampling_params_json='{"temperature": 0.7}',
            context_id=2,
            status=status,
        )
    ).result(5)


def test_create_pipeline_without_context():
    given(EXPERIMENT).when(CreatePipeline(1, "baseline", "vllm")).then(
        PipelineCreated(1, 1, "baseline", "vllm")
    ).result(1)


def test_a_shard_more_is_a_fact_of_its_own():
    given(PIPELINE).when(SetPipelineProgress(4, 1, 1, 100)).then(ShardCompleted(4, 1, 1, 100))
    given(PIPELINE, ShardCompleted(4, 1, 1, 100)).when(SetPipelineProgress(4, 4, 3, 300)).then(
        ShardCompleted(4, 4, 3, 300)
    )


@pytest.mark.parametrize(
    "now",
    [(1, 1, 150), (2, 1, 100), (None, 1, 100), (1, 0, 100), (0, 0, 0)],
    ids=["more samples", "the next shard", "no shard", "one shard less", "all over again"],
)
def test_other_progress_is_not_a_completed_shard(now):
    given(PIPELINE, ShardCompleted(4, 1, 1, 100)).when(SetPipelineProgress(4, *now)).then(
        PipelineProgressed(4, *now)
    )


def test_the_same_progress_is_no_progress():
    given(PIPELINE, ShardCompleted(4, 1, 1, 100)).when(SetPipelineProgress(4, 1, 1, 100)).then()
    given(PIPELINE).when(SetPipelineProgress(4, None, 0, 0)).then()


def test_set_pipeline_error():
    error = PipelineErrorRecorded(4, "out of memory")
    given(PIPELINE).when(SetPipelineError(4, "out of memory")).then(error)
    given(PIPELINE, error).when(SetPipelineError(4, "out of memory")).then()
    given(PIPELINE, error).when(SetPipelineError(4, "")).then(PipelineErrorRecorded(4, ""))


# --- tasks of actors ------------------------------------------------------------------------


def test_create_actor_task():
    given(EXPERIMENT, PIPELINE).when(CreateActorTask(1, 4, 0, 2)).then(
        ActorTaskScheduled(1, 1, 4, 0, 2)
    ).result(1)
    given(EXPERIMENT, PIPELINE, TASK).when(CreateActorTask(1, 4, 1, 3)).then(
        ActorTaskScheduled(10, 1, 4, 1, 3)
    ).result(10)


def test_a_task_belongs_to_the_experiment_of_its_pipeline():
    other = ExperimentCreated(3, "evals", "other", "running")
    given(EXPERIMENT, other, PIPELINE).when(CreateActorTask(3, 4, 0, 0)).refused(
        InvalidCommand, "pipeline 4", "experiment 1", "not to 3"
    )


def test_claim_takes_the_oldest_scheduled_task_of_the_actor():
    given(
        ActorTaskScheduled(2, 1, 4, actor_id=1, shard_id=0),
        ActorTaskScheduled(3, 1, 4, actor_id=0, shard_id=0),
        ActorTaskStarted(3),
        ActorTaskScheduled(9, 1, 4, actor_id=0, shard_id=2),
        ActorTaskScheduled(5, 1, 4, actor_id=0, shard_id=1),
    ).when(ClaimNextActorTask(0)).then(ActorTaskStarted(5)).result(5)


def test_claim_finds_nothing():
    given(TASK, ActorTaskStarted(9)).when(ClaimNextActorTask(0)).then().result(None)
    given(TASK).when(ClaimNextActorTask(1)).then().result(None)


@pytest.mark.parametrize("report", [ActorTaskStatus.IN_PROGRESS, ActorTaskStatus.COMPLETED])
def test_a_late_report_cannot_undo_a_recovery(report):
    given(TASK, ActorTaskStarted(9), ExperimentStatesReset(actor_tasks=(9,))).when(
        SetActorTaskStatus(9, report)
    ).refused(IllegalTransition, "actor task 9 is failed", f"cannot become {report}", "nothing")


@pytest.mark.parametrize(
    ("command", "event"),
    [
        (SetActorTaskStartTime(9, MORNING), ActorTaskStartTimeRecorded(9, MORNING)),
        (SetActorTaskEndTime(9, NOON), ActorTaskEndTimeRecorded(9, NOON)),
        (SetActorTaskEndTime(9, NOON, 4.5), ActorTaskEndTimeRecorded(9, NOON, 4.5)),
        (SetActorTaskError(9, "no GPU"), ActorTaskErrorRecorded(9, "no GPU")),
    ],
    ids=told,
)
def test_what_is_noted_for_a_task(command, event):
    given(TASK).when(command).then(event).result(None)
    given(TASK, event).when(command).then()


def test_what_was_noted_for_a_task_can_be_corrected():
    noted = (
        ActorTaskStartTimeRecorded(9, NOON),
        ActorTaskEndTimeRecorded(9, NOON, 1.0),
        ActorTaskErrorRecorded(9, "?"),
    )
    for command, event in (
        (SetActorTaskStartTime(9, MORNING), ActorTaskStartTimeRecorded(9, MORNING)),
        (SetActorTaskEndTime(9, NOON, 2.0), ActorTaskEndTimeRecorded(9, NOON, 2.0)),
        (SetActorTaskEndTime(9, MORNING, 1.0), ActorTaskEndTimeRecorded(9, MORNING, 1.0)),
        (SetActorTaskError(9, ""), ActorTaskErrorRecorded(9, "")),
    ):
        given(TASK, *noted).when(command).then(event)


# --- ids that nobody has, arguments that do not fit -----------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (SetContextStatus(99, ContextStatus.READY), "context 99"),
        (SetContextStartTime(99, MORNING), "context 99"),
        (SetContextEndTime(99, NOON), "context 99"),
        (SetContextError(99, "e"), "context 99"),
        (CreatePipeline(99, "baseline", "vllm"), "experiment 99"),
        (CreatePipeline(1, "baseline", "vllm", context_id=99), "context 99"),
        (SetPipelineStatus(99, PipelineStatus.ONGOING), "pipeline 99"),
        (SetPipelineProgress(99, 0, 0, 0), "pipeline 99"),
        (SetPipelineError(99, "e"), "pipeline 99"),
        (CreateActorTask(99, 4, 0, 0), "experiment 99"),
        (CreateActorTask(1, 99, 0, 0), "pipeline 99"),
        (SetActorTaskStatus(99, ActorTaskStatus.FAILED), "actor task 99"),
        (SetActorTaskStartTime(99, MORNING), "actor task 99"),
        (SetActorTaskEndTime(99, NOON), "actor task 99"),
        (SetActorTaskError(99, "e"), "actor task 99"),
    ],
    ids=told,
)
def test_unknown_ids(command, message):
    given(EXPERIMENT, CONTEXT, PIPELINE, TASK).when(command).refused(
        NotFound, f"there is no {message}:", "check the id", "SELECT"
    )


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (CreateExperiment("evals", "qwen", ExperimentStatus.RUNNING, num_cpus="8"), "num_cpus"),
        (CreateContext(""), "context_hash"),
        (CreateContext("c3", {"k": 3}), "rag_config_json"),
        (SetContextStartTime(2, ""), "started_at"),
        (SetContextEndTime(2, NOON, "4 s"), "duration_seconds"),
        (SetContextError(2, None), "error"),
        (CreatePipeline(1, "", "vllm"), "pipeline_name"),
        (CreatePipeline(1, "baseline", ""), "pipeline_type"),
        (CreatePipeline(1, "baseline", "vllm", status="gone"), "status"),
        (SetPipelineProgress(4, 2**63, 0, 0), "current_shard_id"),
        (SetPipelineProgress(4, 0, None, 0), "shards_completed"),
        (CreateActorTask(1, 4, -1, 0), "actor_id"),
        (CreateActorTask(1, 4, 0, 0.5), "shard_id"),
        (SetActorTaskEndTime(9, None), "completed_at"),
    ],
    ids=told,
)
def test_wrong_arguments(command, field):
    given(EXPERIMENT, CONTEXT, PIPELINE, TASK).when(command).refused(
        InvalidCommand, type(command).__name__, field
    )

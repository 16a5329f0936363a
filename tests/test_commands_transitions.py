"""Which status can follow which: every pair of every entity, against tables written here."""

from itertools import product

import pytest
from msgspec import UNSET

from refold.commands import (
    Decision,
    MarkICOpsCompleted,
    MarkICOpsFailed,
    MarkICOpsInProgress,
    MarkICOpsSkipped,
    MarkPipelineRequest,
    SetActorTaskStatus,
    SetContextStatus,
    SetExperimentStatus,
    SetPipelineStatus,
    SetRunStatus,
    SetWorkerTaskStatus,
    moves,
    rapidfire,
)
from refold.eventstore.errors import IllegalTransition, InvalidCommand
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskCompletionWithdrawn,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ContextBuildStarted,
    ContextCreated,
    ContextDeleted,
    ContextFailed,
    ContextReady,
    ExperimentCancelled,
    ExperimentCompleted,
    ExperimentCreated,
    ExperimentFailed,
    ExperimentStarted,
    InteractiveControlCompleted,
    InteractiveControlFailed,
    InteractiveControlSkipped,
    InteractiveControlStarted,
    PipelineCompleted,
    PipelineCreated,
    PipelineDeleted,
    PipelineFailed,
    PipelineRequestCompleted,
    PipelineRequestFailed,
    PipelineRequestSkipped,
    PipelineRequestStarted,
    PipelineResumed,
    PipelineStarted,
    PipelineStopped,
    PipelineStopRequested,
    RunCompleted,
    RunCreated,
    RunDetailsRecorded,
    RunFailed,
    RunKilled,
    RunResumed,
    RunStarted,
    RunStopped,
    StopRequested,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
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
)
from refold.testing import given


def check(happened, command, entity, table, before, after, *fields):
    """Hold a move against the table: the right event, no event, or a refusal that says why."""
    sent = given(*happened).when(command)
    if after == before:
        sent.then().result(None)
    elif after in table[before]:
        sent.then(table[before][after](7, *fields)).result(None)
    else:
        ways = table[before] or ["nothing"]
        sent.refused(
            IllegalTransition, f"{entity} is {before};", f"become {after}:", *ways, "can follow"
        )


def pairs(table, statuses):
    return pytest.mark.parametrize(("before", "after"), list(product(table, statuses)))


EXPERIMENT = {
    "NEW": {
        "RUNNING": ExperimentStarted,
        "COMPLETED": ExperimentCompleted,
        "FAILED": ExperimentFailed,
        "CANCELLED": ExperimentCancelled,
    },
    "RUNNING": {
        "COMPLETED": ExperimentCompleted,
        "FAILED": ExperimentFailed,
        "CANCELLED": ExperimentCancelled,
    },
    "COMPLETED": {"RUNNING": ExperimentStarted},
    "FAILED": {"RUNNING": ExperimentStarted},
    "CANCELLED": {"RUNNING": ExperimentStarted},
}


@pairs(EXPERIMENT, ExperimentStatus)
def test_experiments(before, after):
    happened = [ExperimentCreated(7, "fit", "digits", before)]
    command = SetExperimentStatus(7, after)
    check(happened, command, "experiment 7", EXPERIMENT, before, after)


@pairs([status for status in EXPERIMENT if status != "NEW"], ExperimentStatus)
def test_experiments_of_inference(before, after):
    happened = [ExperimentCreated(7, "evals", "digits", before.lower())]
    command = SetExperimentStatus(7, after)
    check(happened, command, "experiment 7", EXPERIMENT, before, after)


RUN = {
    "NEW": {
        "ONGOING": RunStarted,
        "FAILED": RunFailed,
        "STOPPED": RunStopped,
        "KILLED": RunKilled,
    },
    "ONGOING": {
        "COMPLETED": RunCompleted,
        "FAILED": RunFailed,
        "STOPPED": RunStopped,
        "KILLED": RunKilled,
    },
    "STOPPED": {"ONGOING": RunResumed, "FAILED": RunFailed, "KILLED": RunKilled},
    "FAILED": {"ONGOING": RunResumed, "KILLED": RunKilled},
    "COMPLETED": {"ONGOING": RunResumed, "KILLED": RunKilled},
    "KILLED": {},
}


@pairs(RUN, RunStatus)
def test_runs(before, after):
    happened = [RunCreated(7, 1, "run_7", status=RunStatus(before))]
    check(happened, SetRunStatus(7, after), "run 7", RUN, before, after)


TASK_STORY = {
    "SCHEDULED": [],
    "IN_PROGRESS": [TaskStarted],
    "COMPLETED": [TaskStarted, TaskCompleted],
    "FAILED": [TaskStarted, TaskFailed],
}
WORKER_TASK = {
    "SCHEDULED": {"IN_PROGRESS": TaskStarted, "FAILED": TaskFailed},
    "IN_PROGRESS": {"COMPLETED": TaskCompleted, "FAILED": TaskFailed},
    "COMPLETED": {},
    "FAILED": {},
}


@pairs(WORKER_TASK, TaskStatus)
def test_tasks_of_workers(before, after):
    happened = [
        RunCreated(5, 1, "run_5"),
        TaskScheduled(7, 5, 0, 0),
        *(event(7) for event in TASK_STORY[before]),
    ]
    # A claim is the position of the event that has started the task.
    completes = (before, after) == ("IN_PROGRESS", "COMPLETED")
    command = SetWorkerTaskStatus(7, after, claim=3 if completes else UNSET)
    about = (3,) if completes else ()
    check(happened, command, "worker task 7", WORKER_TASK, before, after, *about)


ANSWER = {
    "COMPLETED": InteractiveControlCompleted,
    "FAILED": InteractiveControlFailed,
    "SKIPPED": InteractiveControlSkipped,
}
TAKEN_UP = {"IN_PROGRESS": InteractiveControlStarted}
MARK = {
    "IN_PROGRESS": MarkICOpsInProgress,
    "COMPLETED": MarkICOpsCompleted,
    "FAILED": MarkICOpsFailed,
    "SKIPPED": MarkICOpsSkipped,
}
REQUEST = {
    "PENDING": TAKEN_UP | ANSWER,
    "IN_PROGRESS": ANSWER,
    "COMPLETED": {},
    "FAILED": {},
    "SKIPPED": {},
}


@pairs(REQUEST, MARK)
def test_requests_of_users(before, after):
    happened = [StopRequested(7, 5)]
    if before != "PENDING":
        happened.append((TAKEN_UP | ANSWER)[before](7))
    check(happened, MARK[after](7), "request 7", REQUEST, before, after)


CONTEXT = {
    "pending": {
        "building": ContextBuildStarted,
        "ready": ContextReady,
        "failed": ContextFailed,
        "deleted": ContextDeleted,
    },
    "building": {"ready": ContextReady, "failed": ContextFailed, "deleted": ContextDeleted},
    "ready": {"building": ContextBuildStarted, "deleted": ContextDeleted},
    "failed": {"building": ContextBuildStarted, "deleted": ContextDeleted},
    "deleted": {},
}


@pairs(CONTEXT, ContextStatus)
def test_contexts(before, after):
    happened = [ContextCreated(7, "hash", status=ContextStatus(before))]
    check(happened, SetContextStatus(7, after), "context 7", CONTEXT, before, after)


PIPELINE = {
    "new": {
        "ongoing": PipelineStarted,
        "stopped": PipelineStopped,
        "deleted": PipelineDeleted,
        "failed": PipelineFailed,
    },
    "ongoing": {
        "completed": PipelineCompleted,
        "stopped": PipelineStopped,
        "deleted": PipelineDeleted,
        "failed": PipelineFailed,
    },
    "stopped": {
        "ongoing": PipelineResumed,
        "deleted": PipelineDeleted,
        "failed": PipelineFailed,
    },
    "failed": {"ongoing": PipelineResumed, "deleted": PipelineDeleted},
    "completed": {"ongoing": PipelineResumed, "deleted": PipelineDeleted},
    "deleted": {},
}


@pairs(PIPELINE, PipelineStatus)
def test_pipelines(before, after):
    happened = [PipelineCreated(7, 1, "baseline", "vllm", status=PipelineStatus(before))]
    check(happened, SetPipelineStatus(7, after), "pipeline 7", PIPELINE, before, after)


ACTOR_TASK_STORY = {
    "scheduled": [],
    "in_progress": [ActorTaskStarted],
    "completed": [ActorTaskStarted, ActorTaskCompleted],
    "failed": [ActorTaskStarted, ActorTaskFailed],
}
ACTOR_TASK = {
    "scheduled": {"in_progress": ActorTaskStarted, "failed": ActorTaskFailed},
    "in_progress": {"completed": ActorTaskCompleted, "failed": ActorTaskFailed},
    "completed": {},
    "failed": {},
}


@pairs(ACTOR_TASK, ActorTaskStatus)
def test_tasks_of_actors(before, after):
    happened = [
        PipelineCreated(2, 1, "baseline", "vllm"),
        ActorTaskScheduled(7, 1, 2, 0, 0),
        *(event(7) for event in ACTOR_TASK_STORY[before]),
    ]
    completes = (before, after) == ("in_progress", "completed")
    command = SetActorTaskStatus(7, after, claim=3 if completes else UNSET)
    about = (3,) if completes else ()
    check(happened, command, "actor task 7", ACTOR_TASK, before, after, *about)


PIPELINE_ANSWER = {
    "completed": PipelineRequestCompleted,
    "failed": PipelineRequestFailed,
    "skipped": PipelineRequestSkipped,
}
PIPELINE_REQUEST = {
    "pending": {"in_progress": PipelineRequestStarted} | PIPELINE_ANSWER,
    "in_progress": PIPELINE_ANSWER,
    "completed": {},
    "failed": {},
    "skipped": {},
}


@pairs(PIPELINE_REQUEST, PipelineRequestStatus)
def test_requests_about_pipelines(before, after):
    happened = [PipelineStopRequested(7, 4)]
    if before != "pending":
        happened.append(PIPELINE_REQUEST["pending"][before](7))
    command = MarkPipelineRequest(7, after)
    check(happened, command, "request 7", PIPELINE_REQUEST, before, after)


def test_an_error_goes_with_a_request_that_was_not_carried_out():
    given(PipelineStopRequested(7, 4)).when(MarkPipelineRequest(7, "completed", "why")).refused(
        InvalidCommand, "request 7: an error goes with failed or skipped, not with completed"
    )


# --- RapidFire AI's own moves ---------------------------------------------------------------------


def and_(table, more):
    return {before: table[before] | more.get(before, {}) for before in table}


RAPIDFIRE_EXPERIMENT = and_(
    EXPERIMENT,
    {
        "FAILED": {"COMPLETED": ExperimentCompleted, "CANCELLED": ExperimentCancelled},
        "CANCELLED": {"COMPLETED": ExperimentCompleted, "FAILED": ExperimentFailed},
    },
)
RAPIDFIRE_RUN = and_(RUN, {"FAILED": {"COMPLETED": RunCompleted, "STOPPED": RunStopped}})
RAPIDFIRE_CONTEXT = and_(
    CONTEXT, {"failed": {"ready": ContextReady}, "ready": {"failed": ContextFailed}}
)
RAPIDFIRE_PIPELINE = and_(
    PIPELINE,
    {
        "new": {"completed": PipelineCompleted},
        "stopped": {"completed": PipelineCompleted},
        "failed": {"completed": PipelineCompleted, "stopped": PipelineStopped},
        "completed": {"stopped": PipelineStopped, "failed": PipelineFailed},
    },
)
RAPIDFIRE_ACTOR_TASK = and_(
    ACTOR_TASK,
    {
        "scheduled": {"completed": ActorTaskCompleted},
        "completed": {"failed": ActorTaskCompletionWithdrawn},
    },
)


@pairs(RAPIDFIRE_EXPERIMENT, ExperimentStatus)
def test_rapidfires_experiments(before, after):
    happened = [ExperimentCreated(7, "fit", "digits", before)]
    command = rapidfire.SetStatus("experiment", 7, after)
    check(happened, command, "experiment 7", RAPIDFIRE_EXPERIMENT, before, after)


@pairs(RAPIDFIRE_RUN, RunStatus)
def test_rapidfires_runs(before, after):
    happened = [RunCreated(7, 1, "run_7", status=RunStatus(before))]
    command = rapidfire.NoteRun(RunDetailsRecorded(7), after)
    check(happened, command, "run 7", RAPIDFIRE_RUN, before, after)


@pairs(RAPIDFIRE_CONTEXT, ContextStatus)
def test_rapidfires_contexts(before, after):
    happened = [ContextCreated(7, "hash", status=ContextStatus(before))]
    command = rapidfire.SetStatus("context", 7, after)
    check(happened, command, "context 7", RAPIDFIRE_CONTEXT, before, after)


@pairs(
    [status for status in RAPIDFIRE_PIPELINE if status != "deleted"],
    PipelineStatus,
)
def test_rapidfires_pipelines(before, after):
    happened = [PipelineCreated(7, 1, "baseline", "vllm", status=PipelineStatus(before))]
    command = rapidfire.SetPipelineStatus(7, after)
    check(happened, command, "pipeline 7", RAPIDFIRE_PIPELINE, before, after)


@pytest.mark.parametrize("after", ["completed", "failed"])
def test_a_deleted_pipeline_stays_so_when_its_last_shard_ends(after):
    happened = [PipelineCreated(7, 1, "baseline", "vllm"), PipelineDeleted(7)]
    given(*happened).when(rapidfire.SetPipelineStatus(7, after)).then().result(None)


@pytest.mark.parametrize("after", ["ongoing", "stopped"])
def test_a_deleted_pipeline_is_neither_stopped_nor_resumed(after):
    happened = [PipelineCreated(7, 1, "baseline", "vllm"), PipelineDeleted(7)]
    given(*happened).when(rapidfire.SetPipelineStatus(7, after)).refused(
        IllegalTransition, "pipeline 7 is deleted", "nothing can follow"
    )


@pairs(RAPIDFIRE_ACTOR_TASK, ActorTaskStatus)
def test_rapidfires_tasks_of_actors(before, after):
    happened = [
        ActorTaskScheduled(7, 1, 2, 0, 0),
        *(event(7) for event in ACTOR_TASK_STORY[before]),
    ]
    command = rapidfire.SetStatus("actor task", 7, after)
    check(happened, command, "actor task 7", RAPIDFIRE_ACTOR_TASK, before, after)


# --- the tables themselves, also where no command leads -------------------------------------------

TABLES = {
    "EXPERIMENT": EXPERIMENT,
    "RUN": RUN,
    "WORKER_TASK": WORKER_TASK,
    "REQUEST": REQUEST,
    "CONTEXT": CONTEXT,
    "PIPELINE": PIPELINE,
    "ACTOR_TASK": ACTOR_TASK,
    "PIPELINE_REQUEST": PIPELINE_REQUEST,
    "RAPIDFIRE_EXPERIMENT": RAPIDFIRE_EXPERIMENT,
    "RAPIDFIRE_RUN": RAPIDFIRE_RUN,
    "RAPIDFIRE_CONTEXT": RAPIDFIRE_CONTEXT,
    "RAPIDFIRE_PIPELINE": RAPIDFIRE_PIPELINE,
    "RAPIDFIRE_ACTOR_TASK": RAPIDFIRE_ACTOR_TASK,
}


@pytest.mark.parametrize("name", TABLES)
def test_the_table_of_an_entity(name):
    assert getattr(moves, name) == TABLES[name]


@pytest.mark.parametrize("name", TABLES)
def test_a_refusal_names_all_that_can_follow(name):
    table = getattr(moves, name)
    for before, after in product(table, table):
        if before == after:
            assert moves.move("it", table, before, after) == Decision()
            continue
        if after in TABLES[name][before]:
            decision = moves.move("it", table, before, after, 7)
            assert decision == Decision([TABLES[name][before][after](7)])
            continue
        with pytest.raises(IllegalTransition) as caught:
            moves.move("it", table, before, after)
        ways = ", ".join(word for word in table if word in TABLES[name][before])
        which = f"only {ways}" if ways else "nothing"
        assert str(caught.value) == f"it is {before}; it cannot become {after}: {which} can follow"


def test_from_a_status_without_a_row_nothing_can_follow():
    with pytest.raises(IllegalTransition, match="PENDING; it cannot become FAILED: nothing can"):
        moves.move("it", moves.WORKER_TASK, TaskStatus.PENDING, TaskStatus.FAILED)

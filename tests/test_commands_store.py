"""What the commands on the store as a whole decide: cleaning up, and recovering from a crash."""

import pytest
from ids import told

from refold.commands import (
    Command,
    CreateActorTask,
    CreateContext,
    CreateExperiment,
    CreatePipeline,
    CreateRun,
    CreateWorkerTask,
    RequestStop,
    ResetAllTables,
    ResetExperimentStates,
    SetRunStatus,
)
from refold.eventstore.errors import InvalidCommand, NotFound
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ContextBuildStarted,
    ContextCreated,
    ContextFailed,
    ContextReady,
    ControllerTaskSet,
    DeleteRequested,
    ExperimentCreated,
    ExperimentStatesReset,
    InteractiveControlCompleted,
    InteractiveControlStarted,
    PipelineCreated,
    RunCreated,
    RunStarted,
    StopRequested,
    TablesReset,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    WorkerProgressed,
)
from refold.eventstore.statuses import (
    ContextStatus,
    ControllerTask,
    ExperimentStatus,
    PipelineStatus,
    RunStatus,
    TaskStatus,
    WorkerTask,
)
from refold.projections import ALL, UnitOfWork
from refold.projections.evals import contexts, pipelines
from refold.projections.experiments import experiments
from refold.projections.fit import (
    CONTROLLER,
    controller_progress,
    interactive_control,
    runs,
    worker_progress,
    worker_task,
)
from refold.testing import given

EXPERIMENT = ExperimentCreated(3, "fit", "digits", "RUNNING")

ROWS = {
    "runs": RunCreated(5, 3, "run_5"),
    "worker_task": TaskScheduled(17, 5, 0, 0),
    "controller_progress": ControllerTaskSet(ControllerTask.IDLE, TaskStatus.COMPLETED),
    "worker_progress": WorkerProgressed(0, WorkerTask.IDLE, TaskStatus.COMPLETED),
    "interactive_control": DeleteRequested(8, 5),
    "contexts": ContextCreated(2, "a1b2"),
    "pipelines": PipelineCreated(4, 3, "baseline", "vllm"),
    "actor_tasks": ActorTaskScheduled(9, 3, 4, 0, 0),
}


# --- reset_all_tables -----------------------------------------------------------------------


@pytest.mark.parametrize("view", ROWS)
@pytest.mark.parametrize("experiments_table", [False, True])
def test_a_row_of_any_view_is_reason_to_reset(view, experiments_table):
    given(ROWS[view]).when(ResetAllTables(experiments_table)).then(
        TablesReset(experiments_table)
    ).result(None)


def test_experiments_are_kept_unless_it_is_said():
    given(EXPERIMENT).when(ResetAllTables()).then()
    given(EXPERIMENT).when(ResetAllTables(experiments_table=True)).then(TablesReset(True))

    kept = given(EXPERIMENT, *ROWS.values(), TablesReset(False))
    assert kept.rows(experiments) != []
    assert kept.rows(runs) == kept.rows(worker_task) == kept.rows(interactive_control) == []
    gone = given(EXPERIMENT, *ROWS.values(), TablesReset(True))
    assert gone.rows(experiments) == []


@pytest.mark.parametrize("experiments_table", [False, True])
def test_empty_tables_are_not_reset(experiments_table):
    given().when(ResetAllTables(experiments_table)).then()
    given(EXPERIMENT, *ROWS.values(), TablesReset(True)).when(
        ResetAllTables(experiments_table)
    ).then()


def test_what_was_there_before_a_reset_is_unknown_after_it():
    given(EXPERIMENT, *ROWS.values(), TablesReset(False)).when(
        SetRunStatus(5, RunStatus.ONGOING)
    ).refused(NotFound, "there is no run 5", "a reset may have removed it")


def test_what_happens_to_it_later_changes_nothing():
    late = [RunStarted(5), TaskStarted(17), ActorTaskStarted(9), InteractiveControlCompleted(8)]
    assert given(*ROWS.values(), TablesReset(True), *late).rows(runs) == []
    given(*ROWS.values(), TablesReset(True), *late).when(ResetAllTables(True)).then()


@pytest.mark.parametrize(
    ("command", "next_id"),
    [
        (CreateExperiment("fit", "digits", ExperimentStatus.NEW), 4),
        (CreateRun(3), 6),
        (CreateContext("a1b2"), 3),
        (CreatePipeline(3, "baseline", "vllm"), 5),
    ],
    ids=told,
)
def test_ids_go_on_after_a_reset(command: Command, next_id: int):
    given(EXPERIMENT, *ROWS.values(), TablesReset(False)).when(command).result(next_id)


@pytest.mark.parametrize(
    ("again", "command", "next_id"),
    [
        ([RunCreated(6, 3, "run_6")], CreateWorkerTask(6, 0, 0), 18),
        ([RunCreated(6, 3, "run_6")], RequestStop(6), 9),
        ([PipelineCreated(5, 3, "baseline", "vllm")], CreateActorTask(3, 5, 0, 0), 10),
    ],
)
def test_ids_of_what_belongs_to_another_go_on_too(again, command: Command, next_id: int):
    given(EXPERIMENT, *ROWS.values(), TablesReset(False), *again).when(command).result(next_id)


# --- reset_experiment_states ----------------------------------------------------------------

NOTHING = {
    "worker_tasks": [],
    "actor_tasks": [],
    "contexts": [],
    "workers": [],
    "controller": False,
    "runs": [],
    "pipelines": [],
    "requests": [],
    "pipeline_requests": [],
}

CRASHED = [
    EXPERIMENT,
    *(RunCreated(id_, 3, f"run_{id_}", status=status) for id_, status in enumerate(RunStatus, 1)),
    TaskScheduled(1, 2, 0, 0),  # scheduled
    TaskScheduled(2, 2, 0, 1),
    TaskStarted(2),  # in progress
    TaskScheduled(3, 2, 0, 2),
    TaskStarted(3),
    TaskCompleted(3),
    TaskScheduled(4, 2, 0, 3),
    TaskFailed(4),
    ControllerTaskSet(ControllerTask.RUN_FIT, TaskStatus.IN_PROGRESS),
    *(
        WorkerProgressed(id_, WorkerTask.TRAIN_VAL, status)
        for id_, status in enumerate(TaskStatus, 1)
    ),
    StopRequested(1, 2),
    StopRequested(2, 2),
    InteractiveControlStarted(2),
    StopRequested(3, 2),
    InteractiveControlStarted(3),
    InteractiveControlCompleted(3),
    ContextCreated(1, "pending"),
    ContextCreated(2, "building"),
    ContextBuildStarted(2),
    ContextCreated(3, "ready"),
    ContextReady(3),
    ContextCreated(4, "failed"),
    ContextFailed(4),
    *(
        PipelineCreated(id_, 3, f"pipeline {id_}", "vllm", status=status)
        for id_, status in enumerate(PipelineStatus, 1)
    ),
    ActorTaskScheduled(1, 3, 2, 0, 0),  # scheduled
    ActorTaskScheduled(2, 3, 2, 0, 1),
    ActorTaskStarted(2),  # in progress
    ActorTaskScheduled(3, 3, 2, 0, 2),
    ActorTaskStarted(3),
    ActorTaskCompleted(3),
    ActorTaskScheduled(4, 3, 2, 0, 3),
    ActorTaskFailed(4),
]

FAILED = ExperimentStatesReset(
    worker_tasks=(1, 2),
    actor_tasks=(1, 2),
    contexts=(2,),
    workers=(3,),
    controller=True,
    requests=(2,),
)
FAILED_WITH_RUNS = ExperimentStatesReset(
    worker_tasks=(1, 2),
    actor_tasks=(1, 2),
    contexts=(2,),
    workers=(3,),
    controller=True,
    runs=(1, 2),
    pipelines=(1, 2),
    requests=(2,),
)


def test_what_was_in_progress_is_declared_failed():
    told = {
        **NOTHING,
        "worker_tasks": [1, 2],
        "actor_tasks": [1, 2],
        "contexts": [2],
        "workers": [3],
        "controller": True,
        "requests": [2],
    }
    given(*CRASHED).when(ResetExperimentStates()).then(FAILED).result(told)
    given(*CRASHED).when(ResetExperimentStates(fail_runs=True)).then(FAILED_WITH_RUNS).result(
        {**told, "runs": [1, 2], "pipelines": [1, 2]}
    )


@pytest.mark.parametrize("failed", [FAILED, FAILED_WITH_RUNS], ids=["by default", "with runs"])
def test_what_follows_from_it(failed):
    before, after = UnitOfWork(ALL), UnitOfWork(ALL)
    for position, event in enumerate((*CRASHED, failed)):
        for unit in (before, after) if event is not failed else (after,):
            unit.take_in(position, event, position)
    for view, ids in (
        (worker_task, failed.worker_tasks),
        (worker_progress, failed.workers),
        (controller_progress, (CONTROLLER,)),
        (runs, failed.runs),
        (contexts, failed.contexts),
        (pipelines, failed.pipelines),
        (interactive_control, failed.requests),
    ):
        for row in before.find(view):
            key = getattr(row, view.key)
            then = after.get(view, key)
            if key in ids:
                assert then.status.upper() == "FAILED"
            else:
                assert then == row
    assert after.get(interactive_control, 1).status == "PENDING"
    assert after.find(experiments) == before.find(experiments)


@pytest.mark.parametrize("fail_runs", [False, True])
def test_nothing_in_progress_is_no_event(fail_runs):
    given().when(ResetExperimentStates(fail_runs)).then().result(NOTHING)
    given(*CRASHED, FAILED_WITH_RUNS).when(ResetExperimentStates(fail_runs)).then().result(NOTHING)
    at_rest = [
        EXPERIMENT,
        RunCreated(1, 3, "run_1", status=RunStatus.STOPPED),
        PipelineCreated(1, 3, "baseline", "vllm", status=PipelineStatus.STOPPED),
        ContextCreated(1, "a1b2", status=ContextStatus.PENDING),
        StopRequested(1, 1),
        ControllerTaskSet(ControllerTask.IDLE, TaskStatus.COMPLETED),
        WorkerProgressed(0, WorkerTask.IDLE, TaskStatus.PENDING),
    ]
    given(*at_rest).when(ResetExperimentStates(fail_runs)).then().result(NOTHING)


def test_runs_alone_are_reason_to_reset_if_they_shall_fail():
    live = [RunCreated(1, 3, "run_1"), PipelineCreated(1, 3, "baseline", "vllm")]
    given(*live).when(ResetExperimentStates()).then()
    given(*live).when(ResetExperimentStates(fail_runs=True)).then(
        ExperimentStatesReset(runs=(1,), pipelines=(1,))
    ).result({**NOTHING, "runs": [1], "pipelines": [1]})


def test_a_controller_goes_on_after_a_recovery():
    given(*CRASHED, FAILED).when(CreateWorkerTask(2, 0, 1)).result(5)
    given(*CRASHED, FAILED).when(CreateActorTask(3, 2, 0, 1)).result(5)


# --- arguments that do not fit --------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (ResetAllTables("yes"), "experiments_table"),
        (ResetAllTables(None), "experiments_table"),
        (ResetExperimentStates(1), "fail_runs"),
    ],
    ids=told,
)
def test_wrong_arguments(command, field):
    given(*CRASHED).when(command).refused(InvalidCommand, type(command).__name__, field)

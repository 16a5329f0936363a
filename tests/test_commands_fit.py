"""What every command of training (fit) decides: given, when, then; no database."""

import hashlib
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import product
from uuid import UUID

import pytest
from ids import told

from refold.commands import (
    ClaimNextWorkerTask,
    Command,
    CreateExperiment,
    CreateRun,
    CreateWorkerTask,
    MarkICOpsCompleted,
    MarkICOpsFailed,
    MarkICOpsSkipped,
    RequestCloneModify,
    RequestDelete,
    RequestResume,
    RequestStop,
    SetControllerTask,
    SetExperimentError,
    SetExperimentStatus,
    SetRunEndedBy,
    SetRunProgress,
    SetRunStatus,
    SetWorkerProgress,
    SetWorkerTaskStatus,
    UpdateRunMetrics,
)
from refold.eventstore.errors import IllegalTransition, InvalidCommand, NotFound
from refold.eventstore.events import (
    CloneModifyRequested,
    ControllerTaskSet,
    DeleteRequested,
    ExperimentCreated,
    ExperimentErrorRecorded,
    ExperimentStatesReset,
    InteractiveControlFailed,
    InteractiveControlSkipped,
    ResumeRequested,
    RunCreated,
    RunEnded,
    RunKilled,
    RunMetricsRecorded,
    RunProgressed,
    StopRequested,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    WorkerProgressed,
)
from refold.eventstore.statuses import (
    ControllerTask,
    ExperimentStatus,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    WorkerTask,
)
from refold.testing import given


def pairs(first, second):
    return list(product(first, second))


CONFIG = b"any bytes: a command does not look into a payload"
DIGEST = hashlib.sha256(CONFIG).hexdigest()


def experiment(status: str = "RUNNING") -> ExperimentCreated:
    return ExperimentCreated(1, "fit", "digits", status)


def run(status: RunStatus = RunStatus.NEW) -> RunCreated:
    return RunCreated(5, 1, "run_5", status=status)


# --- experiments ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ExperimentStatus)
def test_create_experiment(status):
    command = CreateExperiment("fit", "digits", status, "/data/digits")
    given().when(command).then(
        ExperimentCreated(1, "fit", "digits", status.value, experiments_path="/data/digits")
    ).result(1)


def test_the_next_experiment_has_the_next_id_and_may_have_the_same_name():
    given(experiment()).when(CreateExperiment("fit", "digits", ExperimentStatus.NEW)).then(
        ExperimentCreated(2, "fit", "digits", "NEW")
    ).result(2)


def test_set_experiment_error():
    given(experiment()).when(SetExperimentError(1, "no data")).then(
        ExperimentErrorRecorded(1, "no data")
    )
    given(experiment(), ExperimentErrorRecorded(1, "no data")).when(
        SetExperimentError(1, "no data")
    ).then()


# --- runs -----------------------------------------------------------------------------------


def test_create_run():
    given(experiment()).when(CreateRun(1)).then(RunCreated(1, 1, "run_1")).result(1)


def test_create_run_with_all_that_can_be_said():
    command = CreateRun(
        experiment_id=1,
        run_name="clone",
        mlflow_run_id="abc123",
        config_leaf=CONFIG,
        status=RunStatus.ONGOING,
        source=RunSource.CLONE_MODIFY,
        seed=42,
        num_chunks=8,
        parent_run_id=5,
        warm_start=True,
    )
    given(experiment(), run()).when(command).then(
        RunCreated(
            run_id=6,
            experiment_id=1,
            run_name="clone",
            status=RunStatus.ONGOING,
            source=RunSource.CLONE_MODIFY,
            mlflow_run_id="abc123",
            parent_run_id=5,
            warm_start=True,
            config=DIGEST,
            seed=42,
            num_chunks=8,
        )
    ).result(6).payloads(CONFIG)


@pytest.mark.parametrize("ended_by", RunEndedBy)
def test_set_run_ended_by(ended_by):
    command = SetRunEndedBy(5, ended_by)
    given(run()).when(command).then(RunEnded(5, ended_by))
    given(run(), RunEnded(5, ended_by)).when(command).then()


def test_set_run_progress():
    given(run()).when(SetRunProgress(5, 3, 1)).then(RunProgressed(5, 3, 1))
    given(run(), RunProgressed(5, 3, 1)).when(SetRunProgress(5, 3, 1)).then()
    given(run(), RunProgressed(5, 3, 1)).when(SetRunProgress(5, 3, 2)).then(RunProgressed(5, 3, 2))
    given(run()).when(SetRunProgress(5, 0, 0)).then()


METRICS = {
    "loss": 0.25,
    "epoch": 3,
    "best": None,
    "done": False,
    "note": "ü",
    "losses": [0.5, 0.25],
    "val": {"accuracy": 0.9, "per_class": [1, 0.5]},
    "history": [{"epoch": 1, "loss": 0.5}],
}


def test_update_run_metrics():
    given(run()).when(UpdateRunMetrics(5, METRICS)).then(RunMetricsRecorded(5, METRICS))
    recorded = RunMetricsRecorded(5, METRICS)
    given(run(), recorded).when(UpdateRunMetrics(5, METRICS)).then()
    given(run(), recorded).when(UpdateRunMetrics(5, {})).then(RunMetricsRecorded(5, {}))
    given(run()).when(UpdateRunMetrics(5, {})).then()


# --- tasks of workers -----------------------------------------------------------------------

SCHEDULED = TaskScheduled(7, run_id=5, worker_id=0, chunk_id=2, epoch=1)


def test_create_worker_task():
    given(run()).when(CreateWorkerTask(5, 0, 2, 1)).then(
        TaskScheduled(1, run_id=5, worker_id=0, chunk_id=2, epoch=1)
    ).result(1)
    given(run(), SCHEDULED).when(CreateWorkerTask(5, 1, 0)).then(
        TaskScheduled(8, run_id=5, worker_id=1, chunk_id=0, epoch=0)
    ).result(8)


@pytest.mark.parametrize("report", [TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED])
def test_a_late_report_cannot_undo_a_recovery(report):
    given(SCHEDULED, TaskStarted(7), ExperimentStatesReset(worker_tasks=(7,))).when(
        SetWorkerTaskStatus(7, report)
    ).refused(IllegalTransition, "worker task 7 is FAILED", f"cannot become {report}", "nothing")


def test_why_a_task_failed_is_kept():
    given(SCHEDULED, TaskStarted(7)).when(
        SetWorkerTaskStatus(7, TaskStatus.FAILED, "out of memory")
    ).then(TaskFailed(7, "out of memory"))


@pytest.mark.parametrize("status", [s for s in TaskStatus if s is not TaskStatus.FAILED])
def test_an_error_goes_with_a_failure(status):
    given(SCHEDULED).when(SetWorkerTaskStatus(7, status, "out of memory")).refused(
        InvalidCommand, f"worker task 7: an error goes with FAILED, not with {status}"
    )


def test_claim_takes_the_oldest_scheduled_task_of_the_worker():
    given(
        TaskScheduled(2, 5, worker_id=1, chunk_id=0),
        TaskScheduled(3, 5, worker_id=0, chunk_id=0),
        TaskStarted(3),
        TaskScheduled(9, 5, worker_id=0, chunk_id=2),
        TaskScheduled(4, 5, worker_id=0, chunk_id=1),
    ).when(ClaimNextWorkerTask(0)).then(TaskStarted(4)).result(4)


def test_claim_finds_nothing():
    given(SCHEDULED, TaskFailed(7)).when(ClaimNextWorkerTask(0)).then().result(None)
    given(SCHEDULED).when(ClaimNextWorkerTask(1)).then().result(None)


# --- progress -------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "status"), pairs(ControllerTask, TaskStatus))
def test_set_controller_task(task, status):
    command = SetControllerTask(task, status)
    told = ControllerTaskSet(task, status)
    given().when(command).then(told)
    given(told).when(command).then()


def test_the_controller_turns_to_another_task_or_gets_further_with_it():
    busy = ControllerTaskSet(ControllerTask.RUN_FIT, TaskStatus.IN_PROGRESS)
    done = ControllerTaskSet(ControllerTask.RUN_FIT, TaskStatus.COMPLETED)
    idle = ControllerTaskSet(ControllerTask.IDLE, TaskStatus.IN_PROGRESS)
    given(busy).when(SetControllerTask(ControllerTask.RUN_FIT, TaskStatus.COMPLETED)).then(done)
    given(busy).when(SetControllerTask(ControllerTask.IDLE, TaskStatus.IN_PROGRESS)).then(idle)


@pytest.mark.parametrize(("task", "status"), pairs(WorkerTask, TaskStatus))
def test_set_worker_progress(task, status):
    command = SetWorkerProgress(0, task, status)
    told = WorkerProgressed(0, task, status)
    given().when(command).then(told)
    given(told).when(command).then()
    given(WorkerProgressed(1, task, status)).when(command).then(told)


def test_a_worker_turns_to_another_task_or_gets_further_with_it():
    busy = WorkerProgressed(0, WorkerTask.TRAIN_VAL, TaskStatus.IN_PROGRESS)
    done = WorkerProgressed(0, WorkerTask.TRAIN_VAL, TaskStatus.COMPLETED)
    idle = WorkerProgressed(0, WorkerTask.IDLE, TaskStatus.IN_PROGRESS)
    given(busy).when(SetWorkerProgress(0, WorkerTask.TRAIN_VAL, TaskStatus.COMPLETED)).then(done)
    given(busy).when(SetWorkerProgress(0, WorkerTask.IDLE, TaskStatus.IN_PROGRESS)).then(idle)


# --- interactive control --------------------------------------------------------------------

REQUESTS = [
    (RequestStop(5), StopRequested(1, 5)),
    (RequestResume(5), ResumeRequested(1, 5)),
    (RequestDelete(5), DeleteRequested(1, 5)),
    (RequestCloneModify(5), CloneModifyRequested(1, 5)),
    (RequestCloneModify(5, CONFIG, True), CloneModifyRequested(1, 5, DIGEST, True)),
]


def test_a_killed_run_begins_nothing_and_has_not_completed():
    for command in (CreateWorkerTask(5, 0, 0), SetRunEndedBy(5, RunEndedBy.COMPLETED)):
        given(run(RunStatus.KILLED)).when(command).refused(IllegalTransition, "run 5 is KILLED")
    ended = RunEnded(5, RunEndedBy.KILLED)
    given(run(RunStatus.KILLED)).when(SetRunEndedBy(5, RunEndedBy.KILLED)).then(ended)
    # What is told late is a fact.
    given(run(RunStatus.KILLED)).when(SetRunProgress(5, 1, 0)).then(RunProgressed(5, 1, 0))
    metrics = {"loss": 0.5}
    given(run(RunStatus.KILLED)).when(UpdateRunMetrics(5, metrics)).then(
        RunMetricsRecorded(5, metrics)
    )


@pytest.mark.parametrize("status", [s for s in RunStatus if s is not RunStatus.KILLED])
@pytest.mark.parametrize(("command", "event"), REQUESTS)
def test_requests(command, event, status):
    given(run(status)).when(command).then(event).result(1)


def test_the_configuration_of_a_clone_is_stored():
    given(run()).when(RequestCloneModify(5, CONFIG)).payloads(CONFIG)
    given(run()).when(RequestCloneModify(5)).payloads()


def test_all_requests_share_one_row_of_ids():
    given(run(), StopRequested(1, 5), ResumeRequested(2, 5)).when(RequestDelete(5)).then(
        DeleteRequested(3, 5)
    ).result(3)


@pytest.mark.parametrize(("command", "event"), REQUESTS)
def test_nothing_can_be_asked_of_a_killed_run(command, event):
    given(run(RunStatus.KILLED)).when(command).refused(
        IllegalTransition, "run 5 is KILLED", "create a new run"
    )
    given(run(), RunKilled(5)).when(command).refused(IllegalTransition, "run 5 is KILLED")


def test_a_reason_need_not_be_given():
    given(StopRequested(3, 5)).when(MarkICOpsFailed(3)).then(InteractiveControlFailed(3))
    given(StopRequested(3, 5)).when(MarkICOpsSkipped(3)).then(InteractiveControlSkipped(3))


# --- ids that nobody has --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (SetExperimentStatus(9, ExperimentStatus.FAILED), "experiment 9"),
        (SetExperimentError(9, "e"), "experiment 9"),
        (CreateRun(9), "experiment 9"),
        (CreateRun(1, parent_run_id=9), "run 9"),
        (SetRunStatus(9, RunStatus.ONGOING), "run 9"),
        (SetRunEndedBy(9, RunEndedBy.KILLED), "run 9"),
        (SetRunProgress(9, 1, 1), "run 9"),
        (UpdateRunMetrics(9, {}), "run 9"),
        (CreateWorkerTask(9, 0, 0), "run 9"),
        (SetWorkerTaskStatus(9, TaskStatus.FAILED), "worker task 9"),
        (RequestStop(9), "run 9"),
        (RequestResume(9), "run 9"),
        (RequestDelete(9), "run 9"),
        (RequestCloneModify(9), "run 9"),
        (MarkICOpsCompleted(9), "request 9"),
        (MarkICOpsFailed(9), "request 9"),
        (MarkICOpsSkipped(9), "request 9"),
    ],
    ids=told,
)
def test_unknown_ids(command, message):
    given(experiment(), run(), SCHEDULED, StopRequested(3, 5)).when(command).refused(
        NotFound, f"there is no {message}:", "check the id", "SELECT"
    )


# --- arguments that do not fit --------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (CreateExperiment("fit", "", ExperimentStatus.NEW), "experiment_name"),
        (CreateExperiment("tune", "digits", ExperimentStatus.NEW), "kind"),
        (CreateExperiment("fit", "digits", "GONE"), "status"),
        (CreateRun("1"), "experiment_id"),
        (CreateRun(True), "experiment_id"),
        (CreateRun(-1), "experiment_id"),
        (CreateRun(2**63), "experiment_id"),
        (CreateRun(1, run_name=""), "run_name"),
        (CreateRun(1, config_leaf={"lr": 0.1}), "config_leaf"),
        (CreateRun(1, seed=2**64), "seed"),
        (CreateRun(1, warm_start=1), "warm_start"),
        (SetRunProgress(5, 1.5, 0), "current_chunk"),
        (UpdateRunMetrics(5, {1: 0.5}), "metrics"),
        (UpdateRunMetrics(5, {"loss": 2**63}), "metrics"),
        (UpdateRunMetrics(5, {"loss": {"a": {"b": {"c": {}}}}}), "metrics"),
        (UpdateRunMetrics(5, {"loss": object()}), "object"),
        (MarkICOpsFailed(1, 3), "error"),
    ],
    ids=told,
)
def test_wrong_arguments(command, field):
    given(experiment(), run()).when(command).refused(InvalidCommand, type(command).__name__, field)


@pytest.mark.parametrize(
    "text",
    [
        *(b"bytes", bytearray(b"bytes"), memoryview(b"bytes")),
        *(datetime(2026, 1, 1), date(2026, 1, 1), time(12), timedelta(1)),
        *(Decimal("0.5"), UUID(int=1)),
    ],
    ids=told,
)
def test_what_is_like_text_is_no_text(text):
    given(experiment()).when(SetExperimentError(1, text)).refused(
        InvalidCommand, "SetExperimentError", "error"
    )


def test_metrics_that_are_nested_without_end():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    given(run()).when(UpdateRunMetrics(5, {"loss": nested})).refused(
        InvalidCommand, "UpdateRunMetrics"
    )


def test_a_command_that_decides_nothing():
    with pytest.raises(NotImplementedError):
        Command().decide(given().rows)

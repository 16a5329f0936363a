"""Fencing: a report on a task counts only if its sender holds the task's last claim."""

from contextlib import suppress
from typing import Any

import pytest
from children import Parent, WarmChild
from msgspec import UNSET

from refold import ClaimLost, IllegalTransition, RFDatabase, RfDb
from refold.commands import (
    ClaimNextActorTask,
    ClaimNextWorkerTask,
    CreateActorTask,
    SetActorTaskStatus,
    SetPipelineProgress,
    SetPipelineStatus,
    SetRunProgress,
    SetRunStatus,
    SetWorkerTaskStatus,
)
from refold.commands.claims import Claim
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskErrorRecorded,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ExperimentCreated,
    MetricsLogged,
    PipelineCreated,
    PipelineDeleted,
    RunCreated,
    RunKilled,
    RunMetricsRecorded,
    RunProgressed,
    ShardCompleted,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from refold.testing import given

# --- decisions ------------------------------------------------------------------------------

FIT = [RunCreated(5, 1, "run_5"), TaskScheduled(7, 5, 0, 2)]
EVALS = [
    ExperimentCreated(1, "evals", "rag", "running"),
    PipelineCreated(4, 1, "p", "vllm"),
    ActorTaskScheduled(9, 1, 4, 0, 2),
]


def test_the_last_claim_completes_a_task_and_fails_it() -> None:
    claimed_twice = given(*FIT, TaskStarted(7), TaskStarted(7))
    done = SetWorkerTaskStatus(7, "COMPLETED", claim=4)
    claimed_twice.when(done).then(TaskCompleted(7, 4))
    failed = SetWorkerTaskStatus(7, "FAILED", "no GPU", claim=4)
    claimed_twice.when(failed).then(TaskFailed(7, "no GPU", 4))
    twice = given(*EVALS, ActorTaskStarted(9), ActorTaskStarted(9))
    twice.when(SetActorTaskStatus(9, "completed", claim=5)).then(ActorTaskCompleted(9, 5))
    twice.when(SetActorTaskStatus(9, "failed", claim=5)).then(ActorTaskFailed(9, 5))


@pytest.mark.parametrize("after", ["COMPLETED", "FAILED"])
@pytest.mark.parametrize("ended", [[], [TaskCompleted(7, 4)]])
def test_an_older_claim_is_refused_by_name(after: Any, ended: list[Any]) -> None:
    fit = given(*FIT, TaskStarted(7), TaskStarted(7), *ended)
    fit.when(SetWorkerTaskStatus(7, after, claim=3)).refused(
        ClaimLost, "worker task 7", "claim of position 3 is lost", "claimed again at position 4"
    )
    evals = given(*EVALS, ActorTaskStarted(9), ActorTaskStarted(9))
    evals.when(SetActorTaskStatus(9, after, claim=4)).refused(
        ClaimLost, "actor task 9", "claim of position 4 is lost", "claimed again at position 5"
    )


def test_to_complete_a_task_needs_a_claim_and_to_fail_it_does_not() -> None:
    fit = given(*FIT, TaskStarted(7))
    fit.when(SetWorkerTaskStatus(7, "COMPLETED")).refused(
        ClaimLost, "worker task 7", "position 3", "claim_next_worker_task()", "claim=3"
    )
    fit.when(SetWorkerTaskStatus(7, "FAILED", "gone")).then(TaskFailed(7, "gone", UNSET))
    evals = given(*EVALS, ActorTaskStarted(9))
    evals.when(SetActorTaskStatus(9, "completed")).refused(
        ClaimLost, "actor task 9", "position 4", "claim_next_actor_task()", "claim=4"
    )
    evals.when(SetActorTaskStatus(9, "failed")).then(ActorTaskFailed(9))


def test_progress_belongs_to_the_last_claim_too() -> None:
    fit = given(*FIT, TaskStarted(7), TaskStarted(7))
    fit.when(SetRunProgress(5, 3, 0, Claim(7, 4))).then(RunProgressed(5, 3, 0, 4))
    fit.when(SetRunProgress(5, 3, 0)).then(RunProgressed(5, 3, 0))
    fit.when(SetRunProgress(5, 3, 0, Claim(7, 3))).refused(
        ClaimLost, "worker task 7 of run 5", "position 3 is lost"
    )
    fit.when(SetRunProgress(5, 3, 0, Claim(8, 4))).refused(ClaimLost, "worker task 8", "is gone")
    given(*FIT, TaskStarted(7), TaskFailed(7)).when(SetRunProgress(5, 3, 0, Claim(7, 3))).refused(
        ClaimLost, "worker task 7 of run 5 is FAILED"
    )
    evals = given(*EVALS, ActorTaskStarted(9))
    evals.when(SetPipelineProgress(4, 2, 1, 10, Claim(9, 4))).then(ShardCompleted(4, 2, 1, 10, 4))
    evals.when(SetPipelineProgress(4, 2, 1, 10, Claim(9, 3))).refused(
        ClaimLost, "actor task 9 of pipeline 4", "position 3 is lost"
    )


def test_a_killed_run_takes_no_tasks() -> None:
    scheduled = [*FIT, TaskScheduled(8, 5, 0, 3), RunCreated(6, 1, "r"), TaskScheduled(9, 6, 0, 0)]
    failed = [TaskFailed(n, "run 5 is KILLED") for n in (7, 8)]
    given(*scheduled).when(SetRunStatus(5, "KILLED")).then(RunKilled(5), *failed)
    given(*scheduled, TaskStarted(7)).when(SetRunStatus(5, "KILLED")).then(RunKilled(5), failed[1])
    claim = ClaimNextWorkerTask(0)
    killed = [*scheduled, RunKilled(5)]  # by an earlier release, or straight in the log
    given(*killed).when(claim).then(TaskStarted(9)).result(9)
    given(*killed, TaskStarted(9)).when(claim).then().result(None)
    given(*killed).when(SetWorkerTaskStatus(7, "IN_PROGRESS")).refused(
        IllegalTransition, "run 5 is KILLED; no work on worker task 7 can follow"
    )
    # Of a run that nobody has ever described, nothing is known that speaks against it.
    given(TaskScheduled(7, 5, 0, 2)).when(claim).then(TaskStarted(7))


def test_a_deleted_pipeline_takes_no_tasks() -> None:
    failed = [ActorTaskErrorRecorded(9, "pipeline 4 is deleted"), ActorTaskFailed(9)]
    given(*EVALS).when(SetPipelineStatus(4, "deleted")).then(PipelineDeleted(4), *failed)
    deleted = [*EVALS, PipelineDeleted(4)]
    given(*deleted).when(ClaimNextActorTask(0)).then().result(None)
    given(*deleted).when(CreateActorTask(1, 4, 0, 0)).refused(
        IllegalTransition, "pipeline 4 is deleted; no task can follow"
    )
    given(*deleted).when(SetActorTaskStatus(9, "in_progress")).refused(
        IllegalTransition, "pipeline 4 is deleted; no work on actor task 9 can follow"
    )
    more = [PipelineCreated(6, 1, "q", "vllm"), ActorTaskScheduled(10, 1, 6, 0, 0)]
    given(*deleted, *more).when(ClaimNextActorTask(0)).then(ActorTaskStarted(10))


# --- faces ----------------------------------------------------------------------------------


@pytest.fixture
def run_id(db: RfDb) -> int:
    run_id = db.create_run(db.create_experiment("digits"))
    db.create_worker_task(run_id, 0, 0)
    return run_id


def events(db: RfDb | RFDatabase, *types: Any) -> list[Any]:
    return [recorded.event for recorded in db.store.read(types=types)]


def test_who_claimed_sends_the_claim_by_itself(db: RfDb, place: str, run_id: int) -> None:
    task = db.claim_next_worker_task(0)
    assert task is not None
    [started] = db.store.read(types=[TaskStarted])
    claim = started.position
    assert (task["claim"], task["attempts"]) == (claim, 1)
    with RfDb(place) as other:  # of the same process
        other.log_metrics(run_id, {"loss": 0.5}, step=1)
        other.set_run_progress(run_id, 1, 0)
        other.set_worker_task_status(task["task_id"], "COMPLETED")
    assert events(db, TaskCompleted) == [TaskCompleted(task["task_id"], claim)]
    assert events(db, RunProgressed) == [RunProgressed(run_id, 1, 0, claim)]
    db.update_run_metrics(run_id, {"loss": 0.4})  # a late one is of the same attempt
    attempts = [event.attempt for event in events(db, MetricsLogged, RunMetricsRecorded)]
    assert attempts == [claim, claim]
    db.set_run_progress(run_id, 2, 0)  # it is no longer within the task
    assert events(db, RunProgressed)[1] == RunProgressed(run_id, 2, 0)
    db.set_worker_task_status(task["task_id"], "COMPLETED")  # it is already
    assert db.get_worker_task(task["task_id"])["claim"] == claim


def test_actors_do_so_too(evals: RFDatabase) -> None:
    experiment_id = evals.create_experiment("rag")
    pipeline_id = evals.create_pipeline(experiment_id, "p", "vllm")
    first, second = (evals.create_actor_task(experiment_id, pipeline_id, 0, n) for n in (0, 1))
    task = evals.claim_next_actor_task(0)
    assert task is not None
    assert task["task_id"] == first
    evals.set_actor_task_status(second, "in_progress")  # claims as well
    claims = [recorded.position for recorded in evals.store.read(types=[ActorTaskStarted])]
    evals.set_pipeline_progress(pipeline_id, 0, 1, 10)
    for task_id in (first, second):
        evals.set_actor_task_status(task_id, "completed")
    assert events(evals, ActorTaskCompleted) == [
        ActorTaskCompleted(task_id, claim)
        for task_id, claim in zip((first, second), claims, strict=True)
    ]
    assert events(evals, ShardCompleted) == [ShardCompleted(pipeline_id, 0, 1, 10, claims[1])]


def report(parent: Parent, place: str, task_id: int, status: str, **claim: int) -> str | None:
    with RfDb(place, actor="somebody") as db:
        try:
            db.set_worker_task_status(task_id, status, **claim)
        except ClaimLost as error:
            return str(error)
    return None


def elsewhere(*arguments: Any, **claim: int) -> str | None:
    """Report from a process that was started later."""
    with WarmChild(_report_with, claim, *arguments) as child:
        return child.result()


def _report_with(parent: Parent, claim: dict[str, int], *arguments: Any) -> str | None:
    return report(parent, *arguments, **claim)


def test_another_process_needs_the_claim_passed_on(db: RfDb, place: str, run_id: int) -> None:
    task = db.claim_next_worker_task(0)
    assert task is not None
    task_id, claim = task["task_id"], task["claim"]
    refused = elsewhere(place, task_id, "COMPLETED")
    assert refused is not None
    assert f"claimed at position {claim}, and this process holds no claim on it" in refused
    assert elsewhere(place, task_id, "COMPLETED", claim=claim) is None
    assert db.get_worker_task(task_id)["status"] == "COMPLETED"


def test_to_fail_a_task_is_an_administrative_act(db: RfDb, place: str, run_id: int) -> None:
    task = db.claim_next_worker_task(0)
    assert task is not None
    assert elsewhere(place, task["task_id"], "FAILED") is None
    [failed] = db.store.read(types=[TaskFailed])
    assert failed.event == TaskFailed(task["task_id"])
    assert failed.metadata.actor == "somebody"
    with pytest.raises(IllegalTransition, match=r"is FAILED; it cannot become COMPLETED"):
        db.set_worker_task_status(task["task_id"], "COMPLETED")
    head = db.store.head()
    with pytest.raises(ClaimLost, match=f"of run {run_id} is FAILED since it was claimed"):
        db.set_run_progress(run_id, 1, 0)
    assert db.store.head() == head
    db.log_metrics(run_id, {"loss": 0.5})  # a fact of its attempt
    assert events(db, MetricsLogged)[0].attempt == task["claim"]


def test_a_task_that_was_claimed_again_is_lost(db: RfDb, run_id: int) -> None:
    task = db.claim_next_worker_task(0)
    assert task is not None
    [again] = db.append(TaskStarted(task["task_id"]))
    now = db.get_worker_task(task["task_id"])
    assert (now["claim"], now["attempts"]) == (again.position, 2)
    with pytest.raises(ClaimLost, match=f"claimed again at position {again.position}"):
        db.set_worker_task_status(task["task_id"], "COMPLETED")

    def report() -> None:
        with db.batch():
            db.log_metrics(run_id, {"loss": 0.5})
            db.set_run_progress(run_id, 1, 0)

    with pytest.raises(ClaimLost):
        report()
    assert db.store.head() == again.position


def test_a_claim_that_was_rolled_back_is_none(db: RfDb, place: str, run_id: int) -> None:
    with suppress(KeyError), db.batch():
        task = db.claim_next_worker_task(0)
        assert task is not None
        db.set_run_progress(run_id, 1, 0)
        db.set_worker_task_status(task["task_id"], "COMPLETED")
        raise KeyError
    [task] = db.get_worker_tasks()
    assert task["status"] == "SCHEDULED"
    with WarmChild(claim_and_wait, place) as child:
        assert child.hear() is not None  # its claim may have the same position
        with pytest.raises(ClaimLost, match="this process holds no claim on it"):
            db.set_worker_task_status(task["task_id"], "COMPLETED")
        db.set_run_progress(run_id, 1, 0)
        assert events(db, RunProgressed) == [RunProgressed(run_id, 1, 0)]
        child.tell("go on")
        child.result()
    assert db.get_worker_task(task["task_id"])["status"] == "COMPLETED"


def claim_and_wait(parent: Parent, place: str) -> None:
    with RfDb(place) as db:
        task = db.claim_next_worker_task(0)
        parent.tell(task)
        parent.hear()
        assert task is not None
        db.set_worker_task_status(task["task_id"], "COMPLETED")


def test_a_completion_that_was_rolled_back_leaves_the_claim(db: RfDb, run_id: int) -> None:
    task = db.claim_next_worker_task(0)
    assert task is not None
    with suppress(KeyError), db.batch():
        db.set_worker_task_status(task["task_id"], "COMPLETED")
        raise KeyError
    db.set_worker_task_status(task["task_id"], "COMPLETED")
    assert events(db, TaskCompleted) == [TaskCompleted(task["task_id"], task["claim"])]


def test_a_claim_that_is_sent_again_is_the_same(db: RfDb, place: str, run_id: int) -> None:
    """So a process whose answer was lost, also by its own death, gets its task back."""
    with WarmChild(claim_with_an_id, place) as child:
        first = child.result()
    again = db.claim_next_worker_task(0, command_id="claim-1")
    assert again == first
    db.set_worker_task_status(again["task_id"], "COMPLETED", command_id="report-1")
    db.set_worker_task_status(again["task_id"], "COMPLETED", command_id="report-1")
    assert events(db, TaskCompleted) == [TaskCompleted(again["task_id"], again["claim"])]
    assert db.claim_next_worker_task(0, command_id="claim-1") is None


def claim_with_an_id(parent: Parent, place: str) -> Any:
    with RfDb(place) as db:
        return db.claim_next_worker_task(0, command_id="claim-1")


def test_a_claim_that_is_sent_again_after_it_was_lost_is_none(db: RfDb, run_id: int) -> None:
    task = db.claim_next_worker_task(0, command_id="claim-1")
    assert task is not None
    db.append(TaskStarted(task["task_id"]))
    assert db.claim_next_worker_task(0, command_id="claim-1") is None
    with pytest.raises(ClaimLost):
        db.set_worker_task_status(task["task_id"], "COMPLETED")


def test_nothing_is_offered_that_cannot_be_claimed(db: RfDb, evals: RFDatabase) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    db.create_worker_task(run_id, 0, 0)
    db.set_run_status(run_id, "KILLED")
    assert db.get_next_worker_task(0) is db.claim_next_worker_task(0) is None
    db.append(TaskScheduled(7, run_id, 0, 0))  # as an earlier release may have left it
    assert db.get_next_worker_task(0) is db.claim_next_worker_task(0) is None
    task, _ = db.get_worker_tasks()
    assert (task["status"], task["error"]) == ("FAILED", f"run {run_id} is KILLED")
    experiment_id = evals.create_experiment("rag")
    pipeline_id = evals.create_pipeline(experiment_id, "p", "vllm")
    task_id = evals.create_actor_task(experiment_id, pipeline_id, 0, 0)
    evals.set_pipeline_status(pipeline_id, "deleted")
    evals.append(ActorTaskScheduled(7, experiment_id, pipeline_id, 0, 0))
    assert evals.get_next_actor_task(0) is evals.claim_next_actor_task(0) is None
    task = evals.get_actor_task(task_id)
    assert (task["status"], task["error"]) == ("failed", f"pipeline {pipeline_id} is deleted")
    assert db.verify() == []


def test_a_reset_gives_back_what_this_process_has_claimed(db: RfDb, run_id: int) -> None:
    db.claim_next_worker_task(0)
    db.reset_experiment_states()
    db.set_run_progress(run_id, 1, 0)  # by the controller, which it may be as well
    assert events(db, RunProgressed) == [RunProgressed(run_id, 1, 0)]

"""Who takes part, who was lost, and what follows from it: with real processes, which are killed."""

import os
import signal
from typing import Any

import pytest
from children import Parent, WarmChild
from msgspec import UNSET

from refold import (
    AlreadyJoined,
    ClaimLost,
    IllegalTransition,
    InvalidCommand,
    MembershipLost,
    NotFound,
    RFDatabase,
    RfDb,
)
from refold.commands import ClaimNextActorTask, ClaimNextWorkerTask
from refold.commands.liveness import DeclareLost, Gone, Join, Leave, RecoverLost, SetRetries
from refold.commands.retries import wait_before
from refold.eventstore.events import (
    ActorTaskScheduled,
    ActorTaskStarted,
    ControllerTaskSet,
    ExperimentCreated,
    Offered,
    PipelineCreated,
    PipelineDeleted,
    RetriesSet,
    RunCreated,
    RunKilled,
    TaskScheduled,
    TaskStarted,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerProgressed,
)
from refold.projections.liveness import Retry, number_of
from refold.testing import given

# --- decisions ------------------------------------------------------------------------------

FIT = [RunCreated(5, 1, "run_5"), TaskScheduled(7, 5, 3, 2), TaskStarted(7)]  # claimed at 3
EVALS = [
    PipelineCreated(4, 1, "p", "vllm"),
    ActorTaskScheduled(9, 1, 4, 2, 0),
    ActorTaskStarted(9),
]
SECOND = 1_000_000


def test_the_first_of_a_name_joins() -> None:
    given().when(Join("worker-3", 9)).then(WorkerJoined("worker-3")).result("worker-3")
    left = given(WorkerJoined("worker-3"), WorkerLeft("worker-3"))
    left.when(Join("worker-3", 9)).then(WorkerJoined("worker-3"))
    left.when(Leave("worker-3")).then()
    given(WorkerJoined("worker-3")).when(Leave("worker-3")).then(WorkerLeft("worker-3"))


def test_the_second_is_refused_or_takes_over_what_the_first_has() -> None:
    joined = given(*FIT, WorkerJoined("worker-3"))  # at 4
    joined.when(Join("worker-3", 9)).refused(
        AlreadyJoined, "worker-3 has joined at position 4", "take_over=True"
    )
    # What was seen of somebody who had the name before says nothing.
    joined.when(Join("worker-3", 9, Gone(3))).refused(AlreadyJoined)
    lost = WorkerLost("worker-3", "lock", 4, 77, (3,), (7,))
    joined.when(Join("worker-3", 9, Gone(4, 77))).then(lost, WorkerJoined("worker-3"))
    lost = WorkerLost("worker-3", "successor", 4, None, (3,), (7,))
    joined.when(Join("worker-3", 9, UNSET, True)).then(lost, WorkerJoined("worker-3"))


def test_only_what_belongs_to_the_dead_is_taken() -> None:
    happened = [
        *FIT,
        TaskScheduled(8, 5, 3, 3),
        TaskStarted(8),  # claimed at 5, by another process under the same worker's id
        WorkerJoined("controller"),
        WorkerJoined("worker-6"),
        *EVALS,  # claimed at 10
    ]
    lost = WorkerLost("worker-3", "lock", 3, 77, (3,), (7,))
    nothing = {"offered_tasks": [], "failed_actor_tasks": [], "offered_actor_tasks": []}
    given(*happened).when(RecoverLost((Gone(3, 77), Gone(4)), 99)).then(lost).result(
        {"lost": ["worker-3"], "failed_tasks": [7], **nothing}
    )
    given(*happened).when(RecoverLost((Gone(10), Gone(6)), 99)).then(
        WorkerLost("actor-2", "lock", 10, None, (10,), failed_actor_tasks=(9,)),
        WorkerLost("controller", "lock", 6),
    )
    given(*happened).when(RecoverLost((Gone(4),), 99)).then()


def test_a_person_may_declare_somebody_lost() -> None:
    happened = [*FIT, ControllerTaskSet("RUN_FIT", "IN_PROGRESS"), WorkerJoined("controller")]
    lost = WorkerLost("worker-3", "person", 3, None, (3,), (7,))
    given(*happened).when(DeclareLost("worker-3", 99)).then(lost)
    given(*happened).when(DeclareLost("controller", 99)).then(WorkerLost("controller", "person", 5))
    given(*happened).when(DeclareLost("worker-4", 99)).refused(
        NotFound, "worker-4 has not joined, and has no task in progress"
    )


@pytest.mark.parametrize(
    ("decided", "attempts", "after"),
    [
        ([RetriesSet("run-5", 3, 0.5)], 1, 500_000),
        ([RetriesSet("run-5", 3, 0.5)], 2, SECOND),
        ([RetriesSet("run-5", 3, 0.5)], 3, None),
        ([RetriesSet("experiment-1", 2, 0.0)], 1, 0),
        ([RetriesSet("experiment-1", 9, 0.0), RetriesSet("run-5", 1, 0.0)], 1, None),
        ([RetriesSet("run-6", 9, 0.0), RetriesSet("experiment-2", 9, 0.0)], 1, None),
        ([RetriesSet("run-5", 9, 0.0), RunKilled(5)], 1, None),
    ],
)
def test_how_often_a_task_is_offered_again(
    decided: list[Any], attempts: int, after: int | None
) -> None:
    happened = [*FIT[:-1], *decided, *[TaskStarted(7)] * attempts]
    claim, now = len(happened), 10 * SECOND
    what: Any = {"failed_tasks": (7,)}
    if after is not None:
        what = {"offered_tasks": (Offered(7, now + after),)}
    given(*happened).when(RecoverLost((Gone(claim),), now)).then(
        WorkerLost("worker-3", "lock", claim, None, (claim,), **what)
    )


def test_tasks_of_actors_are_offered_again_too() -> None:
    recover = RecoverLost((Gone(4),), 7)
    lost = WorkerLost("actor-2", "lock", 4, None, (4,))
    decided = RetriesSet("pipeline-4", 2, 1)
    offered = (Offered(9, 7 + SECOND),)
    given(decided, *EVALS).when(recover).then(
        WorkerLost("actor-2", "lock", 4, None, (4,), offered_actor_tasks=offered)
    )
    given(decided, *EVALS, PipelineDeleted(4)).when(recover).then(
        WorkerLost("actor-2", "lock", 4, None, (4,), failed_actor_tasks=(9,))
    )
    assert lost.offered_actor_tasks == ()


def test_a_wait_doubles_up_to_an_hour() -> None:
    waits = [wait_before(attempt, Retry("run-5", 99, 600)) for attempt in (2, 3, 4, 5, 90)]
    assert waits == [600, 1200, 2400, 3600, 3600]
    assert wait_before(2, Retry("run-5", 99, 7200)) == 7200
    assert wait_before(10**6, Retry("run-5", 10**7, 0)) == 0


def test_what_is_decided_is_about_something_that_there_is() -> None:
    there = given(ExperimentCreated(1, "fit", "digits", "NEW"), *FIT, *EVALS)
    for scope in ("experiment-1", "run-5", "pipeline-4"):
        kind, _, key = scope.partition("-")
        there.when(SetRetries(kind, int(key), 3, 1.5)).then(RetriesSet(scope, 3, 1.5))
    there.when(SetRetries("run", 6, 3)).refused(NotFound, "there is no run 6")
    for attempts, wait in ((0, 0), (3, -1), (3, float("inf")), (3, float("nan"))):
        there.when(SetRetries("run", 5, attempts, wait)).refused(
            InvalidCommand, "run 5", "pass 1 or more, and seconds"
        )


def test_a_task_that_was_offered_again_waits_and_any_worker_may_take_it() -> None:
    lost = WorkerLost("worker-3", "lock", 3, offered_tasks=(Offered(7, 50),))
    happened = [*FIT, lost, TaskScheduled(8, 5, 1, 0)]
    given(*happened).when(ClaimNextWorkerTask(3, 49)).then()
    given(*happened).when(ClaimNextWorkerTask(3, 50)).then(TaskStarted(7)).result(7)
    given(*happened).when(ClaimNextWorkerTask(4, 50)).then()
    given(*happened).when(ClaimNextWorkerTask(4, 49, True)).then()
    given(*happened).when(ClaimNextWorkerTask(4, 50, True)).then(TaskStarted(7, 4)).result(7)
    given(*happened).when(ClaimNextWorkerTask(1, 50, True)).then(TaskStarted(8)).result(8)
    # One that waits is passed over for the worker's next one.
    more = [*happened, TaskScheduled(9, 5, 3, 0)]
    given(*more).when(ClaimNextWorkerTask(3, 49)).then(TaskStarted(9)).result(9)
    given(*happened, RunKilled(5)).when(ClaimNextWorkerTask(4, 50, True)).then()


def test_any_actor_may_take_one_too() -> None:
    lost = WorkerLost("actor-2", "lock", 3, offered_actor_tasks=(Offered(9, 50),))
    happened = [*EVALS, lost, ActorTaskScheduled(10, 1, 4, 1, 0)]
    given(*happened).when(ClaimNextActorTask(2, 49)).then()
    given(*happened).when(ClaimNextActorTask(4, 50, True)).then(ActorTaskStarted(9, 4)).result(9)
    given(*happened).when(ClaimNextActorTask(1, 50, True)).then(ActorTaskStarted(10)).result(10)
    given(*happened, PipelineDeleted(4)).when(ClaimNextActorTask(4, 50, True)).then()


def test_the_number_in_a_name() -> None:
    assert number_of("worker-12", "worker") == (12,)
    for name in ("worker", "worker-", "worker-x", "actor-1", "my-worker-1", "worker-" + "9" * 30):
        assert number_of(name, "worker") == ()


# --- processes ------------------------------------------------------------------------------


@pytest.fixture
def run_id(db: RfDb) -> int:
    return db.create_run(db.create_experiment("digits"))


def events(db: RfDb | RFDatabase, *types: Any) -> list[Any]:
    return [recorded.event for recorded in db.store.read(types=types)]


def work(parent: Parent, place: str, worker_id: int, joins: bool) -> None:
    """Claim a task, and report it when told to."""
    with RfDb(place, actor=f"worker-{worker_id}") as db:
        if joins:
            db.join(f"worker-{worker_id}")
        task = db.claim_next_worker_task(worker_id)
        parent.tell((os.getpid(), task))
        parent.hear()
        try:
            assert task is not None
            db.set_worker_task_status(task["task_id"], "COMPLETED")
        except (ClaimLost, MembershipLost, IllegalTransition) as error:
            parent.tell(error)


@pytest.mark.parametrize("joins", [False, True])
def test_the_tasks_of_a_killed_worker_fail_and_nobody_elses(
    db: RfDb, place: str, run_id: int, joins: bool
) -> None:
    tasks = [db.create_worker_task(run_id, worker, 0) for worker in (0, 1)]
    db.append(WorkerProgressed(0, "TRAIN_VAL", "IN_PROGRESS"))
    with WarmChild(work, place, 0, joins) as dead, WarmChild(work, place, 1, joins) as alive:
        process, task = dead.hear()
        alive.hear()
        head = db.store.head()
        assert db.recover()["lost"] == []
        assert db.store.head() == head
        dead.kill()
        recovered = db.recover(actor="controller")
        assert (recovered["lost"], recovered["failed_tasks"]) == (["worker-0"], [tasks[0]])
        [lost] = db.store.read(types=[WorkerLost])
        assert lost.metadata.actor == "controller"
        assert lost.event.process == process
        assert lost.event.claims == (task["claim"],)
        row = db.get_worker_task(tasks[0])
        assert row["status"] == "FAILED"
        assert row["error"] == "worker-0 was lost (its process is gone)"
        assert "WorkerLost" in str(db.why("task", tasks[0], "status"))
        progress = db.get_worker_progress(0)
        assert progress is not None
        assert progress["status"] == "FAILED"
        assert db.recover()["lost"] == []  # once
        alive.tell("go on")
        alive.result()
    assert db.get_worker_task(tasks[1])["status"] == "COMPLETED"
    assert db.verify() == []


def test_a_rebuild_looks_at_no_locks(db: RfDb, place: str, run_id: int) -> None:
    db.create_worker_task(run_id, 0, 0)
    with WarmChild(work, place, 0, True) as dead:
        dead.hear()
    db.recover()
    tables = ("worker_task", "members")
    before = [db.db.execute(f"SELECT * FROM {table}") for table in tables]
    db._present().locks.path.unlink()
    db.rebuild()
    assert [db.db.execute(f"SELECT * FROM {table}") for table in tables] == before
    assert db.as_of(db.store.head() - 1).get_worker_tasks()[0]["status"] == "IN_PROGRESS"
    db.reset_all_tables(experiments_table=True)
    assert db.db.execute("SELECT status FROM members") == [{"status": "LOST"}]


def test_a_task_is_offered_again_and_any_worker_takes_it(db: RfDb, place: str, run_id: int) -> None:
    task_id = db.create_worker_task(run_id, 0, 0)
    db.set_retries("run", run_id, max_attempts=2)
    with WarmChild(work, place, 0, False) as dead:
        dead.hear()
    assert db.recover()["offered_tasks"] == [task_id]
    assert db.claim_next_worker_task(1) is None
    task = db.claim_next_worker_task(1, any_worker=True)
    assert task is not None
    assert (task["task_id"], task["worker_id"], task["attempts"]) == (task_id, 1, 2)
    db.set_worker_task_status(task_id, "COMPLETED")
    assert db.claim_next_worker_task(1, any_worker=True) is None
    assert db.verify() == []


def test_a_late_report_on_what_somebody_else_was_given_is_refused(
    db: RfDb, place: str, run_id: int
) -> None:
    """The worker is stopped, and declared lost by a person: its lock is held all the time."""
    task_id = db.create_worker_task(run_id, 0, 0)
    db.set_retries("run", run_id, max_attempts=2)
    with WarmChild(work, place, 0, False) as stopped:
        process, _ = stopped.hear()
        os.kill(process, signal.SIGSTOP)
        assert db.recover()["lost"] == []
        assert db.declare_lost("worker-0", actor="ada")["offered_tasks"] == [task_id]
        task = db.claim_next_worker_task(0)  # under the same worker's id
        assert task is not None
        os.kill(process, signal.SIGCONT)
        stopped.tell("go on")
        refused = stopped.hear()
        assert isinstance(refused, ClaimLost)
        assert f"claimed again at position {task['claim']}" in str(refused)
    db.set_worker_task_status(task_id, "COMPLETED")
    assert db.get_worker_task(task_id)["status"] == "COMPLETED"


def test_who_was_lost_is_refused_whatever_it_sends(db: RfDb, place: str, run_id: int) -> None:
    db.create_worker_task(run_id, 0, 0)
    with WarmChild(work, place, 0, True) as slow:
        slow.hear()
        with pytest.raises(AlreadyJoined, match="worker-0 has joined at position"):
            db.join("worker-0")
        db.join("worker-0", take_over=True, actor="ada")
        slow.tell("go on")
        assert isinstance(slow.hear(), MembershipLost)
    [lost] = db.store.read(types=[WorkerLost])
    assert (lost.event.known_by, lost.metadata.actor) == ("successor", "ada")
    db.leave()
    db.leave()
    assert events(db, WorkerLeft) == [WorkerLeft("worker-0")]


def test_one_process_is_one_member(db: RfDb, place: str, run_id: int) -> None:
    db.join("controller")
    head = db.store.head()
    with RfDb(place) as other:
        other.join("controller")  # it is already
        with pytest.raises(InvalidCommand, match="this process has joined as controller"):
            other.join("worker-0")
        other.set_run_progress(run_id, 1, 0)
    assert db.store.head() == head + 1
    db.leave()
    db.join("worker-0")
    db.leave()


def stand_by(parent: Parent, place: str) -> str:
    with RfDb(place) as db:
        parent.tell("waiting")
        db.join("controller", wait=60)
        db.set_controller_task("RUN_FIT")
    return "took over"


def control(parent: Parent, place: str) -> None:
    with RfDb(place) as db:
        db.join("controller")
        parent.tell("joined")
        parent.hear()


def test_a_standby_takes_over_when_the_controller_dies(db: RfDb, place: str) -> None:
    with WarmChild(control, place) as controller:
        controller.hear()
        with WarmChild(stand_by, place) as standby:
            standby.hear()
            with pytest.raises(AlreadyJoined):
                db.join("controller")
            controller.kill()
            assert standby.result() == "took over"
    assert [lost.name for lost in events(db, WorkerLost)] == ["controller"]
    assert len(events(db, WorkerJoined)) == 2


def test_a_death_is_found_by_itself(db: RfDb, place: str, run_id: int) -> None:
    tasks = [db.create_worker_task(run_id, worker, 0) for worker in (0, 1)]
    with (
        WarmChild(work, place, 0, False) as first,
        WarmChild(work, place, 1, True) as second,
        db.watching(),
        db.subscribe(after=None, types=[WorkerLost]) as news,
    ):
        first.hear()
        second.hear()
        first.kill()
        assert next(news).event.failed_tasks == (tasks[0],)
        second.kill()
        assert next(news).event.failed_tasks == (tasks[1],)


def test_the_tasks_of_a_killed_actor_fail(evals: RFDatabase, place: str) -> None:
    experiment_id = evals.create_experiment("rag")
    pipeline_id = evals.create_pipeline(experiment_id, "p", "vllm")
    task_id = evals.create_actor_task(experiment_id, pipeline_id, 2, 0)
    evals.set_retries("pipeline", pipeline_id, 2)
    with WarmChild(act, place) as dead:
        dead.hear()
    assert evals.recover()["offered_actor_tasks"] == [task_id]
    task = evals.claim_next_actor_task(1, any_actor=True)
    assert task is not None
    assert (task["task_id"], task["actor_id"]) == (task_id, 1)
    evals.set_actor_task_status(task_id, "completed")
    assert evals.verify() == []


def act(parent: Parent, place: str) -> None:
    with RFDatabase(place) as evals:
        parent.tell(evals.claim_next_actor_task(2))
        parent.hear()


def test_a_claim_that_was_rolled_back_is_nobodys_death(db: RfDb, run_id: int) -> None:
    db.create_worker_task(run_id, 0, 0)
    with pytest.raises(ZeroDivisionError):
        claim_and_fail(db)
    [task] = db.get_worker_tasks()
    assert task["status"] == "SCHEDULED"
    head = db.store.head()
    assert db._present().look([head + 1])[head + 1].state != "held"
    assert db.recover()["lost"] == []


def claim_and_fail(db: RfDb) -> None:
    with db.batch():
        db.claim_next_worker_task(0)
        raise ZeroDivisionError

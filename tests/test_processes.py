"""Eight real processes append and poll at once on one store, from its creation on."""

from collections import Counter, defaultdict
from contextlib import ExitStack
from itertools import count, pairwise
from typing import Any, NamedTuple

import pytest
from children import Parent, WarmChild

from refold import ActorTaskStatus, PipelineStatus, RFDatabase, RfDb, RunStatus
from refold.eventstore import Recorded, open_store
from refold.eventstore.events import (
    RunMetricsRecorded,
    RunProgressed,
    StopRequested,
    TaskCompleted,
    TaskScheduled,
    TaskStarted,
    WorkerProgressed,
)
from refold.eventstore.statuses import TaskStatus, WorkerTask

RUNS = 4


class Size(NamedTuple):
    """How much they do; a commit takes a server many times as long as a file."""

    tasks: int
    shards: int
    reports: int


SIZES = {"sqlite": Size(600, 150, 600), "postgres": Size(120, 30, 120)}
TIMES = 4  # as many for long

# Each process tells how many events of each type it has been promised.
Promised = Counter[str]


def begin(parent: Parent) -> None:
    """Wait until all are there, so that they meet."""
    parent.tell("ready")
    parent.hear()


def finished(db: RfDb) -> bool:
    told = db.get_controller_task()
    return told is not None and told["status"] == TaskStatus.COMPLETED


def control(parent: Parent, place: str, tasks: int) -> Promised:
    """Create runs, schedule tasks for two workers, and do what users ask for."""
    begin(parent)
    with RfDb(place, actor="controller") as db:
        experiment_id = db.create_experiment("digits", status="RUNNING")
        run_ids = [db.create_run(experiment_id, config_leaf={"lr": n}) for n in range(RUNS)]
        for run_id in run_ids:
            db.set_run_status(run_id, RunStatus.ONGOING)
        for n in range(tasks):
            db.create_worker_task(run_ids[n % RUNS], worker_id=n % 2, chunk_id=n + 1)
            answer(db)
        with db.subscribe(types=[StopRequested]) as requests:
            next(requests)  # one at least is there
        answer(db)
        db.set_controller_task("RUN_FIT", TaskStatus.COMPLETED)
    return Counter(
        ExperimentCreated=1,
        RunCreated=RUNS,
        RunStarted=RUNS,
        TaskScheduled=tasks,
        ControllerTaskSet=1,
    )


def answer(db: RfDb) -> None:
    for request in db.get_ic_ops_request():
        db.mark_ic_ops_completed(request["ic_id"], cause=request["position"])


def work(parent: Parent, place: str, worker_id: int) -> tuple[Promised, list[int]]:
    """Do tasks of a worker, beside another process that does so too."""
    begin(parent)
    done: list[int] = []
    with RfDb(place, actor=f"worker-{worker_id}") as db:
        while True:
            no_more = finished(db)
            task = db.claim_next_worker_task(worker_id)
            if task is not None:
                with db.batch():
                    db.update_run_metrics(task["run_id"], {"task": task["task_id"]})
                    db.set_run_progress(task["run_id"], task["chunk_id"], epoch := len(done))
                    assert db.get_run(task["run_id"])["current_epoch"] == epoch
                db.set_worker_task_status(task["task_id"], TaskStatus.COMPLETED)
                done.append(task["task_id"])
            elif no_more:
                break
    n = len(done)
    promised = Counter(TaskStarted=n, RunMetricsRecorded=n, RunProgressed=n, TaskCompleted=n)
    return promised, done


def ask(parent: Parent, place: str) -> Promised:
    """Ask to stop runs, again and again."""
    begin(parent)
    asked = 0
    with RfDb(place, actor="user") as db:
        while not finished(db):
            for run in db.get_runs_by_status(RunStatus.ONGOING):
                db.request_stop(run["run_id"])
                asked += 1
    return Counter(StopRequested=asked)


def report(parent: Parent, place: str, reports: int, worker_id: int) -> Promised:
    """Append progress straight to the log, without views."""
    begin(parent)
    statuses = list(TaskStatus)
    with open_store(place) as store:
        for n in range(reports):
            event = WorkerProgressed(worker_id, WorkerTask.TRAIN_VAL, statuses[n % len(statuses)])
            store.append(event.stream, [event], expected_version=n)
    return Counter(WorkerProgressed=reports)


def evaluate(parent: Parent, place: str, shards: int) -> Promised:
    """Run a pipeline over shards."""
    begin(parent)
    with RFDatabase(place, actor="evals") as db:
        experiment_id = db.create_experiment("test", num_shards=shards)
        pipeline_id = db.create_pipeline(experiment_id, "baseline", "mlp")
        db.set_pipeline_status(pipeline_id, PipelineStatus.ONGOING)
        for n in range(1, shards + 1):
            task_id = db.create_actor_task(experiment_id, pipeline_id, 0, n)
            claimed = db.claim_next_actor_task(0)
            assert claimed is not None
            assert claimed["task_id"] == task_id
            with db.batch():
                db.set_pipeline_progress(pipeline_id, n, n, 100 * n)
                db.set_actor_task_status(task_id, ActorTaskStatus.COMPLETED)
            assert db.get_pipeline(pipeline_id)["shards_completed"] == n
    return Counter(
        ExperimentCreated=1,
        PipelineCreated=1,
        PipelineStarted=1,
        ActorTaskScheduled=shards,
        ActorTaskStarted=shards,
        ShardCompleted=shards,
        ActorTaskCompleted=shards,
    )


def watch(parent: Parent, place: str) -> list[tuple[int, str, int]]:
    """Follow the log to the position that the parent names, and verify the views meanwhile."""
    begin(parent)
    seen: list[tuple[int, str, int]] = []
    with RfDb(place) as db, db.subscribe() as events:
        while not finished(db):
            assert db.verify() == []
        end: int = parent.hear()
        while not seen or seen[-1][0] < end:
            recorded = next(events)
            seen.append((recorded.position, recorded.stream, recorded.version))
    return seen


def test_eight_processes_at_once(place: str, engine: str) -> None:
    at_once(place, SIZES[engine])


@pytest.mark.soak
def test_eight_processes_at_once_for_long(place: str, engine: str) -> None:
    at_once(place, Size(*(TIMES * number for number in SIZES[engine])))


def at_once(place: str, size: Size) -> None:
    with ExitStack() as stack:

        def start(*what: Any) -> WarmChild:
            return stack.enter_context(WarmChild(*what))

        workers = [start(work, place, n % 2) for n in range(3)]
        others = [
            start(control, place, size.tasks),
            start(ask, place),
            start(report, place, size.reports, 7),
            start(evaluate, place, size.shards),
        ]
        watcher = start(watch, place)
        everyone = [*workers, *others, watcher]
        for child in everyone:
            assert child.hear() == "ready"
        for child in everyone:
            child.tell("go")
        worked = [child.result() for child in workers]
        promised = sum((child.result() for child in others), Counter[str]())
        with RfDb(place) as db:
            watcher.tell(db.store.head())
            check(db, size, promised, worked)
            assert watcher.result() == [(r.position, r.stream, r.version) for r in db.store.read()]


def check(
    db: RfDb, size: Size, promised: Promised, worked: list[tuple[Promised, list[int]]]
) -> None:
    assert db.verify() == []
    log = list(db.store.read())
    assert all(earlier.position < later.position for earlier, later in pairwise(log))
    check_streams(log, size.tasks)

    # Nothing lost, nothing double: exactly what was promised is there.
    for of_worker, _ in worked:
        promised += of_worker
    happened = Counter(recorded.type for recorded in log)
    completed = happened.pop("InteractiveControlCompleted")
    assert happened == promised
    assert len(log) > 6 * size.tasks

    # Nothing claimed twice.
    claimed = sorted(task_id for _, done in worked for task_id in done)
    assert claimed == list(range(1, size.tasks + 1))
    assert all(done for _, done in worked)

    rows = db.db.execute("SELECT status, count(*) AS n FROM worker_task GROUP BY status")
    assert rows == [{"status": "COMPLETED", "n": size.tasks}]
    assert completed == happened["StopRequested"] - len(db.get_ic_ops_request())
    for run in db.get_all_runs():
        assert (
            run["metrics"]["task"] == last(log, RunMetricsRecorded, run["run_id"]).metrics["task"]
        )
        assert run["current_chunk"] == last(log, RunProgressed, run["run_id"]).current_chunk


def check_streams(log: list[Recorded], tasks: int) -> None:
    streams: dict[str, list[Recorded]] = defaultdict(list)
    for recorded in log:
        streams[recorded.stream].append(recorded)
    for events in streams.values():
        assert all(recorded.version == n for recorded, n in zip(events, count(1), strict=False))
    for task_id in range(1, tasks + 1):
        life = [type(recorded.event) for recorded in streams[f"task-{task_id}"]]
        assert life == [TaskScheduled, TaskStarted, TaskCompleted]


def last(log: list[Recorded], event_type: type, run_id: int) -> Any:
    return next(
        recorded.event
        for recorded in reversed(log)
        if isinstance(recorded.event, event_type) and recorded.stream == f"run-{run_id}"
    )

"""Processes killed with SIGKILL at random moments: what was acknowledged is there, whole."""

import random
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count, pairwise
from typing import Any

import pytest
from children import Child, Parent, WarmChild, call
from tables import folded, tables

from refold import IllegalTransition, RFDatabase, RfDb, RunStatus, TaskStatus
from refold.eventstore import Event, Id, Recorded, open_store
from refold.projections import ALL, Row, View

Place = Callable[[], str]


def check_whole(db: RfDb) -> list[Recorded]:
    """Nothing is half: the file, the streams, the views. Returns the log."""
    if "://" not in db.store.engine.name:
        assert db.db.execute("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    with db.batch():  # waits for what the killed had sent to a server, which may still be at it
        pass
    log = list(db.store.read())
    assert all(earlier.position < later.position for earlier, later in pairwise(log))
    versions: dict[str, int] = defaultdict(int)
    for recorded in log:
        versions[recorded.stream] += 1
        assert recorded.version == versions[recorded.stream]
    assert {stream: db.store.version(stream) for stream in versions} == dict(versions)
    assert db.verify() == []
    for run in db.get_all_runs():  # each with its payload
        assert run["config_leaf"]["run_name"] == run["run_name"]
    return log


# --- writers ---------------------------------------------------------------------------------

KINDS = ("progress", "create", "batch", "append")
EVENTS = {"progress": 1, "create": 1, "batch": 4, "append": 3}


def kind_of(n: int) -> str:
    return KINDS[n % len(KINDS)]


def do(db: RfDb, run_id: int, about: dict[str, Any], n: int) -> None:
    """Carry out the nth command of a writer; all its events name it as their correlation."""
    ids = (f"{about['correlation']}.{part}" for part in count())
    match kind_of(n):
        case "progress":
            db.set_run_progress(run_id, n + 1, 0, command_id=next(ids), **about)
        case "create":
            config = {"run_name": f"{n} of {run_id}", "weights": bytes(100 * (n % 7))}
            name = config["run_name"]
            db.create_run(1, name, config_leaf=config, command_id=next(ids), **about)
        case "batch":
            with db.batch():
                db.update_run_metrics(run_id, {"n": n}, command_id=next(ids), **about)
                task_id = db.create_worker_task(run_id, 0, n, command_id=next(ids), **about)
                for status in (TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED):
                    db.set_worker_task_status(task_id, status, command_id=next(ids), **about)
        case "append":
            noted = [Noted(run_id, n, part) for part in range(3)]
            db.append(*noted, command_id=next(ids), **about)


class Noted(Event, frozen=True):
    run_id: Id
    n: int
    part: int

    @property
    def stream(self) -> str:
        return f"notes-{self.run_id}"


def write(parent: Parent, place: str, run_id: int) -> None:
    """Carry out commands for ever; tell the number of each once it has returned."""
    with RfDb(place) as db:
        for n in count():
            do(db, run_id, {"correlation": f"{run_id}-{n}"}, n)
            parent.tell(n)


def kill_at_some_moment(child: Child, moments: random.Random) -> int:
    """Let a writer do a few commands, kill it, and return the last one that it acknowledged."""
    acknowledged = [child.hear()]
    began = time.monotonic()
    acknowledged += [child.hear() for _ in range(moments.randint(1, 20))]
    each = (time.monotonic() - began) / (len(acknowledged) - 1)
    time.sleep(moments.uniform(0, 2 * each))  # the moment: in one of the next commands
    child.kill()
    return [*acknowledged, *child.last_words()][-1]


def crash(place: str, moments: random.Random, writers: int) -> int:
    """Start writers, kill them, look at what they left, and go on; return how many were killed."""
    with RfDb(place) as db:
        run_ids = [create_run(db) for _ in range(writers)]
    with ExitStack() as stack, ThreadPoolExecutor(writers) as pool:
        children = [stack.enter_context(WarmChild(write, place, run_id)) for run_id in run_ids]
        chances = [random.Random(moments.getrandbits(32)) for _ in children]
        acknowledged = list(pool.map(kill_at_some_moment, children, chances))
    with RfDb(place) as db:
        done = by_command(check_whole(db))
        for run_id, last in zip(run_ids, acknowledged, strict=True):
            check_writer(db, done, run_id, last)
        check_whole(db)
    return writers


def create_run(db: RfDb) -> int:
    if not db.store.head():
        db.create_experiment("crash")
    name = f"{db.store.head()}"
    return db.create_run(1, name, config_leaf={"run_name": name})


def by_command(log: list[Recorded]) -> dict[str, int]:
    events: dict[str, int] = defaultdict(int)
    for recorded in log:
        if recorded.metadata.correlation is not None:
            events[recorded.metadata.correlation] += 1
    return events


def check_writer(db: RfDb, done: dict[str, int], run_id: int, last: int) -> None:
    for n in range(last + 1):
        assert done[f"{run_id}-{n}"] == EVENTS[kind_of(n)], f"command {n} was acknowledged"
    # The one that was under way is there or not, but not in part.
    assert done.get(f"{run_id}-{last + 1}", 0) in (0, EVENTS[kind_of(last + 1)])
    assert f"{run_id}-{last + 2}" not in done

    def doing(n: int) -> int:
        """Send a command (again) and return how many events it has led to in all."""
        do(db, run_id, {"correlation": f"{run_id}-{n}"}, n)
        return by_command(list(db.store.read()))[f"{run_id}-{n}"]

    for n in range(max(0, last), last + 2):
        assert doing(n) == EVENTS[kind_of(n)], f"command {n} was sent again"
        head = db.store.head()
        doing(n)
        assert db.store.head() == head


def test_writers_are_killed_fifty_times(place: str, moments: random.Random) -> None:
    killed = 0
    while killed < 50:
        killed += crash(place, moments, writers=6)


@pytest.mark.soak
def test_writers_are_killed_a_thousand_times(
    new_place: Place, moments: random.Random, record_property: Callable[[str, Any], None]
) -> None:
    killed = 0
    while killed < 1_000:
        place = new_place()
        for _ in range(6):
            killed += crash(place, moments, writers=8)
    record_property("counts", f"{killed} killed, lost 0")


# --- opening and rebuilding ------------------------------------------------------------------


def open_and_close(parent: Parent, places: list[str]) -> None:
    for n, place in enumerate(places):
        with RfDb(place) as db:
            create_run(db)
        parent.tell(n)


@pytest.mark.parametrize("_", range(5))
def test_a_process_is_killed_while_it_creates_or_closes_a_store(
    new_place: Place, moments: random.Random, _: int
) -> None:
    places = [new_place() for _ in range(60)]
    with WarmChild(open_and_close, places) as child:
        last = kill_at_some_moment(child, moments)
    for n, place in enumerate(places[: last + 2]):
        with RfDb(place) as db:
            log = check_whole(db)
            assert len(log) == 2 or n > last
            create_run(db)
            check_whole(db)


class Weight(Row, frozen=True, kw_only=False):
    run_id: int
    sum: int


def _weigh(row: Weight | None, event: Noted) -> Weight:
    return Weight(event.run_id, event.n + (0 if row is None else row.sum))


weights = View("weights", Weight, version=1)
weights.put_by(Noted, _weigh, key=lambda e: e.run_id)


def rebuild_and_tell(parent: Parent, place: str) -> None:
    def weigh(row: Weight | None, event: Noted) -> Weight:
        parent.tell(event.n)
        return _weigh(row, event)

    newer = View("weights", Weight, version=2)
    newer.put_by(Noted, weigh, key=lambda e: e.run_id)
    RfDb(place, projections=[newer]).close()
    parent.tell("rebuilt")


def rebuild_for_ever(parent: Parent, place: str) -> None:
    with RfDb(place, projections=[weights]) as db:
        for n in count():
            db.rebuild()
            parent.tell(n)


def killed_while_it_folds(place: str, moments: random.Random) -> None:
    with WarmChild(rebuild_and_tell, place) as child:
        for _ in range(moments.randrange(1, 4_000)):
            child.hear()
        child.kill()
        assert "rebuilt" not in child.last_words()


def killed_at_some_moment(place: str, moments: random.Random) -> None:
    with WarmChild(rebuild_for_ever, place) as child:
        kill_at_some_moment(child, moments)


@pytest.mark.parametrize("killed", [killed_while_it_folds, killed_at_some_moment] * 4)
def test_a_process_is_killed_while_it_rebuilds(
    place: str, moments: random.Random, killed: Callable[[str, random.Random], None]
) -> None:
    with RfDb(place, projections=[weights]) as db:
        run_id = create_run(db)
        db.append(*[Noted(run_id, n, 0) for n in range(5_000)])
        before = repr(tables(db))
        killed(place, moments)
        assert repr(tables(db)) == before
        check_whole(db)
        create_run(db)
        assert tables(db) == folded(db.store.read(), [*ALL, weights])


# --- a controller dies, a worker lives on ----------------------------------------------------


def control(parent: Parent, place: str) -> None:
    """Begin a run and hand out tasks, then wait for something that never comes."""
    with RfDb(place, actor="controller") as db:
        experiment_id = db.create_experiment("digits", status="RUNNING")
        run_id = db.create_run(experiment_id, "a", config_leaf={"run_name": "a"}, num_chunks=4)
        db.create_run(experiment_id, "b", config_leaf={"run_name": "b"})
        db.set_run_status(run_id, RunStatus.ONGOING)
        db.set_controller_task("RUN_FIT")
        for chunk in range(3):
            db.create_worker_task(run_id, 0, chunk)
        parent.tell(run_id)
        parent.hear()


def work(parent: Parent, place: str) -> list[str]:
    """Do a task, take the next, and report on it only when told."""
    parent.hear()
    with RfDb(place, actor="worker-0") as db:
        for reported in (True, False):
            db.set_worker_progress(0, "TRAIN_VAL")
            task = db.claim_next_worker_task(0)
            assert task is not None
            if reported:
                db.set_run_progress(task["run_id"], task["chunk_id"] + 1, 0)
                db.set_worker_task_status(task["task_id"], TaskStatus.COMPLETED)
        parent.tell("in the middle of the second task")
        parent.hear()
        refused: list[str] = []
        for status in (TaskStatus.COMPLETED, TaskStatus.IN_PROGRESS):
            try:
                db.set_worker_task_status(task["task_id"], status)
            except IllegalTransition as error:
                refused.append(str(error))
        return refused


def test_a_controller_is_killed_and_its_store_recovered(place: str) -> None:
    with WarmChild(control, place) as controller, WarmChild(work, place) as worker:
        run_id = controller.hear()
        worker.tell("begin")
        worker.hear()
        with RfDb(place, actor="user") as db:
            request_id = db.request_stop(run_id)
            controller.kill()
            recovered = db.reset_experiment_states(actor="controller")
            assert recovered == {
                "worker_tasks": [2, 3],
                "actor_tasks": [],
                "contexts": [],
                "workers": [0],
                "controller": True,
                "runs": [],
                "pipelines": [],
                "requests": [],
                "pipeline_requests": [],
            }
            after = tables(db)
            worker.tell("report")
            refused = worker.result()
            assert len(refused) == 2
            assert all("worker task 2 is FAILED" in message for message in refused)
            assert tables(db) == after

            statuses = [(task["task_id"], task["status"]) for task in db.get_worker_tasks()]
            assert statuses == [(1, "COMPLETED"), (2, "FAILED"), (3, "FAILED")]
            assert [run["status"] for run in db.get_all_runs()] == ["ONGOING", "NEW"]
            assert db.get_run(run_id)["current_chunk"] == 1
            assert [request["ic_id"] for request in db.get_ic_ops_request()] == [request_id]
            for told in (db.get_controller_task(), db.get_worker_progress(0)):
                assert told is not None
                assert told["status"] == "FAILED"

            # Nothing is in progress any more; what was true before is still in the log.
            head = db.store.head()
            assert not any(db.reset_experiment_states().values())
            assert db.store.head() == head
            before = folded(db.store.read(limit=head - 1))
            assert [task["status"] for task in before["worker_task"]] == [
                "COMPLETED",
                "IN_PROGRESS",
                "SCHEDULED",
            ]

            # A new controller goes on from the last completed chunk.
            task_id = db.create_worker_task(run_id, 0, db.get_run(run_id)["current_chunk"])
            assert call(work_off, place) == [task_id]
            assert db.get_run(run_id)["current_chunk"] == 2
            check_whole(db)


def work_off(_: Parent, place: str) -> list[int]:
    done: list[int] = []
    with RfDb(place, actor="worker-0") as db:
        while (task := db.claim_next_worker_task(0)) is not None:
            db.set_run_progress(task["run_id"], task["chunk_id"] + 1, 0)
            db.set_worker_task_status(task["task_id"], TaskStatus.COMPLETED)
            done.append(task["task_id"])
    return done


def evaluate(parent: Parent, place: str) -> None:
    with RFDatabase(place, actor="evals") as db:
        experiment_id = db.create_experiment("test")
        context_id = db.create_context("hash", status="building")
        pipeline_id = db.create_pipeline(experiment_id, "p", "mlp", context_id=context_id)
        db.set_pipeline_status(pipeline_id, "ongoing")
        for shard in range(3):
            db.create_actor_task(experiment_id, pipeline_id, 0, shard)
        db.claim_next_actor_task(0)
        parent.tell("working")
        parent.hear()


@pytest.mark.parametrize("fail_runs", [False, True])
def test_an_evaluation_is_killed_and_its_store_recovered(place: str, fail_runs: bool) -> None:
    with WarmChild(evaluate, place) as evaluation:
        evaluation.hear()
        evaluation.kill()
    with RFDatabase(place) as db, RfDb(place) as fit:
        recovered = db.reset_experiment_states(fail_runs=fail_runs)
        assert recovered["actor_tasks"] == [1, 2, 3]
        assert recovered["contexts"] == [1]
        assert recovered["pipelines"] == ([1] if fail_runs else [])
        assert db.get_context(1)["status"] == "failed"
        assert db.get_pipeline(1)["status"] == ("failed" if fail_runs else "ongoing")
        with pytest.raises(IllegalTransition, match="actor task 1 is failed"):
            db.set_actor_task_status(1, "completed")
        check_whole(fit)
        with open_store(place) as store:
            assert [r.type for r in store.read(backwards=True, limit=1)] == [
                "ExperimentStatesReset"
            ]

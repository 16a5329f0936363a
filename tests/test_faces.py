"""What both faces add to the commands: batches, retries, metadata, queries, threads, payloads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from ids import told
from querying import alone_and_in_a_batch, check_refused, querying

from refold import (
    CommandIdReused,
    IllegalTransition,
    InvalidEvent,
    InvalidPayload,
    InvalidQuery,
    NotFound,
    PayloadRefused,
    RFDatabase,
    RfDb,
    RunStatus,
    StoreBusy,
    StoreClosed,
    StoreFailed,
    TaskStatus,
)
from refold.eventstore import Event
from refold.eventstore.events import RunProgressed
from refold.projections import Row, View


@pytest.fixture
def exp_id(db):
    return db.create_experiment("digits")


@pytest.fixture
def run_id(db, exp_id):
    return db.create_run(exp_id, config_leaf={"lr": 0.1})


def in_thread(call, *args):
    """Call it in another thread and return what it returns."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call, *args).result()


def events(db, after=0):
    return [recorded.type for recorded in db.store.read(after)]


# --- batches --------------------------------------------------------------------------------


def test_a_batch_is_one_transaction(db, place):
    with RfDb(place) as other:
        with db.batch():
            exp_id = db.create_experiment("digits")
            run_id = db.create_run(exp_id)
            db.set_run_status(run_id, RunStatus.ONGOING)
            assert other.store.head() == 0
            assert other.get_all_runs() == []
        assert other.store.head() == 3
        assert other.get_run(run_id)["status"] == "ONGOING"


def test_an_error_takes_all_of_a_batch_back(db, run_id):
    head, before = db.store.head(), db.get_run(run_id)

    def fail():
        with db.batch():
            db.create_experiment("gone")
            db.set_run_status(run_id, RunStatus.ONGOING)
            db.update_run_metrics(run_id, {"loss": 1 / 0})

    with pytest.raises(ZeroDivisionError):
        fail()
    assert db.store.head() == head
    assert db.get_run(run_id) == before
    assert db.verify() == []
    assert db.create_experiment("the id was not used") == 2


def test_a_refused_command_takes_all_of_a_batch_back(db, run_id):
    head = db.store.head()

    def fail():
        with db.batch():
            db.set_run_status(run_id, RunStatus.ONGOING)
            db.request_stop(99)

    with pytest.raises(NotFound, match="there is no run 99"):
        fail()
    assert db.store.head() == head
    assert db.get_run(run_id)["status"] == "NEW"
    db.set_run_status(run_id, RunStatus.ONGOING)
    assert db.verify() == []


def test_a_refused_command_that_is_caught_leaves_the_batch_whole(db, run_id):
    with db.batch():
        db.set_run_status(run_id, RunStatus.ONGOING)
        with pytest.raises(NotFound):
            db.request_stop(99)
        with pytest.raises(IllegalTransition):
            db.set_run_status(run_id, RunStatus.NEW)
        db.set_run_progress(run_id, 1, 0)
    assert events(db)[-2:] == ["RunStarted", "RunProgressed"]
    assert db.get_run(run_id)["current_chunk"] == 1
    assert db.verify() == []


def test_reads_in_a_batch_see_it(db, evals, run_id):
    with db.batch():
        db.set_run_status(run_id, RunStatus.ONGOING)
        db.update_run_metrics(run_id, {"loss": 0.5})
        second = db.create_run(1, config_leaf={"lr": 0.01})
        db.request_stop(second)
        assert db.get_run(run_id)["metrics"] == {"loss": 0.5}
        assert [run["run_id"] for run in db.get_runs_by_status("NEW")] == [second]
        assert db.get_run(second)["config_leaf"] == {"lr": 0.01}
        assert db.get_ic_ops_request()[0]["run_id"] == second
        assert db.db.execute("SELECT count(*) AS n FROM runs") == [{"n": 2}]
        assert db.db.execute("SELECT type FROM events ORDER BY position DESC LIMIT 1") == [
            {"type": "StopRequested"}
        ]
        assert db.store.head() == 6
        assert db.verify() == []
        assert evals.store.head() == 2  # another face waits for the commit


def test_a_batch_within_a_batch_joins_it(db):
    def fail():
        with db.batch():
            with db.batch():
                db.create_experiment("inner")
            db.create_experiment(f"outer {1 / 0}")

    with pytest.raises(ZeroDivisionError):
        fail()
    assert db.store.head() == 0
    with db.batch(), db.batch():
        db.create_experiment("digits")
    assert db.store.head() == 1


def test_an_error_that_leaves_an_inner_batch_takes_the_outer_one_back(db, run_id):
    head = db.store.head()

    def inner():
        with db.batch():
            db.set_run_status(run_id, RunStatus.ONGOING)
            db.request_stop(99)

    def outer():
        with db.batch():
            db.create_experiment("outer")
            with pytest.raises(NotFound):
                inner()

    with pytest.raises(StoreFailed, match="all of it is rolled back"):
        outer()
    assert db.store.head() == head
    assert db.get_run(run_id)["status"] == "NEW"
    assert db.verify() == []
    db.set_run_status(run_id, RunStatus.ONGOING)


def test_an_inner_batch_that_did_nothing_may_fail(db):
    def inner():
        with db.batch():
            db.request_stop(99)

    with db.batch():
        db.create_experiment("outer")
        with pytest.raises(NotFound):
            inner()
    assert db.store.head() == 1


def test_an_empty_batch_is_nothing(db):
    with db.batch():
        pass
    assert db.store.head() == 0


def test_a_reset_in_a_batch(db, run_id):
    with db.batch():
        db.reset_all_tables(experiments_table=True)
        exp_id = db.create_experiment("again")
        assert db.get_all_runs() == []
        assert db.create_run(exp_id) == run_id + 1
    assert db.verify() == []


def test_a_rebuild_in_a_batch(db, run_id):
    with db.batch():
        db.set_run_status(run_id, RunStatus.ONGOING)
        assert db.rebuild() == 3
        assert db.get_run(run_id)["status"] == "ONGOING"
        db.set_run_status(run_id, RunStatus.STOPPED)
    assert db.get_run(run_id)["status"] == "STOPPED"
    assert db.verify() == []


def test_another_thread_waits_for_the_end_of_a_batch(db, exp_id):
    begun = threading.Event()

    def intrude():
        begun.set()
        return db.create_run(exp_id, run_name="intruder")

    with ThreadPoolExecutor(1) as pool:
        with db.batch():
            db.create_run(exp_id)
            intruder = pool.submit(intrude)
            assert begun.wait(30)
            for _ in range(300):
                db.create_run(exp_id)
            assert not intruder.done()
        assert intruder.result() == 302
    assert [run["run_name"] for run in db.get_all_runs()][-1] == "intruder"


def test_another_thread_reads_what_was_there_before_a_batch(db, exp_id):
    with db.batch():
        db.create_run(exp_id)
        assert in_thread(db.get_all_runs) == []
        assert in_thread(db.db.execute, "SELECT * FROM runs") == []
    assert len(in_thread(db.get_all_runs)) == 1


def test_another_face_waits_no_longer_than_its_timeout(db, place):
    with RfDb(place, timeout=0) as other:
        with db.batch():
            db.create_experiment("first")
            with pytest.raises(StoreBusy, match="or rebuilding views, for 0 s: try again"):
                other.create_experiment("second")
        assert other.create_experiment("second") == 2


# --- retries --------------------------------------------------------------------------------

FIT_COMMANDS = {
    "create_experiment": lambda db, run, **about: db.create_experiment("again", **about),
    "set_experiment_status": lambda db, run, **about: db.set_experiment_status(
        1, "RUNNING", **about
    ),
    "create_run": lambda db, run, **about: db.create_run(1, config_leaf={"lr": 0.01}, **about),
    "set_run_status": lambda db, run, **about: db.set_run_status(run, "ONGOING", **about),
    "set_run_ended_by": lambda db, run, **about: db.set_run_ended_by(run, "KILLED", **about),
    "set_run_progress": lambda db, run, **about: db.set_run_progress(run, 1, 0, **about),
    "update_run_metrics": lambda db, run, **about: db.update_run_metrics(run, {"a": 1}, **about),
    "create_worker_task": lambda db, run, **about: db.create_worker_task(run, 0, 0, **about),
    "claim_next_worker_task": lambda db, run, **about: db.claim_next_worker_task(0, **about),
    "set_controller_task": lambda db, run, **about: db.set_controller_task("RUN_FIT", **about),
    "set_worker_progress": lambda db, run, **about: db.set_worker_progress(1, "TRAIN_VAL", **about),
    "request_clone_modify": lambda db, run, **about: db.request_clone_modify(
        run, {"lr": 1.0}, True, **about
    ),
    "request_stop": lambda db, run, **about: db.request_stop(run, **about),
    "request_resume": lambda db, run, **about: db.request_resume(run, **about),
    "request_delete": lambda db, run, **about: db.request_delete(run, **about),
    "save_checkpoint": lambda db, run, **about: db.save_checkpoint(run, {"a": 1}, step=3, **about),
    "log_metrics": lambda db, run, **about: db.log_metrics(run, {"loss": 0.5}, 3, **about),
    "mark_ic_ops_in_progress": lambda db, run, **about: db.mark_ic_ops_in_progress(1, **about),
    "mark_ic_ops_completed": lambda db, run, **about: db.mark_ic_ops_completed(1, **about),
    "mark_ic_ops_failed": lambda db, run, **about: db.mark_ic_ops_failed(1, "why", **about),
    "mark_ic_ops_skipped": lambda db, run, **about: db.mark_ic_ops_skipped(1, "why", **about),
    "set_worker_task_status": lambda db, run, **about: db.set_worker_task_status(
        1, "FAILED", **about
    ),
    "reset_experiment_states": lambda db, run, **about: db.reset_experiment_states(True, **about),
    "reset_all_tables": lambda db, run, **about: db.reset_all_tables(True, **about),
}


@pytest.mark.parametrize("name", FIT_COMMANDS)
def test_a_command_that_is_sent_again_is_carried_out_once(db, place, run_id, name):
    db.create_worker_task(run_id, 0, 0)
    db.create_worker_task(run_id, 0, 1)
    db.request_stop(run_id)
    send, before = FIT_COMMANDS[name], db.store.head()
    first = send(db, run_id, command_id="retry-1")
    head = db.store.head()
    assert head == before + 1
    assert send(db, run_id, command_id="retry-1") == first
    with RfDb(place) as restarted:
        assert send(restarted, run_id, command_id="retry-1") == first
    assert db.store.head() == head
    [recorded] = db.store.read(before)
    assert recorded.metadata.command_id == "retry-1"
    assert db.verify() == []


EVALS_COMMANDS = {
    "create_experiment": lambda db, **about: db.create_experiment("again", 1, 1, **about),
    "set_experiment_status": lambda db, **about: db.set_experiment_status(1, "failed", **about),
    "set_experiment_error": lambda db, **about: db.set_experiment_error(1, "why", **about),
    "create_context": lambda db, **about: db.create_context("c3d4", **about),
    "set_context_status": lambda db, **about: db.set_context_status(1, "building", **about),
    "set_context_start_time": lambda db, **about: db.set_context_start_time(1, "8:00", **about),
    "set_context_end_time": lambda db, **about: db.set_context_end_time(1, "9:00", 3600, **about),
    "set_context_error": lambda db, **about: db.set_context_error(1, "why", **about),
    "create_pipeline": lambda db, **about: db.create_pipeline(1, "hot", "vllm", **about),
    "set_pipeline_status": lambda db, **about: db.set_pipeline_status(1, "ongoing", **about),
    "set_pipeline_progress": lambda db, **about: db.set_pipeline_progress(1, 0, 1, 9, **about),
    "set_pipeline_error": lambda db, **about: db.set_pipeline_error(1, "why", **about),
    "create_actor_task": lambda db, **about: db.create_actor_task(1, 1, 0, 1, **about),
    "claim_next_actor_task": lambda db, **about: db.claim_next_actor_task(0, **about),
    "set_actor_task_status": lambda db, **about: db.set_actor_task_status(
        1, "in_progress", **about
    ),
    "set_actor_task_start_time": lambda db, **about: db.set_actor_task_start_time(
        1, "8:00", **about
    ),
    "set_actor_task_end_time": lambda db, **about: db.set_actor_task_end_time(
        1, "9:00", 3600, **about
    ),
    "set_actor_task_error": lambda db, **about: db.set_actor_task_error(1, "why", **about),
    "request_stop": lambda db, **about: db.request_stop(1, **about),
    "request_resume": lambda db, **about: db.request_resume(1, **about),
    "request_delete": lambda db, **about: db.request_delete(1, **about),
    "request_clone": lambda db, **about: db.request_clone(1, {"k": 3}, **about),
    "mark_ic_ops_in_progress": lambda db, **about: db.mark_ic_ops_in_progress(1, **about),
    "mark_ic_ops_completed": lambda db, **about: db.mark_ic_ops_completed(1, **about),
    "mark_ic_ops_failed": lambda db, **about: db.mark_ic_ops_failed(1, "why", **about),
    "mark_ic_ops_skipped": lambda db, **about: db.mark_ic_ops_skipped(1, "why", **about),
}


@pytest.mark.parametrize("name", EVALS_COMMANDS)
def test_so_is_a_command_of_inference(evals, name):
    evals.create_experiment("qwen", 5, 4)
    evals.create_context("a1b2")
    evals.create_pipeline(1, "baseline", "vllm")
    evals.create_actor_task(1, 1, 0, 0)
    evals.request_stop(1)
    send, before = EVALS_COMMANDS[name], evals.store.head()
    first = send(evals, command_id="retry-1")
    assert evals.store.head() == before + 1
    assert send(evals, command_id="retry-1") == first
    assert evals.store.head() == before + 1
    assert evals.verify() == []


def test_every_changing_method_of_the_faces_is_retried_above():
    def changing(face):
        return {
            name
            for name, method in vars(face).items()
            if "about" in getattr(method, "__annotations__", {})
        }

    common = {"reset_all_tables", "reset_experiment_states"}
    blocks = {"metrics"}  # no command itself
    assert set(FIT_COMMANDS) == changing(RfDb) - blocks | common
    assert set(EVALS_COMMANDS) == changing(RFDatabase)


def test_a_retry_does_not_undo_what_came_after(db, run_id):
    db.set_run_status(run_id, RunStatus.ONGOING, command_id="start")
    db.set_run_status(run_id, RunStatus.STOPPED)
    db.set_run_status(run_id, RunStatus.ONGOING, command_id="start")
    assert db.get_run(run_id)["status"] == "STOPPED"


def test_a_retry_with_other_arguments_is_the_same_command(db, exp_id):
    first = db.create_run(exp_id, config_leaf={"lr": 0.1}, command_id="create")
    assert db.create_run(exp_id, config_leaf={"lr": 0.9}, command_id="create") == first
    assert [run["config_leaf"] for run in db.get_all_runs()] == [{"lr": 0.1}]


def test_a_command_that_changed_nothing_changes_nothing_when_sent_again(db, run_id):
    head = db.store.head()
    db.set_run_progress(run_id, 0, 0, command_id="nothing")
    assert db.claim_next_worker_task(0, command_id="none") is None
    found = db.reset_experiment_states(command_id="calm")
    db.set_run_progress(run_id, 3, 1)
    db.create_worker_task(run_id, 0, 0)
    db.set_run_progress(run_id, 0, 0, command_id="nothing")
    assert db.claim_next_worker_task(0, command_id="none") is None
    assert db.reset_experiment_states(command_id="calm") == found
    assert events(db, head) == ["RunProgressed", "TaskScheduled"]


def test_a_claim_that_is_sent_again_gives_the_same_task(db, run_id):
    for chunk_id in range(2):
        db.create_worker_task(run_id, 0, chunk_id)
    first = db.claim_next_worker_task(0, command_id="claim-1")
    assert db.claim_next_worker_task(0, command_id="claim-1") == first
    assert db.claim_next_worker_task(0, command_id="claim-2")["chunk_id"] == 1


def test_a_refused_command_may_be_sent_again(db, exp_id):
    with pytest.raises(NotFound):
        db.set_run_status(1, RunStatus.ONGOING, command_id="start")
    db.create_run(exp_id)
    db.set_run_status(1, RunStatus.ONGOING, command_id="start")
    assert db.get_run(1)["status"] == "ONGOING"


def test_a_command_that_was_taken_back_may_be_sent_again(db):
    def fail():
        with db.batch():
            db.create_experiment("digits", command_id="create")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert db.create_experiment("digits", command_id="create") == 1
    assert db.store.head() == 1


def test_retries_in_one_batch(db):
    with db.batch():
        first = db.create_experiment("digits", command_id="create")
        assert db.create_experiment("digits", command_id="create") == first
    assert db.store.head() == 1


def test_a_command_id_belongs_to_one_kind_of_command(db, evals, run_id):
    db.request_stop(run_id, command_id="mine")
    head = db.store.head()
    for send in (
        lambda: db.request_resume(run_id, command_id="mine"),
        lambda: db.create_experiment("digits", command_id="mine"),
        lambda: evals.create_context("a1b2", command_id="mine"),
        lambda: db.store.append("run-1", [], command_id="mine"),
    ):
        with pytest.raises(CommandIdReused, match="'mine' was sent before with RequestStop"):
            send()
    with pytest.raises(CommandIdReused, match="'mine' was sent before with other arguments"):
        db.request_stop(db.create_run(1), command_id="mine")
    assert db.store.head() == head + 1


def test_a_row_that_evolve_gives_up_is_deleted(place):
    class Raised(Event, frozen=True):
        name: str

    class Lowered(Event, frozen=True):
        name: str

    class Flag(Row, frozen=True):
        name: str

    flags = View("flags", Flag, version=1)
    flags.created_by(Raised, lambda e: Flag(e.name))
    flags.on(Lowered, lambda row, e: None)
    with RfDb(place, projections=[flags]) as db:
        db.append(Raised("a"), Raised("b"), Lowered("a"), stream="flags")
        assert db.db.execute("SELECT name FROM flags") == [{"name": "b"}]
        db.append(Lowered("b"), stream="flags")
        assert db.db.execute("SELECT name FROM flags") == []
        assert db.verify() == []
        db.rebuild()
        assert db.db.execute("SELECT name FROM flags") == []


def test_a_payload_that_cannot_be_read_is_told_with_its_request(db, place, run_id):
    db.request_clone_modify(run_id, {"lr": 1})
    db.request_stop(run_id)
    with RfDb(place, signing_key="a key") as other:
        clone, stop = other.get_ic_ops_request()
    assert (clone["operation"], stop["operation"]) == ("CLONE_MODIFY", "STOP")
    with pytest.raises(PayloadRefused, match=r"request 1 for run 1: .*mark_ic_ops_failed\(1\)"):
        clone["config_leaf"]["lr"]


def test_a_claim_sent_again_after_a_recovery_gives_nothing(db, run_id):
    db.create_worker_task(run_id, 0, 0)
    assert db.claim_next_worker_task(0, command_id="claim")["task_id"] == 1
    assert db.claim_next_worker_task(0, command_id="claim")["task_id"] == 1
    db.reset_experiment_states()
    assert db.claim_next_worker_task(0, command_id="claim") is None


# --- metadata -------------------------------------------------------------------------------


def test_what_is_said_about_a_command_stands_in_the_log(db, run_id):
    db.request_stop(run_id, actor="dispatcher", correlation="web-17", command_id="stop-1")
    [request] = db.get_ic_ops_request()
    with db.batch():
        for call in (
            lambda **about: db.set_run_status(run_id, RunStatus.STOPPED, **about),
            lambda **about: db.mark_ic_ops_completed(request["ic_id"], **about),
        ):
            call(actor="controller", cause=request["position"])
    stop, *answers = (recorded.metadata for recorded in db.store.read(request["position"] - 1))
    assert (stop.actor, stop.correlation, stop.command_id, stop.cause) == (
        "dispatcher",
        "web-17",
        "stop-1",
        None,
    )
    assert [(a.actor, a.cause, a.command_id, a.correlation) for a in answers] == [
        ("controller", request["position"], None, None)
    ] * 2


def test_the_actor_of_a_face_is_noted_with_every_event(place):
    with RfDb(place, actor="controller") as db, RFDatabase(place, actor="actor-3") as evals:
        db.create_experiment("digits")
        evals.create_context("a1b2", correlation="web-17")
        db.create_experiment("digits", actor="dispatcher")
        metadata = [recorded.metadata for recorded in db.store.read()]
    assert [about.actor for about in metadata] == ["controller", "actor-3", "dispatcher"]
    assert metadata[1].correlation == "web-17"


def test_nothing_said_is_nothing_noted(db, exp_id):
    assert db.db.execute("SELECT metadata FROM events") == [{"metadata": "{}"}]


def test_events_may_be_appended_without_a_command(db, place, run_id):
    told = [RunProgressed(run_id, 1, 0), RunProgressed(run_id, 2, 0)]
    appended = db.append(*told, actor="worker-0", command_id="progress-1")
    assert [recorded.event for recorded in appended] == told
    assert {recorded.metadata.actor for recorded in appended} == {"worker-0"}
    assert {recorded.stream for recorded in appended} == {f"run-{run_id}"}
    assert db.append(*told, command_id="progress-1") == appended
    assert db.get_run(run_id)["current_chunk"] == 2
    with db.batch():
        [elsewhere] = db.append(RunProgressed(run_id, 3, 0), stream="notes")
        assert db.get_run(run_id)["current_chunk"] == 3
    assert (elsewhere.stream, elsewhere.version) == ("notes", 1)
    assert db.append() == []
    head = db.store.head()
    for wrong in ("RunProgressed", None, RunProgressed(run_id, 1.5, 0), RunProgressed(-1, 1, 0)):
        with pytest.raises(InvalidEvent):
            db.append(RunProgressed(run_id, 4, 0), wrong)
    assert db.store.head() == head
    assert db.verify() == []


# --- queries --------------------------------------------------------------------------------


def test_select_is_answered_as_dicts(db, run_id):
    rows = db.db.execute(
        "SELECT run_id, status AS now, run_id + ? AS sum FROM runs WHERE run_name = ?",
        (0.5, "run_1"),
    )
    assert rows == [{"run_id": run_id, "now": "NEW", "sum": run_id + 0.5}]
    assert db.db.execute("SELECT * FROM runs WHERE run_id = ?", [99]) == []
    assert db.db.execute("SELECT count(*) AS n FROM events", commit=True, fetch=False) == [{"n": 2}]
    assert db.db.execute("WITH r AS (SELECT run_id FROM runs) SELECT * FROM r") == [
        {"run_id": run_id}
    ]


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        -1,
        2**31,
        2**63 - 1,
        -(2**63),
        0.1,
        -0.5,
        1e308,
        "",
        "ü𝄞",
        "?",
        "%s",
        b"",
        b"\0\xff",
    ],
    ids=ascii,
)
def test_a_parameter_comes_back_as_it_is(db, value):
    [row] = db.db.execute("SELECT ? AS value", (value,))
    assert row == {"value": value}
    assert type(row["value"]) is type(value)


def test_a_parameter_may_be_a_bool(db, run_id):
    assert db.db.execute("SELECT run_id FROM runs WHERE warm_start = ?", (False,)) == [
        {"run_id": run_id}
    ]
    assert db.db.execute("SELECT run_id FROM runs WHERE warm_start = ?", (True,)) == []


WRITES = [
    "UPDATE worker_task SET status = 'COMPLETED'",
    "update runs_folded set status = 'KILLED'",
    "UPDATE runs SET status = 'KILLED'",
    "INSERT INTO experiments (experiment_id) VALUES (9)",
    "INSERT INTO interactive_control (ic_id) VALUES (9)",
    "INSERT INTO events SELECT * FROM events",
    "DELETE FROM events",
    "DELETE FROM runs",
    "DELETE FROM payloads",
    "DROP TABLE events",
    "DROP VIEW runs",
    "CREATE TABLE mine (x INTEGER)",
    "CREATE INDEX mine ON events (stream)",
    "CREATE TEMPORARY TABLE mine (x INTEGER)",
    "ALTER TABLE experiments ADD COLUMN x INTEGER",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT mine",
    "WITH r AS (SELECT 1) DELETE FROM worker_task",
    "  -- a comment\n DELETE FROM worker_task",
    "UPDATE worker_task SET status = 'COMPLETED' RETURNING *",
]


@alone_and_in_a_batch
@pytest.mark.parametrize("statement", WRITES)
def test_a_statement_that_would_write_is_refused(db, statement, batch):
    with querying(db, batch):
        check_refused(db, statement)


@alone_and_in_a_batch
@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELEKT 1", ()),
        ("SELECT * FROM nowhere", ()),
        ("SELECT nothing FROM runs", ()),
        ("SELECT * FROM runs WHERE run_id = ?", ()),
        ("SELECT * FROM runs WHERE run_id = ?", (1, 2)),
        ("SELECT * FROM runs WHERE run_id = ?", (2**64,)),
        ("SELECT * FROM runs WHERE run_id = ?", (object(),)),
        ("SELECT * FROM runs WHERE run_name = ?", ("\ud800",)),
        ("SELECT * FROM runs WHERE run_name = '\ud800'", ()),
        ("SELECT 1\0", ()),
        ("SELECT 1; SELECT 2", ()),
        ("SELECT 1; DELETE FROM worker_task", ()),
        ("SELECT 1; COMMIT", ()),
        ("SELECT * FROM runs WHERE run_id = ?", 1),
        (None, ()),
        (1, ()),
    ],
    ids=told,
)
def test_a_query_that_cannot_be_run(db, query, params, batch):
    with querying(db, batch):
        log = db.db.execute("SELECT * FROM events")
        with pytest.raises(InvalidQuery):
            db.db.execute(query, params)
        assert db.db.execute("SELECT * FROM events") == log
        db.create_experiment("and everything goes on")
    assert db.verify() == []


# --- threads --------------------------------------------------------------------------------


def test_one_face_serves_many_threads(db, exp_id):
    threads, rounds = 8, 25
    start = threading.Barrier(threads)

    def work(worker_id):
        start.wait()
        mine = []
        for chunk_id in range(rounds):
            run_id = db.create_run(exp_id, run_name=f"{worker_id}/{chunk_id}")
            task_id = db.create_worker_task(run_id, worker_id, chunk_id)
            task = db.claim_next_worker_task(worker_id)
            assert (task["task_id"], task["run_id"]) == (task_id, run_id)
            with db.batch():
                db.update_run_metrics(run_id, {"chunk": chunk_id})
                db.set_worker_task_status(task_id, TaskStatus.COMPLETED)
            assert db.get_run(run_id)["metrics"] == {"chunk": chunk_id}
            assert {"run_id": run_id} in db.db.execute("SELECT run_id FROM runs")
            mine.append(run_id)
        return mine

    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(work, range(threads)))

    assert sorted(run_id for mine in done for run_id in mine) == list(
        range(1, threads * rounds + 1)
    )
    names = {run["run_id"]: run["run_name"] for run in db.get_all_runs()}
    assert [[names[run_id] for run_id in mine] for mine in done] == [
        [f"{worker_id}/{chunk_id}" for chunk_id in range(rounds)] for worker_id in range(threads)
    ]
    assert len(events(db)) == 1 + threads * rounds * 5
    assert db.verify() == []


def test_threads_never_claim_the_same_task(db, run_id):
    tasks, threads = 60, 8
    for chunk_id in range(tasks):
        db.create_worker_task(run_id, 0, chunk_id)
    start = threading.Barrier(threads)

    def work(_):
        start.wait()
        claimed = []
        while task := db.claim_next_worker_task(0):
            claimed.append(task["task_id"])
        return claimed

    with ThreadPoolExecutor(threads) as pool:
        claimed = [task_id for mine in pool.map(work, range(threads)) for task_id in mine]
    assert sorted(claimed) == list(range(1, tasks + 1))


# --- closing --------------------------------------------------------------------------------


def test_closing_twice_does_nothing(place):
    db = RfDb(place)
    db.close()
    db.close()
    with RfDb(place) as again:
        again.db.close()
        again.db.close()


USES = {
    "create_experiment": lambda db: db.create_experiment("digits"),
    "get_all_runs": lambda db: db.get_all_runs(),
    "execute": lambda db: db.db.execute("SELECT 1"),
    "create_tables": lambda db: db.create_tables(),
    "batch": lambda db: db.batch().__enter__(),
    "rebuild": lambda db: db.rebuild(),
    "verify": lambda db: db.verify(),
    "put_payload": lambda db: db.put_payload(1),
    "get_payload": lambda db: db.get_payload("0" * 64),
    "subscribe": lambda db: db.subscribe(),
    "head": lambda db: db.store.head(),
    "read": lambda db: list(db.store.read()),
}


@pytest.mark.parametrize("use", USES)
def test_a_closed_store_says_so(place, use):
    with RfDb(place) as db:
        db.create_experiment("digits")
        db.get_all_runs()
    with pytest.raises(StoreClosed, match="was closed: open it again"):
        USES[use](db)


def test_a_store_that_is_closed_by_another_thread_says_so(place):
    with RfDb(place) as db:
        in_thread(db.close)
        with pytest.raises(StoreClosed):
            db.get_all_runs()


def test_what_was_done_is_there_after_closing(place):
    with RfDb(place) as db:
        db.create_experiment("digits")
    with RfDb(place) as db:
        assert [row["experiment_name"] for row in db.db.execute("SELECT * FROM experiments")] == [
            "digits"
        ]


# --- payloads -------------------------------------------------------------------------------


def test_payloads_are_named_by_their_content(db):
    first = db.put_payload({"weights": [1.0, 2.0], "step": (1, 2)})
    assert db.get_payload(first) == {"weights": [1.0, 2.0], "step": (1, 2)}
    assert db.put_payload({"weights": [1.0, 2.0], "step": (1, 2)}) == first
    assert db.put_payload({"weights": [1.0, 2.0], "step": (1, 3)}) != first
    assert db.db.execute("SELECT count(*) AS n FROM payloads") == [{"n": 2}]
    assert db.store.head() == 0


def test_an_unknown_digest(db):
    with pytest.raises(NotFound, match="no payload has the digest '0000"):
        db.get_payload("0" * 64)


def test_a_payload_of_a_batch_that_failed_is_not_kept(db):
    digests = []

    def fail():
        with db.batch():
            digests.append(db.put_payload([1, 2, 3]))
            assert db.get_payload(digests[0]) == [1, 2, 3]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(NotFound):
        db.get_payload(digests[0])


def test_the_same_configuration_is_stored_once(db, exp_id):
    for _ in range(3):
        run_id = db.create_run(exp_id, config_leaf={"lr": 0.1})
    db.request_clone_modify(run_id, {"lr": 0.1})
    assert db.db.execute("SELECT count(*) AS n FROM payloads") == [{"n": 1}]


def test_bytes_that_are_no_payload_are_refused(db, run_id):
    for send in (
        lambda: db.create_run(1, config_leaf=b"lr=0.1"),
        lambda: db.request_clone_modify(run_id, b"lr=0.1"),
    ):
        with pytest.raises(InvalidPayload, match="encode_payload"):
            send()
    assert db.store.head() == 2


@pytest.mark.parametrize("key", ["another secret", None], ids=["another key", "no key"])
def test_what_was_signed_with_another_key_is_refused(place, key):
    with RfDb(place, signing_key="a secret") as db, RfDb(place, signing_key=key) as other:
        run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
        digest = db.put_payload([1, 2, 3])
        db.request_clone_modify(run_id, {"lr": 0.01})
        for read in (
            lambda: other.get_run(run_id),
            lambda: other.get_all_runs()[0]["config_leaf"]["lr"],
            lambda: other.get_runs_by_status("NEW")[0]["config_leaf"]["lr"],
            lambda: other.get_ic_ops_request()[0]["config_leaf"]["lr"],
            lambda: other.get_payload(digest),
        ):
            with pytest.raises(PayloadRefused, match="sign"):
                read()
        assert other.db.execute("SELECT status FROM runs") == [{"status": "NEW"}]
        assert db.get_run(run_id)["config_leaf"] == {"lr": 0.1}
        assert db.get_payload(digest) == [1, 2, 3]


def test_what_is_not_signed_is_refused_where_a_key_is_set(place):
    with RfDb(place) as open_db, RfDb(place, signing_key="a secret") as db:
        run_id = open_db.create_run(open_db.create_experiment("digits"), config_leaf={"lr": 0.1})
        with pytest.raises(PayloadRefused, match="not signed"):
            db.get_run(run_id)


def test_the_key_may_come_from_the_environment(place, monkeypatch):
    monkeypatch.setenv("REFOLD_PAYLOAD_KEY", "a secret")
    with RfDb(place) as db:
        digest = db.put_payload({"lr": 0.1})
    monkeypatch.delenv("REFOLD_PAYLOAD_KEY")
    with RfDb(place) as unsigned, RfDb(place, signing_key=b"a secret") as signed:
        with pytest.raises(PayloadRefused):
            unsigned.get_payload(digest)
        assert signed.get_payload(digest) == {"lr": 0.1}


def test_dill_can_be_refused(place):
    with RfDb(place) as db, RfDb(place, allow_dill=False) as strict:
        exp_id = db.create_experiment("digits")
        run_id = db.create_run(exp_id, config_leaf={"schedule": lambda step: 0.1 / (step + 1)})
        plain = db.create_run(exp_id, config_leaf={"lr": 0.1})
        assert db.get_run(run_id)["config_leaf"]["schedule"](1) == 0.05
        with pytest.raises(PayloadRefused, match="dill"):
            strict.get_run(run_id)
        assert strict.get_run(plain)["config_leaf"] == {"lr": 0.1}


# --- the small print ------------------------------------------------------------------------


def test_a_wrong_keyword_is_a_type_error(db, exp_id):
    with pytest.raises(TypeError, match="comand_id"):
        db.create_run(exp_id, comand_id="retry-1")
    assert db.store.head() == 1

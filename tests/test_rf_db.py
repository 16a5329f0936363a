"""The two seed documents, example by example and method by method, through the faces.

Run it with pytest, or as `python tests/test_rf_db.py`.
"""

import os
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

# As a script it also runs in a checkout that is not installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from refold import (
    ActorTaskStatus,
    ContextStatus,
    ControllerTask,
    DBException,
    ExperimentStatus,
    IllegalTransition,
    InferenceStatus,
    NotFound,
    PipelineStatus,
    RFDatabase,
    RfDb,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    WorkerTask,
    WriteRefused,
    encode_payload,
)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of its own to work in, for the default path."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def exp_id(db):
    return db.create_experiment("digits", "/data/digits", status=ExperimentStatus.RUNNING)


@pytest.fixture
def run_id(db, exp_id):
    return db.create_run(exp_id, config_leaf={"lr": 0.1}, num_chunks=8)


# --- the fit document: "Query Patterns" -----------------------------------------------------


class TestQueryPatterns:
    def test_parameterized_query(self, db, run_id):
        self.db = db.db
        query = "SELECT * FROM runs WHERE run_id = ?"
        result = self.db.execute(query, (run_id,))
        assert [(row["run_id"], row["status"]) for row in result] == [(run_id, "NEW")]

    def test_with_commit(self, db, run_id):
        self.db = db.db
        new_status = "ONGOING"
        query = "UPDATE runs SET status = ? WHERE run_id = ?"
        with pytest.raises(WriteRefused, match=r"views are rebuilt from events.*set_run_status"):
            self.db.execute(query, (new_status, run_id), commit=True)
        assert db.get_run(run_id)["status"] == "NEW"
        db.set_run_status(run_id, new_status)
        assert db.get_run(run_id)["status"] == "ONGOING"


# --- the fit document: "Common Operations" --------------------------------------------------


def test_creating_a_run(db):
    db.create_experiment("digits")
    config_dict = {"lr": 0.001, "layers": (64, 32), "optimizer": "adam"}
    run_id = db.create_run(
        experiment_id=1,
        run_name="run_1",
        mlflow_run_id="abc123",
        config_leaf=encode_payload(config_dict),
        source=RunSource.USER,
        seed=42,
        num_chunks=8,
    )
    run = db.get_run(run_id)
    assert run["config_leaf"] == config_dict
    assert (run["run_name"], run["mlflow_run_id"], run["source"]) == ("run_1", "abc123", "USER")
    assert (run["seed"], run["num_chunks"]) == (42, 8)


def test_polling_for_tasks(db, run_id):
    for chunk_id in range(3):
        db.create_worker_task(run_id, worker_id=0, chunk_id=chunk_id)
    seen = []
    for _ in range(4):
        task = db.get_next_worker_task(worker_id=0)
        if task:
            db.set_worker_task_status(task["task_id"], TaskStatus.IN_PROGRESS)
            seen.append(task["chunk_id"])
            db.set_worker_task_status(task["task_id"], TaskStatus.COMPLETED)
    assert seen == [0, 1, 2]
    assert task is None


def test_ic_ops_flow(db, exp_id):
    with db.batch():
        for _ in range(5):
            run_id = db.create_run(exp_id)
    assert run_id == 5
    db.set_run_status(5, RunStatus.ONGOING)

    db.request_stop(run_id=5)

    ic_ops = db.get_ic_ops_request()
    for op in ic_ops:
        if op["operation"] == "STOP":
            db.set_run_status(op["run_id"], RunStatus.STOPPED, cause=op["position"])
            db.mark_ic_ops_completed(op["ic_id"])

    assert len(ic_ops) == 1
    assert db.get_ic_ops_request() == []
    assert db.get_run(5)["status"] == "STOPPED"


def test_cleanup_between_experiments(db, exp_id, run_id):
    db.reset_all_tables(experiments_table=False)
    db.set_experiment_status(exp_id, ExperimentStatus.COMPLETED)

    assert db.get_all_runs() == []
    [experiment] = db.db.execute("SELECT * FROM experiments")
    assert experiment["status"] == "COMPLETED"


# --- the fit document: "Testing Database Changes", "Debugging Database Issues" --------------


def test_create_tables_after_the_file_was_deleted(elsewhere):
    with RfDb() as db:
        db.create_experiment("digits")
    for file in elsewhere.glob("rapidfire.db*"):
        file.unlink()
    db = RfDb()
    db.create_tables()
    assert db.db.execute("SELECT * FROM experiments") == []
    db.create_tables()
    db.close()


def test_check_database_file_location(elsewhere):
    with RfDb():
        print(os.path.abspath("rapidfire.db"))
        assert os.path.isfile(os.path.abspath("rapidfire.db"))


# --- the fit document: "tables.sql" ---------------------------------------------------------

FIT_COLUMNS = {
    "experiments": "experiment_id experiment_name status experiments_path created_at updated_at",
    "runs": "run_id experiment_id run_name mlflow_run_id status source ended_by parent_run_id "
    "warm_start config_leaf seed num_chunks current_chunk current_epoch metrics "
    "created_at updated_at",
    "worker_task": "task_id run_id worker_id chunk_id epoch status created_at updated_at",
    "controller_progress": "task status",
    "worker_progress": "worker_id task status",
    "interactive_control": "ic_id run_id operation status config_leaf warm_start "
    "created_at updated_at",
}


@pytest.mark.parametrize("table", FIT_COLUMNS)
def test_every_column_of_the_document_is_there(db, table):
    assert db.db.execute(f"SELECT {FIT_COLUMNS[table].replace(' ', ', ')} FROM {table}") == []


# --- the fit document: "Key Methods" --------------------------------------------------------


def columns(row, names):
    return {name: row[name] for name in names.split()}


class TestExperiments:
    def test_create_experiment(self, db):
        assert db.create_experiment("a") == 1
        assert db.create_experiment(experiment_name="b", experiments_path="/b") == 2
        a, b = db.db.execute("SELECT * FROM experiments ORDER BY experiment_id")
        assert columns(a, "experiment_name status experiments_path kind error") == {
            "experiment_name": "a",
            "status": "NEW",
            "experiments_path": None,
            "kind": "fit",
            "error": None,
        }
        assert b["experiments_path"] == "/b"

    def test_get_experiment(self, db, evals, exp_id):
        assert db.get_experiment(exp_id) == db.get_running_experiment()
        inference = evals.create_experiment("qwen", 5, 4)
        assert evals.get_experiment(inference) == evals.get_current_experiment()

    def test_get_running_experiment_is_the_newest_that_runs(self, db):
        first = db.create_experiment("first", status="running")
        second = db.create_experiment("second", status=ExperimentStatus.RUNNING)
        db.create_experiment("third")
        assert db.get_running_experiment()["experiment_id"] == second
        db.set_experiment_status(second, ExperimentStatus.COMPLETED)
        assert db.get_running_experiment()["experiment_name"] == "first"
        db.set_experiment_status(first, ExperimentStatus.FAILED)
        with pytest.raises(NotFound, match="no experiment is running"):
            db.get_running_experiment()

    @pytest.mark.parametrize("word", ["RUNNING", "running", "Running", ExperimentStatus.RUNNING])
    def test_set_experiment_status(self, db, word):
        exp_id = db.create_experiment("a")
        db.set_experiment_status(exp_id, word)
        assert db.get_running_experiment()["status"] == "RUNNING"

    def test_reset_all_tables(self, db, run_id):
        db.reset_all_tables(experiments_table=True)
        assert db.db.execute("SELECT * FROM experiments") == []
        assert db.create_experiment("again") == 2


class TestRuns:
    def test_create_run_and_get_run(self, db, exp_id, run_id):
        run = db.get_run(run_id)
        assert run.pop("created_at") == run.pop("updated_at")
        assert run.pop("position") == 2
        assert run == {
            "run_id": run_id,
            "experiment_id": exp_id,
            "run_name": "run_1",
            "mlflow_run_id": None,
            "status": "NEW",
            "source": "USER",
            "ended_by": None,
            "parent_run_id": None,
            "warm_start": False,
            "config_leaf": {"lr": 0.1},
            "seed": None,
            "num_chunks": 8,
            "current_chunk": 0,
            "current_epoch": 0,
            "metrics": {},
        }

    def test_a_clone(self, db, exp_id, run_id):
        clone = db.create_run(
            exp_id,
            config_leaf={"lr": 0.01, "act": {1, 2}, "big": 2**70},
            status=RunStatus.ONGOING,
            source="clone_modify",
            parent_run_id=run_id,
            warm_start=True,
        )
        assert columns(db.get_run(clone), "status source parent_run_id warm_start") == {
            "status": "ONGOING",
            "source": "CLONE_MODIFY",
            "parent_run_id": run_id,
            "warm_start": True,
        }
        assert db.get_run(clone)["config_leaf"] == {"lr": 0.01, "act": {1, 2}, "big": 2**70}

    def test_a_run_without_configuration(self, db, exp_id):
        assert db.get_run(db.create_run(exp_id))["config_leaf"] is None

    def test_get_all_runs(self, db, exp_id, run_id):
        second = db.create_run(exp_id)
        db.update_run_metrics(second, {"loss": 0.5})
        assert db.get_all_runs() == [db.get_run(run_id), db.get_run(second)]
        assert db.get_all_runs()[1]["metrics"] == {"loss": 0.5}

    def test_get_runs_by_status(self, db, exp_id):
        for status in RunStatus:
            db.create_run(exp_id, run_name=status.value, status=status)

        def names(status):
            return [run["run_name"] for run in db.get_runs_by_status(status)]

        assert names(RunStatus.ONGOING) == names("ongoing") == names("ONGOING") == ["ONGOING"]
        assert names([RunStatus.KILLED, "new"]) == ["NEW", "KILLED"]
        assert names({RunStatus.STOPPED}) == ["STOPPED"]
        assert names(status for status in RunStatus) == list(RunStatus)
        assert names([]) == []
        db.set_run_status(1, RunStatus.STOPPED)
        assert names(RunStatus.NEW) == []

    @pytest.mark.parametrize("word", ["STOPPED", "stopped", RunStatus.STOPPED])
    def test_set_run_status(self, db, run_id, word):
        db.set_run_status(run_id, word)
        assert db.get_run(run_id)["status"] == "STOPPED"

    @pytest.mark.parametrize("word", ["KILLED", "killed", RunEndedBy.KILLED])
    def test_set_run_ended_by(self, db, run_id, word):
        db.set_run_ended_by(run_id, word)
        assert db.get_run(run_id)["ended_by"] == "KILLED"

    def test_update_run_metrics(self, db, run_id):
        metrics = {"loss": [0.5, 0.25], "val": {"accuracy": 0.9}, "epoch": 2, "best": True}
        db.update_run_metrics(run_id, metrics)
        assert db.get_run(run_id)["metrics"] == metrics
        db.update_run_metrics(run_id=run_id, metrics='{"loss": 0.125}')
        assert db.get_run(run_id)["metrics"] == {"loss": 0.125}

    def test_metrics_may_be_numbers_of_numpy_and_torch(self, db, run_id):
        np = pytest.importorskip("numpy")
        torch = pytest.importorskip("torch")
        db.update_run_metrics(
            run_id,
            {
                "float64": np.float64(0.5),
                "float32": np.float32(0.25),
                "int64": np.int64(3),
                "bool": np.bool_(True),
                "tensor": torch.tensor(0.125, requires_grad=True),
                "list": [np.float32(1.5), torch.tensor(2)],
            },
        )
        metrics = db.get_run(run_id)["metrics"]
        assert metrics == {
            "float64": 0.5,
            "float32": 0.25,
            "int64": 3,
            "bool": True,
            "tensor": 0.125,
            "list": [1.5, 2],
        }
        assert metrics["bool"] is True
        assert type(metrics["int64"]) is int

    def test_set_run_progress(self, db, run_id):
        db.set_run_progress(run_id, current_chunk=3, current_epoch=1)
        assert columns(db.get_run(run_id), "current_chunk current_epoch") == {
            "current_chunk": 3,
            "current_epoch": 1,
        }


class TestWorkerTasks:
    def test_create_worker_task(self, db, run_id):
        task_id = db.create_worker_task(run_id=run_id, worker_id=1, chunk_id=2, epoch=3)
        assert columns(
            db.get_worker_task(task_id), "task_id run_id worker_id chunk_id epoch status"
        ) == {
            "task_id": task_id,
            "run_id": run_id,
            "worker_id": 1,
            "chunk_id": 2,
            "epoch": 3,
            "status": "SCHEDULED",
        }

    def test_get_worker_tasks(self, db, exp_id, run_id):
        other = db.create_run(exp_id)
        for run, worker_id in ((run_id, 0), (run_id, 1), (other, 0)):
            db.create_worker_task(run, worker_id, chunk_id=0)
        db.claim_next_worker_task(0)

        def ids(**wanted):
            return [task["task_id"] for task in db.get_worker_tasks(**wanted)]

        assert ids() == [1, 2, 3]
        assert ids(run_id=run_id) == [1, 2]
        assert ids(worker_id=0) == [1, 3]
        assert ids(status="in_progress") == ids(status=TaskStatus.IN_PROGRESS) == [1]
        assert ids(run_id=run_id, worker_id=1, status="SCHEDULED") == [2]
        assert db.get_worker_tasks(run_id=run_id)[0] == db.get_worker_task(1)

    def test_get_next_worker_task_is_the_oldest_of_the_worker(self, db, run_id):
        for worker_id in (1, 0, 0):
            db.create_worker_task(run_id, worker_id, chunk_id=0)
        task = db.get_next_worker_task(worker_id=0)
        assert (task["task_id"], task["status"]) == (2, "SCHEDULED")
        assert db.get_next_worker_task(worker_id=0) == task
        assert db.get_next_worker_task(worker_id=2) is None

    def test_claim_next_worker_task(self, db, run_id):
        for chunk_id in range(2):
            db.create_worker_task(run_id, worker_id=0, chunk_id=chunk_id)
        first, second = db.claim_next_worker_task(0), db.claim_next_worker_task(worker_id=0)
        assert (first["chunk_id"], second["chunk_id"]) == (0, 1)
        assert first["status"] == "IN_PROGRESS"
        assert db.get_worker_task(first["task_id"]) == first
        assert db.claim_next_worker_task(0) is None

    @pytest.mark.parametrize("word", ["IN_PROGRESS", "in_progress", TaskStatus.IN_PROGRESS])
    def test_set_worker_task_status(self, db, run_id, word):
        task_id = db.create_worker_task(run_id, 0, 0)
        db.set_worker_task_status(task_id, word)
        assert db.get_worker_task(task_id)["status"] == "IN_PROGRESS"

    def test_why_a_task_failed(self, db, run_id):
        task_id = db.create_worker_task(run_id, 0, 0)
        assert db.get_worker_task(task_id)["error"] is None
        db.set_worker_task_status(task_id, TaskStatus.FAILED, error="out of memory")
        assert columns(db.get_worker_task(task_id), "status error") == {
            "status": "FAILED",
            "error": "out of memory",
        }


class TestProgress:
    def test_controller_task(self, db):
        assert db.get_controller_task() is None
        db.set_controller_task(ControllerTask.RUN_FIT)
        assert columns(db.get_controller_task(), "task status") == {
            "task": "RUN_FIT",
            "status": "IN_PROGRESS",
        }
        db.set_controller_task("idle", "completed")
        assert columns(db.get_controller_task(), "task status") == {
            "task": "IDLE",
            "status": "COMPLETED",
        }
        assert len(db.db.execute("SELECT * FROM controller_progress")) == 1

    def test_worker_progress(self, db):
        assert db.get_worker_progress(0) is None
        db.set_worker_progress(0, WorkerTask.TRAIN_VAL)
        db.set_worker_progress(worker_id=1, task="create_models", status=TaskStatus.SCHEDULED)
        assert columns(db.get_worker_progress(0), "worker_id task status") == {
            "worker_id": 0,
            "task": "TRAIN_VAL",
            "status": "IN_PROGRESS",
        }
        assert db.get_worker_progress(1)["status"] == "SCHEDULED"


class TestInteractiveControl:
    def test_requests_are_polled_in_order(self, db, run_id):
        ids = [
            db.request_clone_modify(run_id, config_leaf={"lr": 0.01}, warm_start=True),
            db.request_stop(run_id),
            db.request_resume(run_id),
            db.request_delete(run_id=run_id),
        ]
        requests = db.get_ic_ops_request()
        assert [request["ic_id"] for request in requests] == ids == [1, 2, 3, 4]
        assert [r["operation"] for r in requests] == ["CLONE_MODIFY", "STOP", "RESUME", "DELETE"]
        assert {request["status"] for request in requests} == {"PENDING"}
        assert {request["run_id"] for request in requests} == {run_id}
        assert [request["config_leaf"] for request in requests] == [{"lr": 0.01}, None, None, None]
        assert [request["warm_start"] for request in requests] == [True, False, False, False]

    def test_a_request_is_answered(self, db, run_id):
        done, failed, skipped = (db.request_stop(run_id) for _ in range(3))
        db.mark_ic_ops_completed(done)
        db.mark_ic_ops_failed(failed, "the run is gone")
        db.mark_ic_ops_skipped(ic_id=skipped, error="stopped already")
        assert db.get_ic_ops_request() == []
        rows = db.db.execute("SELECT status, error FROM interactive_control ORDER BY ic_id")
        assert [tuple(row.values()) for row in rows] == [
            ("COMPLETED", None),
            ("FAILED", "the run is gone"),
            ("SKIPPED", "stopped already"),
        ]

    def test_a_request_that_is_being_carried_out_is_not_pending(self, db, run_id):
        taken, crashed = db.request_stop(run_id), db.request_delete(run_id)
        for request in (taken, crashed):
            db.mark_ic_ops_in_progress(request)
        assert db.get_ic_ops_request() == []
        db.mark_ic_ops_completed(taken)
        with pytest.raises(IllegalTransition, match=f"request {taken} is COMPLETED"):
            db.mark_ic_ops_in_progress(taken)
        assert db.reset_experiment_states()["requests"] == [crashed]
        rows = db.db.execute("SELECT status FROM interactive_control ORDER BY ic_id")
        assert [row["status"] for row in rows] == ["COMPLETED", "FAILED"]

    def test_nothing_can_be_asked_of_a_killed_run(self, db, run_id):
        db.set_run_status(run_id, RunStatus.KILLED)
        for request in (
            db.request_clone_modify,
            db.request_stop,
            db.request_resume,
            db.request_delete,
        ):
            with pytest.raises(IllegalTransition, match=f"run {run_id} is KILLED"):
                request(run_id)


def test_crash_recovery_on_startup(db, place, run_id):
    started, scheduled = (db.create_worker_task(run_id, 0, chunk) for chunk in range(2))
    db.claim_next_worker_task(0)
    db.set_run_status(run_id, RunStatus.ONGOING)
    db.request_stop(run_id)
    with RfDb(place) as restarted:
        found = restarted.reset_experiment_states()
        assert found["worker_tasks"] == [started, scheduled]
        assert {restarted.get_worker_task(i)["status"] for i in (started, scheduled)} == {"FAILED"}
        assert restarted.get_run(run_id)["status"] == "ONGOING"
        assert len(restarted.get_ic_ops_request()) == 1
        head = restarted.store.head()
        assert restarted.reset_experiment_states()["worker_tasks"] == []
        assert restarted.store.head() == head
    with pytest.raises(IllegalTransition, match=f"worker task {started} is FAILED"):
        db.set_worker_task_status(started, TaskStatus.COMPLETED)


# --- the evals document: "Quick Start" ------------------------------------------------------


def test_quick_start(elsewhere):
    # Initialize database
    db = RFDatabase()

    # Create experiment
    exp_id = db.create_experiment(
        experiment_name="my_experiment", num_shards=5, num_actors=4, num_cpus=8, num_gpus=2
    )

    # Create pipeline
    pipeline_id = db.create_pipeline(
        experiment_id=exp_id,
        pipeline_name="baseline_temp0.7",
        pipeline_type="vllm",
        model_config_json='{"model": "Qwen/Qwen2.5-3B-Instruct"}',
        sampling_params_json='{"temperature": 0.7}',
        status="new",
    )

    # Update progress
    db.set_pipeline_progress(
        pipeline_id, current_shard_id=2, shards_completed=2, total_samples_processed=1024
    )

    # Create task
    task_id = db.create_actor_task(
        experiment_id=exp_id, pipeline_id=pipeline_id, actor_id=0, shard_id=2
    )

    experiment, pipeline = db.get_current_experiment(), db.get_pipeline(pipeline_id)
    task = db.get_actor_task(task_id)

    # Close connection
    db.close()

    assert columns(
        experiment, "experiment_name status num_shards num_actors num_cpus num_gpus"
    ) == {
        "experiment_name": "my_experiment",
        "status": "running",
        "num_shards": 5,
        "num_actors": 4,
        "num_cpus": 8,
        "num_gpus": 2,
    }
    del pipeline["created_at"], pipeline["updated_at"], pipeline["position"]
    assert pipeline == {
        "pipeline_id": pipeline_id,
        "experiment_id": exp_id,
        "context_id": None,
        "pipeline_name": "baseline_temp0.7",
        "pipeline_type": "vllm",
        "model_config_json": '{"model": "Qwen/Qwen2.5-3B-Instruct"}',
        "sampling_params_json": '{"temperature": 0.7}',
        "status": "new",
        "current_shard_id": 2,
        "shards_completed": 2,
        "total_samples_processed": 1024,
        "error": None,
    }
    del task["created_at"], task["updated_at"], task["position"]
    assert task == {
        "task_id": task_id,
        "experiment_id": exp_id,
        "pipeline_id": pipeline_id,
        "actor_id": 0,
        "shard_id": 2,
        "status": "scheduled",
        "error": None,
        "started_at": None,
        "completed_at": None,
        "duration_seconds": None,
        "claim": None,
        "attempts": 0,
        "offered_after": None,
    }
    assert (elsewhere / "rapidfire.db").is_file()


# --- the evals document: "API Methods", "Status Values" -------------------------------------


@pytest.fixture
def eval_id(evals):
    return evals.create_experiment("qwen", num_shards=5, num_actors=4)


@pytest.fixture
def context_id(evals):
    return evals.create_context("a1b2", '{"k": 3}', '{"shots": 2}')


@pytest.fixture
def pipeline_id(evals, eval_id, context_id):
    return evals.create_pipeline(eval_id, "baseline", "vllm", context_id=context_id)


@pytest.fixture
def task_id(evals, eval_id, pipeline_id):
    return evals.create_actor_task(eval_id, pipeline_id, 0, 2)


class TestInferenceExperiments:
    def test_the_current_experiment_is_the_newest_that_runs(self, evals):
        first = evals.create_experiment("first", 5, 4)
        second = evals.create_experiment("second", 5, 4)
        assert evals.get_current_experiment()["experiment_id"] == second
        evals.set_experiment_status(second, "completed")
        assert evals.get_current_experiment()["experiment_id"] == first
        evals.set_experiment_status(first, "failed")
        with pytest.raises(NotFound, match="no experiment is running"):
            evals.get_current_experiment()

    def test_get_all_experiment_names(self, evals):
        assert evals.get_all_experiment_names() == []
        for name in ("b", "a", "b"):
            evals.create_experiment(name, 1, 1)
        assert evals.get_all_experiment_names() == ["b", "a", "b"]

    @pytest.mark.parametrize(
        "word", ["failed", "FAILED", InferenceStatus.FAILED, ExperimentStatus.FAILED]
    )
    def test_set_experiment_status(self, evals, eval_id, word):
        evals.set_experiment_status(eval_id, word)
        [row] = evals.db.execute("SELECT status FROM experiments")
        assert row["status"] == "failed"

    def test_experiment_error(self, evals, eval_id):
        assert evals.get_experiment_error(eval_id) == ""
        evals.set_experiment_error(eval_id, "no GPU")
        assert evals.get_experiment_error(eval_id) == "no GPU"


class TestContexts:
    def test_create_context(self, evals, context_id):
        context = evals.get_context(context_id)
        del context["created_at"], context["updated_at"], context["position"]
        assert context == {
            "context_id": context_id,
            "context_hash": "a1b2",
            "rag_config_json": '{"k": 3}',
            "prompt_config_json": '{"shots": 2}',
            "status": "pending",
            "error": None,
            "started_at": None,
            "completed_at": None,
            "duration_seconds": None,
        }

    def test_a_known_hash_gives_the_existing_id(self, evals, context_id):
        head = evals.store.head()
        assert evals.create_context(context_hash="a1b2") == context_id
        assert evals.create_context(context_hash="c3d4") == context_id + 1
        assert evals.store.head() == head + 1

    def test_a_configuration_may_be_a_dict(self, evals):
        context_id = evals.create_context("c3d4", {"k": 3}, {"shots": 2}, ContextStatus.BUILDING)
        context = evals.get_context(context_id)
        assert (context["rag_config_json"], context["prompt_config_json"]) == (
            '{"k":3}',
            '{"shots":2}',
        )
        assert context["status"] == "building"

    @pytest.mark.parametrize("word", ["building", "BUILDING", ContextStatus.BUILDING])
    def test_set_context_status(self, evals, context_id, word):
        evals.set_context_status(context_id, word)
        assert evals.get_context(context_id)["status"] == "building"
        evals.set_context_status(context_id, "ready")
        assert evals.get_context(context_id)["status"] == "ready"

    def test_times_and_error(self, evals, context_id):
        evals.set_context_start_time(context_id, "2026-01-01T08:00:00")
        evals.set_context_end_time(context_id, "2026-01-01T08:01:00", 60.0)
        evals.set_context_error(context_id, "slow")
        assert columns(
            evals.get_context(context_id), "started_at completed_at duration_seconds error"
        ) == {
            "started_at": "2026-01-01T08:00:00",
            "completed_at": "2026-01-01T08:01:00",
            "duration_seconds": 60.0,
            "error": "slow",
        }


class TestPipelines:
    def test_create_pipeline(self, evals, eval_id, context_id, pipeline_id):
        other = evals.create_experiment("other", 1, 1)
        second = evals.create_pipeline(
            eval_id, "hot", "vllm", {"model": "qwen"}, {"temperature": 1.5}, "ongoing"
        )
        assert evals.get_pipeline(pipeline_id)["context_id"] == context_id
        assert columns(evals.get_pipeline(second), "sampling_params_json status") == {
            "sampling_params_json": '{"temperature":1.5}',
            "status": "ongoing",
        }
        assert evals.get_all_pipelines(eval_id) == [
            evals.get_pipeline(pipeline_id),
            evals.get_pipeline(second),
        ]
        assert evals.get_all_pipelines(other) == []

    @pytest.mark.parametrize("word", ["ongoing", "ONGOING", PipelineStatus.ONGOING])
    def test_set_pipeline_status(self, evals, pipeline_id, word):
        evals.set_pipeline_status(pipeline_id, word)
        assert evals.get_pipeline(pipeline_id)["status"] == "ongoing"

    @pytest.mark.parametrize("status", ["stopped", "deleted", "failed"])
    def test_every_end_of_a_pipeline(self, evals, pipeline_id, status):
        evals.set_pipeline_status(pipeline_id, status)
        assert evals.get_pipeline(pipeline_id)["status"] == status

    def test_progress_and_error(self, evals, pipeline_id):
        evals.set_pipeline_progress(pipeline_id, 0, 1, 100)
        evals.set_pipeline_error(pipeline_id, "out of memory")
        assert columns(
            evals.get_pipeline(pipeline_id),
            "current_shard_id shards_completed total_samples_processed error",
        ) == {
            "current_shard_id": 0,
            "shards_completed": 1,
            "total_samples_processed": 100,
            "error": "out of memory",
        }


class TestActorTasks:
    def test_get_running_actor_tasks(self, evals, eval_id, pipeline_id, task_id):
        second = evals.create_actor_task(eval_id, pipeline_id, actor_id=1, shard_id=3)
        assert evals.get_running_actor_tasks(eval_id) == []
        for started in (second, task_id):
            evals.set_actor_task_status(started, "in_progress")
        assert evals.get_running_actor_tasks(eval_id) == [
            evals.get_actor_task(task_id),
            evals.get_actor_task(second),
        ]
        evals.set_actor_task_status(second, "completed")
        assert [t["task_id"] for t in evals.get_running_actor_tasks(eval_id)] == [task_id]
        assert evals.get_running_actor_tasks(eval_id + 1) == []

    @pytest.mark.parametrize(
        "word", ["failed", "FAILED", ActorTaskStatus.FAILED, TaskStatus.FAILED]
    )
    def test_set_actor_task_status(self, evals, task_id, word):
        evals.set_actor_task_status(task_id, word)
        assert evals.get_actor_task(task_id)["status"] == "failed"

    def test_claim_next_actor_task(self, evals, eval_id, pipeline_id, task_id):
        second = evals.create_actor_task(eval_id, pipeline_id, actor_id=0, shard_id=3)
        evals.create_actor_task(eval_id, pipeline_id, actor_id=1, shard_id=4)
        assert evals.get_next_actor_task(0) == evals.get_actor_task(task_id)
        claimed = [evals.claim_next_actor_task(0), evals.claim_next_actor_task(actor_id=0)]
        assert [task["task_id"] for task in claimed] == [task_id, second]
        assert claimed == evals.get_running_actor_tasks(eval_id)
        assert evals.claim_next_actor_task(0) is evals.get_next_actor_task(0) is None

    @pytest.mark.parametrize(
        "time",
        [
            "2026-01-01 08:00:00.000000",
            datetime(2026, 1, 1, 8, tzinfo=UTC),
            datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=1))),
            1767254400,
            1767254400.0,
        ],
        ids=["text", "UTC", "another zone", "seconds", "fraction"],
    )
    def test_times_and_error(self, evals, task_id, time):
        evals.set_actor_task_start_time(task_id, time)
        evals.set_actor_task_end_time(task_id, time, 60)
        evals.set_actor_task_error(task_id, "slow")
        assert columns(
            evals.get_actor_task(task_id), "started_at completed_at duration_seconds error"
        ) == {
            "started_at": "2026-01-01 08:00:00.000000",
            "completed_at": "2026-01-01 08:00:00.000000",
            "duration_seconds": 60.0,
            "error": "slow",
        }


# --- both documents -------------------------------------------------------------------------


def test_both_faces_share_one_store(db, evals):
    fit = db.create_experiment("fit", status="RUNNING")
    inference = evals.create_experiment("evals", 1, 1)
    assert (fit, inference) == (1, 2)
    assert db.get_running_experiment()["experiment_name"] == "fit"
    assert evals.get_current_experiment()["experiment_name"] == "evals"
    assert evals.get_all_experiment_names() == ["evals"]

    run_id = db.create_run(fit)
    db.create_worker_task(run_id, 0, 0)
    pipeline_id = evals.create_pipeline(inference, "baseline", "vllm")
    evals.create_actor_task(inference, pipeline_id, 0, 0)
    found = evals.reset_experiment_states(fail_runs=True)
    assert (found["runs"], found["worker_tasks"]) == ([run_id], [1])
    assert (found["pipelines"], found["actor_tasks"]) == ([pipeline_id], [1])
    assert db.get_run(run_id)["status"] == "FAILED"
    assert evals.get_pipeline(pipeline_id)["status"] == "failed"

    db.reset_all_tables(experiments_table=True)
    assert evals.get_all_experiment_names() == []
    assert db.verify() == evals.verify() == []


def test_every_row_is_a_dict_with_the_times_of_its_events(db, run_id):
    created = db.get_run(run_id)
    db.set_run_status(run_id, RunStatus.ONGOING)
    changed = db.get_run(run_id)
    events = list(db.store.read(stream=f"run-{run_id}"))
    times = [event.time.replace(tzinfo=None).isoformat(" ", "microseconds") for event in events]
    assert [created["created_at"], changed["updated_at"]] == times
    assert changed["created_at"] == created["created_at"]
    assert changed["position"] == events[-1].position


def test_errors_are_db_exceptions_with_the_ids_in_their_text(db, evals):
    for call, message in (
        (lambda: db.get_run(7), "there is no run 7"),
        (lambda: db.get_worker_task(7), "there is no worker task 7"),
        (lambda: evals.get_pipeline(7), "there is no pipeline 7"),
        (lambda: evals.get_context(7), "there is no context 7"),
        (lambda: evals.get_actor_task(7), "there is no actor task 7"),
        (lambda: evals.get_experiment_error(7), "there is no experiment 7"),
    ):
        with pytest.raises(DBException, match=message):
            call()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q"]))

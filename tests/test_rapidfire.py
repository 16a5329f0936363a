"""RapidFire AI's layer, as its package has it, beside the same on refold: the same calls, results.

`make rapidfire` runs these with each version of the package that is known; elsewhere they are
skipped.
"""

import inspect
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from refold import IllegalTransition, InvalidCommand, InvalidFile, RfDb
from refold.eventstore import statuses
from refold.rapidfire import KNOWN, STORE

if find_spec("rapidfireai") is None:
    pytest.skip("rapidfireai is not installed: make rapidfire", allow_module_level=True)

# It makes folders when it is imported.
os.environ.setdefault("RF_HOME", mkdtemp(prefix="rapidfire-"))
os.environ.setdefault("RF_MLFLOW_ENABLED", "false")

fit_words = import_module("rapidfireai.fit.utils.constants")
evals_words = import_module("rapidfireai.evals.utils.constants")
own_fit = import_module("rapidfireai.fit.db.rf_db")
own_evals = import_module("rapidfireai.evals.db.rf_db")
from refold.rapidfire import evals as our_evals  # noqa: E402
from refold.rapidfire import fit as our_fit  # noqa: E402
from refold.rapidfire import layer  # noqa: E402
from refold.rapidfire.importing import import_database  # noqa: E402
from refold.rapidfire.package import VERSION, DBException  # noqa: E402

SHARD = layer.OLDER.get("shard_id", "shard_id")
VISITED = layer.OLDER.get("num_shards_visited_curr_epoch", "num_shards_visited_curr_epoch")

RunStatus, TaskStatus = fit_words.RunStatus, fit_words.TaskStatus
ControllerTask, WorkerTask = fit_words.ControllerTask, fit_words.WorkerTask
ExperimentStatus, ExperimentTask = fit_words.ExperimentStatus, fit_words.ExperimentTask


def test_the_version_is_known() -> None:
    assert VERSION in KNOWN


# --- names --------------------------------------------------------------------------------------

LAYERS = [(own_fit.RfDb, our_fit.RfDb), (own_evals.RFDatabase, our_evals.RFDatabase)]

METHODS = [
    pytest.param(own, ours, name, id=f"{own.__name__}.{name}")
    for own, ours in LAYERS
    for name, _ in inspect.getmembers(own, inspect.isfunction)
    if not name.startswith("_") or name == "__init__"
]


def told(method: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize(("own", "ours", "name"), METHODS)
def test_a_method_takes_what_it_takes_there(own: type, ours: type, name: str) -> None:
    assert hasattr(ours, name), f"rapidfireai {VERSION} has {name}, and refold does not"
    asked, offered = told(getattr(own, name)), told(getattr(ours, name))
    assert offered[: len(asked)] == asked
    # What a later version has added may be left out.
    assert all(default is not inspect.Parameter.empty for _, _, default in offered[len(asked) :])


ENUMS = [
    (fit_words.RunStatus, our_fit.RUN_STATUS),
    (fit_words.TaskStatus, our_fit.TASK_STATUS),
    (fit_words.TaskStatus, our_fit.REQUEST_STATUS),
]


@pytest.mark.parametrize(("words", "known"), ENUMS)
def test_every_word_of_training_is_known(words: Any, known: dict[Any, Any]) -> None:
    assert set(known) == set(words)


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (evals_words.ContextStatus, set(our_evals.CONTEXT_STATUS)),
        (evals_words.ICStatus, set(our_evals.REQUEST_STATUS)),
        (evals_words.PipelineStatus, set(statuses.PipelineStatus)),
        (evals_words.TaskStatus, set(statuses.ActorTaskStatus)),
        (evals_words.ExperimentStatus, set(statuses.InferenceStatus)),
        (evals_words.ICOperation, set(statuses.PipelineOperation)),
    ],
    ids=lambda value: getattr(value, "__name__", "-"),
)
def test_every_word_of_inference_is_known(words: Any, known: set[str]) -> None:
    found = {word.value for word in words}
    assert found <= known
    assert len(known - found) <= 1  # 0.16.1 had no completed contexts


# --- both, side by side -------------------------------------------------------------------------


class Both:
    """Calls RapidFire's own layer and refold's, which must agree."""

    def __init__(self, own: Any, ours: Any) -> None:
        self.own, self.ours = own, ours

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            own = outcome(getattr(self.own, name), *args, **kwargs)
            ours = outcome(getattr(self.ours, name), *args, **kwargs)
            assert same(ours) == same(own), name
            return ours

        return call


def outcome(call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except Exception:  # noqa: BLE001 - RapidFire's inference raises just that
        return "refused"


def same(value: Any) -> Any:
    """Return what must be equal: times to the hour, types told."""
    if isinstance(value, dict):
        items = sorted(value.items(), key=repr)
        return [(key, type(one).__name__ if key in CLOCK else same(one)) for key, one in items]
    if isinstance(value, list | tuple):
        return type(value).__name__, [same(one) for one in value]
    return type(value).__name__, value


CLOCK = ("created_at", "processed_at")


@pytest.fixture
def ours(place: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The place where refold's layer keeps its state."""
    monkeypatch.setenv(STORE, place)
    return place


@pytest.fixture
def fit(ours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Training's layers."""
    monkeypatch.setattr(fit_words.DBConfig, "DB_PATH", str(tmp_path / "own" / "fit.db"))
    both = Both(own_fit.RfDb(), our_fit.RfDb())
    both.create_tables()
    yield both
    with RfDb(ours) as db:
        assert db.verify(log=True) == []
    both.close()


@pytest.fixture
def evals(ours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Inference's layers."""
    monkeypatch.setattr(evals_words.DBConfig, "DB_PATH", str(tmp_path / "own" / "evals.db"))
    both = Both(own_evals.RFDatabase(), our_evals.RFDatabase())
    yield both
    with RfDb(ours) as db:
        assert db.verify(log=True) == []
    both.close()


CONFIG = {"lr": 0.1, "tags": ("a", "b"), "deep": {"n": 2**70, "none": None}, "x": b"\0"}


def look_at_training(fit: Any) -> None:
    fit.get_all_runs()
    fit.get_runs_by_status(list(RunStatus))
    fit.get_runs_by_status([RunStatus.NEW])
    fit.get_runs_by_status([])
    fit.get_all_worker_tasks()
    fit.get_scheduled_ic_ops_tasks()
    fit.get_running_experiment()
    fit.get_experiment_status()
    fit.get_experiment_error()
    fit.get_experiment_current_task()
    fit.get_all_experiment_names()
    fit.get_experiments_path("digits")
    for number in (0, 1, 2, 3):
        fit.get_run(number)
        fit.get_completed_steps(number)
        fit.get_controller_progress(number)
        fit.get_worker_progress(number)
        fit.get_worker_scheduled_task(number)


def test_training(fit: Any) -> None:
    look_at_training(fit)
    first = fit.create_experiment("digits", None, {"experiments_path": "/tmp/digits", **CONFIG})
    look_at_training(fit)
    assert fit.create_run(
        CONFIG,
        RunStatus.NEW,
        total_steps=8,
        source=fit_words.RunSource.INITIAL,
        estimated_runtime=1.25,
        required_workers=1,
        **{VISITED: 0},
    )
    fit.create_run({}, RunStatus.ONGOING, "abc", {"lr": float("inf")}, error="none")
    fit.create_run(
        CONFIG,
        RunStatus.NEW,
        source=fit_words.RunSource.OPTUNA,
        warm_started_from=1,
        cloned_from=1,
        ended_by=fit_words.RunEndedBy.TOLERENCE,
    )
    look_at_training(fit)
    fit.set_run_details(1, metric_run_id="def", flattened_config={"lr": 0.1, "big": 2**70})
    fit.set_run_details(1, status=RunStatus.ONGOING, ended_by="")
    fit.set_run_details(1, config_leaf={"lr": (0.2,)}, completed_steps=2, **{VISITED: 1})
    fit.set_run_details(1)
    fit.set_run_details(99, status=RunStatus.FAILED, error="late")
    fit.set_completed_steps(1, 4)
    fit.set_estimated_runtime(1, 3)
    fit.set_controller_progress(1, 33.3333)
    fit.set_worker_progress(1, 66.6666)
    look_at_training(fit)
    details = {"world_size": 2, "worker_ids": (0, 1), "local_rank": 0, "n": 2**70}
    for worker in (0, 1, 0):
        fit.create_worker_task(
            worker, WorkerTask.TRAIN_VAL, TaskStatus.SCHEDULED, 1, 0, details, {"f": "create"}
        )
    fit.create_worker_task(2, WorkerTask.CREATE_MODELS, TaskStatus.SCHEDULED, 2)
    look_at_training(fit)
    for worker, ends in ((0, TaskStatus.COMPLETED), (1, TaskStatus.FAILED)):
        fit.set_worker_task_status(worker, TaskStatus.IN_PROGRESS)
        look_at_training(fit)
        fit.set_worker_task_status(worker, ends)
    fit.set_worker_task_status(77, TaskStatus.COMPLETED)
    look_at_training(fit)
    asked = [
        fit.create_ic_ops_task(run, operation, CONFIG)
        for run, operation in (
            (1, ControllerTask.IC_STOP),
            (1, ControllerTask.IC_RESUME),
            (2, ControllerTask.IC_DELETE),
            (1, ControllerTask.IC_CLONE_MODIFY),
            (1, ControllerTask.IC_CLONE_MODIFY_WARM),
        )
    ]
    look_at_training(fit)
    fit.set_ic_ops_task_status(asked[0], TaskStatus.COMPLETED)
    fit.set_ic_ops_task_status(asked[1], TaskStatus.SKIPPED)
    fit.set_ic_ops_task_status(asked[2], TaskStatus.IN_PROGRESS)
    fit.set_ic_ops_task_status(asked[2], TaskStatus.FAILED)
    fit.set_ic_ops_task_status(99, TaskStatus.FAILED)
    look_at_training(fit)
    for status in (
        RunStatus.STOPPED,
        RunStatus.ONGOING,
        RunStatus.FAILED,
        RunStatus.STOPPED,
        RunStatus.FAILED,
        RunStatus.COMPLETED,
    ):
        fit.set_run_details(1, status=status, ended_by=fit_words.RunEndedBy.SHA)
        look_at_training(fit)
    fit.set_run_status(2, RunStatus.DELETED)
    fit.set_experiment_current_task(ExperimentTask.RUN_FIT)
    fit.set_experiment_error("out of memory\n")
    look_at_training(fit)
    fit.set_experiment_error("")
    fit.reset_experiment_states()
    look_at_training(fit)
    fit.set_experiment_status(first, ExperimentStatus.CANCELLED)
    look_at_training(fit)
    fit.set_experiment_status(first, ExperimentStatus.COMPLETED)
    fit.set_experiment_status(99, ExperimentStatus.COMPLETED)
    fit.reset_all_tables()
    look_at_training(fit)
    fit.create_experiment("digits", "7", {"experiments_path": "/tmp/again"})
    fit.get_running_experiment()
    fit.reset_all_tables(experiments_table=True)
    look_at_training(fit)


def look_at_inference(evals: Any) -> None:
    evals.get_running_experiment()
    evals.get_all_experiment_names()
    evals.get_all_pipelines()
    evals.get_all_pipelines(include_decoded_config=True)
    evals.get_all_pipeline_ids()
    evals.get_running_actor_tasks()
    evals.get_pending_ic_operations()
    evals.get_all_ic_operations()
    evals.get_pipeline_by_metric_run_id("abc")
    evals.get_context_by_hash("hash")
    if VERSION != "0.16.1":
        evals.get_latest_experiment()
        evals.get_experiment_by_name("rag")
        evals.get_all_contexts()
    for number in (0, 1, 2, 3):
        evals.get_experiment(number)
        evals.get_experiment_error(number)
        evals.get_context(number)
        evals.get_pipeline(number)
        evals.get_pipeline(str(number), False)
        evals.get_pipeline_config_json(number)
        evals.get_actor_task(number)
        evals.get_ic_operation(number)


def test_inference(evals: Any) -> None:
    words = evals_words
    look_at_inference(evals)
    first = evals.create_experiment("rag", 4, 1.5, metric_experiment_id="7")
    look_at_inference(evals)
    evals.set_experiment_num_shards(first, 8)
    evals.set_experiment_resources(first, 2, 3.75)
    evals.set_experiment_resources(99, 2, 3.75)
    link = "UPDATE experiments SET metric_experiment_id = ? WHERE experiment_id = ?"
    for db in (evals.own, evals.ours):
        db.db.execute(link, ("abc", first), commit=True)
    look_at_inference(evals)
    context = evals.create_context("hash", '{"k": 3}', "{}", words.ContextStatus.ONGOING)
    assert evals.create_context("hash") == context
    evals.create_context("other")
    evals.set_context_start_time(context, 1790000000.1234567)
    look_at_inference(evals)
    evals.set_context_end_time(context, 1790000060.7654321, 60.6419754)
    evals.set_context_status(context, words.ContextStatus.FAILED)
    evals.set_context_error(context, "no index")
    evals.set_context_status(99, words.ContextStatus.FAILED)
    look_at_inference(evals)
    if VERSION != "0.16.1":
        evals.start_context_build(context, 1790000070.5)
        look_at_inference(evals)
        evals.set_context_status(context, words.ContextStatus.COMPLETED)
        evals.create_context("gpu", enable_gpu=True, vector_store_json='{"type": "faiss"}')
        look_at_inference(evals)
    evals.set_context_start_time(context, "2026-01-01T00:00:00")
    config = {"pipeline": None, "batch_size": 32, "f": ("x", 2**70)}
    for flattened in ({"k": 3, "nan": float("inf")}, None):
        evals.create_pipeline("vllm", config, context, flattened_config=flattened)
    evals.create_pipeline("api", config)
    look_at_inference(evals)
    evals.set_pipeline_metric_run_id(1, "abc")
    evals.set_pipeline_status(1, words.PipelineStatus.ONGOING)
    evals.set_pipeline_current_shard(1, 0)
    evals.set_pipeline_progress(1, 1, 1, 100)
    evals.set_pipeline_progress(99, 1, 1, 100)
    look_at_inference(evals)
    for shard in range(3):
        task = evals.create_actor_task(1, shard, shard)
        evals.set_actor_task_start_time(task, 1790000000.25 + shard)
        look_at_inference(evals)
    evals.set_actor_task_status(1, words.TaskStatus.IN_PROGRESS)
    look_at_inference(evals)
    evals.set_actor_task_end_time(1, 1790000001.1234567, 0.8)
    evals.set_actor_task_status(1, words.TaskStatus.COMPLETED)
    evals.set_actor_task_status(1, words.TaskStatus.FAILED)
    evals.set_actor_task_error(1, "merge")
    evals.set_actor_task_status(2, words.TaskStatus.COMPLETED)
    evals.set_actor_task_status(99, words.TaskStatus.COMPLETED)
    look_at_inference(evals)
    for operation, data in (("stop", None), ("resume", None), ("delete", None), ("clone", "{}")):
        evals.create_ic_operation(operation, 1, data)
    evals.create_ic_operation("clone", None, '{"parent_pipeline_id": 1}')
    look_at_inference(evals)
    evals.update_ic_operation_status(1, "processing")
    look_at_inference(evals)
    evals.update_ic_operation_status(1, "completed")
    evals.update_ic_operation_status(2, "processing")
    evals.update_ic_operation_status(2, "failed", "not stopped")
    evals.update_ic_operation_status(99, "failed", "not there")
    look_at_inference(evals)
    for status in ("STOPPED", "COMPLETED", "STOPPED", "ONGOING", "FAILED", "STOPPED", "DELETED"):
        evals.set_pipeline_status(1, words.PipelineStatus[status])
        look_at_inference(evals)
    evals.set_pipeline_error(2, "no memory")
    evals.set_experiment_error(first, "no memory")
    evals.reset_experiment_states()
    look_at_inference(evals)
    for status in ("CANCELLED", "FAILED", "CANCELLED", "COMPLETED"):
        evals.set_experiment_status(first, words.ExperimentStatus[status])
        look_at_inference(evals)
    evals.reset_all_tables()
    look_at_inference(evals)
    evals.create_experiment("rag", 1)
    look_at_inference(evals)
    evals.reset_all_tables(experiments_table=True)
    look_at_inference(evals)


# --- what differs, on purpose -------------------------------------------------------------------


@pytest.fixture
def training(ours: str) -> Any:
    """Refold's layer of training, with an experiment and a run that is trained."""
    db = our_fit.RfDb()
    db.create_experiment("digits", None, {"experiments_path": "/tmp/digits"})
    db.create_run(CONFIG, RunStatus.ONGOING)
    yield db
    db.close()


@pytest.fixture
def inference(ours: str) -> Any:
    """Refold's layer of inference, with an experiment and a pipeline."""
    db = our_evals.RFDatabase()
    db.create_experiment("rag", 1)
    db.create_pipeline("vllm", {"pipeline": None})
    yield db
    db.close()


def test_a_deleted_run_is_asked_nothing(training: Any) -> None:
    training.set_run_status(1, RunStatus.DELETED)
    with pytest.raises(DBException, match="run 1 is KILLED; no interactive control") as caught:
        training.create_ic_ops_task(1, ControllerTask.IC_RESUME, CONFIG)
    assert caught.value.message == str(caught.value)
    assert isinstance(caught.value.__cause__, IllegalTransition)


def test_a_late_report_does_not_undo_a_recovery(training: Any) -> None:
    training.create_worker_task(0, WorkerTask.TRAIN_VAL, TaskStatus.SCHEDULED, 1, 0)
    training.set_worker_task_status(0, TaskStatus.IN_PROGRESS)
    training.reset_experiment_states()
    with pytest.raises(DBException, match="worker task 1 is FAILED; it cannot become COMPLETED"):
        training.set_worker_task_status(0, TaskStatus.COMPLETED)
    assert training.get_all_worker_tasks()[0]["status"] is TaskStatus.FAILED


def test_a_late_worker_does_not_write_into_the_next_experiment(training: Any) -> None:
    training.set_experiment_status(1, ExperimentStatus.COMPLETED)
    training.reset_all_tables()
    training.create_experiment("digits", None, {"experiments_path": "/tmp/digits"})
    assert training.create_run(CONFIG, RunStatus.NEW) == 2
    training.set_run_details(1, status=RunStatus.FAILED, error="late")
    assert training.get_all_runs()[2]["error"] == ""


def test_a_deleted_pipeline_stays_deleted(inference: Any) -> None:
    words = evals_words.PipelineStatus
    inference.set_pipeline_status(1, words.DELETED)
    for status in (words.STOPPED, words.ONGOING):
        with pytest.raises(DBException, match="pipeline 1 is deleted; it cannot become"):
            inference.set_pipeline_status(1, status)
    # A shard that was being processed ends.
    inference.set_pipeline_progress(1, 1, 1, 10)
    inference.set_pipeline_status(1, words.COMPLETED)
    assert inference.get_pipeline(1)["status"] == "deleted"
    with pytest.raises(DBException, match="no interactive control can follow"):
        inference.create_ic_operation("resume", 1)


def test_training_and_inference_share_a_store_and_no_reset(training: Any, inference: Any) -> None:
    training.reset_all_tables()
    assert inference.get_all_pipeline_ids()
    training.create_run(CONFIG, RunStatus.NEW)
    inference.reset_all_tables()
    assert training.get_all_runs()
    assert training.get_all_experiment_names() == ["digits"]
    assert inference.get_all_experiment_names() == ["rag"]


def test_the_seeds_faces_and_the_history_have_it_too(training: Any, ours: str) -> None:
    training.set_run_details(1, config_leaf={"lr": 0.2}, completed_steps=3)
    training.set_run_details(1, completed_steps=4)
    with RfDb(ours) as db:
        assert db.get_run(1)["config_leaf"] == {"lr": 0.2}
        last = db.history("rapidfire_runs", 1)[-1]
        assert last.change.columns == {"completed_steps": (3, 4)}
        assert "RunDetailsRecorded" in str(db.why("rapidfire_runs", 1, "completed_steps"))


def test_sql_that_writes_is_refused(inference: Any) -> None:
    with pytest.raises(DBException, match="DELETE FROM pipelines"):
        inference.db.execute("DELETE FROM pipelines", commit=True)
    assert inference.db.execute("SELECT count(*) FROM pipelines", fetch=True) == [(1,)]


def test_a_place_where_no_store_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("this is no store, but it is long enough to be a text" * 20)
    monkeypatch.setenv(STORE, str(tmp_path / "file"))
    with pytest.raises(DBException):
        our_fit.RfDb()
    monkeypatch.setenv(STORE, str(tmp_path / "file" / "below"))
    with pytest.raises(DBException):
        our_evals.RFDatabase()


def test_objects_of_a_process_share_a_store(ours: str) -> None:
    one, other = our_fit.RfDb(), our_evals.RFDatabase()
    assert one._face is other._face
    one.close()
    one.close()
    assert other.get_all_experiment_names() == []
    other.close()
    again = our_fit.RfDb()
    assert again.get_all_experiment_names() == []
    again.close()


# --- in its place -------------------------------------------------------------------------------

USE = """
import refold.rapidfire
refold.rapidfire.use({place!r})
import subprocess, sys
from rapidfireai.fit.db.rf_db import RfDb
from rapidfireai.evals.db import RFDatabase
print(RfDb.__module__, RFDatabase.__module__)
RfDb().create_experiment("digits", None, {{}})
subprocess.run([sys.executable, "-c", {child!r}], check=True)
"""
CHILD = """
from rapidfireai.fit.db.rf_db import RfDb
print(RfDb().get_running_experiment()["experiment_name"])
"""
LATE = """
import rapidfireai.fit.db.rf_db
import refold.rapidfire
refold.rapidfire.use({place!r})
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_one_line_is_enough_for_a_process_and_its_children(place: str) -> None:
    done = python(USE.format(place=place, child=CHILD))
    assert done.returncode == 0, done.stderr
    *_, classes, name = done.stdout.splitlines()
    assert classes == "refold.rapidfire.fit refold.rapidfire.evals"
    assert name == "digits"


def test_the_line_must_come_first(tmp_path: Path) -> None:
    done = python(LATE.format(place=str(tmp_path / "store.db")))
    assert done.returncode == 1
    assert "call refold.rapidfire.use() first, before" in done.stderr


def test_a_program_is_run_on_a_store(place: str) -> None:
    with RfDb(place) as db:
        db.create_experiment("digits", status="RUNNING")
    command = [sys.executable, "-m", "refold", "rapidfire", "--store", place, "run", "--"]
    done = subprocess.run(
        [*command, sys.executable, "-c", CHILD], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "digits"


# --- import -------------------------------------------------------------------------------------


def same_now(value: Any) -> Any:
    """Return what must be equal after an import: all of it."""
    if isinstance(value, dict):
        return [(key, same_now(one)) for key, one in sorted(value.items(), key=repr)]
    if isinstance(value, list | tuple):
        return type(value).__name__, [same_now(one) for one in value]
    return type(value).__name__, value


class Imported(Both):
    """Compares every column, times as well."""

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            own = outcome(getattr(self.own, name), *args, **kwargs)
            ours = outcome(getattr(self.ours, name), *args, **kwargs)
            assert same_now(ours) == same_now(own), name
            return ours

        return call


def test_a_database_of_training_is_imported(
    ours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "own" / "fit.db"
    monkeypatch.setattr(fit_words.DBConfig, "DB_PATH", str(old))
    own = own_fit.RfDb()
    own.create_tables()
    first = own.create_experiment("digits", "7", {"experiments_path": "/tmp/digits", **CONFIG})
    own.set_experiment_error("lost")
    own.set_experiment_status(first, ExperimentStatus.CANCELLED)
    own.create_experiment("again", None, {"experiments_path": "/tmp/again"})
    own.create_run(CONFIG, RunStatus.ONGOING, "abc", {"lr": float("inf")}, total_steps=8)
    source = fit_words.RunSource.INTERACTIVE_CONTROL
    own.create_run({}, RunStatus.DELETED, source=source, cloned_from=1, warm_started_from=1)
    own.set_run_details(1, completed_steps=4, error="none", estimated_runtime=1.25)
    own.set_controller_progress(1, 50)
    own.set_worker_progress(1, 25.5)
    details = {"worker_ids": (0, 1)}
    for worker, status in ((0, TaskStatus.COMPLETED), (1, TaskStatus.FAILED), (0, None)):
        own.create_worker_task(
            worker, WorkerTask.TRAIN_VAL, TaskStatus.SCHEDULED, 1, 2, details, {"f": "create"}
        )
        if status is not None:
            own.set_worker_task_status(worker, status)
    for operation in (ControllerTask.IC_STOP, ControllerTask.IC_CLONE_MODIFY_WARM):
        own.create_ic_ops_task(1, operation, CONFIG)
    own.set_ic_ops_task_status(1, TaskStatus.SKIPPED)
    assert import_database(old, ours) > 10
    look_at_training(Imported(own, our_fit.RfDb()))
    with RfDb(ours) as db:
        assert db.verify(log=True) == []
        assert {recorded.metadata.actor for recorded in db.store.read()} == {"import"}
    with pytest.raises(InvalidCommand, match="holds a log already: import into a store"):
        import_database(old, ours)


def test_a_database_of_inference_is_imported(
    ours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, old = evals_words, tmp_path / "own" / "evals.db"
    monkeypatch.setattr(words.DBConfig, "DB_PATH", str(old))
    own = own_evals.RFDatabase()
    experiment_id = own.create_experiment("rag", 4, 1.5, metric_experiment_id="7", num_shards=3)
    own.set_experiment_error(experiment_id, "lost")
    context = own.create_context("hash", '{"k": 3}', "{}", words.ContextStatus.ONGOING)
    own.set_context_start_time(context, 1790000000.1234567)
    own.set_context_end_time(context, 1790000060.7654321, 60.5)
    own.set_context_error(context, "no index")
    config = {"pipeline": None, "batch_size": 32, "f": ("x", 2**70)}
    own.create_pipeline("vllm", config, context, words.PipelineStatus.ONGOING, {"k": 3})
    own.create_pipeline("api", config)
    own.set_pipeline_progress(1, 1, 1, 100)
    own.set_pipeline_metric_run_id(1, "abc")
    own.set_pipeline_error(2, "lost")
    for status in words.TaskStatus:
        task = own.create_actor_task(1, 0, 0, status)
        own.set_actor_task_start_time(task, 1790000000.7654321)
    own.set_actor_task_end_time(1, 1790000001.1234567, 0.8)
    own.set_actor_task_error(1, "lost")
    own.create_ic_operation("stop", 1)
    own.create_ic_operation("clone", None, "{}")
    own.update_ic_operation_status(1, "failed", "not there")
    for change in (
        "experiments SET created_at = '2026-01-31 12:00:00'",
        "pipelines SET created_at = '2026-01-31 12:00:0' || pipeline_id",
        "interactive_control SET created_at = 1790000000.25 + ic_id",
        "interactive_control SET processed_at = 1790000001.5 WHERE ic_id = 1",
    ):
        own.db.execute(f"UPDATE {change}", commit=True)
    import_database(old, ours)
    look_at_inference(Imported(own, our_evals.RFDatabase()))
    with RfDb(ours) as db:
        assert db.verify(log=True) == []


def test_what_is_no_database_of_rapidfires_is_not_imported(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="is no file"):
        import_database(tmp_path / "nothing.db", str(tmp_path / "new.db"))
    (tmp_path / "text.db").write_text("no database, though it is long enough " * 30)
    with pytest.raises(InvalidFile, match=r"text\.db cannot be read as a database"):
        import_database(tmp_path / "text.db", str(tmp_path / "new.db"))
    with RfDb(tmp_path / "other.db"):
        pass
    with pytest.raises(InvalidFile, match=r"other\.db: ValueError|other\.db: "):
        import_database(tmp_path / "other.db", str(tmp_path / "new.db"))

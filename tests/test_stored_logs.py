"""Stores written by every release, kept for ever: they must open, decode and fold.

`python tests/test_stored_logs.py` records what is new: a log that holds event types, or schema
versions of them, that no stored log holds yet, and the folds of views whose version was raised.
"""

import hashlib
import json
import shutil
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from refold import RFDatabase, RfDb, copy_store
from refold.eventstore import open_store
from refold.eventstore.events import event_types
from refold.projections import ALL, UnitOfWork, View

FOLDER = Path(__file__).parent / "stored_logs"
LOGS = sorted(FOLDER.glob("*.db"))
FOLDS = FOLDER / "folds.json"


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_stored_log_opens_and_folds(log: Path, place: str, tmp_path: Path) -> None:
    if "://" in place:
        copy_store(copied(log, tmp_path), place)
    else:
        shutil.copy(log, place)
    with RfDb(place) as db:

        def rows() -> list[Any]:
            return [db.db.execute(f"SELECT * FROM {view.name} ORDER BY {view.key}") for view in ALL]

        assert db.verify() == []
        before = rows()
        db.rebuild()
        assert rows() == before
        db.create_experiment("goes on")
        assert db.verify() == []


def test_every_event_type_is_in_a_stored_log() -> None:
    missing = own_types() - stored_types()
    assert not missing, f"run `python {Path(__file__).name}` to store a log with them"


def test_a_view_that_changes_has_a_new_version() -> None:
    recorded = json.loads(FOLDS.read_text())
    for view in ALL:
        known = recorded[view.name]
        if known["version"] == view.version:
            assert known == fold_of(view), (
                f"view {view.name} folds differently than it did at version {view.version}: raise "
                f"its version, so that stores rebuild it, and run `python {Path(__file__).name}`"
            )
        else:
            pytest.fail(f"run `python {Path(__file__).name}` to record {view} for good")


def own_types() -> set[tuple[str, int]]:
    """The event types of refold itself with their schema versions."""
    return {(cls.__name__, cls.schema_version) for cls in event_types()}


def stored_types() -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for log in LOGS:
        found |= types_in(log)
    return found


def types_in(log: Path) -> set[tuple[str, int]]:
    connection = sqlite3.connect(f"file:{log}?mode=ro&immutable=1", uri=True)
    try:
        return set(connection.execute("SELECT DISTINCT type, schema_version FROM events"))
    finally:
        connection.close()


def copied(log: Path, folder: str | Path) -> str:
    return str(shutil.copy(log, Path(folder) / "copy.db"))


def fold_of(view: View[Any]) -> dict[str, Any]:
    """What a view makes of the stored logs, in short."""
    rows = hashlib.sha256()
    for log in LOGS:
        unit = UnitOfWork([view])
        with TemporaryDirectory() as folder, open_store(copied(log, folder)) as store:
            for recorded in store.read():
                unit.fold(recorded)
        rows.update(repr(sorted(view.dump(row) for row in unit.rows(view))).encode())
    schema = hashlib.sha256("\n".join(view.schema).encode())
    return {
        "version": view.version,
        "schema": schema.hexdigest()[:16],
        "rows": rows.hexdigest()[:16],
    }


def write_log(path: Path) -> None:
    """Let everything happen once that can happen."""
    ticks = iter(range(1_790_000_000_000_000, 1_800_000_000_000_000, 1_000_001))
    with RfDb(path, actor="controller", clock=lambda: next(ticks)) as db:
        for experiment in ("first", "second"):
            fit = db.create_experiment(experiment, experiments_path="/tmp/experiments")
            db.set_experiment_status(fit, "RUNNING")
        db.set_experiment_status(1, "FAILED")
        db.set_experiment_status(2, "COMPLETED")
        runs = [
            db.create_run(1, f"run {n}", config_leaf={"lr": n / 10}, seed=n, num_chunks=4)
            for n in range(5)
        ]
        for run in runs[:4]:
            db.set_run_status(run, "ONGOING")
        db.set_run_progress(runs[0], 3, 1)
        db.update_run_metrics(runs[0], {"loss": 0.5, "by_class": {"a": [1, 2.5]}, "best": True})
        db.set_run_status(runs[0], "COMPLETED")
        db.set_run_ended_by(runs[0], "COMPLETED")
        db.set_run_status(runs[1], "STOPPED", cause=7)
        db.set_run_status(runs[1], "ONGOING")
        db.set_run_status(runs[2], "FAILED")
        db.set_run_status(runs[3], "KILLED")
        tasks = [
            db.create_worker_task(runs[1], worker, chunk)
            for worker, chunk in [(0, 0), (1, 1), (0, 2)]
        ]
        for task, status in zip(tasks[:2], ("COMPLETED", "FAILED"), strict=True):
            db.set_worker_task_status(task, "IN_PROGRESS", actor="worker-0")
            db.set_worker_task_status(task, status, actor="worker-0")
        db.set_controller_task("RUN_FIT")
        db.set_worker_progress(0, "TRAIN_VAL")
        requests = [
            db.request_stop(runs[1], actor="user", correlation="click-1"),
            db.request_resume(runs[1], command_id="resume-1"),
            db.request_delete(runs[2]),
            db.request_clone_modify(runs[1], {"lr": 0.01}, warm_start=True),
        ]
        db.mark_ic_ops_completed(requests[0])
        db.mark_ic_ops_failed(requests[1], "no room")
        db.mark_ic_ops_skipped(requests[2])
    with RFDatabase(path, clock=lambda: next(ticks)) as db:
        evals = db.create_experiment("evals", num_shards=5, num_actors=4, num_cpus=8, num_gpus=2)
        db.set_experiment_error(evals, "out of memory")
        context = db.create_context("abc", {"k": 3}, {"template": "…"})
        db.set_context_status(context, "building")
        db.set_context_start_time(context, "2026-01-01T00:00:00+00:00")
        db.set_context_end_time(context, "2026-01-01T00:01:00+00:00", 60)
        db.set_context_status(context, "ready")
        failed = db.create_context("def")
        db.set_context_status(failed, "building")
        db.set_context_error(failed, "no such index")
        db.set_context_status(failed, "failed")
        pipelines = [
            db.create_pipeline(evals, f"p{n}", "vllm", '{"model": "m"}', context_id=context)
            for n in range(4)
        ]
        for pipeline in pipelines:
            db.set_pipeline_status(pipeline, "ongoing")
        db.set_pipeline_progress(pipelines[0], 0, 0, 10)
        db.set_pipeline_progress(pipelines[0], 1, 1, 100)
        db.set_pipeline_status(pipelines[0], "stopped")
        db.set_pipeline_status(pipelines[0], "ongoing")
        db.set_pipeline_status(pipelines[1], "completed")
        db.set_pipeline_status(pipelines[2], "failed")
        db.set_pipeline_error(pipelines[2], "lost")
        db.set_pipeline_status(pipelines[3], "deleted")
        tasks = [db.create_actor_task(evals, pipelines[0], actor, actor) for actor in range(3)]
        for task, status in zip(tasks[:2], ("completed", "failed"), strict=True):
            db.set_actor_task_status(task, "in_progress")
            db.set_actor_task_start_time(task, "2026-01-01T00:00:00+00:00")
            db.set_actor_task_end_time(task, "2026-01-01T00:00:02+00:00", 2)
            db.set_actor_task_status(task, status)
        db.set_actor_task_error(tasks[1], "lost")
        assert db.reset_experiment_states()["worker_tasks"]
    with RfDb(path, clock=lambda: next(ticks)) as db:
        db.reset_all_tables(experiments_table=False)
        again = db.create_run(1, "after the reset", config_leaf=(1, 2))
        db.set_run_status(again, "ONGOING")
        db.reset_experiment_states(fail_runs=True)


if __name__ == "__main__":
    if own_types() - stored_types():
        name = FOLDER / f"{version('refold')}.db"
        write_log(name)
        LOGS.append(name)
        assert not own_types() - stored_types(), own_types() - stored_types()
        print(f"wrote {name}")
    FOLDS.write_text(json.dumps({view.name: fold_of(view) for view in ALL}, indent=2) + "\n")
    print(f"wrote {FOLDS}")
    sys.exit()

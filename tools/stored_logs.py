"""Record what a release writes, for ever: a log of it, and what the views make of every log.

Usage: stored_logs.py [NAME]

If event types, or schema versions of them, are in no stored log yet, one is written in which they
happen: tests/stored_logs/NAME.db, by default named after refold's version. In folds.json there, the
folds of new logs and of views with a new version are noted. A log that is there is never written
again, and a fold that is noted never changes.
"""

import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

# This checkout's refold, whichever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from refold import ExperimentStatus, RFDatabase, RfDb, RunStatus, __version__, encode_payload
from refold.commands import (
    ClaimNextWorkerTask,
    CreateContext,
    CreateExperiment,
    CreatePipeline,
    CreateRun,
    CreateWorkerTask,
    RequestStop,
    SetActorTaskStartTime,
    SetContextStartTime,
)
from refold.commands.liveness import DeclareLost, Gone, Join, Leave, RecoverLost, SetRetries
from refold.commands.rapidfire import (
    NoteExperiment,
    NotePipeline,
    NoteRun,
    ResetTables,
    SetStatus,
    StartActorTask,
    StartContext,
    StartContextBuild,
    StartExperiment,
    StartPipeline,
    StartRun,
    StartTask,
)
from refold.eventstore import Recorded, open_store
from refold.eventstore.events import (
    ExperimentDetailsRecorded,
    PipelineDetailsRecorded,
    RunDetailsRecorded,
    event_types,
)
from refold.projections import ALL, UnitOfWork, View

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "stored_logs"

Type = tuple[str, int]
"""An event type with its schema version."""


class Fold(TypedDict):
    """What a version of a view makes of the stored logs, in short."""

    schema: str
    rows: dict[str, str]
    """By the name of the log."""


Folds = dict[str, dict[str, Fold]]
"""By the name of the view and its version."""


class Refused(Exception):
    """What is recorded for ever would be changed."""


def main(name: str = __version__, folder: Path = FOLDER) -> None:
    """Record what is new.

    Raises:
        Refused: a file or a fold that is there would be changed.
    """
    missing = own_types() - stored_types(folder)
    if missing:
        log = folder / f"{name.removesuffix('.db')}.db"
        write_log(log, missing)
        print(f"wrote {log}")
    before = read_folds(folder)
    after = grown(before, folder)
    if after != before:
        file = folder / "folds.json"
        file.write_text(json.dumps(after, indent=2) + "\n", "utf-8")
        print(f"wrote {file}")
    if not missing and after == before:
        print("stored logs: nothing is new")


# --- logs -----------------------------------------------------------------------------------


def logs(folder: Path = FOLDER) -> list[Path]:
    """Return the stored logs."""
    return sorted(folder.glob("*.db"))


def own_types() -> set[Type]:
    """Return the event types of refold itself."""
    return {(cls.__name__, cls.schema_version) for cls in event_types()}


def stored_types(folder: Path = FOLDER) -> set[Type]:
    """Return the event types that are in a stored log."""
    return {found for log in logs(folder) for found in types_in(log)}


def types_in(log: Path) -> set[Type]:
    """Return the event types that are in a log."""
    connection = sqlite3.connect(f"file:{log}?mode=ro&immutable=1", uri=True)
    try:
        return set(connection.execute("SELECT DISTINCT type, schema_version FROM events"))
    finally:
        connection.close()


def write_log(path: Path, wanted: Iterable[Type] = ()) -> None:
    """Write a log in which everything happens, these types of events included.

    Raises:
        Refused: the file is there, or one of the types does not happen.
    """
    if path.exists():
        raise Refused(
            f"{path} is there, and a stored log is never written again: raise the version of "
            f"refold, or choose another name, such as tools/stored_logs.py {path.stem}-2"
        )
    with TemporaryDirectory() as scratch:
        new = Path(scratch) / "new.db"
        let_it_happen(new)
        absent = set(wanted) - types_in(new)
        if absent:
            names = ", ".join(f"{name} (schema version {version})" for name, version in absent)
            raise Refused(f"let {names} happen, in let_it_happen() of tools/stored_logs.py")
        with path.open("xb") as file:
            file.write(new.read_bytes())


# --- folds ----------------------------------------------------------------------------------


def read_folds(folder: Path = FOLDER) -> Folds:
    """Return the folds that are noted."""
    file = folder / "folds.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def grown(noted: Folds, folder: Path = FOLDER, views: Iterable[View[Any]] = ALL) -> Folds:
    """Return the folds that are noted, and beside them those that are new.

    Raises:
        Refused: a view folds a log differently than it is noted for its version.
    """
    happened = {log.stem: events_in(log) for log in logs(folder)}
    folds = deepcopy(noted)
    for view in views:
        fold = fold_of(view, happened)
        versions = folds.setdefault(view.name, {})
        known = versions.setdefault(str(view.version), fold)
        newest = max(map(int, versions))
        if newest > view.version:
            raise Refused(
                f"view {view.name} was at version {newest} and is at {view.version}: a version is "
                f"never taken back, raise it to {newest + 1}"
            )
        if known["schema"] != fold["schema"]:
            raise Refused(f"view {view.name} has another schema {_since(view)}")
        for log, rows in known["rows"].items():
            if log not in happened:
                raise Refused(f"{log}.db is gone; it is kept for ever: git checkout brings it back")
            if fold["rows"].get(log) != rows:
                raise Refused(f"view {view.name} folds {log}.db differently {_since(view)}")
        known["rows"] |= fold["rows"]
    return folds


def _since(view: View[Any]) -> str:
    return (
        f"than is recorded for its version {view.version}: raise its version, so that stores "
        f"rebuild it, and run `make generate`"
    )


def fold_of(view: View[Any], happened: dict[str, list[Recorded]]) -> Fold:
    """Return what a view makes of logs, given by their names."""
    schema = "\n".join(view.schema).encode()
    rows = {log: _short(_rows(view, events)) for log, events in happened.items()}
    return {"schema": _short(schema), "rows": rows}


def events_in(log: Path) -> list[Recorded]:
    """Return the events of a log, which stays as it is: opening a store writes to it."""
    with (
        TemporaryDirectory() as folder,
        open_store(copy(log, Path(folder) / "copy.db")) as store,
    ):
        return list(store.read())


def _rows(view: View[Any], events: Iterable[Recorded]) -> bytes:
    unit = UnitOfWork([view])
    for recorded in events:
        unit.fold(recorded)
    return repr(sorted(view.dump(row) for row in unit.rows(view))).encode()


def _short(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


# --- what happens ---------------------------------------------------------------------------


def let_it_happen(path: Path) -> None:
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
        db.send(SetRetries("run", runs[1], 3, 0.5))
        for member in ("worker-0", "worker-1", "controller"):
            db.send(Join(member, 1_790_000_000_000_000))
        db.send(Leave("worker-1"))
        for worker in (2, 2):
            db.create_worker_task(runs[1], worker, 3)
        lost = db.claim_next_worker_task(2)
        assert lost is not None
        db.send(RecoverLost((Gone(lost["claim"], 4711),), 1_790_000_000_000_000))
        db.send(ClaimNextWorkerTask(3, 1_800_000_000_000_000, any_worker=True))
        db.send(DeclareLost("controller", 1_790_000_000_000_000))
        db.log_metrics(runs[0], {"loss": 0.5, "accuracy": float("nan")}, step=10)
        db.save_checkpoint(runs[0], {"weights": [0.5]}, step=10, epoch=1, chunk=3)
        db.set_controller_task("RUN_FIT")
        db.set_worker_progress(0, "TRAIN_VAL")
        requests = [
            db.request_stop(runs[1], actor="user", correlation="click-1"),
            db.request_resume(runs[1], command_id="resume-1"),
            db.request_delete(runs[2]),
            db.request_clone_modify(runs[1], {"lr": 0.01}, warm_start=True),
        ]
        db.mark_ic_ops_in_progress(requests[0])
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
        asked = [
            db.request_stop(pipelines[0], actor="user"),
            db.request_resume(pipelines[0]),
            db.request_delete(pipelines[1]),
            db.request_clone(pipelines[1], {"temperature": 0}),
        ]
        db.mark_ic_ops_in_progress(asked[0])
        db.mark_ic_ops_completed(asked[0])
        db.mark_ic_ops_failed(asked[1], "no room")
        db.mark_ic_ops_skipped(asked[2])
        assert db.reset_experiment_states()["worker_tasks"]
        let_rapidfire_happen(db)
    with RfDb(path, clock=lambda: next(ticks)) as db:
        db.reset_all_tables(experiments_table=False)
        again = db.create_run(1, "after the reset", config_leaf=(1, 2))
        db.set_run_status(again, "ONGOING")
        db.reset_experiment_states(fail_runs=True)


def let_rapidfire_happen(db: RFDatabase) -> None:
    """Let everything happen once that only RapidFire AI's own layer lets happen."""
    config, options = encode_payload({"lr": 0.2}), encode_payload({"path": "/tmp"})
    fit = db.send(
        StartExperiment(
            CreateExperiment("fit", "digits", ExperimentStatus.RUNNING),
            ExperimentDetailsRecorded(0, metric_experiment_id="7", current_task="Idle"),
            options,
        )
    )
    db.send(NoteExperiment(ExperimentDetailsRecorded(fit, num_shards=4, num_actors=2)))
    run = db.send(
        StartRun(CreateRun(fit, config_leaf=config), RunDetailsRecorded(0, total_steps=8))
    )
    details = RunDetailsRecorded(run, completed_steps=2, mlflow_run_id="abc", error="none")
    db.send(NoteRun(details, RunStatus.ONGOING, encode_payload({"lr": 0.3})))
    db.send(StartTask(CreateWorkerTask(run, 0, 3), "Train Validation", options=options))
    db.send(RequestStop(run, config))
    evals = db.create_experiment("rag")
    context = db.send(StartContext(CreateContext("ghi"), enable_gpu=True))
    db.send(StartContextBuild(context, "2026-01-01 00:00:00.000000", 1767225600.25))
    db.send(SetContextStartTime(context, "2026-01-01 00:00:00.000000", 1767225600.5))
    db.send(SetStatus("context", context, "deleted"))
    pipeline = db.send(
        StartPipeline(
            CreatePipeline(evals, "vllm", "vllm"),
            PipelineDetailsRecorded(0, config_json="{}", flattened_config='{"k": 3}'),
            config,
        )
    )
    db.send(NotePipeline(PipelineDetailsRecorded(pipeline, metric_run_id="def")))
    task = db.send(StartActorTask(pipeline, 0, 0))
    db.send(SetActorTaskStartTime(task, "2026-01-01 00:00:00.000000", 1767225600.75))
    db.send(SetStatus("actor task", task, "completed"))
    db.send(SetStatus("actor task", task, "failed"))
    db.send(SetStatus("experiment", evals, "cancelled"))
    db.send(ResetTables("evals", experiments_table=True))


if __name__ == "__main__":
    try:
        main(sys.argv[1] if sys.argv[1:] else __version__)
    except Refused as refused:
        sys.exit(str(refused))

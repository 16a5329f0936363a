"""`refold` as a process, and a log that is the same each time."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from clippings import GradientClipped

from refold import RFDatabase, RfDb
from refold.cli.app import run
from refold.eventstore.times import SECOND

TOP = Path(__file__).parent.parent
START = 1_706_702_400_000_000  # 2024-01-31T12:00:00Z


class Done(NamedTuple):
    out: str
    err: str
    code: int


def command(*words: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "refold", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which nothing but the command line itself decides what it does."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REFOLD_", "PG", "_TYPER", "COV_"))
        and name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM")
    }
    path = os.pathsep.join([str(TOP), str(TOP / "tests"), kept.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "100", **more}


def refold(*words: object, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
    """Run a command, all of whose output is piped."""
    done = subprocess.run(
        command(*words),
        input=stdin,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Done(done.stdout, done.stderr, done.returncode)


def here(*words: object, env: Mapping[str, str] | None = None) -> Done:
    """Run a command in this process: for what does not depend on there being one of its own."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)  # bytes go there, too
    err = io.StringIO()
    with (
        patch.dict(os.environ, environment(**(env or {})), clear=True),
        patch.object(sys, "argv", ["refold", *map(str, words)]),
        patch.object(sys, "path", [*sys.path]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = run()
    return Done(out.buffer.getvalue().decode(), err.getvalue(), code)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


def record(place: str) -> None:
    """Make a store in which much has happened: a stop, a clone, a dead worker, a recovery."""
    clock = Clock()
    with RfDb(place, actor="controller", clock=clock) as db:
        experiment_id = db.create_experiment("digits", status="RUNNING")
        rates = (0.1, 0.01, 0.001)
        for rate in rates:
            config = {"learning_rate": rate, "layers": (64, 32)}
            db.create_run(experiment_id, config_leaf=config, num_chunks=4, seed=7)
        db.set_controller_task("RUN_FIT")
        clock.go_on(1)
        for run_id, worker_id in ((1, 0), (2, 1)):
            db.set_run_status(run_id, "ONGOING")
            db.create_worker_task(run_id, worker_id, chunk_id=0)
        for run_id, worker_id in ((1, 0), (2, 1)):
            clock.go_on(0.25)
            _train(db, clock, run_id, worker_id)
        db.append(GradientClipped(2, 12.5), actor="worker-1")
        clock.go_on(2)
        db.request_stop(2, actor="ada")
        clock.go_on(0.01)
        [request] = db.get_ic_ops_request()
        db.set_run_status(2, "STOPPED", cause=request["position"])
        db.mark_ic_ops_completed(request["ic_id"])
        clock.go_on(1)
        db.request_clone_modify(
            1, {"learning_rate": 0.2, "layers": (64, 32)}, warm_start=True, actor="ada"
        )
        [request] = db.get_ic_ops_request()
        db.create_run(
            experiment_id,
            config_leaf=request["config_leaf"],
            num_chunks=4,
            seed=7,
            source="CLONE_MODIFY",
            parent_run_id=1,
            warm_start=True,
            cause=request["position"],
        )
        db.mark_ic_ops_completed(request["ic_id"])
        clock.go_on(1)
        db.create_worker_task(1, 0, chunk_id=1)
        db.set_run_status(4, "ONGOING")
        db.create_worker_task(4, 1, chunk_id=0)
        _start(db, 0)
        _start(db, 1)
        clock.go_on(30)
        db.set_worker_task_status(3, "FAILED", error="worker-0 was killed")
        clock.go_on(0.5)
        db.reset_experiment_states()
        clock.go_on(2)
        db.set_run_status(3, "ONGOING")
        db.create_worker_task(3, 1, chunk_id=0)
        _start(db, 1)
        db.request_delete(3, actor="ada")
    with RFDatabase(place, actor="evals", clock=clock) as evals:
        clock.go_on(60)
        experiment_id = evals.create_experiment("answers", num_shards=2, num_actors=1, num_gpus=1)
        context_id = evals.create_context("c0ffee", rag_config_json={"k": 3})
        evals.set_context_status(context_id, "building")
        clock.go_on(4)
        evals.set_context_status(context_id, "ready")
        for name in ("cold", "warm"):
            evals.create_pipeline(
                experiment_id, name, "vllm", {"model": "tiny"}, context_id=context_id
            )
        evals.set_pipeline_status(1, "ongoing")
        evals.create_actor_task(experiment_id, 1, actor_id=0, shard_id=0)
        evals.claim_next_actor_task(0, actor="actor-0")
        clock.go_on(3)
        with evals.batch():
            evals.set_pipeline_progress(1, 0, 1, 512, actor="actor-0")
            evals.set_actor_task_status(1, "completed", actor="actor-0")
        evals.create_actor_task(experiment_id, 1, actor_id=0, shard_id=1)


def _start(db: RfDb, worker_id: int) -> int:
    actor = f"worker-{worker_id}"
    db.set_worker_progress(worker_id, "TRAIN_VAL", actor=actor)
    task = db.claim_next_worker_task(worker_id, actor=actor)
    assert task is not None
    return task["task_id"]


def _train(db: RfDb, clock: Clock, run_id: int, worker_id: int) -> None:
    actor = f"worker-{worker_id}"
    task_id = _start(db, worker_id)
    clock.go_on(1.5)
    with db.batch():
        metrics = {"loss": 1 / (run_id + 1), "accuracy": 0.5}
        db.update_run_metrics(run_id, metrics, actor=actor)
        db.set_run_progress(run_id, current_chunk=1, current_epoch=0, actor=actor)
        db.set_worker_task_status(task_id, "COMPLETED", actor=actor)
        db.set_worker_progress(worker_id, "TRAIN_VAL", "COMPLETED", actor=actor)

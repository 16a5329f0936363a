"""Both faces of one store, and for each of their methods arguments with which it succeeds."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from refold import DBException, RFDatabase, RfDb


class Faces:
    """Both faces of one store, with one row of everything."""

    def __init__(self, db: RfDb, evals: RFDatabase) -> None:
        self.fit, self.evals = db, evals
        db.create_experiment("digits", status="RUNNING")
        db.create_run(1, config_leaf={"lr": 0.1})
        db.create_worker_task(1, 0, 0)
        db.request_stop(1)
        evals.create_experiment("qwen", 5, 4)
        evals.create_context("a1b2")
        evals.create_pipeline(2, "baseline", "vllm")
        evals.create_actor_task(2, 1, 0, 0)
        evals.request_stop(1)

    def call(self, kind: str, name: str, /, **arguments: Any) -> Any:
        """Call a method with its valid arguments, but for these."""
        face = {"RfDb": self.fit, "RFDatabase": self.evals}[kind]
        return getattr(face, name)(**(VALID[kind][name] | arguments))

    def kept(self) -> list[dict[str, Any]]:
        """How much the store keeps besides its views."""
        return self.fit.db.execute(
            "SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM commands) AS "
            "commands, (SELECT count(*) FROM payloads) AS payloads"
        )

    def refused(self, call: Callable[[], object], kind: type[DBException], *fragments: str) -> None:
        """The call is refused with these words, and nothing of it is kept."""
        before = self.kept()
        with pytest.raises(kind) as caught:
            call()
        missing = [part for part in fragments if part not in str(caught.value)]
        assert not missing, f"{missing} is not in {str(caught.value)!r}"
        assert self.kept() == before


# The methods that take arguments.
VALID = {
    "RfDb": {
        "claim_next_worker_task": {"worker_id": 0},
        "create_experiment": {"experiment_name": "digits", "experiments_path": "/data"},
        "create_run": {"experiment_id": 1, "run_name": "run", "mlflow_run_id": "abc123"},
        "create_worker_task": {"run_id": 1, "worker_id": 0, "chunk_id": 0},
        "declare_lost": {"name": "worker-0"},
        "get_payload": {"digest": "0" * 64},
        "join": {"name": "worker-0"},
        "set_retries": {"entity": "run", "key": 1, "max_attempts": 2},
        "get_all_runs": {"config": False},
        "get_experiment": {"experiment_id": 1},
        "get_ic_ops_request": {"config": False},
        "get_run": {"run_id": 1},
        "get_runs_by_status": {"status": "NEW"},
        "get_next_worker_task": {"worker_id": 0},
        "get_worker_progress": {"worker_id": 0},
        "get_worker_task": {"task_id": 1},
        "get_worker_tasks": {"run_id": 1, "worker_id": 0, "status": "SCHEDULED"},
        "metric_history": {"run_id": 1, "metric": "loss"},
        "save_checkpoint": {"run_id": 1, "state": {"weights": [0.5]}},
        "checkpoints": {"run_id": 1},
        "latest_checkpoint": {"run_id": 1},
        "search_runs": {"where": "run_id = 1"},
        "runs_frame": {"where": "run_id = 1"},
        "log_metrics": {"run_id": 1, "metrics": {"loss": 0.5}},
        "mark_ic_ops_in_progress": {"ic_id": 1},
        "mark_ic_ops_completed": {"ic_id": 1},
        "mark_ic_ops_failed": {"ic_id": 1, "error": "why"},
        "mark_ic_ops_skipped": {"ic_id": 1, "error": "why"},
        "put_payload": {"value": 1},
        "request_clone_modify": {"run_id": 1},
        "request_delete": {"run_id": 1},
        "request_resume": {"run_id": 1},
        "request_stop": {"run_id": 1},
        "reset_all_tables": {},
        "reset_experiment_states": {},
        "set_controller_task": {"task": "RUN_FIT"},
        "set_experiment_status": {"experiment_id": 1, "status": "COMPLETED"},
        "set_run_ended_by": {"run_id": 1, "ended_by": "KILLED"},
        "set_run_progress": {"run_id": 1, "current_chunk": 1, "current_epoch": 0},
        "set_run_status": {"run_id": 1, "status": "ONGOING"},
        "set_worker_progress": {"worker_id": 0, "task": "TRAIN_VAL"},
        "set_worker_task_status": {"task_id": 1, "status": "FAILED"},
        "update_run_metrics": {"run_id": 1, "metrics": {"loss": 0.5}},
    },
    "RFDatabase": {
        "claim_next_actor_task": {"actor_id": 0},
        "create_actor_task": {"experiment_id": 2, "pipeline_id": 1, "actor_id": 0, "shard_id": 0},
        "create_context": {"context_hash": "c3d4"},
        "create_experiment": {"experiment_name": "qwen", "num_shards": 5, "num_actors": 4},
        "create_pipeline": {
            "experiment_id": 2,
            "pipeline_name": "hot",
            "pipeline_type": "vllm",
            "context_id": 1,
        },
        "get_actor_task": {"task_id": 1},
        "get_all_pipelines": {"experiment_id": 2},
        "get_context": {"context_id": 1},
        "get_experiment_error": {"experiment_id": 2},
        "get_next_actor_task": {"actor_id": 0},
        "get_pipeline": {"pipeline_id": 1},
        "get_running_actor_tasks": {"experiment_id": 2},
        "mark_ic_ops_completed": {"ic_id": 1},
        "mark_ic_ops_failed": {"ic_id": 1, "error": "why"},
        "mark_ic_ops_in_progress": {"ic_id": 1},
        "mark_ic_ops_skipped": {"ic_id": 1, "error": "why"},
        "request_clone": {"pipeline_id": 1},
        "request_delete": {"pipeline_id": 1},
        "request_resume": {"pipeline_id": 1},
        "request_stop": {"pipeline_id": 1},
        "set_actor_task_end_time": {"task_id": 1, "end_time": "9:00"},
        "set_actor_task_error": {"task_id": 1, "error": "why"},
        "set_actor_task_start_time": {"task_id": 1, "start_time": "8:00"},
        "set_actor_task_status": {"task_id": 1, "status": "failed"},
        "set_context_end_time": {"context_id": 1, "end_time": "9:00"},
        "set_context_error": {"context_id": 1, "error": "why"},
        "set_context_start_time": {"context_id": 1, "start_time": "8:00"},
        "set_context_status": {"context_id": 1, "status": "building"},
        "set_experiment_error": {"experiment_id": 2, "error": "why"},
        "set_experiment_status": {"experiment_id": 2, "status": "failed"},
        "set_pipeline_error": {"pipeline_id": 1, "error": "why"},
        "set_pipeline_progress": {
            "pipeline_id": 1,
            "current_shard_id": 0,
            "shards_completed": 1,
            "total_samples_processed": 9,
        },
        "set_pipeline_status": {"pipeline_id": 1, "status": "ongoing"},
    },
}

METHODS = [(kind, name) for kind, methods in VALID.items() for name in methods]

ABOUT = {"command_id": "str", "actor": "str", "correlation": "str", "cause": "int"}


def parameters(kind: str, name: str) -> dict[str, str]:
    """The parameters of a method with their annotations."""
    face = {"RfDb": RfDb, "RFDatabase": RFDatabase}[kind]
    _, *found = inspect.signature(getattr(face, name)).parameters.values()
    told = {p.name: str(p.annotation) for p in found if p.name != "about"}
    return told | (ABOUT if any(p.name == "about" for p in found) else {})


def taking(word: str, *among: str) -> pytest.MarkDecorator:
    """Parametrize by the methods' parameters that may be of a type, if they are among these."""
    found = [
        (kind, name, parameter)
        for kind, name in METHODS
        for parameter, annotation in parameters(kind, name).items()
        if word in annotation and (not among or parameter in among)
    ]
    return pytest.mark.parametrize(("kind", "name", "parameter"), found)

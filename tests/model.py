"""What both faces should do, as plain dicts: the seeds' CRUD semantics with their legal moves."""

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

from refold.eventstore.payloads import PayloadCodec
from refold.projections.rapidfire import RAPIDFIRE

Row = dict[str, Any]
Ids = dict[str, list[int]]

FOLLOWS: dict[str, dict[str, str]] = {
    "experiments": {
        "NEW": "RUNNING COMPLETED FAILED CANCELLED",
        "RUNNING": "COMPLETED FAILED CANCELLED",
        "FAILED": "RUNNING",
        "COMPLETED": "RUNNING",
        "CANCELLED": "RUNNING",
    },
    "runs": {
        "NEW": "ONGOING STOPPED FAILED KILLED",
        "ONGOING": "COMPLETED STOPPED FAILED KILLED",
        "STOPPED": "ONGOING FAILED KILLED",
        "FAILED": "ONGOING KILLED",
        "COMPLETED": "ONGOING KILLED",
        "KILLED": "",
    },
    "worker_task": {
        "SCHEDULED": "IN_PROGRESS FAILED",
        "IN_PROGRESS": "COMPLETED FAILED",
        "COMPLETED": "",
        "FAILED": "",
    },
    "interactive_control": {
        "PENDING": "IN_PROGRESS COMPLETED FAILED SKIPPED",
        "IN_PROGRESS": "COMPLETED FAILED SKIPPED",
        "COMPLETED": "",
        "FAILED": "",
        "SKIPPED": "",
    },
    "contexts": {
        "pending": "building ready failed deleted",
        "building": "ready failed deleted",
        "failed": "building deleted",
        "ready": "building deleted",
        "deleted": "",
    },
    "pipelines": {
        "new": "ongoing stopped failed deleted",
        "ongoing": "completed stopped failed deleted",
        "stopped": "ongoing failed deleted",
        "failed": "ongoing deleted",
        "completed": "ongoing deleted",
        "deleted": "",
    },
    "pipeline_requests": {
        "pending": "in_progress completed failed skipped",
        "in_progress": "completed failed skipped",
        "completed": "",
        "failed": "",
        "skipped": "",
    },
    "actor_tasks": {
        "scheduled": "in_progress failed",
        "in_progress": "completed failed",
        "completed": "",
        "failed": "",
    },
}
KEYS = {
    "experiments": "experiment_id",
    "runs": "run_id",
    "worker_task": "task_id",
    "controller_progress": "controller_id",
    "worker_progress": "worker_id",
    "interactive_control": "ic_id",
    "contexts": "context_id",
    "pipelines": "pipeline_id",
    "actor_tasks": "task_id",
    "run_metrics": "metric_key",
    "pipeline_requests": "ic_id",
    "members": "name",
    "retries": "scope",
    "ids": "kind",
    **{view.name: view.key for view in RAPIDFIRE},
}
KINDS = {
    "experiments": "experiment",
    "runs": "run",
    "worker_task": "task",
    "interactive_control": "ic",
    "contexts": "context",
    "pipelines": "pipeline",
    "actor_tasks": "actor_task",
    "pipeline_requests": "pipeline_ic",
}


class Refused(Exception):
    """The faces should refuse the call."""


class State:
    """All tables, and the commands that were sent with an id."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Any, Row]] = {name: {} for name in KEYS}
        self.sent: dict[str, tuple[Row, Any]] = {}

    def copy(self) -> "State":
        """Return a state that goes its own way."""
        other = State()  # `deepcopy` would take a fifth of the time of the tests
        for name, rows in self.tables.items():
            other.tables[name] = {key: {**row} for key, row in rows.items()}
        other.sent = {**self.sent}
        return other

    def seen(self) -> dict[str, list[Row]]:
        """Return all rows as the tables should show them."""
        return {
            name: [_as_stored(row) for _, row in sorted(rows.items())]
            for name, rows in self.tables.items()
        }


def _as_stored(row: Row) -> Row:
    shown = {**row}
    if "config_leaf" in row:
        config = shown.pop("config_leaf")
        payload = PayloadCodec().encode(config, outlined=True)
        shown["config_digest"] = None if config is None else hashlib.sha256(payload).hexdigest()
    if "metrics" in row:
        shown["metric_words"] = None
    return shown


def asked(method: str, arguments: Row) -> str:
    """Tell a call from others: what a payload holds does not count, nor the case of a status."""
    words = ("status", "source", "ended_by", "task")
    told = {
        name: value.upper() if name in words else value
        for name, value in sorted(arguments.items())
        if name != "config_leaf" or value is None
    }
    return f"{method} {told}"


class Model:
    """What both faces have in common."""

    def __init__(self, state: State) -> None:
        self.state = state

    def call(self, method: str, arguments: Row, command_id: str | None = None) -> Any:
        """Do what the method of a face should do and return what it should return."""
        do: Callable[..., Any] = getattr(self, method)
        if command_id is None:
            result = do(**arguments)
        elif command_id not in self.state.sent:
            result = do(**arguments)
            self.state.sent[command_id] = (asked(method, arguments), result)
        else:
            sent, result = self.state.sent[command_id]
            if sent != asked(method, arguments):
                raise Refused
        if method.startswith("claim_next") and result is not None:
            table = "worker_task" if isinstance(self, Fit) else "actor_tasks"
            row = self.state.tables[table].get(result)
            return row if row is not None and row["status"].upper() == "IN_PROGRESS" else None
        return copy.deepcopy(result)

    def _asked(self, method: str, arguments: Row) -> Row:
        """Return what makes a command the same as one that was sent before."""
        asked = {"method": method, **arguments}
        if "config_leaf" in asked:  # of payloads only whether there is one
            asked["config_leaf"] = asked["config_leaf"] is not None
        if method == "set_experiment_status":  # the faces write it differently
            asked["status"] = asked["status"].upper()
        if method == "create_experiment":
            asked["kind"] = type(self).__name__
        return asked

    # --- tables ---------------------------------------------------------------------------

    def _rows(self, table: str, **where: Any) -> list[Row]:
        return [
            row
            for _, row in sorted(self.state.tables[table].items())
            if all(row[name] == value for name, value in where.items())
        ]

    def _row(self, table: str, key: Any) -> Row:
        try:
            return self.state.tables[table][key]
        except KeyError:
            raise Refused from None

    def _insert(self, table: str, **columns: Any) -> int:
        ids = self.state.tables["ids"]
        kind = KINDS[table]
        number = ids.get(kind, {"last": 0})["last"] + 1
        ids[kind] = {"kind": kind, "last": number}
        self.state.tables[table][number] = {KEYS[table]: number, **columns}
        return number

    def _move(self, table: str, key: int, status: str, **columns: Any) -> bool:
        """Move a row to a status; return whether it had another one before."""
        row = self._row(table, key)
        if row["status"] == status:
            return False
        if status not in FOLLOWS[table][row["status"]].split():
            raise Refused
        row.update(status=status, **columns)
        return True

    # --- the methods of both faces --------------------------------------------------------

    def set_experiment_status(self, experiment_id: int, status: str) -> None:
        row = self._row("experiments", experiment_id)
        before = row["status"].upper()
        if status.upper() != before:
            if status.upper() not in FOLLOWS["experiments"][before].split():
                raise Refused
            row["status"] = status.lower() if row["kind"] == "evals" else status.upper()

    def reset_all_tables(self, experiments_table: bool = False) -> None:
        for name, rows in self.state.tables.items():
            if name != "ids" and (experiments_table or name != "experiments"):
                rows.clear()

    def reset_experiment_states(self, fail_runs: bool = False) -> dict[str, Any]:
        def fail(table: str, *statuses: str) -> list[Any]:
            failed = [row for status in statuses for row in self._rows(table, status=status)]
            for row in failed:
                row["status"] = "FAILED" if row["status"].isupper() else "failed"
            return sorted(row[KEYS[table]] for row in failed)

        return {
            "worker_tasks": fail("worker_task", "SCHEDULED", "IN_PROGRESS"),
            "actor_tasks": fail("actor_tasks", "scheduled", "in_progress"),
            "contexts": fail("contexts", "building"),
            "workers": fail("worker_progress", "IN_PROGRESS"),
            "controller": fail("controller_progress", "IN_PROGRESS") != [],
            "runs": fail("runs", "NEW", "ONGOING") if fail_runs else [],
            "pipelines": fail("pipelines", "new", "ongoing") if fail_runs else [],
            "requests": fail("interactive_control", "IN_PROGRESS"),
            "pipeline_requests": fail("pipeline_requests", "in_progress"),
        }

    def get_experiment(self, experiment_id: int) -> Row:
        return self._row("experiments", experiment_id)


class Fit(Model):
    """What `RfDb` should do."""

    def create_experiment(
        self, experiment_name: str, experiments_path: str | None = None, status: str = "NEW"
    ) -> int:
        return self._insert(
            "experiments",
            experiment_name=experiment_name,
            kind="fit",
            status=status,
            experiments_path=experiments_path,
            num_shards=None,
            num_actors=None,
            num_cpus=None,
            num_gpus=None,
            error=None,
        )

    def get_running_experiment(self) -> Row:
        running = self._rows("experiments", status="RUNNING")
        if not running:
            raise Refused
        return running[-1]

    def create_run(
        self,
        experiment_id: int,
        run_name: str | None = None,
        config_leaf: Any = None,
        status: str = "NEW",
        source: str = "USER",
        seed: int | None = None,
        num_chunks: int | None = None,
        parent_run_id: int | None = None,
        warm_start: bool = False,
    ) -> int:
        self._row("experiments", experiment_id)
        if parent_run_id is not None:
            self._row("runs", parent_run_id)
        run_id = self._insert(
            "runs",
            experiment_id=experiment_id,
            run_name=run_name,
            mlflow_run_id=None,
            status=status,
            source=source,
            ended_by=None,
            parent_run_id=parent_run_id,
            warm_start=warm_start,
            config_leaf=config_leaf,
            seed=seed,
            num_chunks=num_chunks,
            current_chunk=0,
            current_epoch=0,
            metrics={},
        )
        row = self._row("runs", run_id)
        row["run_name"] = run_name or f"run_{run_id}"
        return run_id

    def get_run(self, run_id: int) -> Row:
        return self._row("runs", run_id)

    def get_all_runs(self) -> list[Row]:
        return self._rows("runs")

    def get_runs_by_status(self, status: list[str]) -> list[Row]:
        return [row for row in self._rows("runs") if row["status"] in status]

    def set_run_status(self, run_id: int, status: str) -> None:
        self._move("runs", run_id, status)
        if status == "KILLED":
            for task in self._rows("worker_task", run_id=run_id, status="SCHEDULED"):
                task.update(status="FAILED", error=f"run {run_id} is KILLED")

    def set_run_ended_by(self, run_id: int, ended_by: str) -> None:
        row = self._row("runs", run_id)
        if row["status"] == "KILLED" and ended_by == "COMPLETED":
            raise Refused
        row["ended_by"] = ended_by

    def update_run_metrics(self, run_id: int, metrics: Row) -> None:
        row, kept = self._row("runs", run_id), json.loads(json.dumps(metrics))
        if row["metrics"] == kept and json.dumps(row["metrics"]) == json.dumps(kept):
            return
        row["metrics"] = kept
        for name, value in kept.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._measured(run_id, name, value, None)

    def log_metrics(self, run_id: int, metrics: Row, step: int | None = None) -> int:
        row = self._row("runs", run_id)
        if step is None:
            known = [self.state.tables["run_metrics"].get(f"{run_id}/{name}") for name in metrics]
            steps = [one["last_step"] for one in known if one and one["last_step"] is not None]
            step = max(steps, default=-1) + 1
        for name, value in metrics.items():
            row["metrics"] = {**row["metrics"], name: value}
            self._measured(run_id, name, value, step)
        return step

    def _measured(self, run_id: int, metric: str, value: float, step: int | None) -> None:
        value = float(value)
        rows = self.state.tables["run_metrics"]
        row = rows.setdefault(
            f"{run_id}/{metric}",
            {
                "metric_key": f"{run_id}/{metric}",
                "run_id": run_id,
                "metric": metric,
                "count": 0,
                "last": value,
                "last_step": step,
                "last_word": None,
                "first": value,
                "first_step": step,
                "min": value,
                "min_step": step,
                "max": value,
                "max_step": step,
            },
        )
        row["count"] += 1
        row["last"], row["last_step"] = value, step
        if value < row["min"]:
            row["min"], row["min_step"] = value, step
        if value > row["max"]:
            row["max"], row["max_step"] = value, step

    def set_run_progress(self, run_id: int, current_chunk: int, current_epoch: int) -> None:
        self._row("runs", run_id).update(current_chunk=current_chunk, current_epoch=current_epoch)

    def create_worker_task(self, run_id: int, worker_id: int, chunk_id: int, epoch: int = 0) -> int:
        if self._row("runs", run_id)["status"] == "KILLED":
            raise Refused
        return self._insert(
            "worker_task",
            run_id=run_id,
            worker_id=worker_id,
            chunk_id=chunk_id,
            epoch=epoch,
            status="SCHEDULED",
            error=None,
            attempts=0,
        )

    def get_worker_task(self, task_id: int) -> Row:
        return self._row("worker_task", task_id)

    def get_worker_tasks(self, **where: Any) -> list[Row]:
        given = {name: value for name, value in where.items() if value is not None}
        return self._rows("worker_task", **given)

    def get_next_worker_task(self, worker_id: int) -> Row | None:
        return next((task for task in self._offered(worker_id) if not self._killed(task)), None)

    def _offered(self, worker_id: int) -> list[Row]:
        return self._rows("worker_task", worker_id=worker_id, status="SCHEDULED")

    def _killed(self, task: Row) -> bool:
        run = self.state.tables["runs"].get(task["run_id"])
        return run is not None and run["status"] == "KILLED"

    def claim_next_worker_task(self, worker_id: int) -> int | None:
        task = self.get_next_worker_task(worker_id)
        if task is None:
            return None
        self.set_worker_task_status(task["task_id"], "IN_PROGRESS")
        return task["task_id"]

    def set_worker_task_status(self, task_id: int, status: str, error: str | None = None) -> None:
        if status == "FAILED":
            self._move("worker_task", task_id, status, error=error)
        elif error is not None:
            raise Refused
        elif self._move("worker_task", task_id, status) and status == "IN_PROGRESS":
            task = self._row("worker_task", task_id)
            if self._killed(task):
                raise Refused
            task["attempts"] += 1

    def get_controller_task(self) -> Row | None:
        return self.state.tables["controller_progress"].get(1)

    def set_controller_task(self, task: str, status: str = "IN_PROGRESS") -> None:
        row = {"controller_id": 1, "task": task, "status": status}
        self.state.tables["controller_progress"][1] = row

    def get_worker_progress(self, worker_id: int) -> Row | None:
        return self.state.tables["worker_progress"].get(worker_id)

    def set_worker_progress(self, worker_id: int, task: str, status: str = "IN_PROGRESS") -> None:
        row = {"worker_id": worker_id, "task": task, "status": status}
        self.state.tables["worker_progress"][worker_id] = row

    def _request(self, run_id: int, operation: str, config: Any = None, warm: bool = False) -> int:
        if self._row("runs", run_id)["status"] == "KILLED":
            raise Refused
        return self._insert(
            "interactive_control",
            run_id=run_id,
            operation=operation,
            status="PENDING",
            config_leaf=config,
            warm_start=warm,
            error=None,
        )

    def request_stop(self, run_id: int) -> int:
        return self._request(run_id, "STOP")

    def request_resume(self, run_id: int) -> int:
        return self._request(run_id, "RESUME")

    def request_delete(self, run_id: int) -> int:
        return self._request(run_id, "DELETE")

    def request_clone_modify(
        self, run_id: int, config_leaf: Any = None, warm_start: bool = False
    ) -> int:
        return self._request(run_id, "CLONE_MODIFY", config_leaf, warm_start)

    def get_ic_ops_request(self) -> list[Row]:
        return self._rows("interactive_control", status="PENDING")

    def mark_ic_ops_in_progress(self, ic_id: int) -> None:
        self._move("interactive_control", ic_id, "IN_PROGRESS")

    def mark_ic_ops_completed(self, ic_id: int) -> None:
        self._move("interactive_control", ic_id, "COMPLETED")

    def mark_ic_ops_failed(self, ic_id: int, error: str | None = None) -> None:
        self._move("interactive_control", ic_id, "FAILED", error=error)

    def mark_ic_ops_skipped(self, ic_id: int, error: str | None = None) -> None:
        self._move("interactive_control", ic_id, "SKIPPED", error=error)


class Evals(Model):
    """What `RFDatabase` should do."""

    def create_experiment(
        self,
        experiment_name: str,
        num_shards: int = 0,
        num_actors: int = 0,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        status: str = "running",
    ) -> int:
        if status == "NEW":
            raise Refused
        return self._insert(
            "experiments",
            experiment_name=experiment_name,
            kind="evals",
            status=status,
            experiments_path=None,
            num_shards=num_shards,
            num_actors=num_actors,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            error=None,
        )

    def get_current_experiment(self) -> Row:
        running = self._rows("experiments", status="running")
        if not running:
            raise Refused
        return running[-1]

    def get_all_experiment_names(self) -> list[str]:
        return [row["experiment_name"] for row in self._rows("experiments", kind="evals")]

    def set_experiment_error(self, experiment_id: int, error: str) -> None:
        self._row("experiments", experiment_id)["error"] = error

    def get_experiment_error(self, experiment_id: int) -> str:
        return self._row("experiments", experiment_id)["error"] or ""

    def create_context(
        self, context_hash: str, rag_config_json: str | None = None, status: str = "pending"
    ) -> int:
        for row in self._rows("contexts", context_hash=context_hash):
            return row["context_id"]
        return self._insert(
            "contexts",
            context_hash=context_hash,
            rag_config_json=rag_config_json,
            prompt_config_json=None,
            status=status,
            error=None,
            started_at=None,
            completed_at=None,
            duration_seconds=None,
        )

    def get_context(self, context_id: int) -> Row:
        return self._row("contexts", context_id)

    def set_context_status(self, context_id: int, status: str) -> None:
        self._move("contexts", context_id, status)

    def set_context_start_time(self, context_id: int, start_time: str) -> None:
        self._row("contexts", context_id)["started_at"] = start_time

    def set_context_end_time(
        self, context_id: int, end_time: str, duration_seconds: float | None = None
    ) -> None:
        self._row("contexts", context_id).update(
            completed_at=end_time, duration_seconds=duration_seconds
        )

    def set_context_error(self, context_id: int, error: str) -> None:
        self._row("contexts", context_id)["error"] = error

    def create_pipeline(
        self,
        experiment_id: int,
        pipeline_name: str,
        pipeline_type: str,
        model_config_json: str | None = None,
        status: str = "new",
        context_id: int | None = None,
    ) -> int:
        self._row("experiments", experiment_id)
        if context_id is not None:
            self._row("contexts", context_id)
        return self._insert(
            "pipelines",
            experiment_id=experiment_id,
            context_id=context_id,
            pipeline_name=pipeline_name,
            pipeline_type=pipeline_type,
            model_config_json=model_config_json,
            sampling_params_json=None,
            status=status,
            current_shard_id=None,
            shards_completed=0,
            total_samples_processed=0,
            error=None,
        )

    def get_pipeline(self, pipeline_id: int) -> Row:
        return self._row("pipelines", pipeline_id)

    def get_all_pipelines(self, experiment_id: int) -> list[Row]:
        return self._rows("pipelines", experiment_id=experiment_id)

    def set_pipeline_status(self, pipeline_id: int, status: str) -> None:
        self._move("pipelines", pipeline_id, status)
        if status == "deleted":
            for task in self._rows("actor_tasks", pipeline_id=pipeline_id, status="scheduled"):
                task.update(status="failed", error=f"pipeline {pipeline_id} is deleted")

    def set_pipeline_progress(
        self,
        pipeline_id: int,
        current_shard_id: int | None,
        shards_completed: int,
        total_samples_processed: int,
    ) -> None:
        self._row("pipelines", pipeline_id).update(
            current_shard_id=current_shard_id,
            shards_completed=shards_completed,
            total_samples_processed=total_samples_processed,
        )

    def set_pipeline_error(self, pipeline_id: int, error: str) -> None:
        self._row("pipelines", pipeline_id)["error"] = error

    def create_actor_task(
        self, experiment_id: int, pipeline_id: int, actor_id: int, shard_id: int
    ) -> int:
        self._row("experiments", experiment_id)
        pipeline = self._row("pipelines", pipeline_id)
        if pipeline["experiment_id"] != experiment_id or pipeline["status"] == "deleted":
            raise Refused
        return self._insert(
            "actor_tasks",
            experiment_id=experiment_id,
            pipeline_id=pipeline_id,
            actor_id=actor_id,
            shard_id=shard_id,
            status="scheduled",
            error=None,
            started_at=None,
            completed_at=None,
            duration_seconds=None,
            attempts=0,
        )

    def get_actor_task(self, task_id: int) -> Row:
        return self._row("actor_tasks", task_id)

    def get_running_actor_tasks(self, experiment_id: int) -> list[Row]:
        return self._rows("actor_tasks", experiment_id=experiment_id, status="in_progress")

    def get_next_actor_task(self, actor_id: int) -> Row | None:
        return next((task for task in self._offered(actor_id) if not self._deleted(task)), None)

    def _offered(self, actor_id: int) -> list[Row]:
        return self._rows("actor_tasks", actor_id=actor_id, status="scheduled")

    def _deleted(self, task: Row) -> bool:
        pipeline = self.state.tables["pipelines"].get(task["pipeline_id"])
        return pipeline is not None and pipeline["status"] == "deleted"

    def claim_next_actor_task(self, actor_id: int) -> int | None:
        task = self.get_next_actor_task(actor_id)
        if task is None:
            return None
        self.set_actor_task_status(task["task_id"], "in_progress")
        return task["task_id"]

    def set_actor_task_status(self, task_id: int, status: str) -> None:
        if self._move("actor_tasks", task_id, status) and status == "in_progress":
            task = self._row("actor_tasks", task_id)
            if self._deleted(task):
                raise Refused
            task["attempts"] += 1

    def set_actor_task_start_time(self, task_id: int, start_time: str) -> None:
        self._row("actor_tasks", task_id)["started_at"] = start_time

    def set_actor_task_end_time(
        self, task_id: int, end_time: str, duration_seconds: float | None = None
    ) -> None:
        self._row("actor_tasks", task_id).update(
            completed_at=end_time, duration_seconds=duration_seconds
        )

    def set_actor_task_error(self, task_id: int, error: str) -> None:
        self._row("actor_tasks", task_id)["error"] = error

    def _request(self, operation: str, pipeline_id: int, data: str | None = None) -> int:
        if self._row("pipelines", pipeline_id)["status"] == "deleted":
            raise Refused
        return self._insert(
            "pipeline_requests",
            pipeline_id=pipeline_id,
            operation=operation,
            status="pending",
            request_data=data,
            error=None,
        )

    def request_stop(self, pipeline_id: int) -> int:
        return self._request("stop", pipeline_id)

    def request_resume(self, pipeline_id: int) -> int:
        return self._request("resume", pipeline_id)

    def request_delete(self, pipeline_id: int) -> int:
        return self._request("delete", pipeline_id)

    def request_clone(self, pipeline_id: int, request_data: str | None = None) -> int:
        return self._request("clone", pipeline_id, request_data)

    def get_ic_ops_request(self) -> list[Row]:
        return self._rows("pipeline_requests", status="pending")

    def mark_ic_ops_in_progress(self, ic_id: int) -> None:
        self._move("pipeline_requests", ic_id, "in_progress")

    def mark_ic_ops_completed(self, ic_id: int) -> None:
        self._move("pipeline_requests", ic_id, "completed")

    def mark_ic_ops_failed(self, ic_id: int, error: str | None = None) -> None:
        self._move("pipeline_requests", ic_id, "failed", error=error)

    def mark_ic_ops_skipped(self, ic_id: int, error: str | None = None) -> None:
        self._move("pipeline_requests", ic_id, "skipped", error=error)

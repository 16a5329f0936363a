"""`RfDb` as RapidFire AI's training calls it: its names, arguments, words and shapes."""

import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from msgspec import UNSET

from refold.commands.command import Command
from refold.commands.fit import (
    CreateRun,
    CreateWorkerTask,
    RequestCloneModify,
    RequestDelete,
    RequestResume,
    RequestStop,
)
from refold.commands.rapidfire import (
    NoteExperiment,
    NoteRun,
    SetStatus,
    SetWorkersTaskStatus,
    StartExperiment,
    StartRun,
    StartTask,
)
from refold.commands.store import CreateExperiment, SetExperimentError
from refold.eventstore import statuses
from refold.eventstore.errors import InvalidCommand, NotFound
from refold.eventstore.events import ExperimentDetailsRecorded, RunDetailsRecorded
from refold.eventstore.sql import marks
from refold.rapidfire.layer import Dict, Layer, json_of, named, whole
from refold.rapidfire.package import fit as words

RUN_STATUS: dict[Any, statuses.RunStatus] = {
    words.RunStatus.NEW: statuses.RunStatus.NEW,
    words.RunStatus.ONGOING: statuses.RunStatus.ONGOING,
    words.RunStatus.STOPPED: statuses.RunStatus.STOPPED,
    words.RunStatus.DELETED: statuses.RunStatus.KILLED,
    words.RunStatus.COMPLETED: statuses.RunStatus.COMPLETED,
    words.RunStatus.FAILED: statuses.RunStatus.FAILED,
}
TASK_STATUS: dict[Any, statuses.TaskStatus] = {
    words.TaskStatus.SCHEDULED: statuses.TaskStatus.SCHEDULED,
    words.TaskStatus.IN_PROGRESS: statuses.TaskStatus.IN_PROGRESS,
    words.TaskStatus.COMPLETED: statuses.TaskStatus.COMPLETED,
    words.TaskStatus.SKIPPED: statuses.TaskStatus.SKIPPED,
    words.TaskStatus.FAILED: statuses.TaskStatus.FAILED,
}
REQUEST_STATUS = TASK_STATUS | {words.TaskStatus.SCHEDULED: statuses.TaskStatus.PENDING}

_RUN_WORD = {ours.value: theirs for theirs, ours in RUN_STATUS.items()}
_TASK_WORD = {ours.value: theirs for theirs, ours in TASK_STATUS.items()}

_ASKED = {
    words.ControllerTask.IC_STOP: RequestStop,
    words.ControllerTask.IC_RESUME: RequestResume,
    words.ControllerTask.IC_DELETE: RequestDelete,
}
_OPERATION = {
    statuses.ICOperation.STOP.value: words.ControllerTask.IC_STOP,
    statuses.ICOperation.RESUME.value: words.ControllerTask.IC_RESUME,
    statuses.ICOperation.DELETE.value: words.ControllerTask.IC_DELETE,
}

_RUNS = (
    "SELECT r.run_id, r.status, r.mlflow_run_id, p.content, d.flattened_config, "
    "d.completed_steps, d.total_steps, d.shards_visited, d.epochs_completed, d.shard_offset, "
    "d.error, d.source, d.ended_by, d.warm_started_from, d.cloned_from, d.estimated_runtime, "
    "d.required_workers FROM runs_folded r LEFT JOIN rapidfire_runs d ON d.run_id = r.run_id "
    "LEFT JOIN payloads p ON p.digest = r.config_digest"
)
_TASKS = (
    "SELECT t.worker_id, t.task_id, d.task_type, t.status, t.run_id, t.chunk_id, "
    "d.multi_worker_details, p.content FROM rapidfire_tasks d "
    "JOIN worker_task t ON t.task_id = d.task_id "
    "LEFT JOIN payloads p ON p.digest = d.options"
)
_NEWEST = "WHERE kind = 'fit' AND status = 'RUNNING' ORDER BY e.experiment_id DESC LIMIT 1"
_EXPERIMENTS = (
    "SELECT e.experiment_id, e.experiment_name, e.status, e.error, d.metric_experiment_id, "
    "d.current_task, p.content FROM experiments e "
    "LEFT JOIN rapidfire_experiments d ON d.experiment_id = e.experiment_id "
    "LEFT JOIN payloads p ON p.digest = d.options"
)


class RfDb(Layer):
    """Experiments, runs, tasks of workers and interactive control of RapidFire's training."""

    kind = "fit"

    def __init__(self) -> None:
        super().__init__()

    def create_tables(self) -> None:
        """Do nothing: opening a store makes its tables."""

    def close(self) -> None:
        """Let go of the store."""
        self._close()

    def reset_all_tables(self, experiments_table: bool = False) -> None:
        """Empty the tables of training; the history stays, and ids go on."""
        self._reset_all_tables(experiments_table)

    def reset_experiment_states(self) -> None:
        """Declare failed what was new or in progress; requests are skipped."""
        self._recover()

    # --- experiments ----------------------------------------------------------------------

    def create_experiment(
        self, experiment_name: str, metric_experiment_id: str | None, config_options: Dict
    ) -> int:
        """Set up an experiment, which runs at once, and return its id."""
        path = config_options.get("experiments_path") if config_options else None
        created = CreateExperiment(
            "fit",
            experiment_name,
            statuses.ExperimentStatus.RUNNING,
            None if path is None else str(path),
        )
        details = ExperimentDetailsRecorded(
            0,
            metric_experiment_id=metric_experiment_id,
            current_task=words.ExperimentTask.IDLE.value,
        )
        return self._send(StartExperiment(created, details, self._encoded(config_options)))

    def get_running_experiment(self) -> Dict:
        """Return the newest experiment that runs.

        Raises:
            DBException: none does.
        """
        row = self._running()
        return _experiment(row, config_options=self._decoded(row["content"]))

    def _running(self) -> Dict:
        found = self._select(f"{_EXPERIMENTS} {_NEWEST}")
        if not found:
            raise NotFound("No running experiment found")
        return found[0]

    def get_experiment_by_name(self, experiment_name: str) -> Dict | None:
        """Return the newest experiment of a name, or None."""
        found = self._select(
            f"{_EXPERIMENTS} WHERE kind = 'fit' AND experiment_name = ? "
            "ORDER BY e.experiment_id DESC LIMIT 1",
            experiment_name,
        )
        return _experiment(found[0]) if found else None

    def get_experiment_status(self) -> Enum | None:
        """Return the status of the newest experiment.

        Raises:
            DBException: there is none.
        """
        row = self._newest()
        if row is None:
            raise NotFound("No experiment status found")
        return words.ExperimentStatus(row["status"].lower())

    def _newest(self) -> Dict | None:
        found = self._select(
            "SELECT status, error FROM experiments WHERE kind = 'fit' "
            "ORDER BY experiment_id DESC LIMIT 1"
        )
        return found[0] if found else None

    def set_experiment_status(self, experiment_id: int, status: Enum) -> None:
        """Move an experiment to a status."""
        self._send(SetStatus("experiment", experiment_id, status.value))

    def set_experiment_error(self, error: str) -> None:
        """Note an error message for the experiments that run."""
        self._for_running(lambda key: SetExperimentError(key, error))

    def get_experiment_error(self) -> str:
        """Return the newest experiment's error message."""
        row = self._newest()
        return "" if row is None else row["error"] or ""

    def set_experiment_current_task(self, task: Enum) -> None:
        """Note what the experiments do that run."""
        details = {"current_task": task.value}
        self._for_running(lambda key: NoteExperiment(ExperimentDetailsRecorded(key, **details)))

    def _for_running(self, command: Callable[[int], Command]) -> None:
        for row in self._select(
            "SELECT experiment_id FROM experiments WHERE kind = 'fit' AND status = 'RUNNING'"
        ):
            self._send(command(row["experiment_id"]))

    def get_experiment_current_task(self) -> Enum:
        """Return what the newest experiment does that runs.

        Raises:
            DBException: none does.
        """
        return words.ExperimentTask(
            self._running()["current_task"] or words.ExperimentTask.IDLE.value
        )

    def get_all_experiment_names(self) -> list[str]:
        """Return the names of all experiments."""
        found = self._select(
            "SELECT experiment_name FROM experiments WHERE kind = 'fit' ORDER BY experiment_id"
        )
        return [row["experiment_name"] for row in found]

    def get_experiments_path(self, experiment_name: str) -> Path:
        """Return the folder of an experiment.

        Raises:
            DBException: there is no experiment of that name, or it has none.
        """
        found = self._select(
            "SELECT experiments_path FROM experiments WHERE kind = 'fit' AND experiment_name = ? "
            "ORDER BY experiment_id LIMIT 1",
            experiment_name,
        )
        if not found or found[0]["experiments_path"] is None:
            raise NotFound("Experiments path not found for running experiment")
        return Path(found[0]["experiments_path"])

    # --- runs -----------------------------------------------------------------------------

    def create_run(
        self,
        config_leaf: Dict,
        status: Enum,
        metric_run_id: str | None = None,
        flattened_config: Dict | None = None,
        completed_steps: int = 0,
        total_steps: int = 0,
        num_shards_visited_curr_epoch: int = 0,
        num_epochs_completed: int = 0,
        shard_offset: int = 0,
        error: str = "",
        source: Enum | None = None,
        ended_by: Enum | None = None,
        warm_started_from: int | None = None,
        cloned_from: int | None = None,
        estimated_runtime: float = 0.0,
        required_workers: int = 0,
    ) -> int:
        """Give a configuration a run and return its id."""
        asked_for = source is words.RunSource.INTERACTIVE_CONTROL
        created = CreateRun(
            experiment_id=self._experiment_id(),
            mlflow_run_id=metric_run_id,
            config_leaf=self._encoded(config_leaf),
            status=RUN_STATUS[status],
            source=statuses.RunSource.CLONE_MODIFY if asked_for else statuses.RunSource.USER,
            parent_run_id=self._parent(cloned_from),
            warm_start=warm_started_from is not None,
        )
        details = RunDetailsRecorded(
            0,
            flattened_config=json_of(flattened_config) if flattened_config else UNSET,
            completed_steps=whole(completed_steps),
            total_steps=whole(total_steps),
            shards_visited=whole(num_shards_visited_curr_epoch),
            epochs_completed=whole(num_epochs_completed),
            shard_offset=whole(shard_offset),
            error=error,
            source=source.value if source else "",
            ended_by=ended_by.value if ended_by else "",
            warm_started_from=warm_started_from,
            cloned_from=cloned_from,
            estimated_runtime=float(estimated_runtime),
            required_workers=whole(required_workers),
        )
        return self._send(StartRun(created, details))

    def _parent(self, run_id: int | None) -> int | None:
        # RapidFire takes any number for where a run was cloned from.
        found = run_id is not None and self._select("SELECT 1 FROM runs WHERE run_id = ?", run_id)
        return run_id if found else None

    def set_run_details(
        self,
        run_id: int,
        status: Enum | None = None,
        metric_run_id: str | None = None,
        flattened_config: Dict | None = None,
        config_leaf: Dict | None = None,
        completed_steps: int | None = None,
        total_steps: int | None = None,
        num_shards_visited_curr_epoch: int | None = None,
        num_epochs_completed: int | None = None,
        shard_offset: int | None = None,
        error: str | None = None,
        source: Enum | None = None,
        ended_by: Enum | None = None,
        warm_started_from: int | None = None,
        cloned_from: int | None = None,
        estimated_runtime: float | None = None,
        required_workers: int | None = None,
    ) -> None:
        """Note more about a run; what is None or empty stays as it was."""
        details = RunDetailsRecorded(
            run_id,
            mlflow_run_id=UNSET if metric_run_id is None else metric_run_id,
            flattened_config=json_of(flattened_config) if flattened_config else UNSET,
            completed_steps=whole(completed_steps),
            total_steps=whole(total_steps),
            shards_visited=whole(num_shards_visited_curr_epoch),
            epochs_completed=whole(num_epochs_completed),
            shard_offset=whole(shard_offset),
            error=UNSET if error is None else error,
            source=source.value if source else UNSET,
            ended_by=ended_by.value if ended_by else UNSET,
            warm_started_from=UNSET if warm_started_from is None else warm_started_from,
            cloned_from=UNSET if cloned_from is None else cloned_from,
            estimated_runtime=UNSET if estimated_runtime is None else float(estimated_runtime),
            required_workers=whole(required_workers),
        )
        moved = RUN_STATUS[status] if status else UNSET
        self._send(NoteRun(details, moved, self._encoded(config_leaf)))

    def get_run(self, run_id: int) -> Dict:
        """Return a run.

        Raises:
            DBException: there is none with that id.
        """
        found = self._select(f"{_RUNS} WHERE r.run_id = ?", run_id)
        if not found:
            raise NotFound("No run found")
        return self._run(found[0])

    def get_runs_by_status(self, statuses: list[Any]) -> dict[int, Dict]:
        """Return the runs that have one of some statuses, by their ids."""
        wanted = [RUN_STATUS[status].value for status in statuses]
        if not wanted:
            return {}
        sql = f"{_RUNS} WHERE r.status IN ({marks(wanted)}) ORDER BY r.run_id"
        return {row["run_id"]: self._run(row) for row in self._select(sql, *wanted)}

    def get_all_runs(self) -> dict[int, Dict]:
        """Return all runs, by their ids."""
        found = self._select(f"{_RUNS} ORDER BY r.run_id")
        return {row["run_id"]: self._run(row) for row in found}

    def _run(self, row: Dict) -> Dict:
        source, ended_by = row["source"], row["ended_by"]
        return named(
            {
                "status": _RUN_WORD[row["status"]],
                "metric_run_id": row["mlflow_run_id"],
                "flattened_config": json.loads(row["flattened_config"] or "{}"),
                "config_leaf": self._decoded(row["content"]),
                "completed_steps": row["completed_steps"] or 0,
                "total_steps": row["total_steps"] or 0,
                "num_shards_visited_curr_epoch": row["shards_visited"] or 0,
                "num_epochs_completed": row["epochs_completed"] or 0,
                "shard_offset": row["shard_offset"] or 0,
                "error": row["error"] or "",
                "source": words.RunSource(source) if source else None,
                "ended_by": words.RunEndedBy(ended_by) if ended_by else None,
                "warm_started_from": row["warm_started_from"],
                "cloned_from": row["cloned_from"],
                "estimated_runtime": row["estimated_runtime"] or 0.0,
                "required_workers": row["required_workers"] or 0,
            }
        )

    def set_run_status(self, run_id: int, status: Enum) -> None:
        """Move a run to a status."""
        self._send(SetStatus("run", run_id, RUN_STATUS[status]))

    def set_completed_steps(self, run_id: int, completed_steps: int) -> None:
        """Note how many steps a run has done."""
        self._note(run_id, completed_steps=whole(completed_steps))

    def get_completed_steps(self, run_id: int) -> int:
        """Return how many steps a run has done.

        Raises:
            DBException: there is no run with that id.
        """
        return self._noted(run_id, "completed_steps", missing="No completed steps found")

    def set_estimated_runtime(self, run_id: int, estimated_runtime: float) -> None:
        """Note how long a run may take."""
        self._note(run_id, estimated_runtime=float(estimated_runtime))

    def _note(self, run_id: int, **details: Any) -> None:
        self._send(NoteRun(RunDetailsRecorded(run_id, **details)))

    def _noted(self, run_id: int, column: str, *, missing: str | None = None) -> Any:
        found = self._select(
            f"SELECT d.{column} FROM runs_folded r LEFT JOIN rapidfire_runs d "
            "ON d.run_id = r.run_id WHERE r.run_id = ?",
            run_id,
        )
        if not found and missing:
            raise NotFound(missing)
        return (found[0][column] or 0) if found else 0

    # --- interactive control --------------------------------------------------------------

    def create_ic_ops_task(self, run_id: int, ic_op: Enum, config_leaf: Dict) -> int:
        """Ask something of a run and return the request's id.

        Raises:
            DBException: there is no such run, or it is deleted.
        """
        config = self._encoded(config_leaf)
        if ic_op in _ASKED:
            return self._send(_ASKED[ic_op](run_id, config))
        warm = ic_op is words.ControllerTask.IC_CLONE_MODIFY_WARM
        if not warm and ic_op is not words.ControllerTask.IC_CLONE_MODIFY:
            raise InvalidCommand(f"{ic_op} cannot be asked of a run")
        return self._send(RequestCloneModify(run_id, config, warm))

    def get_scheduled_ic_ops_tasks(self) -> list[Dict]:
        """Return the requests that nobody has taken up, the oldest first."""
        found = self._select(
            "SELECT * FROM interactive_control WHERE status = 'PENDING' ORDER BY ic_id"
        )
        return [
            {
                "task_id": row["ic_id"],
                "run_id": row["run_id"],
                "ic_op": _operation(row),
                "config_leaf": self._decoded(row["config_leaf"]),
            }
            for row in found
        ]

    def set_ic_ops_task_status(self, task_id: int, status: Enum) -> None:
        """Note how far a request has come."""
        self._send(SetStatus("request", task_id, REQUEST_STATUS[status]))

    # --- tasks of workers -----------------------------------------------------------------

    def create_worker_task(
        self,
        worker_id: int,
        task_type: Enum,
        status: Enum,
        run_id: int,
        shard_id: int = -1,
        multi_worker_details: Dict | None = None,
        config_options: Dict | None = None,
    ) -> int:
        """Give a worker a task and return its id."""
        command = StartTask(
            CreateWorkerTask(run_id, worker_id, shard_id),
            task_type.value,
            TASK_STATUS[status],
            json_of(multi_worker_details) if multi_worker_details else "{}",
            self._encoded(config_options),
        )
        return self._send(command)

    def get_all_worker_tasks(self) -> dict[int, Dict]:
        """Return the task that each worker was given last, by the workers' ids."""
        found = self._select(
            f"{_TASKS} JOIN rapidfire_workers w ON w.task_id = d.task_id ORDER BY w.worker_id"
        )
        return {
            row["worker_id"]: named(
                {
                    "task_id": row["task_id"],
                    "task_type": words.WorkerTask(row["task_type"]),
                    "status": _TASK_WORD[row["status"]],
                    "run_id": row["run_id"],
                    "shard_id": row["chunk_id"],
                    "multi_worker_details": json.loads(row["multi_worker_details"]),
                    "config_options": self._decoded(row["content"]),
                }
            )
            for row in found
        }

    def get_worker_scheduled_task(self, worker_id: int) -> Dict:
        """Return the newest task that is scheduled for a worker, or an empty dict."""
        found = self._select(
            f"{_TASKS} WHERE t.status = 'SCHEDULED' AND t.worker_id = ? "
            "ORDER BY t.task_id DESC LIMIT 1",
            worker_id,
        )
        if not found:
            return {}
        row = found[0]
        details = json.loads(row["multi_worker_details"])
        return named(
            {
                "task_id": row["task_id"],
                "task_type": words.WorkerTask(row["task_type"]),
                "run_id": row["run_id"],
                "shard_id": row["chunk_id"],
                "multi_worker_details": details,
                # RapidFire tells them only of tasks that have such details.
                "config_options": self._decoded(row["content"]) if details else {},
            }
        )

    def set_worker_task_status(self, worker_id: int, status: Enum) -> None:
        """Move the task that a worker was given last to a status.

        Raises:
            DBException: the task has ended, perhaps by a recovery.
        """
        self._send(SetWorkersTaskStatus(worker_id, TASK_STATUS[status]))

    # --- progress -------------------------------------------------------------------------

    def set_controller_progress(self, run_id: int, progress: float) -> None:
        """Note how far a run has come, in percent."""
        self._note(run_id, controller_progress=round(float(progress), 2))

    def get_controller_progress(self, run_id: int) -> float:
        """Return how far a run has come, in percent."""
        return float(self._noted(run_id, "controller_progress"))

    def set_worker_progress(self, run_id: int, subshard_progress: float) -> None:
        """Note how far a worker has come with a shard of a run, in percent."""
        self._note(run_id, worker_progress=round(float(subshard_progress), 2))

    def get_worker_progress(self, run_id: int) -> float:
        """Return how far a worker has come with a shard of a run, in percent."""
        return float(self._noted(run_id, "worker_progress"))


def _experiment(row: Dict, **more: Any) -> Dict:
    shown = {
        "experiment_id": row["experiment_id"],
        "experiment_name": row["experiment_name"],
        "status": row["status"].lower(),
        "error": row["error"] or "",
        "metric_experiment_id": row["metric_experiment_id"],
        **more,
        "experiment_mode": "fit",
    }
    return named(shown)


def _operation(row: Dict) -> Enum:
    if row["operation"] != statuses.ICOperation.CLONE_MODIFY.value:
        return _OPERATION[row["operation"]]
    if row["warm_start"]:
        return words.ControllerTask.IC_CLONE_MODIFY_WARM
    return words.ControllerTask.IC_CLONE_MODIFY

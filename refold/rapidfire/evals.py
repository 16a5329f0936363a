"""`RFDatabase` as RapidFire AI's inference calls it: its names, arguments, words and shapes."""

import json
from enum import Enum
from typing import Any, cast

from refold.commands.evals import (
    CreateContext,
    CreatePipeline,
    MarkPipelineRequest,
    RequestPipelineClone,
    RequestPipelineDelete,
    RequestPipelineResume,
    RequestPipelineStop,
    SetActorTaskEndTime,
    SetActorTaskError,
    SetActorTaskStartTime,
    SetContextEndTime,
    SetContextError,
    SetContextStartTime,
    SetPipelineError,
    SetPipelineProgress,
)
from refold.commands.rapidfire import (
    NoteExperiment,
    NotePipeline,
    SetPipelineShard,
    SetPipelineStatus,
    SetStatus,
    StartActorTask,
    StartContext,
    StartContextBuild,
    StartExperiment,
    StartPipeline,
)
from refold.commands.store import CreateExperiment, SetExperimentError
from refold.eventstore import statuses, times
from refold.eventstore.errors import DBException, InvalidCommand
from refold.eventstore.events import ExperimentDetailsRecorded, PipelineDetailsRecorded
from refold.rapidfire.layer import Dict, Layer, given, json_of, named
from refold.rapidfire.package import config_json, inference

words = inference()

CONTEXT_STATUS: dict[str, statuses.ContextStatus] = {
    "new": statuses.ContextStatus.PENDING,
    "ongoing": statuses.ContextStatus.BUILDING,
    "completed": statuses.ContextStatus.READY,
    "failed": statuses.ContextStatus.FAILED,
    "deleted": statuses.ContextStatus.DELETED,
}
REQUEST_STATUS: dict[str, statuses.PipelineRequestStatus] = {
    "pending": statuses.PipelineRequestStatus.PENDING,
    "processing": statuses.PipelineRequestStatus.IN_PROGRESS,
    "completed": statuses.PipelineRequestStatus.COMPLETED,
    "failed": statuses.PipelineRequestStatus.FAILED,
}

_CONTEXT_WORD = {ours.value: theirs for theirs, ours in CONTEXT_STATUS.items()}
# RapidFire has no word for a request that was skipped, and never skips one.
_REQUEST_WORD = {ours.value: theirs for theirs, ours in REQUEST_STATUS.items()} | {
    "skipped": "completed"
}

_ASKED = {
    "stop": RequestPipelineStop,
    "resume": RequestPipelineResume,
    "delete": RequestPipelineDelete,
    "clone": RequestPipelineClone,
}

_EXPERIMENTS = (
    "SELECT e.*, d.metric_experiment_id FROM experiments e "
    "LEFT JOIN rapidfire_experiments d ON d.experiment_id = e.experiment_id "
    "WHERE kind = 'evals'"
)
_LAST = "ORDER BY e.experiment_id DESC LIMIT 1"
_CONTEXTS = (
    "SELECT c.*, d.started_at AS begun, d.completed_at AS ended, d.enable_gpu, "
    "d.vector_store_json FROM contexts c "
    "LEFT JOIN rapidfire_contexts d ON d.context_id = c.context_id"
)
_PIPELINES = (
    "SELECT p.pipeline_id, p.context_id, p.pipeline_type, d.config, d.config_json, "
    "d.flattened_config, p.status, p.current_shard_id, p.shards_completed, "
    "p.total_samples_processed, d.metric_run_id, p.error, p.created_at FROM pipelines p "
    "LEFT JOIN rapidfire_pipelines d ON d.pipeline_id = p.pipeline_id"
)
_TASKS = (
    "SELECT t.*, d.started_at AS begun, d.completed_at AS ended FROM actor_tasks t "
    "LEFT JOIN rapidfire_actor_tasks d ON d.task_id = t.task_id"
)


class RFDatabase(Layer):
    """Experiments, contexts, pipelines, tasks of actors and requests of RapidFire's inference."""

    kind = "evals"

    def __init__(self, db_interface: Any = None) -> None:
        super().__init__()

    def close(self) -> None:
        """Let go of the store."""
        self._close()

    def checkpoint(self) -> None:
        """Do nothing: a store of refold's needs no such care."""

    def create_tables(self) -> None:
        """Do nothing: opening a store makes its tables."""

    # --- experiments ----------------------------------------------------------------------

    def create_experiment(
        self,
        experiment_name: str,
        num_actors: int,
        num_cpus_per_actor: float | None = None,
        num_gpus_per_actor: float | None = None,
        metric_experiment_id: str | None = None,
        status: Enum = words.ExperimentStatus.RUNNING,
        num_shards: int = 0,
    ) -> int:
        """Set up an experiment and return its id."""
        created = CreateExperiment(
            "evals",
            experiment_name,
            statuses.ExperimentStatus(status.value),
            None,
            num_shards,
            num_actors,
            num_cpus_per_actor,
            num_gpus_per_actor,
        )
        details = ExperimentDetailsRecorded(0, metric_experiment_id=metric_experiment_id)
        return self._send(StartExperiment(created, details))

    def set_experiment_status(self, experiment_id: int, status: Enum) -> None:
        """Move an experiment to a status."""
        self._send(SetStatus("experiment", experiment_id, status.value))

    def set_experiment_error(self, experiment_id: int, error: str) -> None:
        """Note an experiment's error message."""
        self._send(SetExperimentError(experiment_id, error))

    def set_experiment_num_shards(self, experiment_id: int, num_shards: int) -> None:
        """Note the number of shards of an experiment's data."""
        details = ExperimentDetailsRecorded(experiment_id, num_shards=num_shards)
        self._send(NoteExperiment(details))

    def set_experiment_resources(
        self,
        experiment_id: int,
        num_actors: int,
        num_cpus_per_actor: float | None = None,
        num_gpus_per_actor: float | None = None,
    ) -> None:
        """Note how many actors an experiment has, and what each of them."""
        details = ExperimentDetailsRecorded(
            experiment_id,
            num_actors=num_actors,
            num_cpus=num_cpus_per_actor,
            num_gpus=num_gpus_per_actor,
        )
        self._send(NoteExperiment(details))

    def reset_all_tables(self, experiments_table: bool = False) -> None:
        """Empty the tables of inference; the history stays, and ids go on."""
        self._reset_all_tables(experiments_table)

    def reset_experiment_states(self) -> None:
        """Declare failed what was new or in progress."""
        self._recover()

    def get_experiment(self, experiment_id: int) -> Dict | None:
        """Return an experiment, or None."""
        return self._experiment(f"{_EXPERIMENTS} AND e.experiment_id = ?", experiment_id)

    def _experiment(self, sql: str, *parameters: Any) -> Dict | None:
        found = self._select(sql, *parameters)
        if not found:
            return None
        row = found[0]
        shown = {
            "experiment_id": row["experiment_id"],
            "experiment_name": row["experiment_name"],
            "num_actors": row["num_actors"],
            "num_cpus_per_actor": row["num_cpus"],
            "num_gpus_per_actor": row["num_gpus"],
            "metric_experiment_id": row["metric_experiment_id"],
            "status": row["status"],
            "num_shards": row["num_shards"],
            "error": row["error"] or "",
            "created_at": _second(row["created_at"]),
            "experiment_mode": "evals",
        }
        return named(shown)

    def get_experiment_error(self, experiment_id: int) -> str:
        """Return an experiment's error message."""
        experiment = self.get_experiment(experiment_id)
        return "" if experiment is None else experiment["error"]

    def get_all_experiment_names(self) -> list[str]:
        """Return the names of all experiments."""
        found = self._select(f"{_EXPERIMENTS} ORDER BY e.experiment_id")
        return [row["experiment_name"] for row in found]

    def get_running_experiment(self) -> Dict | None:
        """Return the newest experiment that runs, or None."""
        return self._experiment(f"{_EXPERIMENTS} AND status = 'running' {_LAST}")

    def get_latest_experiment(self) -> Dict | None:
        """Return the newest experiment, or None."""
        return self._experiment(f"{_EXPERIMENTS} {_LAST}")

    def get_experiment_by_name(self, experiment_name: str) -> Dict | None:
        """Return the newest experiment of a name, or None."""
        found = self._experiment(f"{_EXPERIMENTS} AND experiment_name = ? {_LAST}", experiment_name)
        if found is None:
            return None
        left_out = ("num_cpus_per_actor", "num_gpus_per_actor", "num_shards")
        return {name: value for name, value in found.items() if name not in left_out}

    # --- contexts -------------------------------------------------------------------------

    def create_context(
        self,
        context_hash: str,
        rag_config_json: str | None = None,
        prompt_config_json: str | None = None,
        status: Enum = words.ContextStatus.NEW,
        enable_gpu: bool = False,
        vector_store_json: str | None = None,
    ) -> int:
        """Describe a context and return its id, that of the existing one if the hash is known."""
        created = CreateContext(
            context_hash, rag_config_json, prompt_config_json, CONTEXT_STATUS[status.value]
        )
        return self._send(StartContext(created, bool(enable_gpu), vector_store_json))

    def get_context(self, context_id: int) -> Dict | None:
        """Return a context, or None."""
        return _first(self._contexts("WHERE c.context_id = ?", context_id))

    def get_context_by_hash(self, context_hash: str) -> Dict | None:
        """Return the context that has a hash, or None."""
        return _first(self._contexts("WHERE c.context_hash = ?", context_hash))

    def get_all_contexts(self) -> list[Dict]:
        """Return all contexts, the oldest first."""
        return self._contexts("ORDER BY c.context_id")

    def _contexts(self, condition: str, *parameters: Any) -> list[Dict]:
        return [
            named(
                {
                    "context_id": row["context_id"],
                    "context_hash": row["context_hash"],
                    "rag_config_json": row["rag_config_json"],
                    "prompt_config_json": row["prompt_config_json"],
                    "status": _CONTEXT_WORD[row["status"]],
                    "error": row["error"] or "",
                    "started_at": _told(row["begun"], row["started_at"]),
                    "completed_at": _told(row["ended"], row["completed_at"]),
                    "duration_seconds": row["duration_seconds"],
                    "enable_gpu": bool(row["enable_gpu"]),
                    "vector_store_json": row["vector_store_json"],
                }
            )
            for row in self._select(f"{_CONTEXTS} {condition}", *parameters)
        ]

    def start_context_build(self, context_id: int, start_time: float) -> None:
        """Note that the building of a context begins, perhaps anew."""
        self._send(StartContextBuild(context_id, *given(start_time)))

    def set_context_status(self, context_id: int, status: Enum) -> None:
        """Move a context to a status."""
        self._send(SetStatus("context", context_id, CONTEXT_STATUS[status.value]))

    def set_context_start_time(self, context_id: int, start_time: str | float) -> None:
        """Note when the building of a context began."""
        self._send(SetContextStartTime(context_id, *given(start_time)))

    def set_context_end_time(
        self, context_id: int, end_time: str | float, duration_seconds: float
    ) -> None:
        """Note when the building of a context ended, and how many seconds it took."""
        text, seconds = given(end_time)
        self._send(SetContextEndTime(context_id, text, duration_seconds, seconds))

    def set_context_error(self, context_id: int, error: str) -> None:
        """Note a context's error message."""
        self._send(SetContextError(context_id, error))

    # --- pipelines ------------------------------------------------------------------------

    def create_pipeline(
        self,
        pipeline_type: str,
        pipeline_config: Any,
        context_id: int | None = None,
        status: Enum = words.PipelineStatus.NEW,
        flattened_config: Dict | None = None,
    ) -> int:
        """Give a configuration a pipeline and return its id."""
        seen = config_json(pipeline_config)
        config = cast("Dict", pipeline_config) if isinstance(pipeline_config, dict) else {}
        created = CreatePipeline(
            self._experiment_id(),
            str(config.get("pipeline_name") or pipeline_type),
            pipeline_type,
            context_id=context_id,
            status=statuses.PipelineStatus(status.value),
        )
        details = PipelineDetailsRecorded(
            0,
            config_json="{}" if seen is None else json_of(seen),
            flattened_config="{}" if flattened_config is None else json_of(flattened_config),
        )
        return self._send(
            StartPipeline(created, details, self._face.payloads.encode(pipeline_config))
        )

    def get_pipeline_by_metric_run_id(
        self, metric_run_id: str, include_decoded_config: bool = True
    ) -> Dict | None:
        """Return the pipeline that has an id where metrics are logged, or None."""
        condition = "WHERE d.metric_run_id = ?"
        return _first(self._pipelines(include_decoded_config, condition, metric_run_id))

    def get_pipeline(
        self, pipeline_id: int | str, include_decoded_config: bool = True
    ) -> Dict | None:
        """Return a pipeline by its id, here or where metrics are logged, or None."""
        if isinstance(pipeline_id, str):
            found = self.get_pipeline_by_metric_run_id(pipeline_id, include_decoded_config)
            if found is not None or not pipeline_id.strip().isdecimal():
                return found
            pipeline_id = int(pipeline_id)
        condition = "WHERE p.pipeline_id = ?"
        return _first(self._pipelines(include_decoded_config, condition, pipeline_id))

    def _pipelines(self, decode: bool, condition: str, *parameters: Any) -> list[Dict]:
        return [
            {
                "pipeline_id": row["pipeline_id"],
                "context_id": row["context_id"],
                "pipeline_type": row["pipeline_type"],
                "pipeline_config": self._config(row["config"]) if decode else None,
                "pipeline_config_json": _json(row["config_json"]),
                "flattened_config": _json(row["flattened_config"]) or {},
                "status": row["status"],
                "current_shard_id": _shard(row["current_shard_id"]),
                "shards_completed": row["shards_completed"],
                "total_samples_processed": row["total_samples_processed"],
                "metric_run_id": row["metric_run_id"],
                "error": row["error"] or "",
                "created_at": _second(row["created_at"]),
            }
            for row in self._select(f"{_PIPELINES} {condition}", *parameters)
        ]

    def _config(self, digest: str | None) -> Any:
        if digest is None:
            return None
        try:
            return self._face.get_payload(digest)
        except DBException:  # RapidFire, too, goes on without one that cannot be read
            return None

    def get_all_pipeline_ids(self) -> list[Dict]:
        """Return all pipelines in short, the newest first."""
        return self._select(
            "SELECT pipeline_id, status, shards_completed, total_samples_processed "
            "FROM pipelines ORDER BY pipeline_id DESC"
        )

    def get_pipeline_config_json(self, pipeline_id: int) -> Dict | None:
        """Return what people see of a pipeline's configuration, or None."""
        found = self._select(f"{_PIPELINES} WHERE p.pipeline_id = ?", pipeline_id)
        if not found or not found[0]["config_json"]:
            return None
        row = found[0]
        return {
            "pipeline_config_json": json.loads(row["config_json"]),
            "context_id": row["context_id"],
        }

    def get_all_pipelines(self, include_decoded_config: bool = False) -> list[Dict]:
        """Return all pipelines, the newest first."""
        return self._pipelines(include_decoded_config, "ORDER BY p.pipeline_id DESC")

    def set_pipeline_status(self, pipeline_id: int, status: Enum) -> None:
        """Move a pipeline to a status."""
        self._send(SetPipelineStatus(pipeline_id, statuses.PipelineStatus(status.value)))

    def set_pipeline_progress(
        self,
        pipeline_id: int,
        current_shard_id: int,
        shards_completed: int,
        total_samples_processed: int,
    ) -> None:
        """Note how many shards and samples a pipeline has processed."""
        self._send(
            SetPipelineProgress(
                pipeline_id, current_shard_id, shards_completed, total_samples_processed
            )
        )

    def set_pipeline_current_shard(self, pipeline_id: int, shard_id: int) -> None:
        """Note the shard that a pipeline has come to."""
        self._send(SetPipelineShard(pipeline_id, shard_id))

    def set_pipeline_error(self, pipeline_id: int, error: str) -> None:
        """Note a pipeline's error message."""
        self._send(SetPipelineError(pipeline_id, error))

    def set_pipeline_metric_run_id(self, pipeline_id: int, metric_run_id: str) -> None:
        """Note the id that a pipeline has where metrics are logged."""
        details = PipelineDetailsRecorded(pipeline_id, metric_run_id=metric_run_id)
        self._send(NotePipeline(details))

    # --- tasks of actors ------------------------------------------------------------------

    def create_actor_task(
        self,
        pipeline_id: int,
        actor_id: int,
        shard_id: int,
        status: Enum = words.TaskStatus.SCHEDULED,
    ) -> int:
        """Give an actor a shard of a pipeline and return the task's id."""
        after = statuses.ActorTaskStatus(status.value)
        return self._send(StartActorTask(pipeline_id, actor_id, shard_id, after))

    def get_actor_task(self, task_id: int) -> Dict | None:
        """Return a task, or None."""
        return _first(self._tasks("WHERE t.task_id = ?", task_id))

    def get_running_actor_tasks(self) -> list[Dict]:
        """Return the tasks that are in progress, the newest first."""
        return self._tasks("WHERE t.status = 'in_progress' ORDER BY t.task_id DESC")

    def _tasks(self, condition: str, *parameters: Any) -> list[Dict]:
        return [
            {
                "task_id": row["task_id"],
                "pipeline_id": row["pipeline_id"],
                "actor_id": row["actor_id"],
                "shard_id": row["shard_id"],
                "status": row["status"],
                "error_message": row["error"] or "",
                "started_at": _told(row["begun"], row["started_at"]),
                "completed_at": _told(row["ended"], row["completed_at"]),
                "duration_seconds": row["duration_seconds"],
            }
            for row in self._select(f"{_TASKS} {condition}", *parameters)
        ]

    def set_actor_task_status(self, task_id: int, status: Enum) -> None:
        """Move a task to a status.

        Raises:
            DBException: the task has failed, perhaps by a recovery.
        """
        self._send(SetStatus("actor task", task_id, status.value))

    def set_actor_task_start_time(self, task_id: int, start_time: str | float) -> None:
        """Note when the work on a task began."""
        self._send(SetActorTaskStartTime(task_id, *given(start_time)))

    def set_actor_task_end_time(
        self, task_id: int, end_time: str | float, duration_seconds: float
    ) -> None:
        """Note when the work on a task ended, and how many seconds it took."""
        text, seconds = given(end_time)
        self._send(SetActorTaskEndTime(task_id, text, duration_seconds, seconds))

    def set_actor_task_error(self, task_id: int, error_message: str) -> None:
        """Note a task's error message."""
        self._send(SetActorTaskError(task_id, error_message))

    # --- interactive control --------------------------------------------------------------

    def create_ic_operation(
        self,
        operation: str,
        pipeline_id: int | None = None,
        request_data: str | None = None,
    ) -> int:
        """Ask something of a pipeline and return the request's id.

        Raises:
            DBException: there is no such pipeline, or it is deleted.
        """
        asked: Any = _ASKED.get(operation)
        if asked is None:
            raise InvalidCommand(f"{operation!r} is none of {', '.join(_ASKED)}")
        return self._send(asked(pipeline_id, request_data))

    def get_pending_ic_operations(self) -> list[Dict]:
        """Return the requests that nobody has taken up, the oldest first."""
        return self._requests("WHERE status = 'pending' ORDER BY ic_id")

    def get_ic_operation(self, ic_id: int) -> Dict | None:
        """Return a request, or None."""
        return _first(self._requests("WHERE ic_id = ?", ic_id))

    def update_ic_operation_status(self, ic_id: int, status: str, error: str = "") -> None:
        """Note how far a request has come."""
        after = REQUEST_STATUS[words.ICStatus(status).value]
        self._send(MarkPipelineRequest(ic_id, after, error or None))

    def get_all_ic_operations(self) -> list[Dict]:
        """Return all requests, the newest first."""
        return self._requests("ORDER BY ic_id DESC")

    def _requests(self, condition: str, *parameters: Any) -> list[Dict]:
        return [
            {
                "ic_id": row["ic_id"],
                "pipeline_id": row["pipeline_id"],
                "operation": row["operation"],
                "status": _REQUEST_WORD[row["status"]],
                "request_data": row["request_data"],
                "error": row["error"] or "",
                "created_at": _seconds(row["created_at"]),
                "processed_at": None if row["status"] == "pending" else _seconds(row["updated_at"]),
            }
            for row in self._select(f"SELECT * FROM pipeline_requests {condition}", *parameters)
        ]


def _first(rows: list[Dict]) -> Dict | None:
    return rows[0] if rows else None


def _json(text: str | None) -> Any:
    return json.loads(text) if text else None


def _shard(shard_id: int | None) -> int | str:
    # What RapidFire inserts for a pipeline that has not come to any.
    return "" if shard_id is None else shard_id


def _told(seconds: float | None, text: str | None) -> str | float | None:
    return text if seconds is None else seconds


def _second(text: str) -> str:
    """Return a time of a view as SQLite's CURRENT_TIMESTAMP has it."""
    return text[:19]


def _seconds(text: str) -> float:
    return times.from_text(text) / 1_000_000

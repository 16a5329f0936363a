"""The commands that list rows: `runs`, `tasks`, `requests` …"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from refold.cli.open_face import open_face
from refold.cli.options import DEFAULT_STORE, At, Json, Store
from refold.cli.output import Columns, show_rows
from refold.cli.rows import is_time, select
from refold.eventstore import times
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ExperimentStatus,
    ICOperation,
    PipelineStatus,
    RunStatus,
    TaskStatus,
)
from refold.projections.entities import ENTITIES
from refold.rows import Row


def _status(words: type[StrEnum]) -> Any:
    return typer.Option(
        "--status",
        case_sensitive=False,
        metavar="STATUS",
        help=f"Only {', '.join(words)}; may be given repeatedly.",
    )


Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="Only the last N.")
]
ExperimentId = Annotated[
    int | None, typer.Option("--experiment", metavar="ID", help="Only those of an experiment.")
]
RunId = Annotated[int | None, typer.Option("--run", metavar="ID", help="Only those of a run.")]
PipelineId = Annotated[
    int | None, typer.Option("--pipeline", metavar="ID", help="Only those of a pipeline.")
]

CHANGED: Columns = {"CHANGED": lambda row: _moment(row["updated_at"])}


def experiments(
    status: Annotated[list[ExperimentStatus] | None, _status(ExperimentStatus)] = None,
    limit: Limit = None,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """List experiments, of training (fit) and inference (evals).

    Examples:
        refold experiments
        refold experiments --status RUNNING --json
    """
    columns: Columns = {
        "EXPERIMENT": "experiment_id",
        "NAME": "experiment_name",
        "KIND": "kind",
        "STATUS": "status",
        "ERROR": "error",
    }
    _list("experiment", "experiments", columns, {"status": status}, limit, at, json, store)


def runs(
    status: Annotated[list[RunStatus] | None, _status(RunStatus)] = None,
    experiment: ExperimentId = None,
    limit: Limit = None,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """List runs: how far each has come, and its metrics.

    Examples:
        refold runs
        refold runs --status ONGOING --status STOPPED
        refold runs --at 2h
        refold runs --json | jq '.[] | [.run_id, .config_leaf.learning_rate, .metrics.loss]'
    """
    columns: Columns = {
        "RUN": "run_id",
        "EXP": "experiment_id",
        "NAME": "run_name",
        "STATUS": "status",
        "EPOCH": "current_epoch",
        "CHUNK": lambda row: _of(row["current_chunk"], row["num_chunks"]),
        "METRICS": "metrics",
        "CLONE OF": lambda row: row["parent_run_id"],
    }
    wanted = {"status": status, "experiment_id": experiment}
    _list("run", "runs", columns, wanted, limit, at, json, store)


def tasks(
    status: Annotated[list[TaskStatus] | None, _status(TaskStatus)] = None,
    run: RunId = None,
    worker: Annotated[
        int | None, typer.Option("--worker", metavar="ID", help="Only those of a worker.")
    ] = None,
    limit: Limit = None,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """List the tasks of workers: one chunk of one run each.

    Examples:
        refold tasks --status IN_PROGRESS
        refold tasks --run 5 --worker 0 --limit 20
    """
    columns: Columns = {
        "TASK": "task_id",
        "RUN": "run_id",
        "WORKER": "worker_id",
        "EPOCH": "epoch",
        "CHUNK": "chunk_id",
        "STATUS": "status",
        "ERROR": "error",
    }
    wanted = {"status": status, "run_id": run, "worker_id": worker}
    _list("task", "tasks", columns, wanted, limit, at, json, store)


def workers(at: At = None, json: Json = False, store: Store = DEFAULT_STORE) -> None:
    """List workers, and what each does.

    Examples:
        refold workers
        refold workers --at 5m
    """
    columns: Columns = {"WORKER": "worker_id", "DOES": "task", "STATUS": "status"}
    _list("worker", "workers", columns, {}, None, at, json, store)


def requests(
    status: Annotated[list[TaskStatus] | None, _status(TaskStatus)] = None,
    operation: Annotated[
        list[ICOperation] | None,
        typer.Option(
            "--operation",
            case_sensitive=False,
            metavar="OPERATION",
            help=f"Only {', '.join(ICOperation)}; may be given repeatedly.",
        ),
    ] = None,
    run: RunId = None,
    limit: Limit = None,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """List what users asked of runs, and what became of it.

    Examples:
        refold requests --status PENDING
        refold requests --run 5 --operation STOP
    """
    columns: Columns = {
        "REQUEST": "ic_id",
        "OPERATION": "operation",
        "RUN": "run_id",
        "STATUS": "status",
        "ERROR": "error",
        "MADE": lambda row: _moment(row["created_at"]),
    }
    wanted = {"status": status, "operation": operation, "run_id": run}
    _list("request", "requests", columns, wanted, limit, at, json, store)


def contexts(
    status: Annotated[list[ContextStatus] | None, _status(ContextStatus)] = None,
    limit: Limit = None,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """List contexts: the indexes that pipelines look things up in.

    Examples:
        refold contexts --status building
    """
    columns: Columns = {
        "CONTEXT": "context_id",
        "HASH": lambda row: row["context_hash"][:12],
        "STATUS": "status",
        "SECONDS": "duration_seconds",
        "ERROR": "error",
    }
    _list("context", "contexts", columns, {"status": status}, limit, at, json, store)


def pipelines(
    status: Annotated[list[PipelineStatus] | None, _status(PipelineStatus)] = None,
    experiment: ExperimentId = None,
    limit: Limit = None,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """List pipelines: how many shards and samples each has processed.

    Examples:
        refold pipelines --status ongoing
        refold pipelines --experiment 2 --at 1h
    """
    columns: Columns = {
        "PIPELINE": "pipeline_id",
        "EXP": "experiment_id",
        "NAME": "pipeline_name",
        "TYPE": "pipeline_type",
        "STATUS": "status",
        "SHARDS": "shards_completed",
        "SAMPLES": "total_samples_processed",
        "CONTEXT": "context_id",
        "ERROR": "error",
    }
    wanted = {"status": status, "experiment_id": experiment}
    _list("pipeline", "pipelines", columns, wanted, limit, at, json, store)


def actor_tasks(
    status: Annotated[list[ActorTaskStatus] | None, _status(ActorTaskStatus)] = None,
    experiment: ExperimentId = None,
    pipeline: PipelineId = None,
    actor: Annotated[
        int | None, typer.Option("--actor", metavar="ID", help="Only those of an actor.")
    ] = None,
    limit: Limit = None,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """List the tasks of actors: one shard of one pipeline each.

    Examples:
        refold actor-tasks --status in_progress
        refold actor-tasks --pipeline 3 --limit 20
    """
    columns: Columns = {
        "TASK": "task_id",
        "PIPELINE": "pipeline_id",
        "ACTOR": "actor_id",
        "SHARD": "shard_id",
        "STATUS": "status",
        "SECONDS": "duration_seconds",
        "ERROR": "error",
    }
    wanted = {
        "status": status,
        "experiment_id": experiment,
        "pipeline_id": pipeline,
        "actor_id": actor,
    }
    _list("actor_task", "tasks of actors", columns, wanted, limit, at, json, store)


def _list(
    entity: str,
    plural: str,
    columns: Columns,
    wanted: dict[str, Any],
    limit: int | None,
    at: str | None,
    json: bool,
    store: str,
) -> None:
    view = ENTITIES[entity]
    with open_face(store, at=at) as db:
        rows: list[Row] = select(db, view, wanted, limit=limit, config=json)
    asked = " like that" if any(value not in (None, []) for value in wanted.values()) else ""
    show_rows(rows, {**columns, **CHANGED}, json=json, none=f"there are no {plural}{asked}")


def _moment(text: str) -> datetime | str:
    return times.to_datetime(times.from_iso(text)) if is_time(text) else text


def _of(done: int, all_: int | None) -> str:
    return str(done) if all_ is None else f"{done}/{all_}"

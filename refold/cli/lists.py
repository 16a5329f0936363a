"""The commands that list rows: `runs`, `tasks`, `requests` …"""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from refold.as_json import is_time, select, shown_row
from refold.cli.open_face import open_face
from refold.cli.options import DEFAULT_STORE, At, Json, Store, id_of
from refold.cli.output import Columns, seconds_of, show_rows
from refold.cli.status import columns_of_members
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
from refold.eventstore.words import WORDS
from refold.projections.entities import ENTITIES
from refold.rows import Row
from refold.search import COLUMNS, OTHER_NAMES, configurations


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
    str | None,
    typer.Option("--experiment", metavar="ID|NAME", help="Only those of an experiment."),
]
RunId = Annotated[str | None, typer.Option("--run", metavar="ID|NAME", help="Only those of a run.")]
PipelineId = Annotated[
    str | None, typer.Option("--pipeline", metavar="ID|NAME", help="Only those of a pipeline.")
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


Where = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="CONDITION", help="Such as: lr > 0.01 and loss < 0.3 and epoch >= 2"
    ),
]
Sort = Annotated[
    str | None,
    typer.Option("--sort", metavar="NAMES", help="Such as: loss, or -accuracy for the largest."),
]
Best = Annotated[
    str | None,
    typer.Option(
        "--best", metavar="METRIC", help="Only the one where it is lowest; =-METRIC: highest."
    ),
]
Shown = Annotated[
    str | None,
    typer.Option("--columns", metavar="NAMES", help="Show these: lr,loss,status. All: all."),
]


def runs(
    status: Annotated[list[RunStatus] | None, _status(RunStatus)] = None,
    experiment: ExperimentId = None,
    where: Where = None,
    sort: Sort = None,
    best: Best = None,
    shown: Shown = None,
    limit: Limit = None,
    at: At = None,
    json: Json = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """List runs: the parameters in which they differ, how far each has come, and its metrics.

    Names are those of columns, parameters (model.layers for groups) and metrics; params.x and
    metrics.x where a name is both.

    Examples:
        refold runs
        refold runs --sort loss --limit 5
        refold runs --where "lr > 0.01 and loss < 0.3 and status = 'COMPLETED'"
        refold runs --best=-accuracy
        refold runs --columns name,lr,loss --at 2h
    """
    with open_face(store, at=at) as db:
        of = None if experiment is None else id_of(db, "experiment", experiment)
        found = db.search_runs(where, sort=best or sort, config=json)
        configs = configurations(db.views, db.payloads)
    rows = [
        shown_row(row)
        for row in found
        if (not status or row["status"] in status) and (of is None or row["experiment_id"] == of)
    ]
    if best is not None:
        rows = rows[:1]
    elif limit is not None:
        rows = rows[:limit] if sort else rows[-limit:]
    asked = " like that" if status or where or experiment is not None else ""
    show_rows(
        rows, columns_of_runs(rows, configs, shown), json=json, none=f"there are no runs{asked}"
    )


MANY = 8
"""How many columns of parameters, and of metrics, are shown if nobody names them."""


def columns_of_runs(
    rows: list[Row], configs: Mapping[int, dict[str, Any]], shown: str | None = None
) -> Columns:
    """Return what a table of runs shows.

    Args:
        rows: the runs.
        configs: their parameters, by id.
        shown: names of columns, parameters and metrics, separated by commas; `all`: all parameters
            and metrics, also those that are the same in all runs.
    """
    own = [configs.get(row["run_id"], {}) for row in rows]
    parameters = list(dict.fromkeys(name for config in own for name in config))
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    groups = {name for row in rows for name, value in row["metrics"].items() if _is_group(value)}
    single = [name for name in metrics if name not in groups]

    def parameter(name: str) -> Callable[[Row], Any]:
        return lambda row: configs.get(row["run_id"], {}).get(name)

    def metric(name: str) -> Callable[[Row], Any]:
        return lambda row: row["metrics"].get(name)

    if shown is not None and shown != "all":
        columns: dict[str, str | Callable[[Row], Any]] = {"RUN": "run_id"}
        for name in filter(None, map(str.strip, shown.split(","))):
            kind, _, rest = name.partition(".")
            column = OTHER_NAMES.get(name, name)
            if column in COLUMNS:
                columns[name.upper()] = column
            elif kind in ("params", "param"):
                columns[name] = parameter(rest)
            elif kind in ("metrics", "metric"):
                columns[name] = metric(rest)
            elif name in parameters:
                columns[name] = parameter(name)
            elif name in metrics:
                columns[name] = metric(name)
            else:
                known = ", ".join([*COLUMNS, *parameters, *metrics])
                raise typer.BadParameter(f"there is no {name}: {known}", param_hint="--columns")
        return columns
    if shown is None:
        different = [name for name in parameters if _differs([config.get(name) for config in own])]
        parameters, single = different[:MANY], single[:MANY]
    return {
        "RUN": "run_id",
        "EXP": "experiment_id",
        "NAME": "run_name",
        "STATUS": "status",
        "EPOCH": "current_epoch",
        "CHUNK": lambda row: _of(row["current_chunk"], row["num_chunks"]),
        **{(f"params.{n}" if n in single else n): parameter(n) for n in parameters},
        **{(f"metrics.{n}" if n in parameters else n): metric(n) for n in single},
        "METRICS": lambda row: {n: v for n, v in row["metrics"].items() if n not in single} or None,
        "CLONE OF": lambda row: row["parent_run_id"],
        **CHANGED,
    }


def _is_group(value: Any) -> bool:
    return isinstance(value, dict | list) or (isinstance(value, str) and value not in WORDS)


def _differs(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)


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
    """List the controller, the workers and the actors: what each does, and whether it is alive.

    Examples:
        refold workers
        refold workers --at 5m
    """
    columns: Columns = {
        "WHO": "who",
        "DOES": "does",
        "STATUS": "status",
        "ON": "on",
        **columns_of_members(lambda text: seconds_of(times.from_iso(text))),
    }
    with open_face(store, at=at) as db:
        rows = [shown_row(row) for row in db.members()]
    show_rows(rows, columns, json=json, none="there are no workers")


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
        ids = {
            f"{word}_id": id_of(db, word, given)
            for word in ("experiment", "run", "pipeline")
            if (given := wanted.get(f"{word}_id")) is not None
        }
        rows: list[Row] = select(db, view, wanted | ids, limit=limit, config=json)
    asked = " like that" if any(value not in (None, []) for value in wanted.values()) else ""
    show_rows(rows, {**columns, **CHANGED}, json=json, none=f"there are no {plural}{asked}")


def _moment(text: str) -> datetime | str:
    return times.to_datetime(times.from_iso(text)) if is_time(text) else text


def _of(done: int, all_: int | None) -> str:
    return str(done) if all_ is None else f"{done}/{all_}"

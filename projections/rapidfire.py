"""What RapidFire AI notes beyond the seeds, in rows beside those of the other views."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from msgspec import UNSET
from msgspec.structs import replace

from refold.eventstore.event import Event
from refold.eventstore.events import (
    ActorTaskEndTimeRecorded,
    ActorTaskEvent,
    ActorTaskStartTimeRecorded,
    ContextDetailsRecorded,
    ContextEndTimeRecorded,
    ContextEvent,
    ContextRebuildStarted,
    ContextStartTimeRecorded,
    ExperimentDetailsRecorded,
    ExperimentEvent,
    PipelineDetailsRecorded,
    PipelineEvent,
    RunDetailsRecorded,
    RunEvent,
    TablesReset,
    TaskDetailsRecorded,
    TaskEvent,
)
from refold.eventstore.sql import section
from refold.projections.experiments import is_of, removes_all, removes_some
from refold.projections.view import Row, View

R = TypeVar("R", bound=Row)


def _noting(row_type: type[R], key: str) -> Callable[[R | None, Any], R | None]:
    """Return an evolve function that takes over the columns that an event holds."""

    def evolve(row: R | None, event: Event) -> R | None:
        noted = {
            name: value
            for name in row_type.__struct_fields__
            if name != key and (value := getattr(event, name, UNSET)) is not UNSET
        }
        if not noted:
            return row
        return (
            cast("Any", row_type)(getattr(event, key), **noted)
            if row is None
            else replace(row, **noted)
        )

    return evolve


class ExperimentDetails(Row, frozen=True):
    """A row of `rapidfire_experiments`; `options` names a payload."""

    experiment_id: int
    metric_experiment_id: str | None = None
    current_task: str | None = None
    options: str | None = None


rapidfire_experiments = View(
    "rapidfire_experiments",
    ExperimentDetails,
    version=1,
    schema=section("rapidfire_experiments"),
    stream=ExperimentEvent.stream_of,
)
rapidfire_experiments.put_by(
    ExperimentDetailsRecorded,
    _noting(ExperimentDetails, "experiment_id"),
    key=lambda e: e.experiment_id,
)
rapidfire_experiments.cleared_by(TablesReset, when=removes_all)
rapidfire_experiments.on(TablesReset, lambda _, e: None, keys=removes_some)


class RunDetails(Row, frozen=True):
    """A row of `rapidfire_runs`."""

    run_id: int
    flattened_config: str = "{}"
    completed_steps: int = 0
    total_steps: int = 0
    shards_visited: int = 0
    epochs_completed: int = 0
    shard_offset: int = 0
    error: str = ""
    source: str = ""
    ended_by: str = ""
    warm_started_from: int | None = None
    cloned_from: int | None = None
    estimated_runtime: float = 0.0
    required_workers: int = 0
    controller_progress: float = 0.0
    worker_progress: float = 0.0


rapidfire_runs = View(
    "rapidfire_runs",
    RunDetails,
    version=1,
    schema=section("rapidfire_runs"),
    stream=RunEvent.stream_of,
)
rapidfire_runs.put_by(RunDetailsRecorded, _noting(RunDetails, "run_id"), key=lambda e: e.run_id)
rapidfire_runs.cleared_by(TablesReset, when=is_of("fit"))


class TaskDetails(Row, frozen=True):
    """A row of `rapidfire_tasks`; `options` names a payload."""

    task_id: int
    task_type: str
    multi_worker_details: str
    options: str | None


rapidfire_tasks = View(
    "rapidfire_tasks",
    TaskDetails,
    version=1,
    schema=section("rapidfire_tasks"),
    stream=TaskEvent.stream_of,
)
rapidfire_tasks.created_by(
    TaskDetailsRecorded,
    lambda e: TaskDetails(e.task_id, e.task_type, e.multi_worker_details, e.options),
)
rapidfire_tasks.cleared_by(TablesReset, when=is_of("fit"))


class Worker(Row, frozen=True):
    """A row of `rapidfire_workers`: the task that a worker was given last."""

    worker_id: int
    task_id: int


rapidfire_workers = View(
    "rapidfire_workers", Worker, version=1, schema=section("rapidfire_workers")
)
rapidfire_workers.put_by(
    TaskDetailsRecorded,
    lambda row, e: (
        Worker(e.worker_id, e.task_id)
        if row is None
        else replace(row, task_id=max(row.task_id, e.task_id))
    ),
    key=lambda e: e.worker_id,
)
rapidfire_workers.cleared_by(TablesReset, when=is_of("fit"))


class ContextDetails(Row, frozen=True):
    """A row of `rapidfire_contexts`; its times are in seconds, where they were given so."""

    context_id: int
    started_at: float | None = None
    completed_at: float | None = None
    enable_gpu: bool = False
    vector_store_json: str | None = None


def _at(
    row_type: type[R], key: str, column: str, **void: None
) -> Callable[[R | None, Any], R | None]:
    """Return an evolve function that notes a time in a column, if it was given in seconds."""

    def evolve(row: R | None, event: Any) -> R | None:
        given = event.seconds is not UNSET
        if row is None:
            return (
                cast("Any", row_type)(getattr(event, key), **{column: event.seconds})
                if given
                else None
            )
        return replace(row, **{column: event.seconds if given else None}, **void)

    return evolve


rapidfire_contexts = View(
    "rapidfire_contexts",
    ContextDetails,
    version=1,
    schema=section("rapidfire_contexts"),
    stream=ContextEvent.stream_of,
)
rapidfire_contexts.put_by(
    ContextDetailsRecorded,
    _noting(ContextDetails, "context_id"),
    key=lambda e: e.context_id,
)
rapidfire_contexts.put_by(
    ContextStartTimeRecorded,
    _at(ContextDetails, "context_id", "started_at"),
    key=lambda e: e.context_id,
)
rapidfire_contexts.put_by(
    ContextEndTimeRecorded,
    _at(ContextDetails, "context_id", "completed_at"),
    key=lambda e: e.context_id,
)
rapidfire_contexts.put_by(
    ContextRebuildStarted,
    _at(ContextDetails, "context_id", "started_at", completed_at=None),
    key=lambda e: e.context_id,
)
rapidfire_contexts.cleared_by(TablesReset, when=is_of("evals"))


class PipelineDetails(Row, frozen=True):
    """A row of `rapidfire_pipelines`; `config` names a payload."""

    pipeline_id: int
    config: str | None = None
    config_json: str | None = None
    flattened_config: str = "{}"
    metric_run_id: str | None = None


rapidfire_pipelines = View(
    "rapidfire_pipelines",
    PipelineDetails,
    version=1,
    schema=section("rapidfire_pipelines"),
    stream=PipelineEvent.stream_of,
)
rapidfire_pipelines.put_by(
    PipelineDetailsRecorded,
    _noting(PipelineDetails, "pipeline_id"),
    key=lambda e: e.pipeline_id,
)
rapidfire_pipelines.cleared_by(TablesReset, when=is_of("evals"))


class ActorTaskTimes(Row, frozen=True):
    """A row of `rapidfire_actor_tasks`: times in seconds, where they were given so."""

    task_id: int
    started_at: float | None = None
    completed_at: float | None = None


rapidfire_actor_tasks = View(
    "rapidfire_actor_tasks",
    ActorTaskTimes,
    version=1,
    schema=section("rapidfire_actor_tasks"),
    stream=ActorTaskEvent.stream_of,
)
rapidfire_actor_tasks.put_by(
    ActorTaskStartTimeRecorded,
    _at(ActorTaskTimes, "task_id", "started_at"),
    key=lambda e: e.task_id,
)
rapidfire_actor_tasks.put_by(
    ActorTaskEndTimeRecorded,
    _at(ActorTaskTimes, "task_id", "completed_at"),
    key=lambda e: e.task_id,
)
rapidfire_actor_tasks.cleared_by(TablesReset, when=is_of("evals"))

RAPIDFIRE: tuple[View[Any], ...] = (
    rapidfire_experiments,
    rapidfire_runs,
    rapidfire_tasks,
    rapidfire_workers,
    rapidfire_contexts,
    rapidfire_pipelines,
    rapidfire_actor_tasks,
)
"""The views of this room."""

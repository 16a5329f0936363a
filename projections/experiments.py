"""The views that training and inference share: experiments, and the last id of each kind."""

from collections.abc import Callable
from typing import Any, Literal

from msgspec import UNSET
from msgspec.structs import replace

from refold.eventstore.event import Event
from refold.eventstore.events import (
    ActorTaskScheduled,
    CloneModifyRequested,
    ContextCreated,
    DeleteRequested,
    ExperimentCancelled,
    ExperimentCompleted,
    ExperimentCreated,
    ExperimentDetailsRecorded,
    ExperimentErrorRecorded,
    ExperimentEvent,
    ExperimentFailed,
    ExperimentStarted,
    PipelineCloneRequested,
    PipelineCreated,
    PipelineDeleteRequested,
    PipelineResumeRequested,
    PipelineStopRequested,
    ResumeRequested,
    RunCreated,
    StopRequested,
    TablesReset,
    TaskScheduled,
)
from refold.eventstore.sql import section
from refold.projections.unit_of_work import Rows
from refold.projections.view import Row, View


def is_of(kind: Literal["fit", "evals"]) -> Callable[[TablesReset], bool]:
    """Return whether a reset empties the views of a kind of experiments."""
    return lambda e: e.kind in (UNSET, kind)


def removes_all(event: TablesReset) -> bool:
    """Return whether a reset removes the experiments of all kinds."""
    return event.experiments and event.kind is UNSET


def removes_some(event: TablesReset) -> tuple[int, ...]:
    """Return the ids of the experiments that a reset of one kind removes."""
    return () if event.experiment_ids is UNSET else event.experiment_ids


class Experiment(Row, frozen=True):
    """A row of `experiments`."""

    experiment_id: int
    experiment_name: str
    kind: str
    status: str
    experiments_path: str | None = None
    num_shards: int | None = None
    num_actors: int | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    error: str | None = None

    def word(self, status: str) -> str:
        """Write a status as this kind of experiment does: fit in capitals, evals in small."""
        return status.lower() if self.kind == "evals" else status.upper()


experiments = View(
    "experiments",
    Experiment,
    version=2,
    schema=section("experiments"),
    stream=ExperimentEvent.stream_of,
)

experiments.created_by(
    ExperimentCreated,
    lambda e: Experiment(
        experiment_id=e.experiment_id,
        experiment_name=e.experiment_name,
        kind=e.kind,
        status=e.status,
        experiments_path=e.experiments_path,
        num_shards=e.num_shards,
        num_actors=e.num_actors,
        num_cpus=e.num_cpus,
        num_gpus=e.num_gpus,
    ),
)
for _moved in (ExperimentStarted, ExperimentCompleted, ExperimentFailed, ExperimentCancelled):
    experiments.on(_moved, lambda row, e: replace(row, status=row.word(str(e.leads_to))))
experiments.on(ExperimentErrorRecorded, lambda row, e: replace(row, error=e.error))


def _resized(row: Experiment, event: ExperimentDetailsRecorded) -> Experiment:
    noted = {
        name: value
        for name in ("num_shards", "num_actors", "num_cpus", "num_gpus")
        if (value := getattr(event, name)) is not UNSET
    }
    return replace(row, **noted) if noted else row


experiments.on(ExperimentDetailsRecorded, _resized)
experiments.cleared_by(TablesReset, when=removes_all)
experiments.on(TablesReset, lambda _, e: None, keys=removes_some)


class LastId(Row, frozen=True):
    """A row of `ids`."""

    kind: str
    last: int


ids = View("ids", LastId, version=2, schema=section("ids"))


def next_id(rows: Rows, kind: str) -> int:
    """Return the id for a new entity of a kind, such as `run`."""
    row = rows.get(ids, kind)
    return 1 if row is None else row.last + 1


def _counts(event: type[Event], kind: str, field: str) -> None:
    def evolve(row: LastId | None, happened: Any) -> LastId:
        given: int = getattr(happened, field)
        if row is None:
            return LastId(kind, given)
        return replace(row, last=max(row.last, given))

    key: Callable[[Any], str] = lambda _: kind  # noqa: E731
    ids.put_by(event, evolve, key=key)


_counts(ExperimentCreated, "experiment", "experiment_id")
_counts(RunCreated, "run", "run_id")
_counts(TaskScheduled, "task", "task_id")
for _requested in (StopRequested, ResumeRequested, DeleteRequested, CloneModifyRequested):
    _counts(_requested, "ic", "ic_id")
for _requested in (
    PipelineStopRequested,
    PipelineResumeRequested,
    PipelineDeleteRequested,
    PipelineCloneRequested,
):
    _counts(_requested, "pipeline_ic", "ic_id")
_counts(ContextCreated, "context", "context_id")
_counts(PipelineCreated, "pipeline", "pipeline_id")
_counts(ActorTaskScheduled, "actor_task", "task_id")

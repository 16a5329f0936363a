"""The view `ids`: the last id given to each kind of entity; no reset empties it."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from refold.eventstore.events import (
    ActorTaskScheduled,
    CloneModifyRequested,
    ContextCreated,
    DeleteRequested,
    Event,
    ExperimentCreated,
    PipelineCreated,
    ResumeRequested,
    RunCreated,
    StopRequested,
    TaskScheduled,
)
from refold.eventstore.schema import section
from refold.projections.unit_of_work import Rows
from refold.projections.view import Row, View


class LastId(Row, frozen=True):
    """A row of `ids`."""

    kind: str
    last: int


ids = View("ids", LastId, version=1, schema=section("ids"))


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
_counts(ContextCreated, "context", "context_id")
_counts(PipelineCreated, "pipeline", "pipeline_id")
_counts(ActorTaskScheduled, "actor_task", "task_id")

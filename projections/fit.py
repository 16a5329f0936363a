"""The views of training: runs, tasks of workers, progress, and what users asked for."""

from collections.abc import Iterable, Mapping
from functools import partial

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from refold.eventstore.event import Event, to_json
from refold.eventstore.events import (
    CloneModifyRequested,
    ControllerTaskSet,
    DeleteRequested,
    ExperimentStatesReset,
    InteractiveControlCompleted,
    InteractiveControlEvent,
    InteractiveControlFailed,
    InteractiveControlSkipped,
    InteractiveControlStarted,
    Measured,
    MetricsLogged,
    ResumeRequested,
    RunCompleted,
    RunCreated,
    RunDetailsRecorded,
    RunEnded,
    RunEvent,
    RunFailed,
    RunKilled,
    RunMetricsRecorded,
    RunProgressed,
    RunResumed,
    RunStarted,
    RunStopped,
    StopRequested,
    TablesReset,
    TaskCompleted,
    TaskEvent,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    WorkerLost,
    WorkerProgressed,
)
from refold.eventstore.sql import section
from refold.eventstore.statuses import ICOperation, RunStatus, TaskStatus
from refold.eventstore.words import name_of, path_of, words_text
from refold.projections.experiments import is_of
from refold.projections.liveness import cause_of, number_of
from refold.projections.view import Row, View


class Run(Row, frozen=True):
    """A row of `runs`; `config_digest` names the payload that is read as `config_leaf`."""

    run_id: int
    experiment_id: int
    run_name: str
    mlflow_run_id: str | None
    status: str
    source: str
    ended_by: str | None
    parent_run_id: int | None
    warm_start: bool
    config_digest: str | None
    seed: int | None
    num_chunks: int | None
    current_chunk: int = 0
    current_epoch: int = 0
    metrics: str = "{}"
    metric_words: str | None = None


runs = View(
    "runs", Run, version=4, schema=section("runs"), table="runs_folded", stream=RunEvent.stream_of
)

runs.created_by(
    RunCreated,
    lambda e: Run(
        run_id=e.run_id,
        experiment_id=e.experiment_id,
        run_name=e.run_name,
        mlflow_run_id=e.mlflow_run_id,
        status=e.status.value,
        source=e.source.value,
        ended_by=None,
        parent_run_id=e.parent_run_id,
        warm_start=e.warm_start,
        config_digest=e.config,
        seed=e.seed,
        num_chunks=e.num_chunks,
    ),
)
runs.moved_by(RunStarted, RunResumed, RunStopped, RunCompleted, RunFailed, RunKilled)
runs.on(RunEnded, lambda row, e: replace(row, ended_by=e.ended_by.value))
runs.on(
    RunProgressed,
    lambda row, e: replace(row, current_chunk=e.current_chunk, current_epoch=e.current_epoch),
)
runs.on(
    RunMetricsRecorded,
    lambda row, e: replace(row, metrics=to_json(e.metrics), metric_words=words_text(e.words)),
)


_words = msgspec.json.Decoder(dict[str, str]).decode


def _with_logged(row: Run, event: MetricsLogged) -> Run:
    numbers = msgspec.json.decode(row.metrics)
    words = {} if row.metric_words is None else _words(row.metric_words)
    paths = {path_of(name) for name in event.metrics}
    words = {path: word for path, word in words.items() if path.partition("/")[0] not in paths}
    for name, measured in event.metrics.items():
        if measured.word is None:
            numbers[name] = measured.last
        else:
            numbers.pop(name, None)
            words[path_of(name)] = measured.word
    return replace(row, metrics=to_json(numbers), metric_words=words_text(words))


runs.on(MetricsLogged, _with_logged)


def _reconfigured(row: Run, event: RunDetailsRecorded) -> Run:
    if event.config is UNSET and event.mlflow_run_id is UNSET:
        return row
    return replace(
        row,
        config_digest=row.config_digest if event.config is UNSET else event.config,
        mlflow_run_id=row.mlflow_run_id if event.mlflow_run_id is UNSET else event.mlflow_run_id,
    )


runs.on(RunDetailsRecorded, _reconfigured)
runs.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status=RunStatus.FAILED.value),
    keys=lambda e: e.runs,
)
runs.cleared_by(TablesReset, when=is_of("fit"))


class RunMetric(Row, frozen=True):
    """A row of `run_metrics`; its key is the run's id and the metric's name: `5/loss`."""

    metric_key: str
    run_id: int
    metric: str
    count: int
    last: float | None
    last_step: int | None
    last_word: str | None
    first: float | None
    first_step: int | None
    min: float | None
    min_step: int | None
    max: float | None
    max_step: int | None


run_metrics = View("run_metrics", RunMetric, version=1, schema=section("run_metrics"))


def metric_key(run_id: int, metric: str) -> str:
    """Return the key of a row of `run_metrics`."""
    return f"{run_id}/{metric}"


def measured_in(event: RunMetricsRecorded) -> dict[str, Measured]:
    """Return the metrics of an event that are numbers, without a step; groups are left out."""
    numbers = {
        name: Measured(last=value)
        for name, value in event.metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return numbers | {
        name_of(path): Measured(word=word) for path, word in event.words.items() if "/" not in path
    }


def points_of(event: Event) -> Mapping[str, Measured]:
    """Return what an event says of metrics, by their names."""
    if isinstance(event, MetricsLogged):
        return event.metrics
    return measured_in(event) if isinstance(event, RunMetricsRecorded) else {}


def _measured(row: RunMetric | None, run_id: int, metric: str, m: Measured) -> RunMetric:
    one = m.count == 1
    first, first_step = (m.last, m.step) if one else (m.first, m.first_step)
    found = None if m.last is None else m.step
    low, low_step = (m.last, found) if one else (m.min, m.min_step)
    high, high_step = (m.last, found) if one else (m.max, m.max_step)
    if row is None:
        return RunMetric(
            metric_key(run_id, metric),
            run_id,
            metric,
            m.count,
            m.last,
            m.step,
            m.word,
            first,
            first_step,
            low,
            low_step,
            high,
            high_step,
        )
    row = replace(row, count=row.count + m.count, last=m.last, last_step=m.step, last_word=m.word)
    if low is not None and (row.min is None or low < row.min):
        row = replace(row, min=low, min_step=low_step)
    if high is not None and (row.max is None or high > row.max):
        row = replace(row, max=high, max_step=high_step)
    return row


def _keys(run_id: int, metrics: Iterable[str]) -> list[str]:
    return [metric_key(run_id, metric) for metric in metrics]


def _metric(key: str) -> str:
    return key.partition("/")[2]


run_metrics.put_each_by(
    MetricsLogged,
    lambda row, e, key: _measured(row, e.run_id, _metric(key), e.metrics[_metric(key)]),
    keys=lambda e: _keys(e.run_id, e.metrics),
)
run_metrics.put_each_by(
    RunMetricsRecorded,
    lambda row, e, key: _measured(row, e.run_id, _metric(key), measured_in(e)[_metric(key)]),
    keys=lambda e: _keys(e.run_id, measured_in(e)),
)
run_metrics.cleared_by(TablesReset, when=is_of("fit"))


class Task(Row, frozen=True):
    """A row of `worker_task`."""

    task_id: int
    run_id: int
    worker_id: int
    chunk_id: int
    epoch: int
    status: str
    error: str | None = None
    claim: int | None = None
    attempts: int = 0
    offered_after: int | None = None


worker_task = View(
    "worker_task", Task, version=2, schema=section("worker_task"), stream=TaskEvent.stream_of
)

worker_task.created_by(
    TaskScheduled,
    lambda e: Task(
        e.task_id, e.run_id, e.worker_id, e.chunk_id, e.epoch, TaskStatus.SCHEDULED.value
    ),
)
worker_task.on(
    TaskStarted,
    lambda row, e: replace(
        row,
        status=TaskStatus.IN_PROGRESS.value,
        worker_id=row.worker_id if e.worker_id is UNSET else e.worker_id,
        error=None,
        attempts=row.attempts + 1,
        offered_after=None,
    ),
    marks="claim",
)
worker_task.moved_by(TaskCompleted)
worker_task.on(
    TaskFailed, lambda row, e: replace(row, status=TaskStatus.FAILED.value, error=e.error)
)
worker_task.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status=TaskStatus.FAILED.value),
    keys=lambda e: e.worker_tasks,
)


def _lost(row: Task, event: WorkerLost) -> Task:
    for offered in event.offered_tasks:
        if offered.task_id == row.task_id:
            return replace(
                row,
                status=TaskStatus.SCHEDULED.value,
                error=cause_of(event),
                claim=None,
                offered_after=offered.after,
            )
    return replace(row, status=TaskStatus.FAILED.value, error=cause_of(event))


worker_task.on(
    WorkerLost,
    _lost,
    keys=lambda e: (*e.failed_tasks, *(offered.task_id for offered in e.offered_tasks)),
)
worker_task.cleared_by(TablesReset, when=is_of("fit"))


CONTROLLER = 1
"""The key of the one row of `controller_progress`."""


class ControllerProgress(Row, frozen=True):
    """The row of `controller_progress`."""

    controller_id: int
    task: str
    status: str


controller_progress = View(
    "controller_progress",
    ControllerProgress,
    version=1,
    schema=section("controller_progress"),
    stream=ControllerTaskSet.stream_of,
)
controller_progress.put_by(
    ControllerTaskSet,
    lambda row, e: (
        ControllerProgress(CONTROLLER, e.task.value, e.status.value)
        if row is None
        else replace(row, task=e.task.value, status=e.status.value)
    ),
    key=lambda _: CONTROLLER,
)
controller_progress.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status=TaskStatus.FAILED.value),
    keys=lambda e: (CONTROLLER,) if e.controller else (),
)
controller_progress.on(
    WorkerLost,
    lambda row, _: replace(row, status=TaskStatus.FAILED.value),
    keys=lambda e: (CONTROLLER,) if e.name == "controller" else (),
)
controller_progress.cleared_by(TablesReset, when=is_of("fit"))


class WorkerProgress(Row, frozen=True):
    """A row of `worker_progress`."""

    worker_id: int
    task: str
    status: str


worker_progress = View(
    "worker_progress",
    WorkerProgress,
    version=1,
    schema=section("worker_progress"),
    stream=WorkerProgressed.stream_of,
)
worker_progress.put_by(
    WorkerProgressed,
    lambda row, e: (
        WorkerProgress(e.worker_id, e.task.value, e.status.value)
        if row is None
        else replace(row, task=e.task.value, status=e.status.value)
    ),
    key=lambda e: e.worker_id,
)
worker_progress.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status=TaskStatus.FAILED.value),
    keys=lambda e: e.workers,
)
worker_progress.on(
    WorkerLost,
    lambda row, _: replace(row, status=TaskStatus.FAILED.value),
    keys=lambda e: number_of(e.name, "worker"),
)
worker_progress.cleared_by(TablesReset, when=is_of("fit"))


class Request(Row, frozen=True):
    """A row of `interactive_control`; `config_digest` is read as `config_leaf`."""

    ic_id: int
    run_id: int
    operation: str
    status: str = TaskStatus.PENDING.value
    config_digest: str | None = None
    warm_start: bool = False
    error: str | None = None


interactive_control = View(
    "interactive_control",
    Request,
    version=2,
    schema=section("interactive_control"),
    table="interactive_control_folded",
    stream=InteractiveControlEvent.stream_of,
)


def _request(
    operation: ICOperation, event: StopRequested | ResumeRequested | DeleteRequested
) -> Request:
    config = None if event.config is UNSET else event.config
    return Request(event.ic_id, event.run_id, operation.value, config_digest=config)


interactive_control.created_by(StopRequested, partial(_request, ICOperation.STOP))
interactive_control.created_by(ResumeRequested, partial(_request, ICOperation.RESUME))
interactive_control.created_by(DeleteRequested, partial(_request, ICOperation.DELETE))
interactive_control.created_by(
    CloneModifyRequested,
    lambda e: Request(
        e.ic_id,
        e.run_id,
        ICOperation.CLONE_MODIFY.value,
        config_digest=e.config,
        warm_start=e.warm_start,
    ),
)
interactive_control.moved_by(InteractiveControlStarted, InteractiveControlCompleted)
interactive_control.on(
    InteractiveControlFailed,
    lambda row, e: replace(row, status=TaskStatus.FAILED.value, error=e.error),
)
interactive_control.on(
    InteractiveControlSkipped,
    lambda row, e: replace(row, status=TaskStatus.SKIPPED.value, error=e.error),
)
interactive_control.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status=TaskStatus.FAILED.value),
    keys=lambda e: e.requests,
)
interactive_control.cleared_by(TablesReset, when=is_of("fit"))

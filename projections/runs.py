"""The view `runs`."""

from msgspec.structs import replace

from refold.eventstore.events import (
    ExperimentStatesReset,
    RunCompleted,
    RunCreated,
    RunEnded,
    RunFailed,
    RunKilled,
    RunMetricsRecorded,
    RunProgressed,
    RunResumed,
    RunStarted,
    RunStopped,
    TablesReset,
)
from refold.eventstore.events.codec import to_json
from refold.eventstore.schema import section
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


runs = View("runs", Run, version=1, schema=section("runs"), table="runs_folded", stream="run-{}")

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
runs.on(RunStarted, lambda row, _: replace(row, status="ONGOING"))
runs.on(RunResumed, lambda row, _: replace(row, status="ONGOING"))
runs.on(RunStopped, lambda row, _: replace(row, status="STOPPED"))
runs.on(RunCompleted, lambda row, _: replace(row, status="COMPLETED"))
runs.on(RunFailed, lambda row, _: replace(row, status="FAILED"))
runs.on(RunKilled, lambda row, _: replace(row, status="KILLED"))
runs.on(RunEnded, lambda row, e: replace(row, ended_by=e.ended_by.value))
runs.on(
    RunProgressed,
    lambda row, e: replace(row, current_chunk=e.current_chunk, current_epoch=e.current_epoch),
)
runs.on(RunMetricsRecorded, lambda row, e: replace(row, metrics=to_json(e.metrics)))
runs.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status="FAILED"),
    keys=lambda e: e.runs,
)
runs.cleared_by(TablesReset)

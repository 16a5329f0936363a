"""The view `pipelines`."""

from msgspec.structs import replace

from refold.eventstore.events import (
    ExperimentStatesReset,
    PipelineCompleted,
    PipelineCreated,
    PipelineDeleted,
    PipelineErrorRecorded,
    PipelineFailed,
    PipelineProgressed,
    PipelineResumed,
    PipelineStarted,
    PipelineStopped,
    ShardCompleted,
    TablesReset,
)
from refold.eventstore.schema import section
from refold.projections.view import Row, View


class Pipeline(Row, frozen=True):
    """A row of `pipelines`."""

    pipeline_id: int
    experiment_id: int
    context_id: int | None
    pipeline_name: str
    pipeline_type: str
    model_config_json: str | None
    sampling_params_json: str | None
    status: str
    current_shard_id: int | None = None
    shards_completed: int = 0
    total_samples_processed: int = 0
    error: str | None = None


def _progressed(row: Pipeline, event: PipelineProgressed | ShardCompleted) -> Pipeline:
    return replace(
        row,
        current_shard_id=event.current_shard_id,
        shards_completed=event.shards_completed,
        total_samples_processed=event.total_samples_processed,
    )


pipelines = View(
    "pipelines", Pipeline, version=1, schema=section("pipelines"), stream="pipeline-{}"
)

pipelines.created_by(
    PipelineCreated,
    lambda e: Pipeline(
        pipeline_id=e.pipeline_id,
        experiment_id=e.experiment_id,
        context_id=e.context_id,
        pipeline_name=e.pipeline_name,
        pipeline_type=e.pipeline_type,
        model_config_json=e.model_config_json,
        sampling_params_json=e.sampling_params_json,
        status=e.status.value,
    ),
)
pipelines.on(PipelineStarted, lambda row, _: replace(row, status="ongoing"))
pipelines.on(PipelineResumed, lambda row, _: replace(row, status="ongoing"))
pipelines.on(PipelineStopped, lambda row, _: replace(row, status="stopped"))
pipelines.on(PipelineCompleted, lambda row, _: replace(row, status="completed"))
pipelines.on(PipelineDeleted, lambda row, _: replace(row, status="deleted"))
pipelines.on(PipelineFailed, lambda row, _: replace(row, status="failed"))
pipelines.on(PipelineProgressed, _progressed)
pipelines.on(ShardCompleted, _progressed)
pipelines.on(PipelineErrorRecorded, lambda row, e: replace(row, error=e.error))
pipelines.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status="failed"),
    keys=lambda e: e.pipelines,
)
pipelines.cleared_by(TablesReset)

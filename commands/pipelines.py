"""Commands on pipelines."""

from refold.commands.command import Command, Decision, existing
from refold.commands.transitions import PIPELINE, check_move
from refold.eventstore.events import (
    Id,
    Int,
    Name,
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
)
from refold.eventstore.statuses import PipelineStatus
from refold.projections.contexts import contexts
from refold.projections.experiments import experiments
from refold.projections.ids import next_id
from refold.projections.pipelines import pipelines
from refold.projections.unit_of_work import Rows

_BECAME = {
    PipelineStatus.ONGOING: PipelineResumed,
    PipelineStatus.STOPPED: PipelineStopped,
    PipelineStatus.COMPLETED: PipelineCompleted,
    PipelineStatus.FAILED: PipelineFailed,
    PipelineStatus.DELETED: PipelineDeleted,
}


class CreatePipeline(Command, frozen=True):
    """Give a model with its sampling parameters a pipeline; the result is its id."""

    experiment_id: Id
    pipeline_name: Name
    pipeline_type: Name
    model_config_json: str | None = None
    sampling_params_json: str | None = None
    context_id: Id | None = None
    status: PipelineStatus = PipelineStatus.NEW

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        existing(rows, experiments, self.experiment_id, "experiment")
        if self.context_id is not None:
            existing(rows, contexts, self.context_id, "context")
        pipeline_id = next_id(rows, "pipeline")
        created = PipelineCreated(
            pipeline_id=pipeline_id,
            experiment_id=self.experiment_id,
            pipeline_name=self.pipeline_name,
            pipeline_type=self.pipeline_type,
            model_config_json=self.model_config_json,
            sampling_params_json=self.sampling_params_json,
            context_id=self.context_id,
            status=self.status,
        )
        return Decision([created], pipeline_id)


class SetPipelineStatus(Command, frozen=True):
    """Move a pipeline to a status."""

    pipeline_id: Id
    status: PipelineStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        before = PipelineStatus(existing(rows, pipelines, self.pipeline_id, "pipeline").status)
        if before is self.status:
            return Decision()
        check_move(f"pipeline {self.pipeline_id}", PIPELINE, before, self.status)
        if before is PipelineStatus.NEW and self.status is PipelineStatus.ONGOING:
            return Decision([PipelineStarted(self.pipeline_id)])
        return Decision([_BECAME[self.status](self.pipeline_id)])


class SetPipelineProgress(Command, frozen=True):
    """Note how many shards and samples a pipeline has processed."""

    pipeline_id: Id
    current_shard_id: Int | None
    shards_completed: Int
    total_samples_processed: Int

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, pipelines, self.pipeline_id, "pipeline")
        now = (self.current_shard_id, self.shards_completed, self.total_samples_processed)
        if now == (row.current_shard_id, row.shards_completed, row.total_samples_processed):
            return Decision()
        if self.shards_completed > row.shards_completed:
            return Decision([ShardCompleted(self.pipeline_id, *now)])
        return Decision([PipelineProgressed(self.pipeline_id, *now)])


class SetPipelineError(Command, frozen=True):
    """Note a pipeline's error message."""

    pipeline_id: Id
    error: str

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if existing(rows, pipelines, self.pipeline_id, "pipeline").error == self.error:
            return Decision()
        return Decision([PipelineErrorRecorded(self.pipeline_id, self.error)])

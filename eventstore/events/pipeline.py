"""What happens to an inference pipeline."""

from refold.eventstore.events.event import Event, Id, Int, Name
from refold.eventstore.statuses import PipelineStatus


class PipelineEvent(Event, frozen=True):
    """Something happened to a pipeline."""

    pipeline_id: Id

    @property
    def stream(self) -> str:
        """`pipeline-4`."""
        return f"pipeline-{self.pipeline_id}"


class PipelineCreated(PipelineEvent, frozen=True):
    """A model with its sampling parameters was given a pipeline."""

    experiment_id: Id
    pipeline_name: Name
    pipeline_type: Name
    model_config_json: str | None = None
    sampling_params_json: str | None = None
    context_id: Id | None = None
    status: PipelineStatus = PipelineStatus.NEW


class PipelineStarted(PipelineEvent, frozen=True):
    """The pipeline took up its first shard."""


class PipelineResumed(PipelineEvent, frozen=True):
    """A stopped or failed pipeline went on."""


class PipelineStopped(PipelineEvent, frozen=True):
    """The pipeline was halted; it can be resumed."""


class PipelineCompleted(PipelineEvent, frozen=True):
    """All shards were processed."""


class PipelineDeleted(PipelineEvent, frozen=True):
    """The pipeline was deleted, for ever."""


class PipelineFailed(PipelineEvent, frozen=True):
    """The pipeline ended with an error."""


class PipelineProgressed(PipelineEvent, frozen=True):
    """The pipeline got further within a shard, or turned to another."""

    current_shard_id: Int | None
    shards_completed: Int
    total_samples_processed: Int


class ShardCompleted(PipelineEvent, frozen=True):
    """One more shard of the data was processed."""

    current_shard_id: Int | None
    shards_completed: Int
    total_samples_processed: Int


class PipelineErrorRecorded(PipelineEvent, frozen=True):
    """An error message was noted for the pipeline."""

    error: str

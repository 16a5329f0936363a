"""What happens to an experiment."""

from typing import Literal

from refold.eventstore.events.event import Event, Id, Int, Name


class ExperimentEvent(Event, frozen=True):
    """Something happened to an experiment."""

    experiment_id: Id

    @property
    def stream(self) -> str:
        """`experiment-1`."""
        return f"experiment-{self.experiment_id}"


class ExperimentCreated(ExperimentEvent, frozen=True):
    """An experiment was set up, for training (fit) or for inference (evals)."""

    kind: Literal["fit", "evals"]
    experiment_name: Name
    status: Literal["NEW", "RUNNING", "COMPLETED", "FAILED", "running", "completed", "failed"]
    experiments_path: str | None = None
    num_shards: Int | None = None
    num_actors: Int | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None


class ExperimentStarted(ExperimentEvent, frozen=True):
    """The experiment began to run, or went on after a failure."""


class ExperimentCompleted(ExperimentEvent, frozen=True):
    """The experiment finished."""


class ExperimentFailed(ExperimentEvent, frozen=True):
    """The experiment ended with an error."""


class ExperimentErrorRecorded(ExperimentEvent, frozen=True):
    """An error message was noted for the experiment."""

    error: str

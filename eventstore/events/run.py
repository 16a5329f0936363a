"""What happens to a run."""

from refold.eventstore.events.event import Digest, Event, Id, Int, Name
from refold.eventstore.statuses import RunEndedBy, RunSource, RunStatus

Scalar = Int | float | str | bool | None
Group = Scalar | list[Scalar] | dict[str, Scalar]
Table = Scalar | list[Group] | dict[str, Group]
Metric = Scalar | list[Table] | dict[str, Table]
"""What a metric can be: a number or text, or lists and named groups of them, three deep."""


class RunEvent(Event, frozen=True):
    """Something happened to a run."""

    run_id: Id

    @property
    def stream(self) -> str:
        """`run-5`."""
        return f"run-{self.run_id}"


class RunCreated(RunEvent, frozen=True):
    """A configuration was given a run, by a user or by cloning another run."""

    experiment_id: Id
    run_name: Name
    status: RunStatus = RunStatus.NEW
    source: RunSource = RunSource.USER
    mlflow_run_id: str | None = None
    parent_run_id: Id | None = None
    warm_start: bool = False
    config: Digest | None = None
    seed: Int | None = None
    num_chunks: Int | None = None


class RunStarted(RunEvent, frozen=True):
    """The run's training began."""


class RunResumed(RunEvent, frozen=True):
    """A stopped or failed run went on."""


class RunStopped(RunEvent, frozen=True):
    """The run was halted; it can be resumed."""


class RunCompleted(RunEvent, frozen=True):
    """The run trained on all its data."""


class RunFailed(RunEvent, frozen=True):
    """The run ended with an error."""


class RunKilled(RunEvent, frozen=True):
    """The run was deleted, for ever."""


class RunEnded(RunEvent, frozen=True):
    """It was noted how the run ended."""

    ended_by: RunEndedBy


class RunProgressed(RunEvent, frozen=True):
    """The run came to a chunk of an epoch."""

    current_chunk: Int
    current_epoch: Int


class RunMetricsRecorded(RunEvent, frozen=True):
    """The run's metrics were measured."""

    metrics: dict[str, Metric]

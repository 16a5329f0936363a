"""Commands on experiments."""

from typing import Literal

from refold.commands.command import Command, Decision, existing
from refold.commands.transitions import EXPERIMENT, check_move
from refold.eventstore.errors import InvalidCommand
from refold.eventstore.events import (
    ExperimentCompleted,
    ExperimentCreated,
    ExperimentErrorRecorded,
    ExperimentFailed,
    ExperimentStarted,
    Id,
    Int,
    Name,
)
from refold.eventstore.statuses import ExperimentStatus, InferenceStatus
from refold.projections.experiments import experiments
from refold.projections.ids import next_id
from refold.projections.unit_of_work import Rows

_BECAME = {
    ExperimentStatus.RUNNING: ExperimentStarted,
    ExperimentStatus.COMPLETED: ExperimentCompleted,
    ExperimentStatus.FAILED: ExperimentFailed,
}


class CreateExperiment(Command, frozen=True):
    """Set up an experiment; the result is its id."""

    kind: Literal["fit", "evals"]
    experiment_name: Name
    status: ExperimentStatus
    experiments_path: str | None = None
    num_shards: Int | None = None
    num_actors: Int | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        status = self.status.value
        if self.kind == "evals":
            if self.status is ExperimentStatus.NEW:
                raise InvalidCommand(
                    f"an evals experiment cannot be new: it is one of {', '.join(InferenceStatus)}"
                )
            status = InferenceStatus(status).value
        created = ExperimentCreated(
            experiment_id=next_id(rows, "experiment"),
            kind=self.kind,
            experiment_name=self.experiment_name,
            status=status,
            experiments_path=self.experiments_path,
            num_shards=self.num_shards,
            num_actors=self.num_actors,
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
        )
        return Decision([created], created.experiment_id)


class SetExperimentStatus(Command, frozen=True):
    """Move an experiment to a status."""

    experiment_id: Id
    status: ExperimentStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, experiments, self.experiment_id, "experiment")
        before = ExperimentStatus(row.status)
        if before is self.status:
            return Decision()
        check_move(f"experiment {self.experiment_id}", EXPERIMENT, before, self.status)
        return Decision([_BECAME[self.status](self.experiment_id)])


class SetExperimentError(Command, frozen=True):
    """Note an experiment's error message."""

    experiment_id: Id
    error: str

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, experiments, self.experiment_id, "experiment")
        if row.error == self.error:
            return Decision()
        return Decision([ExperimentErrorRecorded(self.experiment_id, self.error)])

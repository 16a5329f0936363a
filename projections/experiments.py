"""The view `experiments`: training (fit) and inference (evals) alike."""

from msgspec.structs import replace

from refold.eventstore.events import (
    ExperimentCompleted,
    ExperimentCreated,
    ExperimentErrorRecorded,
    ExperimentFailed,
    ExperimentStarted,
    TablesReset,
)
from refold.eventstore.schema import section
from refold.projections.view import Row, View


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
    "experiments", Experiment, version=1, schema=section("experiments"), stream="experiment-{}"
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
experiments.on(ExperimentStarted, lambda row, _: replace(row, status=row.word("running")))
experiments.on(ExperimentCompleted, lambda row, _: replace(row, status=row.word("completed")))
experiments.on(ExperimentFailed, lambda row, _: replace(row, status=row.word("failed")))
experiments.on(ExperimentErrorRecorded, lambda row, e: replace(row, error=e.error))
experiments.cleared_by(TablesReset, when=lambda e: e.experiments)

"""Commands on runs."""

import hashlib

from refold.commands.command import Command, Decision, existing
from refold.commands.transitions import RUN, check_move
from refold.eventstore.events import (
    Id,
    Int,
    Name,
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
)
from refold.eventstore.events.codec import encode, to_json
from refold.eventstore.events.run import Metric
from refold.eventstore.statuses import RunEndedBy, RunSource, RunStatus
from refold.projections.experiments import experiments
from refold.projections.ids import next_id
from refold.projections.runs import runs
from refold.projections.unit_of_work import Rows

_BECAME = {
    RunStatus.ONGOING: RunResumed,
    RunStatus.STOPPED: RunStopped,
    RunStatus.COMPLETED: RunCompleted,
    RunStatus.FAILED: RunFailed,
    RunStatus.KILLED: RunKilled,
}


class CreateRun(Command, frozen=True):
    """Give a configuration a run; the result is its id."""

    experiment_id: Id
    run_name: Name | None = None
    mlflow_run_id: str | None = None
    config_leaf: bytes | None = None
    status: RunStatus = RunStatus.NEW
    source: RunSource = RunSource.USER
    seed: Int | None = None
    num_chunks: Int | None = None
    parent_run_id: Id | None = None
    warm_start: bool = False

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        existing(rows, experiments, self.experiment_id, "experiment")
        if self.parent_run_id is not None:
            existing(rows, runs, self.parent_run_id, "run")
        run_id = next_id(rows, "run")
        config = self.config_leaf
        created = RunCreated(
            run_id=run_id,
            experiment_id=self.experiment_id,
            run_name=self.run_name or f"run_{run_id}",
            status=self.status,
            source=self.source,
            mlflow_run_id=self.mlflow_run_id,
            parent_run_id=self.parent_run_id,
            warm_start=self.warm_start,
            config=None if config is None else hashlib.sha256(config).hexdigest(),
            seed=self.seed,
            num_chunks=self.num_chunks,
        )
        return Decision([created], run_id, () if config is None else (config,))


class SetRunStatus(Command, frozen=True):
    """Move a run to a status."""

    run_id: Id
    status: RunStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        before = RunStatus(existing(rows, runs, self.run_id, "run").status)
        if before is self.status:
            return Decision()
        check_move(f"run {self.run_id}", RUN, before, self.status)
        if before is RunStatus.NEW and self.status is RunStatus.ONGOING:
            return Decision([RunStarted(self.run_id)])
        return Decision([_BECAME[self.status](self.run_id)])


class SetRunEndedBy(Command, frozen=True):
    """Note how a run ended."""

    run_id: Id
    ended_by: RunEndedBy

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if existing(rows, runs, self.run_id, "run").ended_by == self.ended_by:
            return Decision()
        return Decision([RunEnded(self.run_id, self.ended_by)])


class SetRunProgress(Command, frozen=True):
    """Note the chunk and epoch that a run has come to."""

    run_id: Id
    current_chunk: Int
    current_epoch: Int

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, runs, self.run_id, "run")
        if (row.current_chunk, row.current_epoch) == (self.current_chunk, self.current_epoch):
            return Decision()
        return Decision([RunProgressed(self.run_id, self.current_chunk, self.current_epoch)])


class UpdateRunMetrics(Command, frozen=True):
    """Note a run's metrics; they take the place of those before."""

    run_id: Id
    metrics: dict[str, Metric]

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, runs, self.run_id, "run")
        _, recorded = encode(RunMetricsRecorded(self.run_id, self.metrics))  # refuses NaN
        if row.metrics == to_json(recorded.metrics):
            return Decision()
        return Decision([recorded])

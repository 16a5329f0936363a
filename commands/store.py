"""Commands that training and inference share: experiments, cleaning up, recovery."""

from typing import Any, Literal

import msgspec

from refold.commands.command import Command, Decision, existing
from refold.commands.moves import EXPERIMENT, move
from refold.eventstore.errors import InvalidCommand
from refold.eventstore.event import Id, Int, Name
from refold.eventstore.events import (
    ExperimentCreated,
    ExperimentErrorRecorded,
    ExperimentStatesReset,
    TablesReset,
)
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ExperimentStatus,
    InferenceStatus,
    PipelineRequestStatus,
    PipelineStatus,
    RunStatus,
    TaskStatus,
)
from refold.projections.entities import ALL
from refold.projections.evals import actor_tasks, contexts, pipeline_requests, pipelines
from refold.projections.experiments import experiments, next_id
from refold.projections.fit import (
    controller_progress,
    interactive_control,
    runs,
    worker_progress,
    worker_task,
)
from refold.projections.unit_of_work import Rows


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
        entity, before = f"experiment {self.experiment_id}", row.status
        return move(entity, EXPERIMENT, before, self.status, self.experiment_id)


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


class ResetAllTables(Command, frozen=True):
    """Empty the views; the history stays, and ids go on where they were."""

    experiments_table: bool = False

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        reset = TablesReset(self.experiments_table)
        emptied = (view for view in ALL if view.is_cleared_by(reset))
        return Decision([reset] if any(rows.first(view) for view in emptied) else [])


class ResetExperimentStates(Command, frozen=True):
    """Declare failed what was in progress when something crashed.

    Requests that nobody has taken up stay PENDING. Runs and pipelines keep their status, so that
    a controller can go on from the last chunk, unless `fail_runs` is set. The result tells the
    ids, by what they are ids of.
    """

    fail_runs: bool = False

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        open_tasks = (TaskStatus.SCHEDULED, TaskStatus.IN_PROGRESS)
        open_actor_tasks = (ActorTaskStatus.SCHEDULED, ActorTaskStatus.IN_PROGRESS)
        found = ExperimentStatesReset(
            worker_tasks=tuple(t.task_id for t in rows.find(worker_task, status=open_tasks)),
            actor_tasks=tuple(t.task_id for t in rows.find(actor_tasks, status=open_actor_tasks)),
            contexts=tuple(
                c.context_id for c in rows.find(contexts, status=ContextStatus.BUILDING)
            ),
            workers=tuple(
                w.worker_id for w in rows.find(worker_progress, status=TaskStatus.IN_PROGRESS)
            ),
            requests=tuple(
                r.ic_id for r in rows.find(interactive_control, status=TaskStatus.IN_PROGRESS)
            ),
            pipeline_requests=tuple(
                r.ic_id
                for r in rows.find(pipeline_requests, status=PipelineRequestStatus.IN_PROGRESS)
            ),
            controller=bool(rows.find(controller_progress, status=TaskStatus.IN_PROGRESS)),
        )
        if self.fail_runs:
            live_runs = (RunStatus.NEW, RunStatus.ONGOING)
            live_pipelines = (PipelineStatus.NEW, PipelineStatus.ONGOING)
            found = msgspec.structs.replace(
                found,
                runs=tuple(r.run_id for r in rows.find(runs, status=live_runs)),
                pipelines=tuple(p.pipeline_id for p in rows.find(pipelines, status=live_pipelines)),
            )
        nothing = found == ExperimentStatesReset()
        ids: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
        return Decision([] if nothing else [found], ids)

"""Commands on the store as a whole: cleaning up, and recovering from a crash."""

from typing import Any

import msgspec

from refold.commands.command import Command, Decision
from refold.eventstore.events import ExperimentStatesReset, TablesReset
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    PipelineStatus,
    RunStatus,
    TaskStatus,
)
from refold.projections.actor_tasks import actor_tasks
from refold.projections.contexts import contexts
from refold.projections.experiments import experiments
from refold.projections.interactive_control import interactive_control
from refold.projections.pipelines import pipelines
from refold.projections.progress import controller_progress, worker_progress
from refold.projections.runs import runs
from refold.projections.unit_of_work import Rows
from refold.projections.view import View
from refold.projections.worker_task import worker_task


class ResetAllTables(Command, frozen=True):
    """Empty the views; the history stays, and ids go on where they were."""

    experiments_table: bool = False

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        emptied: list[View[Any]] = [
            runs,
            worker_task,
            controller_progress,
            worker_progress,
            interactive_control,
            contexts,
            pipelines,
            actor_tasks,
        ]
        if self.experiments_table:
            emptied.append(experiments)
        if not any(rows.first(view) for view in emptied):
            return Decision()
        return Decision([TablesReset(self.experiments_table)])


class ResetExperimentStates(Command, frozen=True):
    """Declare failed what was in progress when something crashed.

    Requests that nobody has processed stay PENDING. Runs and pipelines keep their status, so that
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

"""Commands of RapidFire AI's own layer: what it notes beyond the seeds, and the moves it makes."""

from typing import Any, Literal, NamedTuple

from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, replace

from refold.commands.command import Command, Decision, existing, named
from refold.commands.evals import CreateActorTask, CreateContext, CreatePipeline
from refold.commands.fit import CreateRun, CreateWorkerTask
from refold.commands.moves import (
    RAPIDFIRE_ACTOR_TASK,
    RAPIDFIRE_CONTEXT,
    RAPIDFIRE_EXPERIMENT,
    RAPIDFIRE_PIPELINE,
    RAPIDFIRE_RUN,
    REQUEST,
    WORKER_TASK,
    Moves,
    move,
)
from refold.commands.store import CreateExperiment
from refold.eventstore.errors import IllegalTransition
from refold.eventstore.event import Event, Id, Int, Name
from refold.eventstore.events import (
    ContextDetailsRecorded,
    ContextRebuildStarted,
    ExperimentDetailsRecorded,
    ExperimentStatesReset,
    InteractiveControlSkipped,
    PipelineDetailsRecorded,
    PipelineProgressed,
    RunDetailsRecorded,
    TablesReset,
    TaskDetailsRecorded,
)
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ExperimentStatus,
    PipelineStatus,
    RunStatus,
    TaskStatus,
    Word,
)
from refold.projections.entities import ALL
from refold.projections.evals import actor_tasks, contexts, pipelines
from refold.projections.experiments import experiments
from refold.projections.fit import interactive_control, runs, worker_task
from refold.projections.rapidfire import (
    ExperimentDetails,
    PipelineDetails,
    RunDetails,
    rapidfire_experiments,
    rapidfire_pipelines,
    rapidfire_runs,
    rapidfire_workers,
)
from refold.projections.unit_of_work import Rows
from refold.projections.view import View

Kind = Literal["fit", "evals"]


class Moved(NamedTuple):
    """What there is to know of an entity whose status RapidFire sets."""

    view: View[Any]
    moves: Moves[Any]
    word: type[Word]


MOVED: dict[str, Moved] = {
    "experiment": Moved(experiments, RAPIDFIRE_EXPERIMENT, ExperimentStatus),
    "run": Moved(runs, RAPIDFIRE_RUN, RunStatus),
    "worker task": Moved(worker_task, WORKER_TASK, TaskStatus),
    "request": Moved(interactive_control, REQUEST, TaskStatus),
    "context": Moved(contexts, RAPIDFIRE_CONTEXT, ContextStatus),
    "pipeline": Moved(pipelines, RAPIDFIRE_PIPELINE, PipelineStatus),
    "actor task": Moved(actor_tasks, RAPIDFIRE_ACTOR_TASK, ActorTaskStatus),
}


def moved(rows: Rows, entity: str, key: int, after: str) -> Decision:
    """Decide that an entity goes to a status.

    Raises:
        NotFound: there is none with that id.
        IllegalTransition: the status cannot follow the present one.
    """
    view, moves, word = MOVED[entity]
    before = word(existing(rows, view, key, entity).status)
    return move(f"{entity} {key}", moves, before, word(after), key)


class SetStatus(Command, frozen=True):
    """Move an entity to a status, as RapidFire's code does."""

    entity: Literal["experiment", "run", "worker task", "request", "context", "actor task"]
    key: Id
    status: str

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        return moved(rows, self.entity, self.key, self.status)


class SetPipelineStatus(Command, frozen=True):
    """Move a pipeline to a status.

    A deleted one stays so when the shard that was being processed ends. It cannot be stopped or
    resumed.
    """

    pipeline_id: Id
    status: PipelineStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, pipelines, self.pipeline_id, "pipeline")
        ended = self.status in (PipelineStatus.COMPLETED, PipelineStatus.FAILED)
        if row.status == PipelineStatus.DELETED and ended:
            return Decision()
        return moved(rows, "pipeline", self.pipeline_id, self.status)


def _news(given: Event, *rows: object) -> dict[str, Any]:
    """Return the fields of an event, after its id, that say something else than rows do."""
    _, *names = given.__struct_fields__
    fields = asdict(given)
    return {
        name: fields[name]
        for name in names
        if fields[name] is not UNSET
        and not any(getattr(row, name, UNSET) == fields[name] for row in rows)
    }


# --- experiments --------------------------------------------------------------------------------


class StartExperiment(Command, frozen=True):
    """Set up an experiment; the result is its id."""

    created: CreateExperiment
    details: ExperimentDetailsRecorded
    """Its id is not known yet."""
    options: bytes | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        made = self.created.decide(rows)
        options, payloads = named(self.options)
        details = replace(self.details, experiment_id=made.result, options=options or UNSET)
        return Decision([*made.events, details], made.result, payloads)


class NoteExperiment(Command, frozen=True):
    """Note more about an experiment."""

    details: ExperimentDetailsRecorded

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        key = self.details.experiment_id
        row = existing(rows, experiments, key, "experiment")
        noted = rows.get(rapidfire_experiments, key) or ExperimentDetails(key)
        news = _news(self.details, row, noted)
        return Decision([ExperimentDetailsRecorded(key, **news)] if news else [])


class ResetTables(Command, frozen=True):
    """Empty the views of a kind of experiments; the history stays, and ids go on."""

    kind: Kind
    experiments_table: bool = False

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        removed = rows.find(experiments, kind=self.kind) if self.experiments_table else []
        ids = tuple(row.experiment_id for row in removed)
        reset = TablesReset(self.experiments_table, self.kind, ids)
        emptied = (view for view in ALL if view.is_cleared_by(reset))
        return Decision([reset] if ids or any(rows.first(view) for view in emptied) else [])


class Recover(Command, frozen=True):
    """Declare failed what was new or in progress when a task was cancelled.

    Of training, requests that nobody has taken up are skipped, and progress is forgotten.
    """

    kind: Kind

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        return Decision(_recovered_fit(rows) if self.kind == "fit" else _recovered_evals(rows))


def _recovered_fit(rows: Rows) -> list[Event]:
    tasks = rows.find(worker_task, status=(TaskStatus.SCHEDULED, TaskStatus.IN_PROGRESS))
    live = rows.find(runs, status=(RunStatus.NEW, RunStatus.ONGOING))
    failed = ExperimentStatesReset(
        worker_tasks=tuple(row.task_id for row in tasks),
        runs=tuple(row.run_id for row in live),
    )
    skipped = [
        InteractiveControlSkipped(row.ic_id)
        for row in rows.find(interactive_control, status=TaskStatus.PENDING)
    ]
    forgotten = [
        RunDetailsRecorded(row.run_id, controller_progress=0.0, worker_progress=0.0)
        for row in rows.find(rapidfire_runs)
        if row.controller_progress or row.worker_progress
    ]
    return [*([] if failed == ExperimentStatesReset() else [failed]), *skipped, *forgotten]


def _recovered_evals(rows: Rows) -> list[Event]:
    tasks = (ActorTaskStatus.SCHEDULED, ActorTaskStatus.IN_PROGRESS)
    live = (PipelineStatus.NEW, PipelineStatus.ONGOING)
    unbuilt = (ContextStatus.PENDING, ContextStatus.BUILDING)
    failed = ExperimentStatesReset(
        actor_tasks=tuple(row.task_id for row in rows.find(actor_tasks, status=tasks)),
        contexts=tuple(row.context_id for row in rows.find(contexts, status=unbuilt)),
        pipelines=tuple(row.pipeline_id for row in rows.find(pipelines, status=live)),
    )
    return [] if failed == ExperimentStatesReset() else [failed]


# --- training -----------------------------------------------------------------------------------


class StartRun(Command, frozen=True):
    """Give a configuration a run; the result is its id."""

    created: CreateRun
    details: RunDetailsRecorded
    """Its id is not known yet."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        made = self.created.decide(rows)
        news = _news(self.details, RunDetails(made.result))
        details = [RunDetailsRecorded(made.result, **news)] if news else []
        return Decision([*made.events, *details], made.result, made.payloads)


class NoteRun(Command, frozen=True):
    """Note more about a run, and move it to a status."""

    details: RunDetailsRecorded
    status: RunStatus | UnsetType = UNSET
    config: bytes | None = None
    """The configuration that takes the place of the one before."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        key = self.details.run_id
        row = existing(rows, runs, key, "run")
        events = [] if self.status is UNSET else [*moved(rows, "run", key, self.status).events]
        digest, payloads = named(self.config)
        news = _news(self.details, rows.get(rapidfire_runs, key) or RunDetails(key), row)
        if digest is not None and digest != row.config_digest:
            news["config"] = digest
        if news:
            events.append(RunDetailsRecorded(key, **news))
        return Decision(events, None, payloads if "config" in news else ())


class StartTask(Command, frozen=True):
    """Schedule a task for a worker; the result is its id."""

    created: CreateWorkerTask
    task_type: Name
    status: TaskStatus = TaskStatus.SCHEDULED
    multi_worker_details: str = "{}"
    options: bytes | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        made = self.created.decide(rows)
        options, payloads = named(self.options)
        details = TaskDetailsRecorded(
            made.result, self.created.worker_id, self.task_type, self.multi_worker_details, options
        )
        entity, before = f"worker task {made.result}", TaskStatus.SCHEDULED
        turned = move(entity, WORKER_TASK, before, self.status, made.result)
        return Decision([*made.events, details, *turned.events], made.result, payloads)


class SetWorkersTaskStatus(Command, frozen=True):
    """Move the task that a worker was given last; a late report is refused."""

    worker_id: Id
    status: TaskStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        worker = existing(rows, rapidfire_workers, self.worker_id, "worker")
        return moved(rows, "worker task", worker.task_id, self.status)


# --- inference ----------------------------------------------------------------------------------


class StartContext(Command, frozen=True):
    """Describe a context; the result is its id, that of the existing one if the hash is known."""

    created: CreateContext
    enable_gpu: bool = False
    vector_store_json: str | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        made = self.created.decide(rows)
        details = ContextDetailsRecorded(made.result, self.enable_gpu, self.vector_store_json)
        if not made.events or details == ContextDetailsRecorded(made.result):
            return made
        return Decision([*made.events, details], made.result)


class StartContextBuild(Command, frozen=True):
    """Note that the building of a context begins, perhaps anew."""

    context_id: Id
    started_at: Name
    seconds: float | UnsetType = UNSET

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, contexts, self.context_id, "context")
        if row.status == ContextStatus.DELETED:
            raise IllegalTransition(
                f"context {self.context_id} is deleted; it cannot be built: create a new one"
            )
        return Decision([ContextRebuildStarted(self.context_id, self.started_at, self.seconds)])


class StartPipeline(Command, frozen=True):
    """Give a configuration a pipeline; the result is its id."""

    created: CreatePipeline
    details: PipelineDetailsRecorded
    """Its id is not known yet."""
    config: bytes | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        made = self.created.decide(rows)
        config, payloads = named(self.config)
        details = replace(self.details, pipeline_id=made.result, config=config or UNSET)
        return Decision([*made.events, details], made.result, payloads)


class NotePipeline(Command, frozen=True):
    """Note more about a pipeline."""

    details: PipelineDetailsRecorded

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        key = self.details.pipeline_id
        existing(rows, pipelines, key, "pipeline")
        news = _news(self.details, rows.get(rapidfire_pipelines, key) or PipelineDetails(key))
        return Decision([PipelineDetailsRecorded(key, **news)] if news else [])


class SetPipelineShard(Command, frozen=True):
    """Note the shard that a pipeline has come to."""

    pipeline_id: Id
    shard_id: Int | None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, pipelines, self.pipeline_id, "pipeline")
        if row.current_shard_id == self.shard_id:
            return Decision()
        progressed = PipelineProgressed(
            self.pipeline_id, self.shard_id, row.shards_completed, row.total_samples_processed
        )
        return Decision([progressed])


class StartActorTask(Command, frozen=True):
    """Schedule a shard of a pipeline for an actor; the result is the task's id."""

    pipeline_id: Id
    actor_id: Id
    shard_id: Int
    status: ActorTaskStatus = ActorTaskStatus.SCHEDULED

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        pipeline = existing(rows, pipelines, self.pipeline_id, "pipeline")
        created = CreateActorTask(
            pipeline.experiment_id, self.pipeline_id, self.actor_id, self.shard_id
        )
        made = created.decide(rows)
        entity, before = f"actor task {made.result}", ActorTaskStatus.SCHEDULED
        turned = move(entity, RAPIDFIRE_ACTOR_TASK, before, self.status, made.result)
        return Decision([*made.events, *turned.events], made.result)

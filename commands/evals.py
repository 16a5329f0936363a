"""Commands of inference: contexts, pipelines, tasks of actors."""

from msgspec import UNSET, UnsetType

from refold.commands.claims import Claim, check_claim, check_completion, check_part
from refold.commands.command import Command, Decision, existing
from refold.commands.moves import ACTOR_TASK, CONTEXT, PIPELINE, PIPELINE_REQUEST, move
from refold.eventstore.errors import IllegalTransition, InvalidCommand
from refold.eventstore.event import Event, Id, Int, Name
from refold.eventstore.events import (
    ActorTaskEndTimeRecorded,
    ActorTaskErrorRecorded,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ActorTaskStartTimeRecorded,
    ContextCreated,
    ContextEndTimeRecorded,
    ContextErrorRecorded,
    ContextStartTimeRecorded,
    PipelineCloneRequested,
    PipelineCreated,
    PipelineDeleteRequested,
    PipelineErrorRecorded,
    PipelineProgressed,
    PipelineResumeRequested,
    PipelineStopRequested,
    ShardCompleted,
)
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    PipelineRequestStatus,
    PipelineStatus,
)
from refold.projections.evals import (
    ActorTask,
    Pipeline,
    actor_tasks,
    contexts,
    pipeline_requests,
    pipelines,
)
from refold.projections.experiments import experiments, next_id
from refold.projections.unit_of_work import Rows, Unless


class CreateContext(Command, frozen=True):
    """Describe a context; the result is its id, that of the existing one if the hash is known."""

    context_hash: Name
    rag_config_json: str | None = None
    prompt_config_json: str | None = None
    status: ContextStatus = ContextStatus.PENDING

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        # In this order: who asks for the next id keeps others from creating the same meanwhile.
        context_id = next_id(rows, "context")
        known = rows.first(contexts, context_hash=self.context_hash)
        if known is not None:
            return Decision(result=known.context_id)
        created = ContextCreated(
            context_id,
            self.context_hash,
            self.rag_config_json,
            self.prompt_config_json,
            self.status,
        )
        return Decision([created], context_id)


class SetContextStatus(Command, frozen=True):
    """Move a context to a status."""

    context_id: Id
    status: ContextStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        before = existing(rows, contexts, self.context_id, "context").status
        return move(f"context {self.context_id}", CONTEXT, before, self.status, self.context_id)


class SetContextStartTime(Command, frozen=True):
    """Note when the building of a context began."""

    context_id: Id
    started_at: Name
    seconds: float | UnsetType = UNSET

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, contexts, self.context_id, "context")
        if row.started_at == self.started_at and self.seconds is UNSET:
            return Decision()
        return Decision([ContextStartTimeRecorded(self.context_id, self.started_at, self.seconds)])


class SetContextEndTime(Command, frozen=True):
    """Note when the building of a context ended, and how many seconds it took."""

    context_id: Id
    completed_at: Name
    duration_seconds: float | None = None
    seconds: float | UnsetType = UNSET

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, contexts, self.context_id, "context")
        now = (self.completed_at, self.duration_seconds)
        if (row.completed_at, row.duration_seconds) == now and self.seconds is UNSET:
            return Decision()
        return Decision([ContextEndTimeRecorded(self.context_id, *now, self.seconds)])


class SetContextError(Command, frozen=True):
    """Note a context's error message."""

    context_id: Id
    error: str

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if existing(rows, contexts, self.context_id, "context").error == self.error:
            return Decision()
        return Decision([ContextErrorRecorded(self.context_id, self.error)])


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
    """Move a pipeline to a status; the scheduled tasks of one that is deleted fail."""

    pipeline_id: Id
    status: PipelineStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        before = existing(rows, pipelines, self.pipeline_id, "pipeline").status
        entity = f"pipeline {self.pipeline_id}"
        decision = move(entity, PIPELINE, before, self.status, self.pipeline_id)
        if not decision.events or self.status is not PipelineStatus.DELETED:
            return decision
        scheduled = rows.find(
            actor_tasks, status=ActorTaskStatus.SCHEDULED, pipeline_id=self.pipeline_id
        )
        failed: list[Event] = []
        for task in scheduled:
            failed.append(ActorTaskErrorRecorded(task.task_id, f"{entity} is deleted"))
            failed.append(ActorTaskFailed(task.task_id))
        return Decision([*decision.events, *failed])


class SetPipelineProgress(Command, frozen=True):
    """Note how many shards and samples a pipeline has processed."""

    pipeline_id: Id
    current_shard_id: Int | None
    shards_completed: Int
    total_samples_processed: Int
    claim: Claim | UnsetType = UNSET
    """Of the task that it comes from."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, pipelines, self.pipeline_id, "pipeline")
        claim = UNSET
        if self.claim is not UNSET:
            task_id, claim = self.claim.task_id, self.claim.position
            task = rows.get(actor_tasks, task_id)
            check_part(f"actor task {task_id} of pipeline {self.pipeline_id}", task, self.claim)
        now = (self.current_shard_id, self.shards_completed, self.total_samples_processed)
        if now == (row.current_shard_id, row.shards_completed, row.total_samples_processed):
            return Decision()
        if self.shards_completed > row.shards_completed:
            return Decision([ShardCompleted(self.pipeline_id, *now, claim)])
        return Decision([PipelineProgressed(self.pipeline_id, *now, claim)])


class SetPipelineError(Command, frozen=True):
    """Note a pipeline's error message."""

    pipeline_id: Id
    error: str

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if existing(rows, pipelines, self.pipeline_id, "pipeline").error == self.error:
            return Decision()
        return Decision([PipelineErrorRecorded(self.pipeline_id, self.error)])


def _task(rows: Rows, task_id: int) -> ActorTask:
    return existing(rows, actor_tasks, task_id, "actor task")


class CreateActorTask(Command, frozen=True):
    """Schedule a shard of a pipeline for an actor; the result is the task's id."""

    experiment_id: Id
    pipeline_id: Id
    actor_id: Id
    shard_id: Int

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        existing(rows, experiments, self.experiment_id, "experiment")
        pipeline = existing(rows, pipelines, self.pipeline_id, "pipeline")
        if pipeline.experiment_id != self.experiment_id:
            raise InvalidCommand(
                f"pipeline {self.pipeline_id} belongs to experiment {pipeline.experiment_id}, "
                f"not to {self.experiment_id}: pass that one"
            )
        _refuse_deleted(rows, self.pipeline_id, "no task")
        task_id = next_id(rows, "actor_task")
        scheduled = ActorTaskScheduled(
            task_id, self.experiment_id, self.pipeline_id, self.actor_id, self.shard_id
        )
        return Decision([scheduled], task_id)


class SetActorTaskStatus(Command, frozen=True):
    """Move a task to a status; a report on a task that has ended, or was lost, is refused."""

    task_id: Id
    status: ActorTaskStatus
    claim: Id | UnsetType = UNSET
    """Of the sender: to complete a task needs one, to fail it does not."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row, entity = _task(rows, self.task_id), f"actor task {self.task_id}"
        if self.status is ActorTaskStatus.IN_PROGRESS:
            decision = move(entity, ACTOR_TASK, row.status, self.status, self.task_id)
            if decision.events:
                _refuse_deleted(rows, row.pipeline_id, f"no work on {entity}")
            return decision
        check_claim(entity, row, self.claim)
        about = (self.task_id, self.claim)
        decision = move(entity, ACTOR_TASK, row.status, self.status, *about)
        if decision.events and self.status is ActorTaskStatus.COMPLETED:
            check_completion(entity, row, self.claim, "claim_next_actor_task")
        return decision


class ClaimNextActorTask(Command, frozen=True):
    """Start the oldest scheduled task of an actor; the result is its id, or None.

    Tasks of deleted pipelines are passed over.
    """

    actor_id: Id
    now: Int = 0
    """The time, before which tasks that are offered again later are not claimed."""
    any_actor: bool | UnsetType = UNSET
    """Also one that a lost actor had, if the actor has none of its own."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        own = {"status": ActorTaskStatus.SCHEDULED, "actor_id": self.actor_id}
        task = rows.first(actor_tasks, Unless(pipelines, PipelineStatus.DELETED), **own)
        if task is not None and self._is_due(task):
            return Decision([ActorTaskStarted(task.task_id)], task.task_id)
        scheduled = rows.find(actor_tasks, **own) if task is not None else []
        if self.any_actor is True:
            offered = rows.find(actor_tasks, status=ActorTaskStatus.SCHEDULED)
            scheduled += [one for one in offered if one.attempts]
        for task in scheduled:
            if self._is_due(task) and not _is_deleted(rows.get(pipelines, task.pipeline_id)):
                actor = UNSET if task.actor_id == self.actor_id else self.actor_id
                return Decision([ActorTaskStarted(task.task_id, actor)], task.task_id)
        return Decision()

    def _is_due(self, task: ActorTask) -> bool:
        return task.offered_after is None or task.offered_after <= self.now


class SetActorTaskStartTime(Command, frozen=True):
    """Note when the work on a task began."""

    task_id: Id
    started_at: Name
    seconds: float | UnsetType = UNSET

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = _task(rows, self.task_id)
        if row.started_at == self.started_at and self.seconds is UNSET:
            return Decision()
        return Decision([ActorTaskStartTimeRecorded(self.task_id, self.started_at, self.seconds)])


class SetActorTaskEndTime(Command, frozen=True):
    """Note when the work on a task ended, and how many seconds it took."""

    task_id: Id
    completed_at: Name
    duration_seconds: float | None = None
    seconds: float | UnsetType = UNSET

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = _task(rows, self.task_id)
        now = (self.completed_at, self.duration_seconds)
        if (row.completed_at, row.duration_seconds) == now and self.seconds is UNSET:
            return Decision()
        return Decision([ActorTaskEndTimeRecorded(self.task_id, *now, self.seconds)])


class SetActorTaskError(Command, frozen=True):
    """Note a task's error message."""

    task_id: Id
    error: str

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if _task(rows, self.task_id).error == self.error:
            return Decision()
        return Decision([ActorTaskErrorRecorded(self.task_id, self.error)])


def _next_ic_id(rows: Rows, pipeline_id: int) -> int:
    _refuse_deleted(rows, pipeline_id, "no interactive control")
    return next_id(rows, "pipeline_ic")


def _refuse_deleted(rows: Rows, pipeline_id: int, what: str) -> None:
    """Refuse what begins something for a pipeline that is deleted.

    Raises:
        NotFound: there is no such pipeline.
        IllegalTransition: it is deleted.
    """
    if _is_deleted(existing(rows, pipelines, pipeline_id, "pipeline")):
        raise IllegalTransition(
            f"pipeline {pipeline_id} is deleted; {what} can follow: create a new pipeline"
        )


def _is_deleted(pipeline: Pipeline | None) -> bool:
    return pipeline is not None and pipeline.status == PipelineStatus.DELETED


class RequestPipelineStop(Command, frozen=True):
    """Ask to stop a pipeline; the result is the id of the request."""

    pipeline_id: Id
    request_data: str | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.pipeline_id)
        requested = PipelineStopRequested(ic_id, self.pipeline_id, self.request_data)
        return Decision([requested], ic_id)


class RequestPipelineResume(Command, frozen=True):
    """Ask to let a pipeline go on; the result is the id of the request."""

    pipeline_id: Id
    request_data: str | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.pipeline_id)
        requested = PipelineResumeRequested(ic_id, self.pipeline_id, self.request_data)
        return Decision([requested], ic_id)


class RequestPipelineDelete(Command, frozen=True):
    """Ask to delete a pipeline; the result is the id of the request."""

    pipeline_id: Id
    request_data: str | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.pipeline_id)
        requested = PipelineDeleteRequested(ic_id, self.pipeline_id, self.request_data)
        return Decision([requested], ic_id)


class RequestPipelineClone(Command, frozen=True):
    """Ask for a copy of a pipeline with another configuration; the result is the request's id."""

    pipeline_id: Id | None = None
    """None: the data name it."""
    request_data: str | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if self.pipeline_id is None:
            ic_id = next_id(rows, "pipeline_ic")
        else:
            ic_id = _next_ic_id(rows, self.pipeline_id)
        return Decision([PipelineCloneRequested(ic_id, self.pipeline_id, self.request_data)], ic_id)


class MarkPipelineRequest(Command, frozen=True):
    """Note how far a request about a pipeline has come."""

    ic_id: Id
    status: PipelineRequestStatus
    error: str | None = None
    """Why it failed or was skipped."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        unfulfilled = self.status in (PipelineRequestStatus.FAILED, PipelineRequestStatus.SKIPPED)
        if self.error is not None and not unfulfilled:
            raise InvalidCommand(
                f"request {self.ic_id}: an error goes with {PipelineRequestStatus.FAILED} or "
                f"{PipelineRequestStatus.SKIPPED}, not with {self.status}"
            )
        row = existing(rows, pipeline_requests, self.ic_id, "request")
        before = PipelineRequestStatus(row.status)
        fields = (self.error,) if unfulfilled else ()
        entity = f"request {self.ic_id}"
        return move(entity, PIPELINE_REQUEST, before, self.status, self.ic_id, *fields)

"""Commands of training: runs, tasks of workers, progress, and what users ask for."""

from contextlib import suppress
from typing import Any

from msgspec import UNSET, UnsetType

from refold.commands.claims import Claim, check_claim, check_completion, check_part
from refold.commands.command import Command, Decision, existing, named
from refold.commands.moves import REQUEST, RUN, WORKER_TASK, move, status_of
from refold.eventstore.errors import IllegalTransition, InvalidCommand
from refold.eventstore.event import Id, Int, Name, encode, plain_scalar, to_json
from refold.eventstore.events import (
    CloneModifyRequested,
    ControllerTaskSet,
    DeleteRequested,
    Measured,
    Metric,
    MetricsLogged,
    ResumeRequested,
    RunCheckpointSaved,
    RunCreated,
    RunEnded,
    RunMetricsRecorded,
    RunProgressed,
    StopRequested,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    WorkerProgressed,
)
from refold.eventstore.statuses import (
    ControllerTask,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    WorkerTask,
)
from refold.eventstore.words import take_words, words_text
from refold.projections.experiments import experiments, next_id
from refold.projections.fit import (
    CONTROLLER,
    Run,
    Task,
    controller_progress,
    interactive_control,
    metric_key,
    run_metrics,
    runs,
    worker_progress,
    worker_task,
)
from refold.projections.unit_of_work import Rows, Unless


def _refuse_killed(rows: Rows, run_id: int, what: str) -> None:
    """Refuse what begins something for a run that is KILLED; late reports on it stay facts.

    Raises:
        NotFound: there is no such run.
        IllegalTransition: it is KILLED.
        StoreDamaged: its row holds no status.
    """
    if _is_killed(existing(rows, runs, run_id, "run")):
        raise IllegalTransition(f"run {run_id} is KILLED; {what} can follow: create a new run")


def _is_killed(run: Run | None) -> bool:
    return run is not None and (
        status_of(f"run {run.run_id}", RunStatus, run.status) is RunStatus.KILLED
    )


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
        digest, payloads = named(self.config_leaf)
        created = RunCreated(
            run_id=run_id,
            experiment_id=self.experiment_id,
            run_name=self.run_name or f"run_{run_id}",
            status=self.status,
            source=self.source,
            mlflow_run_id=self.mlflow_run_id,
            parent_run_id=self.parent_run_id,
            warm_start=self.warm_start,
            config=digest,
            seed=self.seed,
            num_chunks=self.num_chunks,
        )
        return Decision([created], run_id, payloads)


class SetRunStatus(Command, frozen=True):
    """Move a run to a status; the scheduled tasks of one that is KILLED fail."""

    run_id: Id
    status: RunStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        before = existing(rows, runs, self.run_id, "run").status
        decision = move(f"run {self.run_id}", RUN, before, self.status, self.run_id)
        if not decision.events or self.status is not RunStatus.KILLED:
            return decision
        scheduled = rows.find(worker_task, status=TaskStatus.SCHEDULED, run_id=self.run_id)
        failed = [TaskFailed(task.task_id, f"run {self.run_id} is KILLED") for task in scheduled]
        return Decision([*decision.events, *failed])


class SetRunEndedBy(Command, frozen=True):
    """Note how a run ended."""

    run_id: Id
    ended_by: RunEndedBy

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, runs, self.run_id, "run")
        if row.status == RunStatus.KILLED and self.ended_by is RunEndedBy.COMPLETED:
            raise IllegalTransition(f"run {self.run_id} is KILLED; it cannot have ended COMPLETED")
        if row.ended_by == self.ended_by:
            return Decision()
        return Decision([RunEnded(self.run_id, self.ended_by)])


class SetRunProgress(Command, frozen=True):
    """Note the chunk and epoch that a run has come to."""

    run_id: Id
    current_chunk: Int
    current_epoch: Int
    claim: Claim | UnsetType = UNSET
    """Of the task that it comes from."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, runs, self.run_id, "run")
        claim = UNSET
        if self.claim is not UNSET:
            task_id, claim = self.claim.task_id, self.claim.position
            task = rows.get(worker_task, task_id)
            check_part(f"worker task {task_id} of run {self.run_id}", task, self.claim)
        now = (self.current_chunk, self.current_epoch)
        if (row.current_chunk, row.current_epoch) == now:
            return Decision()
        return Decision([RunProgressed(self.run_id, *now, claim)])


class UpdateRunMetrics(Command, frozen=True):
    """Note a run's metrics; they take the place of those before."""

    run_id: Id
    metrics: dict[str, Metric]
    attempt: Id | UnsetType = UNSET

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, runs, self.run_id, "run")
        numbers, words = take_words(self.metrics)
        _, recorded = encode(RunMetricsRecorded(self.run_id, numbers, words, self.attempt))
        if (row.metrics, row.metric_words) == (
            to_json(recorded.metrics),
            words_text(recorded.words),
        ):
            return Decision()
        return Decision([recorded])


class LogMetrics(Command, frozen=True):
    """Note points of some of a run's metrics; the result is their step."""

    run_id: Id
    metrics: dict[Name, Any]
    step: Int | None = None
    """None: one more than the last of these metrics."""
    attempt: Id | UnsetType = UNSET

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        existing(rows, runs, self.run_id, "run")
        step = self.step
        if step is None:
            keys = [metric_key(self.run_id, name) for name in self.metrics]
            known = [row.last_step for key in keys if (row := rows.get(run_metrics, key))]
            step = max((last for last in known if last is not None), default=-1) + 1
        points = {name: self._point(name, value, step) for name, value in self.metrics.items()}
        logged = MetricsLogged(self.run_id, points, attempt=self.attempt)
        return Decision([logged] if points else [], step)

    def _point(self, name: str, value: Any, step: int) -> Measured:
        numbers, words = take_words({name: value})
        if words:
            return Measured(step=step, word=next(iter(words.values())))
        number = numbers[name]
        with suppress(TypeError):
            number = plain_scalar(number) if not isinstance(number, int | float) else number
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise InvalidCommand(
                f"run {self.run_id}: metric {name!r} is a {type(value).__name__}: log numbers; "
                f"lists, groups and text go into update_run_metrics"
            )
        return Measured(last=number, step=step)


class LogPoints(Command, frozen=True):
    """Note many points of a run's metrics, which were measured already: they are never refused."""

    run_id: Id
    metrics: dict[Name, Measured]
    """What views know of them."""
    points: bytes | None = None
    """All of them, as a payload."""
    attempt: Id | UnsetType = UNSET
    left_out: Int = 0

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if rows.get(runs, self.run_id) is None:  # a reset took it away meanwhile, and its metrics
            return Decision()
        digest, payloads = named(self.points)
        logged = MetricsLogged(
            self.run_id,
            self.metrics,
            points=digest or UNSET,
            attempt=self.attempt,
            left_out=self.left_out or UNSET,
        )
        return Decision([logged], None, payloads)


class SaveCheckpoint(Command, frozen=True):
    """Note the state of a run; the result is the digest that names it, if it is stored here."""

    run_id: Id
    state: bytes | None = None
    step: Int | UnsetType = UNSET
    epoch: Int | UnsetType = UNSET
    chunk: Int | UnsetType = UNSET
    location: Name | UnsetType = UNSET
    checksum: Name | UnsetType = UNSET

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        existing(rows, runs, self.run_id, "run")
        if (self.state is None) is (self.location is UNSET):
            raise InvalidCommand(
                f"checkpoint of run {self.run_id}: pass either its state, or the location of it"
            )
        digest, payloads = named(self.state)
        saved = RunCheckpointSaved(
            self.run_id,
            step=self.step,
            epoch=self.epoch,
            chunk=self.chunk,
            state=digest or UNSET,
            location=self.location,
            checksum=self.checksum,
        )
        return Decision([saved], digest, payloads)


class CreateWorkerTask(Command, frozen=True):
    """Schedule a chunk of a run for a worker; the result is the task's id."""

    run_id: Id
    worker_id: Id
    chunk_id: Int
    epoch: Int = 0

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        _refuse_killed(rows, self.run_id, "no task")
        task_id = next_id(rows, "task")
        scheduled = TaskScheduled(task_id, self.run_id, self.worker_id, self.chunk_id, self.epoch)
        return Decision([scheduled], task_id)


class SetWorkerTaskStatus(Command, frozen=True):
    """Move a task to a status; a report on a task that has ended, or was lost, is refused."""

    task_id: Id
    status: TaskStatus
    error: str | None = None
    """Why it failed."""
    claim: Id | UnsetType = UNSET
    """Of the sender: to complete a task needs one, to fail it does not."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if self.error is not None and self.status is not TaskStatus.FAILED:
            raise InvalidCommand(
                f"worker task {self.task_id}: an error goes with {TaskStatus.FAILED}, not with "
                f"{self.status}"
            )
        row = existing(rows, worker_task, self.task_id, "worker task")
        entity = f"worker task {self.task_id}"
        if self.status is TaskStatus.IN_PROGRESS:
            decision = move(entity, WORKER_TASK, row.status, self.status, self.task_id)
            if decision.events:
                _refuse_killed(rows, row.run_id, f"no work on {entity}")
            return decision
        check_claim(entity, row, self.claim)
        fields = (self.error,) if self.status is TaskStatus.FAILED else ()
        about = (self.task_id, *fields, self.claim)
        decision = move(entity, WORKER_TASK, row.status, self.status, *about)
        if decision.events and self.status is TaskStatus.COMPLETED:
            check_completion(entity, row, self.claim, "claim_next_worker_task")
        return decision


class ClaimNextWorkerTask(Command, frozen=True):
    """Start the oldest scheduled task of a worker; the result is its id, or None.

    Tasks of KILLED runs are passed over.
    """

    worker_id: Id
    now: Int = 0
    """The time, before which tasks that are offered again later are not claimed."""
    any_worker: bool | UnsetType = UNSET
    """Also one that a lost worker had, if the worker has none of its own."""

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        own = {"status": TaskStatus.SCHEDULED, "worker_id": self.worker_id}
        task = rows.first(worker_task, Unless(runs, RunStatus.KILLED), **own)
        if task is not None and self._is_due(task):
            return Decision([TaskStarted(task.task_id)], task.task_id)
        scheduled = rows.find(worker_task, **own) if task is not None else []
        if self.any_worker is True:
            offered = rows.find(worker_task, status=TaskStatus.SCHEDULED)
            scheduled += [one for one in offered if one.attempts]
        for task in scheduled:
            if self._is_due(task) and not _is_killed(rows.get(runs, task.run_id)):
                worker = UNSET if task.worker_id == self.worker_id else self.worker_id
                return Decision([TaskStarted(task.task_id, worker)], task.task_id)
        return Decision()

    def _is_due(self, task: Task) -> bool:
        return task.offered_after is None or task.offered_after <= self.now


class SetControllerTask(Command, frozen=True):
    """Note what the controller does."""

    task: ControllerTask
    status: TaskStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = rows.get(controller_progress, CONTROLLER)
        if row is not None and (row.task, row.status) == (self.task, self.status):
            return Decision()
        return Decision([ControllerTaskSet(self.task, self.status)])


class SetWorkerProgress(Command, frozen=True):
    """Note what a worker does."""

    worker_id: Id
    task: WorkerTask
    status: TaskStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = rows.get(worker_progress, self.worker_id)
        if row is not None and (row.task, row.status) == (self.task, self.status):
            return Decision()
        return Decision([WorkerProgressed(self.worker_id, self.task, self.status)])


def _next_ic_id(rows: Rows, run_id: int) -> int:
    _refuse_killed(rows, run_id, "no interactive control")
    return next_id(rows, "ic")


class RequestStop(Command, frozen=True):
    """Ask to stop a run; the result is the id of the request."""

    run_id: Id
    config_leaf: bytes | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.run_id)
        digest, payloads = named(self.config_leaf)
        return Decision([StopRequested(ic_id, self.run_id, digest or UNSET)], ic_id, payloads)


class RequestResume(Command, frozen=True):
    """Ask to let a run go on; the result is the id of the request."""

    run_id: Id
    config_leaf: bytes | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.run_id)
        digest, payloads = named(self.config_leaf)
        return Decision([ResumeRequested(ic_id, self.run_id, digest or UNSET)], ic_id, payloads)


class RequestDelete(Command, frozen=True):
    """Ask to delete a run; the result is the id of the request."""

    run_id: Id
    config_leaf: bytes | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.run_id)
        digest, payloads = named(self.config_leaf)
        return Decision([DeleteRequested(ic_id, self.run_id, digest or UNSET)], ic_id, payloads)


class RequestCloneModify(Command, frozen=True):
    """Ask for a copy of a run with another configuration; the result is the request's id."""

    run_id: Id
    config_leaf: bytes | None = None
    warm_start: bool = False

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        ic_id = _next_ic_id(rows, self.run_id)
        digest, payloads = named(self.config_leaf)
        requested = CloneModifyRequested(ic_id, self.run_id, digest, self.warm_start)
        return Decision([requested], ic_id, payloads)


def _processed(rows: Rows, ic_id: int, after: TaskStatus, *error: str | None) -> Decision:
    before = existing(rows, interactive_control, ic_id, "request").status
    return move(f"request {ic_id}", REQUEST, before, after, ic_id, *error)


class MarkICOpsInProgress(Command, frozen=True):
    """Note that a request is being carried out."""

    ic_id: Id

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        return _processed(rows, self.ic_id, TaskStatus.IN_PROGRESS)


class MarkICOpsCompleted(Command, frozen=True):
    """Note that a request was carried out."""

    ic_id: Id

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        return _processed(rows, self.ic_id, TaskStatus.COMPLETED)


class MarkICOpsFailed(Command, frozen=True):
    """Note that a request could not be carried out."""

    ic_id: Id
    error: str | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        return _processed(rows, self.ic_id, TaskStatus.FAILED, self.error)


class MarkICOpsSkipped(Command, frozen=True):
    """Note that nothing was to be done for a request."""

    ic_id: Id
    error: str | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        return _processed(rows, self.ic_id, TaskStatus.SKIPPED, self.error)

"""Made from the sync faces by `make generate`: do not edit."""

import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, Unpack

import pyarrow

from refold.commands.command import Command
from refold.eventstore import Event, Recorded, Subscription
from refold.eventstore.engines.engine import Durability
from refold.eventstore.log.readable import Moment
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ControllerTask,
    ExperimentStatus,
    InferenceStatus,
    PipelineStatus,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    WorkerTask,
)
from refold.face import About, Face
from refold.metrics import Attempts, MetricsLog
from refold.projections import Findings, View
from refold.projections.past.changes import Change
from refold.projections.past.history import Touched, Why
from refold.projections.view import Key
from refold.rf_database import RFDatabase
from refold.rf_db import RfDb

Dicts = list[dict[str, Any]]
Time = str | datetime | float

class AsyncFace:
    face_type: type[Face]

    def __init__(
        self,
        path_or_url: str | os.PathLike[str] = "rapidfire.db",
        *,
        actor: str | None = None,
        durability: Durability = "normal",
        timeout: float = 30,
        signing_key: bytes | str | None = None,
        allow_dill: bool = True,
        projections: Iterable[View[Any]] = (),
        clock: Callable[[], int] | None = None,
        create: bool = True,
    ) -> None: ...
    @asynccontextmanager
    def batch(self) -> AsyncGenerator[None]:
        """Put the commands of the block into one transaction: all of them happen or none."""

    @asynccontextmanager
    def watching(self) -> AsyncGenerator[None]:
        """Have a thread call `recover` as soon as somebody dies, until the end of the block."""

    async def as_of(self, moment: Moment) -> Self:
        """Return this face as it was at a moment, on a thread of its own; close it when done."""

    async def execute(self, query: str, params: Any = ()) -> list[dict[str, Any]]:
        """Answer a SELECT as dicts: `db.db.execute` of the sync face."""

    async def close(self) -> None:
        """Close the store; closing twice does nothing."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def __init_subclass__(cls, face: type[Face]) -> None: ...
    async def create_tables(self) -> None:
        """Make sure that all tables are there; opening a store does so already."""

    async def send(self, command: Command, **about: Unpack[About]) -> Any:
        """Carry out a command in one transaction and return its result."""

    async def append(
        self, *events: Event, stream: str | None = None, **about: Unpack[About]
    ) -> list[Recorded]:
        """Append events of your own, all or none; the views follow."""

    async def reset_all_tables(
        self, experiments_table: bool = False, **about: Unpack[About]
    ) -> None:
        """Empty the views, the experiments only if asked to; the history stays in the log."""

    async def reset_experiment_states(
        self, fail_runs: bool = False, **about: Unpack[About]
    ) -> dict[str, Any]:
        """Recover from a crash: what was in progress becomes failed, by one compensating event."""

    async def join(
        self, name: str, *, take_over: bool = False, wait: float = 0, **about: Unpack[About]
    ) -> None:
        """Take part as a worker, an actor or the controller, until `leave` or the process ends."""

    async def leave(self, **about: Unpack[About]) -> None:
        """End this process's part; if it has none, nothing happens."""

    async def recover(self, **about: Unpack[About]) -> dict[str, Any]:
        """Take back what belongs to the dead, and nothing else: to be called again and again."""

    async def members(self) -> list[dict[str, Any]]:
        """Return the controller, the workers and the actors, and which of them are alive."""

    async def declare_lost(self, name: str, **about: Unpack[About]) -> dict[str, Any]:
        """Declare somebody lost, whatever is seen of it; what follows is that of `recover`."""

    async def set_retries(
        self, entity: str, key: int, max_attempts: int, wait: float = 0, **about: Unpack[About]
    ) -> None:
        """Decide how often tasks are offered again whose worker was lost; otherwise they fail."""

    async def position_at(self, moment: Moment) -> int:
        """Return the position of the last event at a moment."""

    async def history(self, entity: str, key: Key) -> list[Touched]:
        """Return the events that touched a row, in order, each with what it changed."""

    async def why(self, entity: str, key: Key, column: str) -> Why:
        """Return why a column of a row holds what it does: the chain of causes; print it."""

    async def diff(
        self, a: Moment, b: Moment, *, entities: Iterable[str] | None = None
    ) -> list[Change]:
        """Return the rows that were added, removed or changed from one moment to another."""

    async def changes_by(self, recorded: Recorded) -> list[Change]:
        """Return the rows that an event added, removed or changed."""

    async def to_arrow(self, what: str, *, at: Moment | None = None) -> pyarrow.Table:
        """Return a view, or the log, as an Arrow table, which pandas and Polars take as it is."""

    async def put_payload(self, value: Any) -> str:
        """Store any Python object, such as a checkpoint, and return the digest that names it."""

    async def get_payload(self, digest: str) -> Any:
        """Return the object that a digest names."""

    async def get_experiment(self, experiment_id: int) -> dict[str, Any]:
        """Return an experiment."""

    async def subscribe(
        self,
        after: int | None = 0,
        *,
        stream: str | None = None,
        types: Iterable[type[Event] | str] | None = None,
    ) -> Subscription:
        """Iterate over the events after a position, then over new ones, in order, for ever."""

    async def backup(self, to: str | os.PathLike[str], *, progress: bool | None = None) -> int:
        """Copy the whole store to a new file, as it is at this moment, while others go on."""

    async def rebuild(self, *, progress: bool | None = None) -> int:
        """Fold the whole log into new views; readers see the old ones until these are complete."""

    async def verify(self, *, log: bool = False, payloads: bool = False) -> Findings:
        """Fold the log and return every row and column in which a view differs; empty: equal."""

class AsyncRfDb(AsyncFace, face=RfDb):
    @asynccontextmanager
    def metrics(
        self, run_id: int, *, attempt: int | None = None, **about: Unpack[About]
    ) -> AsyncGenerator[MetricsLog]:
        """Log metrics from a training loop, in a microsecond or two for each point."""

    async def create_experiment(
        self,
        experiment_name: str,
        experiments_path: str | None = None,
        status: ExperimentStatus | str = ExperimentStatus.NEW,
        **about: Unpack[About],
    ) -> int:
        """Set up an experiment and return its id."""

    async def get_running_experiment(self) -> dict[str, Any]:
        """Return the newest experiment that runs."""

    async def set_experiment_status(
        self, experiment_id: int, status: ExperimentStatus | str, **about: Unpack[About]
    ) -> None:
        """Move an experiment to a status."""

    async def create_run(
        self,
        experiment_id: int,
        run_name: str | None = None,
        mlflow_run_id: str | None = None,
        config_leaf: Any = None,
        status: RunStatus | str = RunStatus.NEW,
        source: RunSource | str = RunSource.USER,
        seed: int | None = None,
        num_chunks: int | None = None,
        parent_run_id: int | None = None,
        warm_start: bool = False,
        **about: Unpack[About],
    ) -> int:
        """Give a configuration a run and return its id."""

    async def get_run(self, run_id: int, *, config: bool = True) -> dict[str, Any]:
        """Return a run."""

    async def get_all_runs(self, *, config: bool = True) -> Dicts:
        """Return all runs, with their metrics, by id."""

    async def search_runs(
        self,
        where: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        config: bool = True,
    ) -> list[dict[str, Any]]:
        """Return the runs for which something holds, the best first if you say what is best."""

    async def runs_frame(
        self,
        where: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        library: Literal["pandas", "polars"] | None = None,
    ) -> Any:
        """Return runs as a data frame, with a column for each parameter and metric."""

    async def get_runs_by_status(
        self, status: RunStatus | str | Iterable[RunStatus | str], *, config: bool = True
    ) -> Dicts:
        """Return the runs that have a status, or one of several, by id; see `get_all_runs`."""

    async def set_run_status(
        self, run_id: int, status: RunStatus | str, **about: Unpack[About]
    ) -> None:
        """Move a run to a status; the scheduled tasks of one that is KILLED fail."""

    async def set_run_ended_by(
        self, run_id: int, ended_by: RunEndedBy | str, **about: Unpack[About]
    ) -> None:
        """Note how a run ended."""

    async def update_run_metrics(
        self, run_id: int, metrics: Mapping[str, Any] | str, **about: Unpack[About]
    ) -> None:
        """Note a run's metrics, a dict or its JSON; they take the place of those before."""

    async def log_metrics(
        self,
        run_id: int,
        metrics: Mapping[str, Any],
        step: int | None = None,
        *,
        attempt: int | None = None,
        **about: Unpack[About],
    ) -> int:
        """Note a point of some of a run's metrics; the others keep their values."""

    async def metric_history(
        self, run_id: int, metric: str, *, attempts: Attempts = "last"
    ) -> list[dict[str, Any]]:
        """Return all points of a metric of a run, in the order in which they came into the log."""

    async def set_run_progress(
        self, run_id: int, current_chunk: int, current_epoch: int, **about: Unpack[About]
    ) -> None:
        """Note the chunk and the epoch that a run has come to."""

    async def save_checkpoint(
        self,
        run_id: int,
        state: Any = None,
        *,
        step: int | None = None,
        epoch: int | None = None,
        chunk: int | None = None,
        location: str | None = None,
        checksum: str | None = None,
        **about: Unpack[About],
    ) -> str | None:
        """Save the state of a run, from which its training can go on."""

    async def checkpoints(self, run_id: int) -> Dicts:
        """Return the checkpoints of a run, the oldest first, without their states."""

    async def latest_checkpoint(self, run_id: int) -> dict[str, Any] | None:
        """Return the last checkpoint of a run, with its `state`; None if there is none."""

    async def create_worker_task(
        self, run_id: int, worker_id: int, chunk_id: int, epoch: int = 0, **about: Unpack[About]
    ) -> int:
        """Schedule a chunk of a run for a worker and return the task's id."""

    async def get_worker_task(self, task_id: int) -> dict[str, Any]:
        """Return a task."""

    async def get_worker_tasks(
        self,
        run_id: int | None = None,
        worker_id: int | None = None,
        status: TaskStatus | str | None = None,
    ) -> Dicts:
        """Return the tasks of a run, of a worker, with a status, or all three, by id."""

    async def get_next_worker_task(self, worker_id: int) -> dict[str, Any] | None:
        """Return the oldest task that is scheduled for a worker, or None."""

    async def claim_next_worker_task(
        self, worker_id: int, any_worker: bool = False, **about: Unpack[About]
    ) -> dict[str, Any] | None:
        """Claim the oldest task that is scheduled for a worker and return it, or None."""

    async def set_worker_task_status(
        self,
        task_id: int,
        status: TaskStatus | str,
        error: str | None = None,
        claim: int | None = None,
        **about: Unpack[About],
    ) -> None:
        """Move a task to a status; IN_PROGRESS claims it."""

    async def get_controller_task(self) -> dict[str, Any] | None:
        """Return what the controller does (`task`, `status`), or None if it never reported."""

    async def set_controller_task(
        self,
        task: ControllerTask | str,
        status: TaskStatus | str = TaskStatus.IN_PROGRESS,
        **about: Unpack[About],
    ) -> None:
        """Note what the controller does."""

    async def get_worker_progress(self, worker_id: int) -> dict[str, Any] | None:
        """Return what a worker does (`task`, `status`), or None if it never reported."""

    async def set_worker_progress(
        self,
        worker_id: int,
        task: WorkerTask | str,
        status: TaskStatus | str = TaskStatus.IN_PROGRESS,
        **about: Unpack[About],
    ) -> None:
        """Note what a worker does."""

    async def request_clone_modify(
        self,
        run_id: int,
        config_leaf: Any = None,
        warm_start: bool = False,
        **about: Unpack[About],
    ) -> int:
        """Ask for a copy of a run with another configuration; return the request's id."""

    async def request_stop(self, run_id: int, **about: Unpack[About]) -> int:
        """Ask to stop a run; return the request's id."""

    async def request_resume(self, run_id: int, **about: Unpack[About]) -> int:
        """Ask to let a run go on; return the request's id."""

    async def request_delete(self, run_id: int, **about: Unpack[About]) -> int:
        """Ask to delete a run; return the request's id."""

    async def get_ic_ops_request(self, *, config: bool = True) -> Dicts:
        """Return the requests that nobody has processed, the oldest first."""

    async def mark_ic_ops_in_progress(self, ic_id: int, **about: Unpack[About]) -> None:
        """Note that a request is being carried out, so that it is no longer pending."""

    async def mark_ic_ops_completed(self, ic_id: int, **about: Unpack[About]) -> None:
        """Note that a request was carried out."""

    async def mark_ic_ops_failed(
        self, ic_id: int, error: str | None = None, **about: Unpack[About]
    ) -> None:
        """Note that a request could not be carried out, and why."""

    async def mark_ic_ops_skipped(
        self, ic_id: int, error: str | None = None, **about: Unpack[About]
    ) -> None:
        """Note that nothing was to be done for a request, and why."""

class AsyncRFDatabase(AsyncFace, face=RFDatabase):
    async def create_experiment(
        self,
        experiment_name: str,
        num_shards: int = 0,
        num_actors: int = 0,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        status: InferenceStatus | ExperimentStatus | str = InferenceStatus.RUNNING,
        experiments_path: str | None = None,
        **about: Unpack[About],
    ) -> int:
        """Set up an experiment, running by default, and return its id."""

    async def get_current_experiment(self) -> dict[str, Any]:
        """Return the newest experiment that runs."""

    async def get_all_experiment_names(self) -> list[str]:
        """Return the names of all inference experiments, by id."""

    async def set_experiment_status(
        self,
        experiment_id: int,
        status: InferenceStatus | ExperimentStatus | str,
        **about: Unpack[About],
    ) -> None:
        """Move an experiment to a status."""

    async def set_experiment_error(
        self, experiment_id: int, error: str, **about: Unpack[About]
    ) -> None:
        """Note an experiment's error message."""

    async def get_experiment_error(self, experiment_id: int) -> str:
        """Return an experiment's error message, empty if there is none."""

    async def create_context(
        self,
        context_hash: str,
        rag_config_json: Mapping[str, Any] | str | None = None,
        prompt_config_json: Mapping[str, Any] | str | None = None,
        status: ContextStatus | str = ContextStatus.PENDING,
        **about: Unpack[About],
    ) -> int:
        """Describe a context and return its id; a known hash gives the existing one's."""

    async def get_context(self, context_id: int) -> dict[str, Any]:
        """Return a context."""

    async def set_context_status(
        self, context_id: int, status: ContextStatus | str, **about: Unpack[About]
    ) -> None:
        """Move a context to a status."""

    async def set_context_start_time(
        self, context_id: int, start_time: Time, **about: Unpack[About]
    ) -> None:
        """Note when the building of a context began."""

    async def set_context_end_time(
        self,
        context_id: int,
        end_time: Time,
        duration_seconds: float | None = None,
        **about: Unpack[About],
    ) -> None:
        """Note when the building of a context ended, and how many seconds it took."""

    async def set_context_error(self, context_id: int, error: str, **about: Unpack[About]) -> None:
        """Note a context's error message."""

    async def create_pipeline(
        self,
        experiment_id: int,
        pipeline_name: str,
        pipeline_type: str,
        model_config_json: Mapping[str, Any] | str | None = None,
        sampling_params_json: Mapping[str, Any] | str | None = None,
        status: PipelineStatus | str = PipelineStatus.NEW,
        context_id: int | None = None,
        **about: Unpack[About],
    ) -> int:
        """Give a model with its sampling parameters a pipeline and return its id."""

    async def get_pipeline(self, pipeline_id: int) -> dict[str, Any]:
        """Return a pipeline."""

    async def get_all_pipelines(self, experiment_id: int) -> Dicts:
        """Return the pipelines of an experiment, by id."""

    async def set_pipeline_status(
        self, pipeline_id: int, status: PipelineStatus | str, **about: Unpack[About]
    ) -> None:
        """Move a pipeline to a status; the scheduled tasks of one that is deleted fail."""

    async def set_pipeline_progress(
        self,
        pipeline_id: int,
        current_shard_id: int | None,
        shards_completed: int,
        total_samples_processed: int,
        **about: Unpack[About],
    ) -> None:
        """Note how many shards and samples a pipeline has processed."""

    async def set_pipeline_error(
        self, pipeline_id: int, error: str, **about: Unpack[About]
    ) -> None:
        """Note a pipeline's error message."""

    async def create_actor_task(
        self,
        experiment_id: int,
        pipeline_id: int,
        actor_id: int,
        shard_id: int,
        **about: Unpack[About],
    ) -> int:
        """Schedule a shard of a pipeline for an actor and return the task's id."""

    async def get_actor_task(self, task_id: int) -> dict[str, Any]:
        """Return a task."""

    async def get_next_actor_task(self, actor_id: int) -> dict[str, Any] | None:
        """Return the oldest task that is scheduled for an actor, or None."""

    async def claim_next_actor_task(
        self, actor_id: int, any_actor: bool = False, **about: Unpack[About]
    ) -> dict[str, Any] | None:
        """Claim the oldest task that is scheduled for an actor and return it, or None."""

    async def get_running_actor_tasks(self, experiment_id: int) -> Dicts:
        """Return the tasks of an experiment that are in progress, by id."""

    async def set_actor_task_status(
        self,
        task_id: int,
        status: ActorTaskStatus | TaskStatus | str,
        claim: int | None = None,
        **about: Unpack[About],
    ) -> None:
        """Move a task to a status; IN_PROGRESS claims it."""

    async def set_actor_task_start_time(
        self, task_id: int, start_time: Time, **about: Unpack[About]
    ) -> None:
        """Note when the work on a task began."""

    async def set_actor_task_end_time(
        self,
        task_id: int,
        end_time: Time,
        duration_seconds: float | None = None,
        **about: Unpack[About],
    ) -> None:
        """Note when the work on a task ended, and how many seconds it took."""

    async def set_actor_task_error(self, task_id: int, error: str, **about: Unpack[About]) -> None:
        """Note a task's error message."""

    async def request_stop(self, pipeline_id: int, **about: Unpack[About]) -> int:
        """Ask to stop a pipeline; return the request's id."""

    async def request_resume(self, pipeline_id: int, **about: Unpack[About]) -> int:
        """Ask to let a pipeline go on; return the request's id."""

    async def request_delete(self, pipeline_id: int, **about: Unpack[About]) -> int:
        """Ask to delete a pipeline; return the request's id."""

    async def request_clone(
        self,
        pipeline_id: int,
        request_data: Mapping[str, Any] | str | None = None,
        **about: Unpack[About],
    ) -> int:
        """Ask for a copy of a pipeline; return the request's id."""

    async def get_ic_ops_request(self) -> Dicts:
        """Return the requests that nobody has processed yet, the oldest first."""

    async def mark_ic_ops_in_progress(self, ic_id: int, **about: Unpack[About]) -> None:
        """Note that a request is being carried out."""

    async def mark_ic_ops_completed(self, ic_id: int, **about: Unpack[About]) -> None:
        """Note that a request was carried out."""

    async def mark_ic_ops_failed(
        self, ic_id: int, error: str | None = None, **about: Unpack[About]
    ) -> None:
        """Note that a request could not be carried out, and why."""

    async def mark_ic_ops_skipped(
        self, ic_id: int, error: str | None = None, **about: Unpack[About]
    ) -> None:
        """Note that nothing was to be done for a request, and why."""

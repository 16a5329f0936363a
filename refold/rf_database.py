"""`RFDatabase`: the face of inference (evals)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Unpack

from msgspec import UNSET

from refold.commands.evals import (
    ClaimNextActorTask,
    CreateActorTask,
    CreateContext,
    CreatePipeline,
    MarkPipelineRequest,
    RequestPipelineClone,
    RequestPipelineDelete,
    RequestPipelineResume,
    RequestPipelineStop,
    SetActorTaskEndTime,
    SetActorTaskError,
    SetActorTaskStartTime,
    SetActorTaskStatus,
    SetContextEndTime,
    SetContextError,
    SetContextStartTime,
    SetContextStatus,
    SetPipelineError,
    SetPipelineProgress,
    SetPipelineStatus,
)
from refold.commands.store import CreateExperiment, SetExperimentError, SetExperimentStatus
from refold.eventstore import times
from refold.eventstore.arguments import argument, excerpt, plain_scalar
from refold.eventstore.errors import InvalidCommand, NotFound
from refold.eventstore.event import Id, to_json
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ExperimentStatus,
    InferenceStatus,
    PipelineRequestStatus,
    PipelineStatus,
    TaskStatus,
)
from refold.face import About, Face
from refold.projections.evals import actor_tasks, contexts, pipelines
from refold.projections.experiments import experiments

Dicts = list[dict[str, Any]]
Time = str | datetime | float
"""A time as text, which is kept as it is, as a datetime, or in seconds since 1970-01-01 UTC."""


class RFDatabase(Face):
    """Experiments, contexts, pipelines and tasks of actors, on one event log.

    Dicts are dicts of the columns of `tables.sql`. Every method that changes something also takes
    the keywords of `About`.

    >>> from refold import RFDatabase
    >>> with RFDatabase("example.db") as db:
    ...     exp_id = db.create_experiment("evals", num_shards=5, num_actors=4)
    ...     pipeline_id = db.create_pipeline(exp_id, "baseline", "vllm")
    ...     db.get_pipeline(pipeline_id)["status"]
    'new'
    """

    # --- experiments ----------------------------------------------------------------------

    def create_experiment(
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
        """Set up an experiment, running by default, and return its id.

        Raises:
            InvalidCommand: the name is empty, or an argument of a wrong type.
        """
        command = CreateExperiment(
            kind="evals",
            experiment_name=experiment_name,
            status=ExperimentStatus.of(status),
            experiments_path=experiments_path,
            num_shards=num_shards,
            num_actors=num_actors,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
        )
        return self.send(command, **about)

    def get_current_experiment(self) -> dict[str, Any]:
        """Return the newest experiment that runs.

        Raises:
            NotFound: none does.
        """
        found = self._first(
            experiments,
            "WHERE status = ? ORDER BY experiment_id DESC",
            InferenceStatus.RUNNING.value,
        )
        if found is None:
            raise NotFound("no experiment is running: create_experiment() begins one")
        return found

    def get_all_experiment_names(self) -> list[str]:
        """Return the names of all inference experiments, by id."""
        rows = self.views.select(
            "SELECT experiment_name FROM experiments WHERE kind = 'evals' ORDER BY experiment_id"
        )
        return [row["experiment_name"] for row in rows]

    def set_experiment_status(
        self,
        experiment_id: int,
        status: InferenceStatus | ExperimentStatus | str,
        **about: Unpack[About],
    ) -> None:
        """Move an experiment to a status.

        Raises:
            NotFound: there is no such experiment.
            IllegalTransition: the status cannot follow the present one.
        """
        self.send(SetExperimentStatus(experiment_id, ExperimentStatus.of(status)), **about)

    def set_experiment_error(self, experiment_id: int, error: str, **about: Unpack[About]) -> None:
        """Note an experiment's error message.

        Raises:
            NotFound: there is no such experiment.
        """
        self.send(SetExperimentError(experiment_id, error), **about)

    def get_experiment_error(self, experiment_id: int) -> str:
        """Return an experiment's error message, empty if there is none.

        Raises:
            NotFound: there is no such experiment.
        """
        return self.get_experiment(experiment_id)["error"] or ""

    # --- contexts -------------------------------------------------------------------------

    def create_context(
        self,
        context_hash: str,
        rag_config_json: Mapping[str, Any] | str | None = None,
        prompt_config_json: Mapping[str, Any] | str | None = None,
        status: ContextStatus | str = ContextStatus.PENDING,
        **about: Unpack[About],
    ) -> int:
        """Describe a context and return its id; a known hash gives the existing one's.

        Raises:
            InvalidCommand: the hash is empty, or an argument of a wrong type.
        """
        command = CreateContext(
            context_hash,
            _json(rag_config_json),
            _json(prompt_config_json),
            ContextStatus.of(status),
        )
        return self.send(command, **about)

    def get_context(self, context_id: int) -> dict[str, Any]:
        """Return a context.

        Raises:
            NotFound: there is no such context.
        """
        return self._one(contexts, context_id, "context", "create_context() returns ids")

    def set_context_status(
        self, context_id: int, status: ContextStatus | str, **about: Unpack[About]
    ) -> None:
        """Move a context to a status.

        Raises:
            NotFound: there is no such context.
            IllegalTransition: the status cannot follow the present one.
        """
        self.send(SetContextStatus(context_id, ContextStatus.of(status)), **about)

    def set_context_start_time(
        self, context_id: int, start_time: Time, **about: Unpack[About]
    ) -> None:
        """Note when the building of a context began.

        Raises:
            NotFound: there is no such context.
        """
        self.send(SetContextStartTime(context_id, time_text(start_time)), **about)

    def set_context_end_time(
        self,
        context_id: int,
        end_time: Time,
        duration_seconds: float | None = None,
        **about: Unpack[About],
    ) -> None:
        """Note when the building of a context ended, and how many seconds it took.

        Raises:
            NotFound: there is no such context.
        """
        command = SetContextEndTime(context_id, time_text(end_time), duration_seconds)
        self.send(command, **about)

    def set_context_error(self, context_id: int, error: str, **about: Unpack[About]) -> None:
        """Note a context's error message.

        Raises:
            NotFound: there is no such context.
        """
        self.send(SetContextError(context_id, error), **about)

    # --- pipelines ------------------------------------------------------------------------

    def create_pipeline(
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
        """Give a model with its sampling parameters a pipeline and return its id.

        Raises:
            NotFound: there is no such experiment or context.
        """
        command = CreatePipeline(
            experiment_id=experiment_id,
            pipeline_name=pipeline_name,
            pipeline_type=pipeline_type,
            model_config_json=_json(model_config_json),
            sampling_params_json=_json(sampling_params_json),
            context_id=context_id,
            status=PipelineStatus.of(status),
        )
        return self.send(command, **about)

    def get_pipeline(self, pipeline_id: int) -> dict[str, Any]:
        """Return a pipeline.

        Raises:
            NotFound: there is no such pipeline.
        """
        return self._one(
            pipelines, pipeline_id, "pipeline", "get_all_pipelines() lists those that there are"
        )

    def get_all_pipelines(self, experiment_id: int) -> Dicts:
        """Return the pipelines of an experiment, by id."""
        rest = "WHERE experiment_id = ? ORDER BY pipeline_id"
        return self._rows(pipelines, rest, argument("experiment_id", experiment_id, Id))

    def set_pipeline_status(
        self, pipeline_id: int, status: PipelineStatus | str, **about: Unpack[About]
    ) -> None:
        """Move a pipeline to a status; the scheduled tasks of one that is deleted fail.

        Raises:
            NotFound: there is no such pipeline.
            IllegalTransition: the status cannot follow the present one.
        """
        self.send(SetPipelineStatus(pipeline_id, PipelineStatus.of(status)), **about)

    def set_pipeline_progress(
        self,
        pipeline_id: int,
        current_shard_id: int | None,
        shards_completed: int,
        total_samples_processed: int,
        **about: Unpack[About],
    ) -> None:
        """Note how many shards and samples a pipeline has processed.

        Raises:
            NotFound: there is no such pipeline.
            ClaimLost: this process reports it within a task of the pipeline that it has lost.
        """
        claim = self._present().of_part(actor_tasks, pipeline_id, self._outcome())
        command = SetPipelineProgress(
            pipeline_id, current_shard_id, shards_completed, total_samples_processed, claim
        )
        self.send(command, **about)

    def set_pipeline_error(self, pipeline_id: int, error: str, **about: Unpack[About]) -> None:
        """Note a pipeline's error message.

        Raises:
            NotFound: there is no such pipeline.
        """
        self.send(SetPipelineError(pipeline_id, error), **about)

    # --- tasks of actors ------------------------------------------------------------------

    def create_actor_task(
        self,
        experiment_id: int,
        pipeline_id: int,
        actor_id: int,
        shard_id: int,
        **about: Unpack[About],
    ) -> int:
        """Schedule a shard of a pipeline for an actor and return the task's id.

        Raises:
            NotFound: there is no such experiment or pipeline.
            InvalidCommand: the pipeline belongs to another experiment.
            IllegalTransition: the pipeline is deleted.
        """
        return self.send(CreateActorTask(experiment_id, pipeline_id, actor_id, shard_id), **about)

    def get_actor_task(self, task_id: int) -> dict[str, Any]:
        """Return a task.

        Raises:
            NotFound: there is no such task.
        """
        return self._one(actor_tasks, task_id, "actor task", "create_actor_task() returns ids")

    def get_next_actor_task(self, actor_id: int) -> dict[str, Any] | None:
        """Return the oldest task that is scheduled for an actor, or None."""
        return self._first(
            actor_tasks,
            "WHERE status = 'scheduled' AND actor_id = ? AND NOT EXISTS (SELECT 1 FROM "
            "pipelines p WHERE p.pipeline_id = actor_tasks.pipeline_id AND p.status = 'deleted') "
            "ORDER BY task_id",
            argument("actor_id", actor_id, Id),
        )

    def claim_next_actor_task(
        self, actor_id: int, any_actor: bool = False, **about: Unpack[About]
    ) -> dict[str, Any] | None:
        """Claim the oldest task that is scheduled for an actor and return it, or None.

        Of several that poll at once, only one gets the task. From then on this process reports on
        it; the task's `claim` lets another one do so. Tasks of deleted
        pipelines are passed over.

        Args:
            actor_id: of the actor.
            any_actor: if it has none of its own, take one that was offered again after its actor
                was lost.
            about: see `About`.
        """
        if any_actor and not self._is_any_offered(actor_tasks):
            return None
        command = ClaimNextActorTask(actor_id, self._now(), any_actor or UNSET)
        return self._claiming(actor_tasks, command, None, about)

    def get_running_actor_tasks(self, experiment_id: int) -> Dicts:
        """Return the tasks of an experiment that are in progress, by id."""
        return self._rows(
            actor_tasks,
            "WHERE status = 'in_progress' AND experiment_id = ? ORDER BY task_id",
            argument("experiment_id", experiment_id, Id),
        )

    def set_actor_task_status(
        self,
        task_id: int,
        status: ActorTaskStatus | TaskStatus | str,
        claim: int | None = None,
        **about: Unpack[About],
    ) -> None:
        """Move a task to a status; IN_PROGRESS claims it.

        Only who has claimed a task can complete it. Anybody can declare it failed.

        Args:
            task_id: its id.
            status: the status.
            claim: the `claim` of the task, if another process has claimed it and passed it on; by
                default what this one holds.
            about: see `About`.

        Raises:
            NotFound: there is no such task.
            IllegalTransition: the status cannot follow the present one; so an actor that was
                taken for dead learns that its task was failed meanwhile.
            ClaimLost: it was claimed by another process, or again since.
        """
        after = ActorTaskStatus.of(status)
        held = self._present().of_task(actor_tasks, task_id, self._outcome())
        command = SetActorTaskStatus(task_id, after, held if claim is None else claim)
        if after is ActorTaskStatus.IN_PROGRESS:
            self._claiming(actor_tasks, command, task_id, about)
        else:
            self._reporting(actor_tasks, command, task_id, about)

    def set_actor_task_start_time(
        self, task_id: int, start_time: Time, **about: Unpack[About]
    ) -> None:
        """Note when the work on a task began.

        Raises:
            NotFound: there is no such task.
        """
        self.send(SetActorTaskStartTime(task_id, time_text(start_time)), **about)

    def set_actor_task_end_time(
        self,
        task_id: int,
        end_time: Time,
        duration_seconds: float | None = None,
        **about: Unpack[About],
    ) -> None:
        """Note when the work on a task ended, and how many seconds it took.

        Raises:
            NotFound: there is no such task.
        """
        self.send(SetActorTaskEndTime(task_id, time_text(end_time), duration_seconds), **about)

    def set_actor_task_error(self, task_id: int, error: str, **about: Unpack[About]) -> None:
        """Note a task's error message.

        Raises:
            NotFound: there is no such task.
        """
        self.send(SetActorTaskError(task_id, error), **about)

    # --- interactive control --------------------------------------------------------------

    def request_stop(self, pipeline_id: int, **about: Unpack[About]) -> int:
        """Ask to stop a pipeline; return the request's id.

        Raises:
            NotFound: there is no such pipeline.
            IllegalTransition: the pipeline is deleted.
        """
        return self.send(RequestPipelineStop(pipeline_id), **about)

    def request_resume(self, pipeline_id: int, **about: Unpack[About]) -> int:
        """Ask to let a pipeline go on; return the request's id.

        Raises:
            NotFound: there is no such pipeline.
            IllegalTransition: the pipeline is deleted.
        """
        return self.send(RequestPipelineResume(pipeline_id), **about)

    def request_delete(self, pipeline_id: int, **about: Unpack[About]) -> int:
        """Ask to delete a pipeline; return the request's id.

        Raises:
            NotFound: there is no such pipeline.
            IllegalTransition: the pipeline is deleted already.
        """
        return self.send(RequestPipelineDelete(pipeline_id), **about)

    def request_clone(
        self,
        pipeline_id: int,
        request_data: Mapping[str, Any] | str | None = None,
        **about: Unpack[About],
    ) -> int:
        """Ask for a copy of a pipeline; return the request's id.

        Args:
            pipeline_id: the pipeline.
            request_data: what the clone changes: a dict, or JSON.
            about: see `About`.

        Raises:
            NotFound: there is no such pipeline.
            IllegalTransition: the pipeline is deleted.
            InvalidCommand: the data cannot be written as JSON.
        """
        return self.send(RequestPipelineClone(pipeline_id, _json(request_data)), **about)

    def get_ic_ops_request(self) -> Dicts:
        """Return the requests that nobody has processed yet, the oldest first."""
        return self.views.select(
            "SELECT * FROM pipeline_requests WHERE status = 'pending' ORDER BY ic_id"
        )

    def mark_ic_ops_in_progress(self, ic_id: int, **about: Unpack[About]) -> None:
        """Note that a request is being carried out.

        Raises:
            NotFound: there is no such request.
            IllegalTransition: it has been processed already.
        """
        self.send(MarkPipelineRequest(ic_id, PipelineRequestStatus.IN_PROGRESS), **about)

    def mark_ic_ops_completed(self, ic_id: int, **about: Unpack[About]) -> None:
        """Note that a request was carried out.

        Raises:
            NotFound: there is no such request.
            IllegalTransition: it has been processed already.
        """
        self.send(MarkPipelineRequest(ic_id, PipelineRequestStatus.COMPLETED), **about)

    def mark_ic_ops_failed(
        self, ic_id: int, error: str | None = None, **about: Unpack[About]
    ) -> None:
        """Note that a request could not be carried out, and why.

        Raises:
            NotFound: there is no such request.
            IllegalTransition: it has been processed already.
        """
        self.send(MarkPipelineRequest(ic_id, PipelineRequestStatus.FAILED, error), **about)

    def mark_ic_ops_skipped(
        self, ic_id: int, error: str | None = None, **about: Unpack[About]
    ) -> None:
        """Note that nothing was to be done for a request, and why.

        Raises:
            NotFound: there is no such request.
            IllegalTransition: it has been processed already.
        """
        self.send(MarkPipelineRequest(ic_id, PipelineRequestStatus.SKIPPED, error), **about)


def _json(value: Mapping[str, Any] | str | None) -> str | None:
    import json  # seldom needed, and slow to import

    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise InvalidCommand(f"a configuration is a {type(value).__name__}: pass a dict, or JSON")
    try:
        json.dumps(dict(value), allow_nan=False, default=plain_scalar)  # msgspec makes NaN null
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidCommand(
            f"a configuration cannot be written as JSON, which has no NaN or infinity: {error}"
        ) from None
    return to_json(dict(value))


def time_text(value: Time) -> str:
    """Return a time as the views hold it; text is kept as it is.

    Raises:
        InvalidCommand: it is no time.
    """
    if isinstance(value, str):
        return value
    try:
        time = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
        return times.to_text(times.from_datetime(time.astimezone(UTC)))
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise InvalidCommand(
            f"{excerpt(value)} is not a time: pass ISO text, a datetime or seconds since 1970 "
            f"({error})"
        ) from None

"""`RfDb`: the face of training (fit)."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Unpack, get_args

from msgspec import UNSET, UnsetType

from refold import html
from refold.commands.fit import (
    ClaimNextWorkerTask,
    CreateRun,
    CreateWorkerTask,
    LogMetrics,
    MarkICOpsCompleted,
    MarkICOpsFailed,
    MarkICOpsInProgress,
    MarkICOpsSkipped,
    RequestCloneModify,
    RequestDelete,
    RequestResume,
    RequestStop,
    SaveCheckpoint,
    SetControllerTask,
    SetRunEndedBy,
    SetRunProgress,
    SetRunStatus,
    SetWorkerProgress,
    SetWorkerTaskStatus,
    UpdateRunMetrics,
)
from refold.commands.store import CreateExperiment, SetExperimentStatus
from refold.eventstore import Recorded, times
from refold.eventstore.arguments import argument, excerpt
from refold.eventstore.errors import InvalidCommand, NotFound
from refold.eventstore.event import Id
from refold.eventstore.events import (
    RunCheckpointSaved,
    RunCreated,
)
from refold.eventstore.sql import marks
from refold.eventstore.statuses import (
    ControllerTask,
    ExperimentStatus,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    WorkerTask,
)
from refold.face import About, Face
from refold.html import RunList
from refold.metrics import Attempts, MetricsLog
from refold.metrics import points as points_of_metric
from refold.projections.experiments import experiments
from refold.projections.fit import (
    controller_progress,
    interactive_control,
    runs,
    worker_progress,
    worker_task,
)
from refold.projections.views import Views
from refold.search import found

Dicts = list[dict[str, Any]]

AT_ONCE = 10_000
"""How many runs are read by one statement."""


class RfDb(Face):
    """Experiments, runs, tasks of workers and interactive control, on one event log.

    Dicts are dicts of the columns of `tables.sql`, with `config_leaf` and `metrics` decoded.
    Every method that changes something also takes the keywords of `About`.

    >>> from refold import RfDb, RunStatus
    >>> with RfDb("example.db", actor="controller") as db:
    ...     experiment_id = db.create_experiment("digits")
    ...     run_id = db.create_run(experiment_id, config_leaf={"lr": 0.1}, num_chunks=8)
    ...     db.set_run_status(run_id, RunStatus.ONGOING)
    ...     db.get_run(run_id)["config_leaf"]
    {'lr': 0.1}
    """

    def _repr_html_(self) -> str:
        last = self._rows(runs, f"ORDER BY run_id DESC LIMIT {html.SHOWN}")
        [counted] = self.views.select("SELECT count(*) AS runs FROM runs_folded")
        return super()._repr_html_() + RunList(last[::-1]).html_of(counted["runs"])

    # --- experiments ----------------------------------------------------------------------

    def create_experiment(
        self,
        experiment_name: str,
        experiments_path: str | None = None,
        status: ExperimentStatus | str = ExperimentStatus.NEW,
        **about: Unpack[About],
    ) -> int:
        """Set up an experiment and return its id.

        Raises:
            InvalidCommand: the name is empty, or an argument of a wrong type.
        """
        command = CreateExperiment(
            kind="fit",
            experiment_name=experiment_name,
            status=ExperimentStatus.of(status),
            experiments_path=experiments_path,
        )
        return self.send(command, **about)

    def get_running_experiment(self) -> dict[str, Any]:
        """Return the newest experiment that runs.

        Raises:
            NotFound: none does.
        """
        found = self._first(
            experiments,
            "WHERE status = ? ORDER BY experiment_id DESC",
            ExperimentStatus.RUNNING.value,
        )
        if found is None:
            raise NotFound(
                "no experiment is running: set_experiment_status(id, ExperimentStatus.RUNNING)"
            )
        return found

    def set_experiment_status(
        self, experiment_id: int, status: ExperimentStatus | str, **about: Unpack[About]
    ) -> None:
        """Move an experiment to a status.

        Raises:
            NotFound: there is no such experiment.
            IllegalTransition: the status cannot follow the present one.
        """
        self.send(SetExperimentStatus(experiment_id, ExperimentStatus.of(status)), **about)

    # --- runs -----------------------------------------------------------------------------

    def create_run(
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
        """Give a configuration a run and return its id.

        Args:
            experiment_id: the experiment that it belongs to.
            run_name: `run_` and its id by default.
            mlflow_run_id: its id in MLflow.
            config_leaf: any object, or what `encode_payload` made of it.
            status: NEW by default.
            source: who made it.
            seed: for reproducibility.
            num_chunks: the number of chunks of data.
            parent_run_id: the run that it was cloned from.
            warm_start: whether it starts with its parent's weights.
            about: see `About`.

        Raises:
            NotFound: there is no such experiment or parent.
            InvalidPayload: the configuration cannot be stored.
        """
        command = CreateRun(
            experiment_id=experiment_id,
            run_name=run_name,
            mlflow_run_id=mlflow_run_id,
            config_leaf=self._encoded(config_leaf),
            status=RunStatus.of(status),
            source=RunSource.of(source),
            seed=seed,
            num_chunks=num_chunks,
            parent_run_id=parent_run_id,
            warm_start=warm_start,
        )
        return self.send(command, **about)

    def get_run(self, run_id: int, *, config: bool = True) -> dict[str, Any]:
        """Return a run.

        Args:
            run_id: its id.
            config: whether its configuration is decoded, or left out.

        Raises:
            NotFound: there is no such run.
            InvalidPayload, StoreDamaged: its configuration, metrics or a word cannot be read here.
        """
        return self._one(
            runs, run_id, "run", "get_all_runs() lists those that there are", config=config
        )

    def get_all_runs(self, *, config: bool = True) -> Dicts:
        """Return all runs, with their metrics, by id.

        What cannot be read here of a run is an `Unreadable` in its place.

        Args:
            config: whether their configurations are decoded, or left out, which is quicker.
        """
        return RunList(self._rows(runs, "ORDER BY run_id", config=config))

    def search_runs(
        self,
        where: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        config: bool = True,
    ) -> list[dict[str, Any]]:
        """Return the runs for which something holds, the best first if you say what is best.

        The database finds them. A name is a column of `runs`, a parameter (a key of a configuration
        of plain data) or a metric (its last value); `params.x` and `metrics.x` where it is both.

        Args:
            where: such as `lr > 0.01 and loss < 0.3 and status = 'COMPLETED'`; also `or`, `not`,
                `in (…)`, `like '…'`, `is null`, `params.model.layers >= 3`, `min(loss) < 0.2`.
            sort: such as `loss` (smallest first), `-accuracy` (largest first) or `status, lr desc`;
                NaN and what has no value come last. None: by id.
            limit: return at most this many.
            config: whether their configurations are decoded, or left out, which is quicker.

        Raises:
            InvalidQuery: it cannot be understood, and where; or a name means nothing, or both.

        >>> from refold import RfDb
        >>> with RfDb("example.db") as db:
        ...     experiment_id = db.create_experiment("digits")
        ...     for lr, loss in ((0.1, 0.7), (0.01, 0.2), (0.001, 0.4)):
        ...         run_id = db.create_run(experiment_id, config_leaf={"lr": lr})
        ...         step = db.log_metrics(run_id, {"loss": loss})
        ...     [run["config_leaf"]["lr"] for run in db.search_runs("loss < 0.5", sort="loss")]
        [0.01, 0.001]
        """
        ids = found(self.views, where, sort, limit)
        rows: dict[int, dict[str, Any]] = {}
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            for row in self._rows(runs, f"WHERE run_id IN ({marks(some)})", *some, config=config):
                rows[row["run_id"]] = row
        return RunList(rows[run_id] for run_id in ids if run_id in rows)

    def runs_frame(
        self,
        where: str | None = None,
        *,
        sort: str | None = None,
        limit: int | None = None,
        library: Literal["pandas", "polars"] | None = None,
    ) -> Any:
        """Return runs as a data frame, with a column for each parameter and metric.

        Parameters of groups are named as in `model.layers`; where a name is both or that of a
        column of `runs`, it is `params.x` and `metrics.x`. Needs `refold[frames]`.

        Args:
            where: see `search_runs`.
            sort: likewise.
            limit: likewise.
            library: `pandas` or `polars`; None: that which is installed, pandas first.

        Raises:
            InvalidQuery: it cannot be understood, and where; or a name means nothing, or both.
            MissingPackage: neither is installed.
            InvalidPayload, StoreDamaged: something of a run cannot be read here.
        """
        from refold.export.tables import Library, runs_frame  # only those who export need it

        if library not in (None, *get_args(Library)):
            raise InvalidCommand(f"library is {excerpt(library)}: pass 'pandas' or 'polars'")
        return runs_frame(self, found(self.views, where, sort, limit), library)

    def get_runs_by_status(
        self, status: RunStatus | str | Iterable[RunStatus | str], *, config: bool = True
    ) -> Dicts:
        """Return the runs that have a status, or one of several, by id; see `get_all_runs`."""
        try:
            wanted = [status] if isinstance(status, str) else list(status)
        except TypeError:
            wanted = [status]  # which is no status either
        values = [RunStatus.of(word).value for word in wanted]
        if not values:
            return []
        rest = f"WHERE status IN ({marks(values)}) ORDER BY run_id"
        return self._rows(runs, rest, *values, config=config)

    def set_run_status(self, run_id: int, status: RunStatus | str, **about: Unpack[About]) -> None:
        """Move a run to a status; the scheduled tasks of one that is KILLED fail.

        Raises:
            NotFound: there is no such run.
            IllegalTransition: the status cannot follow the present one.
        """
        self.send(SetRunStatus(run_id, RunStatus.of(status)), **about)

    def set_run_ended_by(
        self, run_id: int, ended_by: RunEndedBy | str, **about: Unpack[About]
    ) -> None:
        """Note how a run ended.

        Raises:
            NotFound: there is no such run.
            IllegalTransition: it is KILLED, so it has not COMPLETED.
        """
        self.send(SetRunEndedBy(run_id, RunEndedBy.of(ended_by)), **about)

    def update_run_metrics(
        self, run_id: int, metrics: Mapping[str, Any] | str, **about: Unpack[About]
    ) -> None:
        """Note a run's metrics, a dict or its JSON; they take the place of those before.

        Values are numbers, text, lists or groups of them; NumPy and torch numbers are taken too,
        and so are NaN and infinities: `get_run` gives them back. In SQL they are not among
        `runs.metrics`; `runs.metric_words` names them.

        Raises:
            NotFound: there is no such run.
            InvalidEvent, InvalidCommand: a value is of a wrong type.
        """
        if isinstance(metrics, str):
            try:
                metrics = json.loads(metrics)  # which takes NaN, as `json.dumps` writes it
            except (ValueError, RecursionError) as error:
                raise InvalidCommand(f"metrics of run {run_id} are not JSON: {error}") from None
        if not isinstance(metrics, Mapping):
            raise InvalidCommand(
                f"metrics of run {run_id} are a {type(metrics).__name__}: pass a dict"
            )
        self.send(UpdateRunMetrics(run_id, dict(metrics), self._attempt(run_id)), **about)

    def log_metrics(
        self,
        run_id: int,
        metrics: Mapping[str, Any],
        step: int | None = None,
        *,
        attempt: int | None = None,
        **about: Unpack[About],
    ) -> int:
        """Note a point of some of a run's metrics; the others keep their values.

        Any thread or process may do so at any time. Values are numbers of Python, NumPy or torch;
        NaN and infinities are kept as what they are.

        Args:
            run_id: of the run.
            metrics: the values by their names.
            step: of the training, or of whatever is counted; None: one more than the last step of
                these metrics, from 0 on.
            attempt: the position of the event that began the attempt in which it was measured; by
                default the claim of the task of this run that this process works on. See
                `metric_history`.
            about: see `About`.

        Returns:
            the step.

        Raises:
            NotFound: there is no such run.
            InvalidCommand: a value is no number.

        >>> from refold import RfDb
        >>> with RfDb("example.db") as db:
        ...     run_id = db.create_run(db.create_experiment("digits"))
        ...     db.log_metrics(run_id, {"loss": 0.5}, step=10)
        ...     db.log_metrics(run_id, {"loss": 0.3, "accuracy": 0.9}, step=20)
        ...     [(point["step"], point["value"]) for point in db.metric_history(run_id, "loss")]
        10
        20
        [(10, 0.5), (20, 0.3)]
        """
        if not isinstance(metrics, Mapping):
            raise InvalidCommand(
                f"metrics of run {run_id} are a {type(metrics).__name__}: pass a dict"
            )
        given = self._attempt(run_id) if attempt is None else attempt
        return self.send(LogMetrics(run_id, dict(metrics), step, given), **about)

    def _attempt(self, run_id: int) -> int | UnsetType:
        return self._present().attempt(worker_task, run_id, self._outcome())

    def metrics(
        self, run_id: int, *, attempt: int | None = None, **about: Unpack[About]
    ) -> MetricsLog:
        """Log metrics from a training loop, in a microsecond or two for each point.

        A call of what is returned never waits for the store. The points go into a file on this
        machine, in `<store>-lanes` beside the store or, for a server, in `~/.local/state/refold`
        (`REFOLD_LANES` names another folder). A thread brings them into the log, 10,000 at a time
        or after 5 seconds, and the end of the block the rest.

        A process that is killed loses none: whoever opens the store next on that machine brings in
        what it left. If the machine itself goes down, what was logged in the last second is lost.
        While the store cannot take them, the file holds 2 million points; when half of it is taken,
        only some are kept, and the event says how many were left out (`left_out`).

        Args:
            run_id: of the run.
            attempt: see `log_metrics`.
            about: see `About`, without a `command_id`.

        Returns:
            what is called with a step and values, which become 64-bit floats; `flush()` brings in
            what was logged so far.

        Raises:
            NotFound: there is no such run.
            InvalidCommand: this is within a batch; or an argument of a wrong type.
            StoreFailed: there is no room for the file (64 MiB).

        >>> from refold import RfDb
        >>> with RfDb("example.db") as db:
        ...     run_id = db.create_run(db.create_experiment("digits"))
        ...     with db.metrics(run_id) as log:
        ...         for step in range(3):
        ...             log(step, loss=1 / (step + 1), accuracy=0.5)
        ...     db.get_run(run_id)["metrics"]
        {'loss': 0.3333333333333333, 'accuracy': 0.5}
        """
        self.get_run(run_id, config=False)
        if not isinstance(self.views, Views):
            self.views.store.refuse()
        if self.store.current() is not None:
            raise InvalidCommand(
                f"metrics({run_id}) within a batch would log for a run that may never be: leave "
                f"the batch first"
            )
        if "command_id" in about:
            raise InvalidCommand("metrics() is no command: pass no command_id")
        given = argument("attempt", attempt, Id | None) or self._attempt(run_id) or None
        metadata = self._metadata(about, "metrics", ("run_id", "attempt"))
        log = MetricsLog(self.views, self.payloads, run_id, given, metadata)
        self._logs.add(log)
        return log

    def metric_history(
        self, run_id: int, metric: str, *, attempts: Attempts = "last"
    ) -> list[dict[str, Any]]:
        """Return all points of a metric of a run, in the order in which they came into the log.

        Each has its `step` (None: `update_run_metrics` noted it), its `value`, the `time` when it
        was logged, the `position` of its event, and the `attempt` in which it was measured.

        Args:
            run_id: of the run.
            metric: its name.
            attempts: where several attempts logged the same step, the points of the last; or of
                `all`.

        Raises:
            NotFound: there is no such run, or it has no such metric.
            InvalidCommand: the name is no text, or `attempts` none of both.
        """
        self.get_run(run_id, config=False)
        if not isinstance(metric, str):
            raise InvalidCommand(f"metric is a {type(metric).__name__}: pass its name")
        if attempts not in get_args(Attempts):
            raise InvalidCommand(f"attempts is {excerpt(attempts)}: pass 'last' or 'all'")
        points = [
            {
                "step": point.step,
                "value": point.value,
                "time": times.to_text(point.time),
                "position": point.position,
                "attempt": point.attempt,
            }
            for point in points_of_metric(self, run_id, metric, attempts)
        ]
        if not points:
            rows = self.views.select(
                "SELECT metric FROM run_metrics WHERE run_id = ? ORDER BY metric", run_id
            )
            known = ", ".join(row["metric"] for row in rows) or "none yet"
            raise NotFound(f"run {run_id} has no metric {metric!r}: it has {known}")
        return points

    def set_run_progress(
        self, run_id: int, current_chunk: int, current_epoch: int, **about: Unpack[About]
    ) -> None:
        """Note the chunk and the epoch that a run has come to.

        Raises:
            NotFound: there is no such run.
            ClaimLost: this process reports it within a task of the run that it has lost.
        """
        claim = self._present().of_part(worker_task, run_id, self._outcome())
        self.send(SetRunProgress(run_id, current_chunk, current_epoch, claim), **about)

    # --- checkpoints ----------------------------------------------------------------------

    def save_checkpoint(
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
        """Save the state of a run, from which its training can go on.

        Args:
            run_id: of the run.
            state: any object, such as the weights of a model and an optimizer's state: it is stored
                as a payload, once for equal bytes.
            step: what was trained by then; likewise the `epoch` and the `chunk`.
            epoch: see `step`.
            chunk: see `step`.
            location: a path or URL, in the place of the state, if that lies elsewhere.
            checksum: of what is there, for whoever reads it.
            about: see `About`.

        Returns:
            the digest that names the state (`get_payload`); None if it lies elsewhere.

        Raises:
            NotFound: there is no such run.
            InvalidCommand: neither a state nor a location was passed, or both.
            InvalidPayload, PayloadRefused: the state cannot be stored.

        >>> from refold import RfDb
        >>> with RfDb("example.db") as db:
        ...     run_id = db.create_run(db.create_experiment("digits"))
        ...     digest = db.save_checkpoint(run_id, {"weights": [0.5, 0.25]}, step=100)
        ...     db.latest_checkpoint(run_id)["state"]
        {'weights': [0.5, 0.25]}
        """
        command = SaveCheckpoint(
            run_id,
            None if state is None else self.payloads.encode(state),
            step=_given(step),
            epoch=_given(epoch),
            chunk=_given(chunk),
            location=_given(location),
            checksum=_given(checksum),
        )
        return self.send(command, **about)

    def checkpoints(self, run_id: int) -> Dicts:
        """Return the checkpoints of a run, the oldest first, without their states.

        Each has its `step`, `epoch`, `chunk`, `digest`, `location` and `checksum`, as far as they
        were passed, the `run_id`, the `time` when it was saved, and the `position` of its event.

        Raises:
            NotFound: there is no such run.
        """
        self.get_run(run_id, config=False)
        saved = self.store.read(stream=f"run-{run_id}", types=[RunCheckpointSaved])
        return [_checkpoint(recorded) for recorded in saved]

    def latest_checkpoint(self, run_id: int) -> dict[str, Any] | None:
        """Return the last checkpoint of a run, with its `state`; None if there is none.

        A clone without one has the last that its parent had when the clone was made.

        Raises:
            NotFound: there is no such run, or its state is missing.
            InvalidPayload: the state cannot be read here.
        """
        of: int | None = self.get_run(run_id, config=False)["run_id"]
        until: int | None = None
        while of is not None:
            parent: int | None = None
            for recorded in self.store.read(
                stream=f"run-{of}",
                types=[RunCheckpointSaved, RunCreated],
                until=until,
                backwards=True,
            ):
                if isinstance(recorded.event, RunCreated):
                    parent, until = recorded.event.parent_run_id, recorded.position
                    break
                found = _checkpoint(recorded)
                digest = found["digest"]
                return {**found, "state": None if digest is None else self.get_payload(digest)}
            of = parent
        return None

    # --- tasks of workers -----------------------------------------------------------------

    def create_worker_task(
        self, run_id: int, worker_id: int, chunk_id: int, epoch: int = 0, **about: Unpack[About]
    ) -> int:
        """Schedule a chunk of a run for a worker and return the task's id.

        Raises:
            NotFound: there is no such run.
            IllegalTransition: the run is KILLED.
        """
        return self.send(CreateWorkerTask(run_id, worker_id, chunk_id, epoch), **about)

    def get_worker_task(self, task_id: int) -> dict[str, Any]:
        """Return a task.

        Raises:
            NotFound: there is no such task.
        """
        return self._one(
            worker_task, task_id, "worker task", "get_worker_tasks() lists those that there are"
        )

    def get_worker_tasks(
        self,
        run_id: int | None = None,
        worker_id: int | None = None,
        status: TaskStatus | str | None = None,
    ) -> Dicts:
        """Return the tasks of a run, of a worker, with a status, or all three, by id."""
        wanted = {
            "run_id": argument("run_id", run_id, Id | None),
            "worker_id": argument("worker_id", worker_id, Id | None),
            "status": None if status is None else TaskStatus.of(status).value,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        conditions = "".join(f" AND {name} = ?" for name in given)
        return self._rows(worker_task, f"WHERE true{conditions} ORDER BY task_id", *given.values())

    def get_next_worker_task(self, worker_id: int) -> dict[str, Any] | None:
        """Return the oldest task that is scheduled for a worker, or None."""
        return self._first(
            worker_task,
            "WHERE status = 'SCHEDULED' AND worker_id = ? AND NOT EXISTS (SELECT 1 FROM "
            "runs_folded r WHERE r.run_id = worker_task.run_id AND r.status = 'KILLED') "
            "ORDER BY task_id",
            argument("worker_id", worker_id, Id),
        )

    def claim_next_worker_task(
        self, worker_id: int, any_worker: bool = False, **about: Unpack[About]
    ) -> dict[str, Any] | None:
        """Claim the oldest task that is scheduled for a worker and return it, or None.

        Of several that poll at once, only one gets the task. From then on this process reports on
        it; the task's `claim` lets another one do so. Tasks of KILLED runs are passed over.

        Args:
            worker_id: of the worker.
            any_worker: if it has none of its own, take one that was offered again after its worker
                was lost.
            about: see `About`.
        """

        if any_worker and not self._is_any_offered(worker_task):
            return None
        command = ClaimNextWorkerTask(worker_id, self._now(), any_worker or UNSET)
        return self._claiming(worker_task, command, None, about)

    def set_worker_task_status(
        self,
        task_id: int,
        status: TaskStatus | str,
        error: str | None = None,
        claim: int | None = None,
        **about: Unpack[About],
    ) -> None:
        """Move a task to a status; IN_PROGRESS claims it.

        Only who has claimed a task can complete it. Anybody can declare it FAILED.

        Args:
            task_id: its id.
            status: the status.
            error: why it FAILED.
            claim: the `claim` of the task, if another process has claimed it and passed it on; by
                default what this one holds.
            about: see `About`.

        Raises:
            NotFound: there is no such task.
            IllegalTransition: the status cannot follow the present one; so a worker that was
                taken for dead learns that its task was failed meanwhile.
            ClaimLost: it was claimed by another process, or again since.
        """
        after = TaskStatus.of(status)
        held = self._present().of_task(worker_task, task_id, self._outcome())
        command = SetWorkerTaskStatus(task_id, after, error, held if claim is None else claim)
        if after is TaskStatus.IN_PROGRESS:
            self._claiming(worker_task, command, task_id, about)
        else:
            self._reporting(worker_task, command, task_id, about)

    # --- progress -------------------------------------------------------------------------

    def get_controller_task(self) -> dict[str, Any] | None:
        """Return what the controller does (`task`, `status`), or None if it never reported."""
        return self._first(controller_progress, "")

    def set_controller_task(
        self,
        task: ControllerTask | str,
        status: TaskStatus | str = TaskStatus.IN_PROGRESS,
        **about: Unpack[About],
    ) -> None:
        """Note what the controller does."""
        self.send(SetControllerTask(ControllerTask.of(task), TaskStatus.of(status)), **about)

    def get_worker_progress(self, worker_id: int) -> dict[str, Any] | None:
        """Return what a worker does (`task`, `status`), or None if it never reported."""
        return self._first(
            worker_progress, "WHERE worker_id = ?", argument("worker_id", worker_id, Id)
        )

    def set_worker_progress(
        self,
        worker_id: int,
        task: WorkerTask | str,
        status: TaskStatus | str = TaskStatus.IN_PROGRESS,
        **about: Unpack[About],
    ) -> None:
        """Note what a worker does."""
        self.send(SetWorkerProgress(worker_id, WorkerTask.of(task), TaskStatus.of(status)), **about)

    # --- interactive control --------------------------------------------------------------

    def request_clone_modify(
        self,
        run_id: int,
        config_leaf: Any = None,
        warm_start: bool = False,
        **about: Unpack[About],
    ) -> int:
        """Ask for a copy of a run with another configuration; return the request's id.

        Raises:
            NotFound: there is no such run.
            IllegalTransition: the run is KILLED.
        """
        command = RequestCloneModify(run_id, self._encoded(config_leaf), warm_start)
        return self.send(command, **about)

    def request_stop(self, run_id: int, **about: Unpack[About]) -> int:
        """Ask to stop a run; return the request's id.

        Raises:
            NotFound: there is no such run.
            IllegalTransition: the run is KILLED.
        """
        return self.send(RequestStop(run_id), **about)

    def request_resume(self, run_id: int, **about: Unpack[About]) -> int:
        """Ask to let a run go on; return the request's id.

        Raises:
            NotFound: there is no such run.
            IllegalTransition: the run is KILLED.
        """
        return self.send(RequestResume(run_id), **about)

    def request_delete(self, run_id: int, **about: Unpack[About]) -> int:
        """Ask to delete a run; return the request's id.

        Raises:
            NotFound: there is no such run.
            IllegalTransition: the run is KILLED already.
        """
        return self.send(RequestDelete(run_id), **about)

    def get_ic_ops_request(self, *, config: bool = True) -> Dicts:
        """Return the requests that nobody has processed, the oldest first.

        Pass a request's `position` on as `cause` of what it leads to, so that `why` can name it.
        A configuration that cannot be read here is an `Unreadable` in its place.

        Args:
            config: whether their configurations are decoded, or left out.
        """
        rest = "WHERE status = 'PENDING' ORDER BY ic_id"
        return self._rows(interactive_control, rest, config=config)

    def mark_ic_ops_in_progress(self, ic_id: int, **about: Unpack[About]) -> None:
        """Note that a request is being carried out, so that it is no longer pending.

        Raises:
            NotFound: there is no such request.
            IllegalTransition: it was carried out, has failed or was skipped.
        """
        self.send(MarkICOpsInProgress(ic_id), **about)

    def mark_ic_ops_completed(self, ic_id: int, **about: Unpack[About]) -> None:
        """Note that a request was carried out.

        Raises:
            NotFound: there is no such request.
            IllegalTransition: it has failed or was skipped.
        """
        self.send(MarkICOpsCompleted(ic_id), **about)

    def mark_ic_ops_failed(
        self, ic_id: int, error: str | None = None, **about: Unpack[About]
    ) -> None:
        """Note that a request could not be carried out, and why.

        Raises:
            NotFound: there is no such request.
            IllegalTransition: it was carried out or skipped.
        """
        self.send(MarkICOpsFailed(ic_id, error), **about)

    def mark_ic_ops_skipped(
        self, ic_id: int, error: str | None = None, **about: Unpack[About]
    ) -> None:
        """Note that nothing was to be done for a request, and why.

        Raises:
            NotFound: there is no such request.
            IllegalTransition: it was carried out or failed.
        """
        self.send(MarkICOpsSkipped(ic_id, error), **about)


T = TypeVar("T")


def _given(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


def _checkpoint(recorded: Recorded) -> dict[str, Any]:
    saved = recorded.event
    assert isinstance(saved, RunCheckpointSaved)
    told = {
        "step": saved.step,
        "epoch": saved.epoch,
        "chunk": saved.chunk,
        "digest": saved.state,
        "location": saved.location,
        "checksum": saved.checksum,
    }
    return {
        "run_id": saved.run_id,
        **{name: None if value is UNSET else value for name, value in told.items()},
        "time": times.to_text(recorded.recorded_at),
        "position": recorded.position,
    }

"""Follows a store for its watchers: tells what happens, draws how far it is, waits for events."""

import time
from collections import deque
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from refold import RfDb, RunSource, RunStatus
from refold.eventstore import Event, Recorded, events

E = TypeVar("E", bound=Event)

SILENCE = 3  # seconds after which a line tells how far it is


class DemoFailed(Exception):
    """What the demo waits for can no longer happen."""


class Follower:
    """The events of a store, from now on.

    On a terminal there is a progress bar below the lines. Elsewhere there are only the lines: one
    tells how far it is whenever there has been no other for a while.
    """

    def __init__(self, db: RfDb) -> None:
        self._db = db
        self._news = db.subscribe(after=None)
        self._came: deque[Recorded] = deque()
        self._began = self._said = time.monotonic()
        self._failure: str | None = None
        console = Console(highlight=False, markup=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._training = self._bars.add_task("chunks trained", total=None)
        self._evaluation = self._bars.add_task("shards read", start=False, visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._news.close()
        self._bars.stop()

    # --- waiting --------------------------------------------------------------------------

    def until(self, kind: type[E], *, actor: str | None = None, **fields: object) -> E:
        """Follow until an event of this type, by this actor and with these fields, comes."""
        while True:
            recorded = self._next()
            event = recorded.event
            if (
                isinstance(event, kind)
                and actor in (None, recorded.metadata.actor)
                and all(getattr(event, name) == value for name, value in fields.items())
            ):
                return event

    def until_found(self, query: str, *parameters: Any) -> None:
        """Follow until a query finds something."""
        while not self._db.db.execute(query, parameters):
            self._next()

    def fail(self, reason: str) -> None:
        """Stop waiting, from any thread."""
        self._failure = self._failure or reason
        self._news.close()

    def check(self) -> None:
        """Raise `DemoFailed` if something has failed."""
        if self._failure is not None:
            raise DemoFailed(self._failure)

    def _next(self) -> Recorded:
        self._break_silence()
        while not self._came:
            self._came.extend(self._news.wait(max(0, self._said + SILENCE - time.monotonic())))
            self.check()
            self._break_silence()
        recorded = self._came.popleft()
        line = tell(recorded)
        if line is not None:
            self.say(line)
        if isinstance(recorded.event, events.RunProgressed | events.RunKilled):
            self._draw_training()
        elif isinstance(recorded.event, events.ShardCompleted):
            self._draw_evaluation()
        return recorded

    # --- showing --------------------------------------------------------------------------

    def say(self, line: str) -> None:
        """Print a line."""
        seconds = time.monotonic() - self._began
        self._bars.console.print(f"{seconds:5.1f} s  {line}", soft_wrap=True)
        self._said = time.monotonic()

    def _break_silence(self) -> None:
        if time.monotonic() - self._said < SILENCE:
            return
        if self._bars.disable:
            self.say(progress(self._db))
        else:  # the bar tells it
            self._said = time.monotonic()

    def _draw_training(self) -> None:
        self._bars.update(self._training, **chunks(self._db)._asdict())

    def _draw_evaluation(self) -> None:
        self._bars.start_task(self._evaluation)
        self._bars.update(self._evaluation, visible=True, **shards(self._db)._asdict())


class Part(NamedTuple):
    """How much of something is done."""

    completed: int
    total: int


def chunks(db: RfDb) -> Part:
    """Return how many chunks are trained, of those of all runs that are not deleted."""
    runs = [run for run in db.get_all_runs() if run["status"] != RunStatus.KILLED]
    return Part(
        sum(run["current_epoch"] * run["num_chunks"] + run["current_chunk"] for run in runs),
        sum(run["config_leaf"]["epochs"] * run["num_chunks"] for run in runs),
    )


def shards(db: RfDb) -> Part:
    """Return how many shards are read, of those of all pipelines."""
    [tasks] = db.db.execute(
        "SELECT count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS completed "
        "FROM actor_tasks"
    )
    return Part(**tasks)


def progress(db: RfDb) -> str:
    """Return how far it is, as a line."""
    trained, read = chunks(db), shards(db)
    if read.total:
        return f"{read.completed} of {read.total} shards are read"
    if not trained.total:
        return "the processes import what they need"
    if trained.completed == trained.total:
        return "all chunks are trained, no shard is read yet"
    losses = ", ".join(
        f"run {run['run_id']} {run['metrics']['loss']:.3f}"
        for run in db.get_runs_by_status([RunStatus.NEW, RunStatus.ONGOING, RunStatus.STOPPED])
        if run["metrics"]
    )
    line = f"{trained.completed} of {trained.total} chunks are trained"
    return f"{line}; losses: {losses}" if losses else line


def tell(recorded: Recorded) -> str | None:
    """Return what people may want to know of an event, or None."""
    match recorded.event:
        case events.RunCreated(source=RunSource.CLONE_MODIFY) as run:
            warm = " with its weights" if run.warm_start else ""
            return f"run {run.run_id} is a clone of run {run.parent_run_id}{warm}"
        case events.RunStarted() as run:
            return f"run {run.run_id} begins"
        case events.RunStopped() as run:
            return f"run {run.run_id} is stopped"
        case events.RunResumed() as run:
            return f"run {run.run_id} goes on"
        case events.RunKilled() as run:
            return f"run {run.run_id} is deleted"
        case events.RunCompleted() as run:
            return f"run {run.run_id} is completed"
        case events.RunFailed() as run:
            return f"run {run.run_id} has failed"
        case events.TaskFailed() as task:
            return f"task {task.task_id} has failed: its chunk will be trained again"
        case events.WorkerLost() as lost:
            tasks = ", ".join(map(str, lost.failed_tasks)) or "none"
            return f"{lost.name} is seen to be gone; tasks that fail with it: {tasks}"
        case events.ContextReady() as context:
            return f"context {context.context_id} is ready"
        case events.ExperimentCompleted() as experiment:
            return f"experiment {experiment.experiment_id} is completed"
        case _:
            return None

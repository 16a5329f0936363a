"""Follows a store for its watchers: tells what happens, draws how far it is, waits for events."""

import time
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from refold import RfDb, RunSource, RunStatus
from refold.eventstore import Event, Recorded, events

E = TypeVar("E", bound=Event)


class DemoFailed(Exception):
    """What the demo waits for can no longer happen."""


class Follower:
    """The events of a store, from now on.

    On a terminal there is a progress bar below the lines; elsewhere there are only the lines.
    """

    def __init__(self, db: RfDb) -> None:
        self._db = db
        self._news = db.subscribe(after=None)
        self._began = time.monotonic()
        self._failure: str | None = None
        console = Console(stderr=True, highlight=False, markup=False)
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
        for recorded in self._news:
            line = tell(recorded)
            if line is not None:
                self.say(line)
            if isinstance(recorded.event, events.RunProgressed | events.RunKilled):
                self._draw_training()
            elif isinstance(recorded.event, events.ShardCompleted):
                self._draw_evaluation()
            return recorded
        self.check()
        raise DemoFailed("the subscription was closed")

    # --- showing --------------------------------------------------------------------------

    def say(self, line: str) -> None:
        """Print a line."""
        seconds = time.monotonic() - self._began
        self._bars.console.print(f"{seconds:5.1f} s  {line}", soft_wrap=True)

    def _draw_training(self) -> None:
        runs = [run for run in self._db.get_all_runs() if run["status"] != RunStatus.KILLED]
        self._bars.update(
            self._training,
            completed=sum(r["current_epoch"] * r["num_chunks"] + r["current_chunk"] for r in runs),
            total=sum(r["config_leaf"]["epochs"] * r["num_chunks"] for r in runs),
        )

    def _draw_evaluation(self) -> None:
        [tasks] = self._db.db.execute(
            "SELECT count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS completed "
            "FROM actor_tasks"
        )
        self._bars.start_task(self._evaluation)
        self._bars.update(self._evaluation, visible=True, **tasks)


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
        case events.ExperimentStatesReset() as reset:
            tasks = ", ".join(map(str, reset.worker_tasks)) or "none"
            return f"the controller recovers; tasks that it gives up: {tasks}"
        case events.ContextReady() as context:
            return f"context {context.context_id} is ready"
        case events.ExperimentCompleted() as experiment:
            return f"experiment {experiment.experiment_id} is completed"
        case _:
            return None

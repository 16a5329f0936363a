"""What each process does in a round: train, schedule, look on or follow the log."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import Any

from msgspec import Struct

from benchmarks.peers.crud_tasks import CrudTasks
from refold import DBException, RfDb, TaskStatus
from refold.eventstore import times
from refold.eventstore.events import TaskStarted

WORKERS = 8
RUNS_EACH = 8
RUNS = WORKERS * RUNS_EACH
REPORTS = 8
"""Of progress and metrics in a task."""
LOOK = 0.01
"""Seconds between two looks of who has no subscription: refold's own looks as often."""
GLANCE = 0.2
"""Seconds between two looks of the dashboard."""

Layer = RfDb | CrudTasks


class Order(Struct, frozen=True):
    """What a round shall be like."""

    seconds: float
    alone: bool = False
    """One worker, which schedules its tasks itself."""
    hot: bool = False
    """Tasks are of all runs, by Zipf's law, so that workers meet on the same ones."""


class Done(Struct, frozen=True):
    """What a process did in a round."""

    took: list[float]
    """Milliseconds of each command or look; for a follower, from each event to its arrival."""
    seconds: float
    errors: list[str]


class Role:
    """One process's part; `turns` does a bit of it, and a bit more, as long as a round goes on."""

    def __init__(self, layer: Layer, number: int) -> None:
        self.layer = layer
        self.number = number
        self.order = Order(0)
        self.until = 0.0
        self.took: list[float] = []
        self.errors: list[str] = []
        self._turns = self.turns()

    def do(self, order: Order) -> Done:
        """Go on where the last round ended."""
        self.order = order
        self.took, self.errors = [], []
        began = time.perf_counter()
        self.until = began + order.seconds
        while time.perf_counter() < self.until:
            next(self._turns)
        return Done(self.took, time.perf_counter() - began, self.errors)

    def turns(self) -> Iterator[None]:
        raise NotImplementedError

    def timed(self, work: Callable[[], Any]) -> None:
        began = time.perf_counter()
        try:
            work()
        except (DBException, sqlite3.Error) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
        self.took.append((time.perf_counter() - began) * 1e3)

    def schedule(self, worker: int) -> None:
        """Give a worker a task, unless one waits for it already."""
        if self.layer.get_next_worker_task(worker) is None:
            run_id = _any_run() if self.order.hot else _own_run(worker)
            self.timed(partial(self.layer.create_worker_task, run_id, worker, len(self.took)))


class Worker(Role):
    """Takes up its tasks, reports on them, and ends them, without any rest."""

    def turns(self) -> Iterator[None]:
        layer = self.layer
        while True:
            if self.order.alone:
                self.schedule(self.number)
                yield
            task = layer.get_next_worker_task(self.number)
            if task is None:
                time.sleep(LOOK / 10)
                yield
                continue
            task_id, run_id = task["task_id"], task["run_id"]
            self.timed(partial(layer.set_worker_task_status, task_id, TaskStatus.IN_PROGRESS))
            yield
            for step in range(REPORTS):
                self.timed(partial(layer.set_run_progress, run_id, task["chunk_id"], step))
                yield
                metrics = {"loss": random.random(), "accuracy": random.random(), "step": step}
                self.timed(partial(layer.update_run_metrics, run_id, metrics))
                yield
            self.timed(partial(layer.set_worker_task_status, task_id, TaskStatus.COMPLETED))
            yield


class Controller(Role):
    """Schedules the next task of a worker as soon as it has begun the one before."""

    def turns(self) -> Iterator[None]:
        wait = self._news()
        while True:
            for worker in range(WORKERS):
                self.schedule(worker)
            wait(self.until - time.perf_counter())
            yield

    def _news(self) -> Callable[[float], object]:
        if isinstance(self.layer, RfDb):
            return self.layer.subscribe(after=None, types=[TaskStarted]).wait
        return lambda _: time.sleep(LOOK)


class Dashboard(Role):
    """Shows all runs, some times a second."""

    def turns(self) -> Iterator[None]:
        while True:
            self.timed(self.layer.get_all_runs)
            time.sleep(GLANCE)
            yield


class Follower(Role):
    """Reads the log from its beginning and follows it; of a CRUD layer, what tasks there are."""

    def turns(self) -> Iterator[None]:
        if isinstance(self.layer, RfDb):
            return self._events(self.layer)
        return self._tasks(self.layer)

    def _events(self, db: RfDb) -> Iterator[None]:
        with db.subscribe() as events:
            while True:
                here = events.wait(LOOK)
                now = times.now()
                # What came in between the rounds has waited for this one to begin.
                fresh = now - (time.perf_counter() - self.until + self.order.seconds) * 1e6
                self.took += [
                    (now - each.recorded_at) / 1e3 for each in here if each.recorded_at > fresh
                ]
                yield

    def _tasks(self, crud: CrudTasks) -> Iterator[None]:
        last = 0
        while True:
            for task in crud.get_tasks_after(last):
                last = task["task_id"]
            time.sleep(LOOK)
            yield


def _own_run(worker: int) -> int:
    return 1 + worker * RUNS_EACH + random.randrange(RUNS_EACH)


_ZIPF = list(accumulate(1 / rank for rank in range(1, RUNS + 1)))


def _any_run() -> int:
    return random.choices(range(1, RUNS + 1), cum_weights=_ZIPF)[0]

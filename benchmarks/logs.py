"""A realistic log of any length, made once in a run and lent to whoever only reads it."""

import random
from functools import cache

from benchmarks.places import Engine, Places
from refold import RfDb
from refold.eventstore import Event, EventStore, Metadata, open_store
from refold.eventstore.events import (
    RunCreated,
    RunMetricsRecorded,
    RunProgressed,
    TaskCompleted,
    TaskScheduled,
    TaskStarted,
)

RUNS = 1_000
WORKERS = 8


@cache
def log(places: Places, engine: Engine, events: int) -> str:
    """Return the place of a store with so many events, whose views are current.

    All who ask for the same get the same, so nobody may append to it.
    """
    place = places.store(engine)
    fill(place, events)
    RfDb(place).close()  # folds the views
    return place


def fill(place: str, events: int) -> None:
    """Append what a controller, 8 workers and 1,000 runs would, or as many runs as there is room.

    The views are left behind, for a face to fold. A log that is there already goes on.
    """
    with open_store(place) as store:
        if not store.head():
            _create_runs(place, min(RUNS, events // 10))
        head = store.head()
        runs = sum(1 for _ in store.read(types=[RunCreated], limit=RUNS))
        task = _last_task(store)
        rng = random.Random(head)
        while head < events:
            worker = rng.randrange(WORKERS)
            page: list[Event] = []
            for _ in range(400):
                task += 1
                run, chunk = rng.randint(1, runs), task % 64
                page += [
                    TaskScheduled(task, run, worker, chunk, 0),
                    TaskStarted(task),
                    RunProgressed(run, chunk, 0),
                    RunMetricsRecorded(run, {"loss": rng.random(), "step": task}),
                    TaskCompleted(task),
                ]
            page = page[: events - head]
            appended = store.append(None, page, metadata=Metadata(actor=f"worker-{worker}"))
            head = appended[-1].position


def _create_runs(place: str, runs: int) -> None:
    with RfDb(place, actor="controller") as db, db.batch():
        experiment = db.create_experiment("benchmark")
        config = {f"parameter_{n}": n for n in range(50)}
        for run in range(runs):
            db.create_run(experiment, config_leaf={**config, "run": run}, num_chunks=64)


def _last_task(store: EventStore) -> int:
    for recorded in store.read(types=[TaskScheduled], limit=1, backwards=True):
        assert isinstance(recorded.event, TaskScheduled)
        return recorded.event.task_id
    return 0

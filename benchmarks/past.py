"""How fast a log of a million events is looked back at.

    python -m benchmarks.past [EVENTS]

It fills a store in a temporary file (or the one named by REFOLD_STORE), and times each question
many times, at moments spread over the whole log. Times are this machine's; beside the first answers
stands how often the bare engine could have read and decoded the log meanwhile.
"""

import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from eventstore import Metadata, open_store
from eventstore.events import (
    RunMetricsRecorded,
    RunProgressed,
    TaskCompleted,
    TaskScheduled,
    TaskStarted,
)
from refold import RfDb, replay
from refold.replay import Step

RUNS = 1_000
WORKERS = 8
QUESTIONS = 50


def fill(place: str, events: int) -> None:
    """Append what a controller, 8 workers and 1,000 runs would."""
    rng = random.Random(1)
    with RfDb(place, actor="controller") as db:
        if db.store.head():
            return
        with db.batch():
            experiment = db.create_experiment("benchmark")
            config = {f"parameter_{n}": n for n in range(50)}
            for run in range(RUNS):
                db.create_run(experiment, config_leaf={**config, "run": run}, num_chunks=64)
    with open_store(place) as store:  # without views, which the face folds afterwards
        task, head = 0, store.head()
        while head < events:
            worker = rng.randrange(WORKERS)
            page: list[msgspec.Struct] = []
            for _ in range(400):
                task += 1
                run, chunk = rng.randint(1, RUNS), task % 64
                page += [
                    TaskScheduled(task, run, worker, chunk, 0),
                    TaskStarted(task),
                    RunProgressed(run, chunk, 0),
                    RunMetricsRecorded(run, {"loss": rng.random(), "step": task}),
                    TaskCompleted(task),
                ]
            metadata = Metadata(actor=f"worker-{worker}")
            page = page[: events - head]
            head = store.append(None, page, metadata=metadata)[-1].position


def timed(ask: Callable[[], object]) -> float:
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bare(place: str) -> float:
    """Read and decode all events, with no layer at all."""
    decoder = msgspec.json.Decoder()
    with open_store(place) as store:

        def read() -> None:
            after = 0
            while True:
                with store.reading() as connection:
                    rows = connection.execute(
                        "SELECT position, type, data FROM events WHERE position > ? "
                        "ORDER BY position LIMIT 5000",
                        (after,),
                    )
                if not rows:
                    return
                for after, _, data in rows:  # noqa: B007
                    decoder.decode(data)

        return min(timed(read) for _ in range(3))


def told(question: str, seconds: list[float], target: str = "") -> None:
    ordered = sorted(1e3 * value for value in seconds)
    middle, last = ordered[len(ordered) // 2], ordered[-1]
    print(f"  {question:<52}{middle:10.1f} ms{last:10.1f} ms   {target}", flush=True)


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        place = os.environ.get("REFOLD_STORE") or str(Path(folder) / "store.db")
        fill(place, events)
        limit = bare(place)
        with RfDb(place) as db:
            look_back(db, limit)


def look_back(db: RfDb, limit: float) -> None:
    head = db.store.head()
    rng = random.Random(2)
    print(f"{head:,} events; the bare engine reads and decodes them in {limit:.2f} s")
    print(f"  {'':<52}{'median':>13}{'slowest':>13}   target")
    for name, question in {
        "history of a run, nothing folded yet": lambda: db.history("run", rng.randint(1, RUNS)),
        "why a run's chunk, nothing folded yet": lambda: db.why("run", 7, "current_chunk"),
    }.items():
        told(name, [timed(question) for _ in range(5)], "100 ms")
    first = timed(lambda: db.as_of(head // 2).get_run(1))
    told("the first as_of, a run", [first], f"5 s; {first / limit:.1f} x the bare read")
    rest = timed(lambda: db.diff(head // 2, head // 2))
    told("the same of all other views", [rest], f"{rest / limit:.1f} x the bare read")
    size = sum(path.stat().st_size for path in db.views.versions.path().parent.iterdir())

    def anywhere(ask: Callable[[RfDb], object]) -> list[float]:
        return [timed(lambda: ask(db.as_of(rng.randint(1, head)))) for _ in range(QUESTIONS)]

    told("as_of anywhere, a run", anywhere(lambda past: past.get_run(5)), "250 ms")
    told("as_of anywhere, all runs", anywhere(lambda past: past.get_all_runs()), "250 ms")
    told("as_of anywhere, the next task", anywhere(lambda p: p.get_next_worker_task(1)), "250 ms")
    told("as_of anywhere, a run's tasks", anywhere(lambda p: p.get_worker_tasks(5)), "250 ms")
    walk = replay(db, start_at=head // 2)
    told("a step forwards, with its changes", stepped(walk.forward), "5 ms")
    told("a step backwards, with its changes", stepped(walk.back), "5 ms")
    histories = [timed(lambda: db.history("run", rng.randint(1, RUNS))) for _ in range(QUESTIONS)]
    told("history of a run", histories, "100 ms")
    starts = [rng.randint(1, head - 1_000) for _ in range(10)]
    told("diff of 1,000 events", [timed(lambda at=at: db.diff(at, at + 1_000)) for at in starts])
    print(f"  temporary file {size / 1e6:.0f} MB, memory at most {memory():.0f} MiB (limit: 1 GiB)")


def stepped(step: Callable[[], Step[RfDb] | None]) -> list[float]:
    def ask() -> None:
        moment = step()
        assert moment is not None
        assert moment.changes

    return [timed(ask) for _ in range(500)]


if __name__ == "__main__":
    main()

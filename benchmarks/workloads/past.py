"""Looking back in a log of a million events: any moment, steps, the history of a run."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing

import msgspec

from benchmarks.alone import alone
from benchmarks.logs import RUNS, log
from benchmarks.measure import figures, latencies, seconds
from benchmarks.peers.bare_sqlite import SELECT_EVENTS, SETTINGS
from benchmarks.places import Places
from benchmarks.results import Figure, Ratio, Section, ratio, within
from refold import RfDb, replay
from refold.replay import Step

EVENTS = 1_000_000


def measure(places: Places) -> list[Section]:
    """Measure `as_of`, `history`, `replay` and `diff` on SQLite."""
    place = log(places, "sqlite", EVENTS)
    return [_first(place), _later(place)]


def _first(place: str) -> Section:
    decode = msgspec.json.Decoder().decode

    def refold() -> float:
        with RfDb(place) as db:
            return seconds(lambda: db.as_of(EVENTS // 2).get_run(1))

    def bare_engine() -> float:
        with closing(sqlite3.connect(place)) as connection:
            connection.executescript(SETTINGS)

            def read() -> None:
                for _, _, _, _, _, data, _, _ in connection.execute(SELECT_EVENTS):
                    decode(data)

            return seconds(read)

    found = figures(
        "the first as_of", "s", {"refold": refold, "bare engine": bare_engine}, rounds=3
    )
    ours, engine = found.values()
    size, peak = alone(_look_back, place)
    memory = Figure("refold", "memory, every view folded", "MiB", (peak,))
    file = Figure("refold", "temporary file, every view folded", "MiB", (size,))
    return Section(
        f"The first look back in a log of {EVENTS:,} events",
        "The first `as_of` folds the whole log into a temporary file, for all later ones.",
        [ours, engine, memory, file],
        [within(5, ours, "past a"), within(1024, memory, "past f"), ratio(ours, engine)],
        notes=[
            "The bare engine reads all events and decodes their JSON, once.",
            "Memory is that of a process of its own.",
        ],
    )


def _look_back(place: str) -> float:
    """Fold every view, and return the temporary file's size in MiB."""
    with RfDb(place) as db:
        db.diff(EVENTS // 2, EVENTS // 2 + 1_000)
        db.as_of(EVENTS // 3).get_all_runs()
        folder = db.views.versions.path().parent
        return sum(path.stat().st_size for path in folder.iterdir()) / 2**20


def _later(place: str) -> Section:
    rng = random.Random(2)
    with RfDb(place) as db:
        unfolded = _asked("history of a run, nothing folded yet", lambda: _history(db, rng))
        db.diff(EVENTS // 2, EVENTS // 2)  # folds every view

        def anywhere(what: str, ask: Callable[[RfDb], object]) -> Figure:
            return _asked(f"as_of anywhere, {what}", lambda: ask(db.as_of(rng.randint(1, EVENTS))))

        moments = [
            anywhere("a run", lambda past: past.get_run(5)),
            anywhere("all runs", lambda past: past.get_all_runs()),
            anywhere("the next task", lambda past: past.get_next_worker_task(1)),
            anywhere("a run's tasks", lambda past: past.get_worker_tasks(5)),
        ]
        walk = replay(db, start_at=EVENTS // 2)
        steps = [
            _asked("a step forwards, with its changes", lambda: _changes(walk.forward()), 150),
            _asked("a step backwards, with its changes", lambda: _changes(walk.back()), 150),
        ]
        histories = [unfolded, _asked("history of a run", lambda: _history(db, rng))]

        def thousand() -> None:
            after = rng.randint(1, EVENTS - 1_000)
            db.diff(after, after + 1_000)

        difference = _asked("diff of 1,000 events", thousand, calls=10)
    return Section(
        f"Later looks back in a log of {EVENTS:,} events",
        "Each question is asked at moments all over the log.",
        [*moments, *steps, *histories, difference],
        [
            *(within(250, figure, "past b") for figure in moments),
            *(_tail_within(250, figure, "past c") for figure in moments),
            *(within(5, figure, "past d") for figure in steps),
            *(_tail_within(5, figure, "past d") for figure in steps),
            *(within(100, figure, "past e") for figure in histories),
            *(_tail_within(100, figure, "past e") for figure in histories),
        ],
    )


def _asked(work: str, ask: Callable[[], object], calls: int = 30) -> Figure:
    return latencies(work, {"refold": lambda _: ask()}, rounds=5, calls=calls, unit="ms")["refold"]


def _history(db: RfDb, rng: random.Random) -> None:
    assert db.history("run", rng.randint(1, RUNS))


def _changes(step: Step[RfDb] | None) -> None:
    assert step is not None
    assert step.changes


def _tail_within(limit: float, figure: Figure, target: str) -> Ratio:
    tail = Figure(
        figure.contender, f"{figure.work}: p99", figure.unit, (figure.percentiles["p99"],)
    )
    return within(limit, tail, target)

"""Events appended in thousands on PostgreSQL, beside bare COPY, bare INSERTs and eventsourcing."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from itertools import count
from typing import TypeVar

from benchmarks.measure import figures, seconds
from benchmarks.peers.bare_postgres import BarePostgres, progressed
from benchmarks.peers.eventsourcing_library import EventsourcingLibrary
from benchmarks.places import Places
from benchmarks.results import Section, ratio
from refold import RfDb
from refold.eventstore import Event, open_store
from refold.eventstore.events import RunProgressed

TOGETHER = 1_000
TIMES = 5
RUNS = 8

T = TypeVar("T")

NOTES = [
    f"{TOGETHER:,} events in a transaction, {TIMES} transactions a round, on {RUNS} streams. The "
    "bare server gets rows that were made before; all others encode their events. COPY takes no "
    "more than rows, so nobody can refuse a wrong version.",
]


def appending(places: Places) -> Section:
    """Measure appends of a thousand events at once."""
    server, schema = places.server, places.schema()
    with ExitStack() as afterwards:
        store = afterwards.enter_context(open_store(places.store("postgres")))
        db = afterwards.enter_context(RfDb(places.store("postgres")))
        experiment = db.create_experiment("benchmark")
        for _ in range(RUNS):
            db.create_run(experiment)
        bare = afterwards.enter_context(closing(BarePostgres(server, schema)))
        bare.create_tables(runs=RUNS)
        library = EventsourcingLibrary.on_postgres(server, places.schema())
        afterwards.callback(library.close)
        numbers = count()

        def events() -> list[Event]:
            return [RunProgressed(1 + n % RUNS, n, 0) for n in _next(numbers)]

        def rows() -> list[tuple[object, ...]]:
            return [progressed(1 + n % RUNS, n, 0) for n in _next(numbers)]

        found = figures(
            f"appends of {TOGETHER:,}",
            "/s",
            {
                "refold": _rate(events, partial(store.append, None)),
                "refold with its views": _rate(events, lambda some: db.append(*some)),
                "bare COPY": _rate(rows, bare.copy),
                "bare executemany": _rate(rows, bare.insert_many),
                "eventsourcing": _rate(events, library.append),
            },
        )
    ours, _, *others = found.values()
    return Section(
        "Appends in thousands on PostgreSQL",
        __doc__ or "",
        [*found.values()],
        [ratio(ours, other) for other in others],
        notes=NOTES,
    )


def _next(numbers: "count[int]") -> list[int]:
    return [next(numbers) for _ in range(TOGETHER)]


def _rate(make: Callable[[], T], append: Callable[[T], object]) -> Callable[[], float]:
    def measured() -> float:
        took = sum(seconds(partial(append, make())) for _ in range(TIMES))
        return TIMES * TOGETHER / took

    return measured

"""Appending to the log: one event, a thousand at once, few streams that get most, large events."""

import random
from collections.abc import Callable
from contextlib import closing

from benchmarks.measure import figures, latencies, seconds
from benchmarks.peers.bare_sqlite import BareSqlite, Rows
from benchmarks.peers.eventsourcing_library import EventsourcingLibrary
from benchmarks.places import Places
from benchmarks.results import Curve, Figure, Section, at_least, ratio
from refold.eventstore import Event, EventStore, open_store
from refold.eventstore.event import Id
from refold.eventstore.events import RunProgressed

BATCH = 1_000
BATCHES = 5  # of each contender in a round
STREAMS = 1_000

SIZES = {"100 B": 100, "1 kB": 1_000, "10 kB": 10_000, "100 kB": 100_000, "1 MB": 1_000_000}
BYTES = 16_000_000  # of texts at most, of each contender in a round

Batches = list[list[Event]]
Make = Callable[[], Batches]


class TextNoted(Event, frozen=True):
    """An event of any size."""

    note_id: Id
    text: str

    @property
    def stream(self) -> str:
        return f"note-{self.note_id}"


class Contenders:
    """The contenders, on a new place each."""

    def __init__(self, places: Places) -> None:
        self.store: EventStore = open_store(places.store("sqlite"))
        self.bare = BareSqlite(places.file())
        self.rows = Rows()
        self.events_alone = BareSqlite(places.file())
        self.rows_alone = Rows()
        self.library = EventsourcingLibrary.on_sqlite(places.file())

    def rates(self, work: str, make: Make, *, rounds: int) -> dict[str, Figure]:
        """Append batches, made anew for each contender and before its time begins."""

        def refold() -> float:
            batches = make()
            return _rate(batches, lambda: [self.store.append(None, batch) for batch in batches])

        def bare() -> float:
            batches = make()
            rows = [self.rows.of(batch) for batch in batches]
            return _rate(batches, lambda: [self.bare.append(*each) for each in rows])

        def events_alone() -> float:
            batches = make()
            rows = [self.rows_alone.of(batch)[0] for batch in batches]
            append = self.events_alone.append
            return _rate(batches, lambda: [append(each) for each in rows])

        def library() -> float:
            batches = make()
            return _rate(batches, lambda: [self.library.append(batch) for batch in batches])

        return figures(
            work,
            "events/s",
            {
                "refold": refold,
                "bare engine": bare,
                "bare engine, events alone": events_alone,
                "eventsourcing": library,
            },
            rounds=rounds,
        )

    def close(self) -> None:
        for contender in (self.store, self.bare, self.events_alone, self.library):
            contender.close()


def _rate(batches: Batches, work: Callable[[], object]) -> float:
    return sum(map(len, batches)) / seconds(work)


def measure(places: Places) -> list[Section]:
    """Measure `EventStore.append` on SQLite."""
    return [_one_by_one(places), _in_batches(places), _by_size(places)]


def _one_by_one(places: Places) -> Section:
    with closing(Contenders(places)) as contenders:
        calls, rounds = 1_000, 9
        rows = [
            contenders.rows.of([RunProgressed(1, number, 0)])
            for number in range((rounds + 1) * calls + 1)
        ]

        def refold(number: int) -> None:
            contenders.store.append(None, [RunProgressed(1, number, 0)])

        def bare(number: int) -> None:
            contenders.bare.append(*rows[number])

        def library(number: int) -> None:
            contenders.library.append([RunProgressed(1, number, 0)])

        found = latencies(
            "append one event",
            {"refold": refold, "bare engine": bare, "eventsourcing": library},
            rounds=rounds,
            calls=calls,
        )
    ours, engine, other = (figure.per_second for figure in found.values())
    return Section(
        "One append on SQLite",
        "One event in a transaction of its own.",
        [*found.values()],
        [at_least(5, ours, other, "2"), ratio(ours, engine), ratio(engine, other)],
        notes=[_EVENTSOURCING],
    )


def _in_batches(places: Places) -> Section:
    """Append to streams in turn; then most to a few of them, as Zipf's law has it."""
    progress = 0

    def in_turn() -> Batches:
        nonlocal progress
        progress += 1
        return [
            [RunProgressed(run, progress, batch) for run in range(STREAMS)]
            for batch in range(BATCHES)
        ]

    rng = random.Random(1)
    weights = [1 / (rank + 1) for rank in range(STREAMS)]

    def hot() -> Batches:
        return [
            [RunProgressed(run, 0, 0) for run in rng.choices(range(STREAMS), weights, k=BATCH)]
            for _ in range(BATCHES)
        ]

    with closing(Contenders(places)) as contenders:
        contenders.rates("to warm up", in_turn, rounds=1)
        turn = contenders.rates("1,000 events to 1,000 streams", in_turn, rounds=25)
        zipf = contenders.rates("1,000 events, hot streams", hot, rounds=15)
    ours, engine, events_alone, other = turn.values()
    return Section(
        "Appending in batches on SQLite",
        _in_batches.__doc__ or "",
        [*turn.values(), *zipf.values()],
        [
            at_least(0.7, ours, engine, "3"),
            ratio(ours, events_alone),
            at_least(6, ours, other, "3"),
            ratio(engine, other),
            *(ratio(zipf["refold"], figure) for figure in [*zipf.values()][1:]),
        ],
        notes=[
            "The bare engine's rows are made before its time begins: those of the events and, as "
            "refold keeps them too, those of the streams; executemany. It has no triggers.",
            "Events alone: one executemany of the events, and nothing else.",
            _EVENTSOURCING,
        ],
    )


def _by_size(places: Places) -> Section:
    found: dict[str, dict[str, Figure]] = {}
    for name, size in SIZES.items():
        count = min(BATCH, BYTES // size)
        text = random.Random(1).randbytes(size // 2).hex()

        def texts(count: int = count, text: str = text) -> Batches:
            return [[TextNoted(number, text) for number in range(count)]]

        with closing(Contenders(places)) as contenders:
            contenders.rates("to warm up", texts, rounds=1)
            found[name] = contenders.rates(f"events of {name}", texts, rounds=5)
    first = next(iter(found.values()))
    lines = {
        contender: [(float(SIZES[name]), found[name][contender].median) for name in SIZES]
        for contender in first
    }
    return Section(
        "Appending large events on SQLite",
        "A batch of up to 1,000 events, each with a text.",
        [figure for each in found.values() for figure in each.values()],
        [
            ratio(each["refold"], each[other])
            for each in found.values()
            for other in ("bare engine", "eventsourcing")
        ],
        [Curve("Events by size", "bytes of an event", "events/s", lines, logarithmic=True)],
    )


_EVENTSOURCING = (
    "eventsourcing: insert_events of its SQLiteApplicationRecorder, text ids; events become its "
    "StoredEvents through msgspec, within the time, which spares it its slower JSON mapper."
)

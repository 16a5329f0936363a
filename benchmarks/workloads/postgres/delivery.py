"""From a commit on PostgreSQL to a subscriber on another connection."""

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from itertools import islice
from queue import SimpleQueue

from eventsourcing.postgres import PostgresApplicationRecorder

from benchmarks.measure import percentiles
from benchmarks.peers.bare_postgres import BarePostgres, progressed
from benchmarks.peers.eventsourcing_library import EventsourcingLibrary
from benchmarks.places import Places
from benchmarks.results import Figure, Section, ratio
from refold.eventstore import open_store
from refold.eventstore.events import RunProgressed

ROUNDS = 7
CALLS = 50

NOTES = [
    "Until a thread of the same process has the event, from the call of the append and from its "
    "return. The bare server: LISTEN, then SELECT what is new; eventsourcing: its recorder's "
    "subscription. The bare server can pass over an event that is committed late, and so can "
    "eventsourcing with its database functions, as here. By default it locks the table against "
    "that; refold cannot pass over one either.",
]


class Delivery:
    """Something that appends, and a thread that follows it."""

    def __init__(self, append: Callable[[int], object], events: Iterable[object]) -> None:
        self._append = append
        self._arrived: SimpleQueue[float] = SimpleQueue()
        self._thread = threading.Thread(target=self._follow, args=(events,))
        self._thread.start()

    def _follow(self, events: Iterable[object]) -> None:
        for _ in islice(events, (ROUNDS + 1) * CALLS):
            self._arrived.put(time.perf_counter())

    def times(self, number: int) -> tuple[float, float]:
        """Append an event; return the milliseconds to its arrival, from the call and the commit."""
        began = time.perf_counter()
        self._append(number)
        committed = time.perf_counter()
        arrived = self._arrived.get()
        return (arrived - began) * 1e3, (arrived - committed) * 1e3

    def join(self) -> None:
        self._thread.join()


def delivery(places: Places) -> Section:
    """Measure the delay of single events, one after another."""
    server, schema, place = places.server, places.schema(), places.store("postgres")
    library_schema = places.schema()
    with ExitStack() as afterwards:
        enter = afterwards.enter_context
        store, other = enter(open_store(place)), enter(open_store(place))
        bare = enter(closing(BarePostgres(server, schema)))
        bare.create_tables(runs=1)
        follower = enter(closing(BarePostgres(server, schema)))
        library = enter(closing(EventsourcingLibrary.on_postgres(server, library_schema)))
        reader = enter(closing(EventsourcingLibrary.on_postgres(server, library_schema)))
        _have_two_connections(reader)

        def announced(number: int) -> None:
            bare.append(progressed(1, number, 0))
            bare.announce()

        deliveries = {
            "refold": Delivery(
                lambda number: store.append(None, [RunProgressed(1, number, 0)]),
                enter(other.subscribe(after=None)),
            ),
            "bare LISTEN": Delivery(announced, follower.follow(after=0)),
            "eventsourcing": Delivery(
                lambda number: library.append([RunProgressed(1, number, 0)]),
                enter(reader.recorder.subscribe(gt=0)),
            ),
        }
        found = _measured(deliveries)
        for each in deliveries.values():
            each.join()
    called, committed = found[: len(deliveries)], found[len(deliveries) :]
    return Section(
        "Delivery on PostgreSQL",
        __doc__ or "",
        found,
        [ratio(ours, other) for ours, *others in (called, committed) for other in others],
        notes=NOTES,
    )


def _have_two_connections(reader: EventsourcingLibrary) -> None:
    assert isinstance(reader.recorder, PostgresApplicationRecorder)
    reader.recorder.datastore.pool.resize(2)  # the subscription keeps one for LISTEN


def _measured(deliveries: dict[str, Delivery]) -> list[Figure]:
    took: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in deliveries}
    for turn in range(ROUNDS + 1):
        gc.collect()
        for each in took.values():
            each.append([])
        for call in range(CALLS):
            for name, each in deliveries.items():
                took[name][turn].append(each.times(1 + turn * CALLS + call))
    return [
        _figure(name, work, [[pair[index] for pair in turn] for turn in turns[1:]])
        for index, work in enumerate(("from call to subscriber", "from commit to subscriber"))
        for name, turns in took.items()
    ]


def _figure(contender: str, work: str, rounds: list[list[float]]) -> Figure:
    medians = tuple(map(statistics.median, rounds))
    every = [delay for each in rounds for delay in each]
    return Figure(contender, work, "ms", medians, percentiles(every))

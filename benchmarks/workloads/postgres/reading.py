"""A log on PostgreSQL read, folded anew and verified, beside the bare SELECT and eventsourcing."""

from collections.abc import Callable, Iterable
from contextlib import closing

from benchmarks.logs import log
from benchmarks.measure import figures, seconds
from benchmarks.peers.bare_postgres import BarePostgres
from benchmarks.peers.eventsourcing_library import EventsourcingLibrary
from benchmarks.places import Places
from benchmarks.results import Section, ratio
from refold import RfDb
from refold.eventstore.paging import chunks

EVENTS = 50_000

NOTES = [
    f"The same {EVENTS:,} events for all, of which the server has no statistics yet.",
    "The bare SELECT and eventsourcing's recorder take 5,000 at a time and give the JSON as it "
    "stands there; refold takes 2,000 and decodes them into events.",
]


def reading(places: Places) -> Section:
    """Measure events per second."""
    place = log(places, "postgres", EVENTS)
    _, _, schema = place.partition("schema=")
    with (
        RfDb(place) as db,
        closing(BarePostgres(places.server, schema)) as bare,
        closing(EventsourcingLibrary.on_postgres(places.server, places.schema())) as library,
    ):
        events = (recorded.event for recorded in db.store.read())
        for page in chunks(events, 1_000):
            library.append(page)
        read = figures(
            "read the log",
            "/s",
            {
                "refold": _rate(lambda: _exhaust(db.store.read())),
                "bare SELECT": _rate(lambda: _exhaust(bare.read())),
                "eventsourcing": _rate(lambda: _exhaust(library.read())),
            },
            rounds=5,
        )
        folded = figures(
            "fold the log anew",
            "/s",
            {
                "rebuild": _rate(lambda: db.rebuild(progress=False)),
                "verify": _rate(db.verify),
                "bare SELECT": _rate(lambda: _exhaust(bare.read())),
            },
            rounds=3,
        )
    ours, select, library_ = read.values()
    rebuild, verify, again = folded.values()
    return Section(
        "Reading and rebuilding on PostgreSQL",
        __doc__ or "",
        [*read.values(), *folded.values()],
        [ratio(ours, select), ratio(ours, library_), ratio(rebuild, again), ratio(verify, again)],
        notes=NOTES,
    )


def _exhaust(events: Iterable[object]) -> None:
    for _ in events:
        pass


def _rate(work: Callable[[], object]) -> Callable[[], float]:
    return lambda: EVENTS / seconds(work)

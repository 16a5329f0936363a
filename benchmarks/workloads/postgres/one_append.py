"""One event appended through the store on PostgreSQL, beside the bare INSERT and its peers."""

from collections.abc import Callable
from contextlib import ExitStack, closing

from benchmarks.measure import latencies
from benchmarks.peers.bare_postgres import BarePostgres, progressed
from benchmarks.peers.eventsourcing_library import EventsourcingLibrary
from benchmarks.peers.message_db import MessageDb
from benchmarks.places import Places
from benchmarks.results import Figure, Section, at_least, ratio
from eventstore import open_store
from eventstore.events import RunProgressed

NOTES = [
    "eventsourcing: insert_events of its application recorder with its database functions, one "
    "message; message-db: write_message, one message. Neither keeps a table of what is current.",
]


def one_append(places: Places, message_db: str | None) -> Section:
    """Measure appends of one event by one connection."""
    server, schema = places.server, places.schema()
    with ExitStack() as afterwards:
        store = afterwards.enter_context(open_store(places.store("postgres")))
        bare = afterwards.enter_context(closing(BarePostgres(server, schema)))
        bare.create_tables(runs=1)
        library = EventsourcingLibrary.on_postgres(server, places.schema())
        afterwards.callback(library.close)
        contenders: dict[str, Callable[[int], object]] = {
            "refold": lambda number: store.append(None, [RunProgressed(1, number, 0)]),
            "bare INSERT": lambda number: bare.append(progressed(1, number, 0)),
            "eventsourcing": lambda number: library.append([RunProgressed(1, number, 0)]),
        }
        if message_db is not None:
            peer = afterwards.enter_context(closing(MessageDb(message_db)))
            contenders["message-db"] = lambda number: peer.write(RunProgressed(1, number, 0))
        found = latencies("one append", contenders)
    rates = {name: _rate(figure) for name, figure in found.items()}
    ours = rates.pop("refold")
    return Section(
        "One append on PostgreSQL",
        __doc__ or "",
        [*found.values(), ours, *rates.values()],
        [
            at_least(1, ours, rates.pop("eventsourcing"), "11b"),
            *(ratio(ours, other) for other in rates.values()),
        ],
        notes=NOTES,
    )


def _rate(figure: Figure) -> Figure:
    rounds = tuple(1e6 / microseconds for microseconds in figure.rounds)
    return Figure(figure.contender, "appends, one after another", "/s", rounds)

"""One event appended through the store on PostgreSQL, beside the bare INSERT and its peers."""

from collections.abc import Callable
from contextlib import ExitStack, closing

from benchmarks.measure import latencies
from benchmarks.peers.bare_postgres import BarePostgres, progressed
from benchmarks.peers.eventsourcing_library import EventsourcingLibrary
from benchmarks.peers.message_db import MessageDb
from benchmarks.places import Places
from benchmarks.results import Section, at_least, ratio
from refold.eventstore import open_store
from refold.eventstore.events import RunProgressed

BY_DEFAULT = "eventsourcing, by default"
WITH_FUNCTIONS = "eventsourcing, database functions"
NOTES = [
    "eventsourcing: insert_events of its application recorder. By default it locks the table, so "
    "that events are committed in the order of their numbers, as refold's are: the target's base. "
    "With its database functions, one message, it locks nothing, and does not keep that order.",
    "message-db: write_message, one message. None of them keeps a table of what is current.",
]


def one_append(places: Places, message_db: str | None) -> Section:
    """Measure appends of one event by one connection."""
    server, schema = places.server, places.schema()
    with ExitStack() as afterwards:
        store = afterwards.enter_context(open_store(places.store("postgres")))
        bare = afterwards.enter_context(closing(BarePostgres(server, schema)))
        bare.create_tables(runs=1)
        locking, functions = (
            EventsourcingLibrary.on_postgres(server, places.schema(), database_functions=which)
            for which in (False, True)
        )
        afterwards.callback(locking.close)
        afterwards.callback(functions.close)
        contenders: dict[str, Callable[[int], object]] = {
            "refold": lambda number: store.append(None, [RunProgressed(1, number, 0)]),
            "bare INSERT": lambda number: bare.append(progressed(1, number, 0)),
            BY_DEFAULT: lambda number: locking.append([RunProgressed(1, number, 0)]),
            WITH_FUNCTIONS: lambda number: functions.append([RunProgressed(1, number, 0)]),
        }
        if message_db is not None:
            peer = afterwards.enter_context(closing(MessageDb(message_db)))
            contenders["message-db"] = lambda number: peer.write(RunProgressed(1, number, 0))
        found = latencies("one append", contenders)
    rates = {name: figure.per_second for name, figure in found.items()}
    ours = rates.pop("refold")
    return Section(
        "One append on PostgreSQL",
        __doc__ or "",
        [*found.values(), ours, *rates.values()],
        [
            at_least(1, ours, rates.pop(BY_DEFAULT), "11b"),
            *(ratio(ours, other) for other in rates.values()),
        ],
        notes=NOTES,
    )

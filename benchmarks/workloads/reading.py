"""Reading typed events, beside SELECT and msgspec, and the eventsourcing library's select."""

import sqlite3
from contextlib import closing

import msgspec

from benchmarks.logs import log
from benchmarks.measure import figures, seconds
from benchmarks.peers.bare_sqlite import SELECT_EVENTS, SETTINGS
from benchmarks.peers.eventsourcing_library import EventsourcingLibrary
from benchmarks.places import Places
from benchmarks.results import Section, at_least, ratio
from refold.eventstore import events as event_types
from refold.eventstore import open_store

EVENTS = 100_000


def measure(places: Places) -> list[Section]:
    """Measure `EventStore.read` on SQLite."""
    path = log(places, "sqlite", EVENTS)
    with (
        open_store(path) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        closing(EventsourcingLibrary.on_sqlite(places.file())) as library,
    ):
        connection.executescript(SETTINGS)
        library.append(recorded.event for recorded in store.read())
        decoders = {
            name: msgspec.json.Decoder(getattr(event_types, name)).decode
            for (name,) in connection.execute("SELECT DISTINCT type FROM events")
        }

        def refold() -> None:
            for _ in store.read():
                pass

        def bare() -> None:
            for _, _, _, name, _, data, _, _ in connection.execute(SELECT_EVENTS):
                decoders[name](data)

        def eventsourcing() -> None:
            for _ in library.read():
                pass

        def eventsourcing_typed() -> None:
            for notification in library.read():
                decoders[notification.topic](notification.state)

        contenders = {
            "refold": refold,
            "bare engine": bare,
            "eventsourcing": eventsourcing,
            "eventsourcing, decoded": eventsourcing_typed,
        }
        for each in contenders.values():
            each()  # to warm up
        found = figures(
            "read all events",
            "events/s",
            {name: lambda each=each: EVENTS / seconds(each) for name, each in contenders.items()},
            rounds=9,
        )
    ours, engine, other, other_decoded = found.values()
    return [
        Section(
            f"Reading {EVENTS:,} typed events on SQLite",
            __doc__ or "",
            [*found.values()],
            [
                at_least(0.85, ours, engine, "5"),
                at_least(5, ours, other, "5"),
                ratio(ours, other_decoded),
                ratio(engine, other),
            ],
            notes=[
                "The bare engine: SELECT of the same columns, a msgspec decoder for each type.",
                "eventsourcing: select_notifications of its SQLiteApplicationRecorder, text ids, "
                "pages of 5,000; it gives bytes that nobody has decoded. Decoded: by msgspec, "
                "which is faster than its own JSON mapper.",
            ],
        )
    ]

"""One command through the face, beside the bare transaction and the CRUD layer's one UPDATE."""

from contextlib import closing
from functools import partial

from benchmarks.measure import latencies
from benchmarks.peers.bare_sqlite import BareSqlite
from benchmarks.peers.crud import Crud
from benchmarks.places import Places
from benchmarks.results import Section, at_most, ratio
from refold import RfDb


def measure(places: Places) -> list[Section]:
    """Measure `set_run_progress` on SQLite."""
    with (
        RfDb(places.store("sqlite")) as db,
        closing(BareSqlite(places.file())) as bare,
        closing(BareSqlite(places.file())) as bare_with_stream,
        closing(Crud(places.file())) as crud,
    ):
        db.create_run(db.create_experiment("benchmark"), num_chunks=16)
        crud.create_run(None)

        def refold(number: int) -> None:
            db.set_run_progress(1, number, 0)

        def crud_layer(number: int) -> None:
            crud.set_run_progress(1, number, 0)

        found = latencies(
            "one command",
            {
                "refold": refold,
                "bare engine": bare.set_run_progress,
                "bare engine, with streams": partial(
                    bare_with_stream.set_run_progress, with_stream=True
                ),
                "CRUD layer": crud_layer,
            },
            calls=1_000,
        )
    ours, engine, with_stream, layer = found.values()
    return [
        Section(
            "One command on SQLite",
            __doc__ or "",
            [*found.values()],
            [
                at_most(1.5, ours, engine, "1a"),
                ratio(ours, with_stream),
                at_most(3, ours, layer, "1b"),
            ],
            notes=[
                "The bare engine's five statements: BEGIN, SELECT of the run, INSERT of the event, "
                "upsert of the run, COMMIT, with all columns of refold's rows. It has no triggers.",
                "With streams: it also upserts the last event of the run's stream, as refold does.",
                "The CRUD layer keeps no history: one autocommitted UPDATE of two columns.",
            ],
        )
    ]

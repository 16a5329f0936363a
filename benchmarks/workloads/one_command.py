"""One command through the face, beside the bare transaction and the CRUD layer's one UPDATE."""

from contextlib import closing

from benchmarks.measure import latencies
from benchmarks.peers.bare_sqlite import BareSqlite
from benchmarks.peers.crud import Crud
from benchmarks.places import Places
from benchmarks.results import Section, at_most
from refold import RfDb


def measure(places: Places) -> list[Section]:
    """Measure `set_run_progress` on SQLite."""
    with (
        RfDb(places.store("sqlite")) as db,
        closing(BareSqlite(places.file())) as bare,
        closing(Crud(places.file())) as crud,
    ):
        experiment_id = db.create_experiment("benchmark")
        db.create_run(experiment_id)
        crud.create_run({})

        def refold(number: int) -> None:
            db.set_run_progress(1, number, 0)

        def bare_engine(number: int) -> None:
            bare.set_run_progress(1, number, 0)

        def crud_layer(number: int) -> None:
            crud.set_run_progress(1, number, 0)

        found = latencies(
            "one command",
            {"refold": refold, "bare engine": bare_engine, "CRUD layer": crud_layer},
            calls=1_000,
        )
    ours, engine, layer = found.values()
    return [
        Section(
            "One command on SQLite",
            __doc__ or "",
            [*found.values()],
            [at_most(1.5, ours, engine, "1a"), at_most(3, ours, layer, "1b")],
        )
    ]

"""`create_run` with a configuration of 50 keys, beside the CRUD layer's."""

from contextlib import closing

from benchmarks.measure import latencies
from benchmarks.peers.bare_sqlite import BareSqlite
from benchmarks.peers.crud import Crud
from benchmarks.places import Places
from benchmarks.results import Section, at_least, ratio
from refold import RfDb

CONFIG = {
    **{f"learning_rate_{n}": 1 / (n + 1) for n in range(15)},
    **{f"layers_{n}": (64 * n, 32) for n in range(10)},
    **{f"batch_size_{n}": 2**n for n in range(15)},
    **{f"optimizer_{n}": f"optimizer number {n}" for n in range(9)},
}
"""With the number of the run, which makes each another one, 50 keys."""


def measure(places: Places) -> list[Section]:
    """Measure `create_run` on SQLite."""
    rounds, calls = 9, 300
    with (
        RfDb(places.store("sqlite")) as db,
        closing(BareSqlite(places.file())) as bare,
        closing(Crud(places.file())) as crud,
    ):
        experiment_id = db.create_experiment("benchmark")

        contents = [
            db.payloads.encode({**CONFIG, "run": number}) for number in range((rounds + 1) * calls)
        ]

        def refold(number: int) -> None:
            db.create_run(experiment_id, config_leaf={**CONFIG, "run": number}, num_chunks=16)

        def bare_engine(number: int) -> None:
            bare.create_run(1 + number, contents[number - 1])

        def crud_layer(number: int) -> None:
            crud.create_run({**CONFIG, "run": number})

        found = latencies(
            "create_run",
            {"refold": refold, "bare engine": bare_engine, "CRUD layer": crud_layer},
            rounds=rounds,
            calls=calls,
        )
    ours, engine, layer = (figure.per_second for figure in found.values())
    return [
        Section(
            "Creating runs on SQLite",
            __doc__ or "",
            [*found.values()],
            [at_least(2, ours, layer, "1c"), ratio(ours, engine), ratio(engine, layer)],
            notes=[
                "The bare engine is given the configuration as refold encodes it, before its time "
                "begins, and writes the same five rows: of the payload, the event, its stream, the "
                "run and the last id.",
                "Each configuration is another one, so refold has to store each.",
                "The CRUD layer encodes it with dill and base64: one autocommitted INSERT.",
            ],
        )
    ]

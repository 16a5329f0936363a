"""Commands in a `batch()`, views updated and all, beside the CRUD layer's UPDATEs."""

from contextlib import closing

from benchmarks.measure import figures, seconds
from benchmarks.peers.crud import Crud
from benchmarks.places import Places
from benchmarks.results import Section, at_least, ratio
from refold import RfDb

RUNS = 100
COMMANDS = 1_000  # of each contender in a round


def measure(places: Places) -> list[Section]:
    """Measure `set_run_progress` of 100 runs in turn, on SQLite."""
    with (
        RfDb(places.store("sqlite")) as db,
        closing(Crud(places.file())) as crud,
    ):
        experiment_id = db.create_experiment("benchmark")
        for _ in range(RUNS):
            db.create_run(experiment_id, num_chunks=16)
            crud.create_run(None)

        def refold() -> None:
            with db.batch():
                for number in range(COMMANDS):
                    db.set_run_progress(1 + number % RUNS, number, 0)

        def crud_layer() -> None:
            for number in range(COMMANDS):
                crud.set_run_progress(1 + number % RUNS, number, 0)

        def crud_layer_at_once() -> None:
            crud.connection.execute("BEGIN IMMEDIATE")
            crud_layer()
            crud.connection.execute("COMMIT")

        contenders = {
            "refold, in a batch": refold,
            "CRUD layer": crud_layer,
            "CRUD layer, in a transaction": crud_layer_at_once,
        }
        for each in contenders.values():
            each()  # to warm up
        found = figures(
            "set_run_progress",
            "/s",
            {name: lambda each=each: COMMANDS / seconds(each) for name, each in contenders.items()},
        )
    ours, layer, at_once = found.values()
    return [
        Section(
            "Commands in a batch on SQLite",
            __doc__ or "",
            [*found.values()],
            [at_least(3, ours, layer, "4"), ratio(ours, at_once)],
            notes=[
                f"A batch of {COMMANDS:,} commands; the CRUD layer autocommits each UPDATE, as the "
                "seeds have it. In a transaction: what it could do if it had a batch too.",
            ],
        )
    ]

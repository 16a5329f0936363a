"""Commands in a `batch()`, views updated and all, beside the CRUD layer's UPDATEs."""

from contextlib import closing

from benchmarks.measure import figures, seconds
from benchmarks.peers.bare_sqlite import RUN, BareSqlite, Rows
from benchmarks.peers.crud import Crud
from benchmarks.places import Places
from benchmarks.results import Section, at_least, ratio
from refold import RfDb
from refold.eventstore.events import RunProgressed

RUNS = 100
COMMANDS = 1_000  # of each contender in a round


def measure(places: Places) -> list[Section]:
    """Measure `set_run_progress` of 100 runs in turn, on SQLite."""
    with (
        RfDb(places.store("sqlite")) as db,
        closing(BareSqlite(places.file())) as bare,
        closing(Crud(places.file())) as crud,
    ):
        rows = Rows()
        experiment_id = db.create_experiment("benchmark")
        for _ in range(RUNS):
            db.create_run(experiment_id, num_chunks=16)
            crud.create_run(None)

        def refold() -> float:
            def batch() -> None:
                with db.batch():
                    for number in range(COMMANDS):
                        db.set_run_progress(1 + number % RUNS, number, 0)

            return COMMANDS / seconds(batch)

        def bare_engine() -> float:
            events, streams = rows.of(
                RunProgressed(1 + number % RUNS, number, 0) for number in range(COMMANDS)
            )
            runs = [
                (run, *RUN[1:12], COMMANDS - RUNS + run - 1, 0, *RUN[14:17], position)
                for run, (_, _, position) in enumerate(streams, 1)
            ]
            return COMMANDS / seconds(lambda: bare.append(events, streams, runs))

        def updates() -> None:
            for number in range(COMMANDS):
                crud.set_run_progress(1 + number % RUNS, number, 0)

        def crud_layer() -> float:
            return COMMANDS / seconds(updates)

        def crud_layer_at_once() -> float:
            def transaction() -> None:
                crud.connection.execute("BEGIN IMMEDIATE")
                updates()
                crud.connection.execute("COMMIT")

            return COMMANDS / seconds(transaction)

        contenders = {
            "refold, in a batch": refold,
            "bare engine": bare_engine,
            "CRUD layer": crud_layer,
            "CRUD layer, in a transaction": crud_layer_at_once,
        }
        for contender in contenders.values():
            contender()  # to warm up
        found = figures("set_run_progress", "/s", contenders, rounds=25)
    ours, engine, layer, at_once = found.values()
    return [
        Section(
            "Commands in a batch on SQLite",
            __doc__ or "",
            [*found.values()],
            [at_least(3, ours, layer, "4"), ratio(ours, at_once), ratio(ours, engine)],
            notes=[
                "The bare engine decides nothing: it inserts the same events in one executemany, "
                "and upserts each stream and each run once, as refold does in a batch.",
                f"A batch of {COMMANDS:,} commands; the CRUD layer autocommits each UPDATE, as the "
                "seeds have it. In a transaction: what it could do if it had a batch too.",
            ],
        )
    ]

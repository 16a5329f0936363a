"""One command through the face on PostgreSQL, beside the bare transaction and a single UPDATE."""

from contextlib import closing

from benchmarks.measure import latencies
from benchmarks.peers.bare_postgres import BarePostgres, HandTunedPostgres
from benchmarks.places import Places
from benchmarks.results import Section, at_most, ratio
from refold import RfDb

NOTES = [
    "The target's base is the bare transaction: begin, select for update, insert the event, update "
    "the row, commit, each a message to the server, as psycopg sends them; psycopg prepares them.",
    "Tuned by hand: two messages, begin and select, then all the rest, of statements that were "
    "prepared by name, as fast as we know how to make it with psycopg; its pipeline mode lies "
    "between the two.",
    "refold writes progress and metrics by one message, since it remembers the row; it loads a row "
    "that another face has changed in between, and whatever draws an id: three messages and five.",
    "Every commit waits for the disk.",
]


def one_command(places: Places) -> Section:
    """Measure `set_run_progress`, and others beside it."""
    server, schema = places.server, places.schema()
    place = places.store("postgres")
    with (
        RfDb(place) as db,
        RfDb(place) as other,
        closing(BarePostgres(server, schema)) as bare,
        closing(HandTunedPostgres(server, schema)) as tuned,
        closing(BarePostgres(server, schema)) as crud,
    ):
        experiment = db.create_experiment("benchmark")
        for _ in range(3):
            db.create_run(experiment)
        bare.create_tables(runs=3)

        def refold(number: int) -> None:
            db.set_run_progress(1, number, 0)

        def metrics(number: int) -> None:
            db.update_run_metrics(2, {"loss": number})

        def by_turns(number: int) -> None:
            (db, other)[number % 2].set_run_progress(3, number, 0)

        def new_id(number: int) -> None:
            db.create_worker_task(1, 0, number)

        def transaction(number: int) -> None:
            bare.set_run_progress(1, number, 0)

        def by_hand(number: int) -> None:
            tuned.set_run_progress(2, number, 0)

        def update(number: int) -> None:
            crud.update_run(3, number)

        found = latencies(
            "one command",
            {
                "refold": refold,
                "refold, metrics": metrics,
                "refold, a row that others change": by_turns,
                "refold, a new id": new_id,
                "bare transaction": transaction,
                "bare, tuned by hand": by_hand,
                "one UPDATE": update,
            },
        )
    ours, metrics_, turns, new, plain, tuned_, crud_ = found.values()
    return Section(
        "One command on PostgreSQL",
        __doc__ or "",
        [*found.values()],
        [
            at_most(0.75, ours, plain, "11a"),
            at_most(0.75, metrics_, plain, "11a"),
            at_most(1.2, new, plain, "11d"),
            ratio(turns, plain),
            ratio(ours, tuned_),
            ratio(ours, crud_),
        ],
        notes=NOTES,
    )

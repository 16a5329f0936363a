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
    "Every commit waits for the disk.",
]


def one_command(places: Places) -> Section:
    """Measure `set_run_progress`."""
    server, schema = places.server, places.schema()
    with (
        RfDb(places.store("postgres")) as db,
        closing(BarePostgres(server, schema)) as bare,
        closing(HandTunedPostgres(server, schema)) as tuned,
        closing(BarePostgres(server, schema)) as crud,
    ):
        db.create_run(db.create_experiment("benchmark"))
        bare.create_tables(runs=3)

        def refold(number: int) -> None:
            db.set_run_progress(1, number, 0)

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
                "bare transaction": transaction,
                "bare, tuned by hand": by_hand,
                "one UPDATE": update,
            },
        )
    ours, plain, tuned_, crud_ = found.values()
    return Section(
        "One command on PostgreSQL",
        __doc__ or "",
        [*found.values()],
        [at_most(1.3, ours, plain, "11a"), ratio(ours, tuned_), ratio(ours, crud_)],
        notes=NOTES,
    )

"""What a process that has died may have left behind."""

from datetime import UTC, datetime

from refold.cli.checkup.finding import Finding, Findings
from refold.cli.output import span
from refold.eventstore import EventStore
from refold.eventstore.heads import projections_of
from refold.eventstore.recorded import MICROSECOND

QUIET = 10 * 60 * 1_000_000
"""Microseconds after which a store in which something should go on is suspiciously quiet."""

IN_PROGRESS = {
    "worker_task": ("tasks", "IN_PROGRESS"),
    "actor_tasks": ("tasks of actors", "in_progress"),
    "contexts": ("contexts", "building"),
    "worker_progress": ("workers", "IN_PROGRESS"),
}


def check_leftovers(store: EventStore) -> Findings:
    """Look for what is in progress in a store in which nothing happens any more."""
    last = next(store.read(limit=1, backwards=True, unknown=True), None)
    if last is None:
        return
    silence = (datetime.now(UTC) - last.time) // MICROSECOND
    if silence < QUIET:
        return
    with store.reading() as connection:
        known = projections_of(connection)
        counts = {
            word: connection.execute(f"SELECT count(*) FROM {table} WHERE status = ?", (status,))
            for table, (word, status) in IN_PROGRESS.items()
            if table in known
        }
        waiting: list[tuple[int, str, int]] = []
        if "interactive_control" in known:
            waiting = [
                (ic_id, operation, run_id)
                for ic_id, operation, run_id in connection.execute(
                    "SELECT ic_id, operation, run_id FROM interactive_control_folded "
                    "WHERE status = 'PENDING' ORDER BY ic_id"
                )
            ]
    left = ", ".join(f"{word} {found[0][0]}" for word, found in counts.items() if found[0][0])
    if left:
        yield Finding(
            "note",
            "in progress",
            f"nothing has happened for {span(silence)}, and these are in progress: {left}",
            "if their processes are gone, refold recover gives them up; refold status names them",
        )
    if waiting:
        told = ", ".join(f"{ic_id} ({operation} run {run})" for ic_id, operation, run in waiting)
        yield Finding(
            "note",
            "requests",
            f"nobody has heard, for {span(silence)}: {told}",
            "is the controller running? It takes them up when it starts again",
        )
    if not left and not waiting:
        yield Finding("ok", "leftovers", "nothing was left in progress")

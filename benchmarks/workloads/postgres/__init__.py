"""The store on a PostgreSQL server, beside the bare server and its peers."""

from contextlib import ExitStack

from benchmarks.peers.message_db import NotThere, message_db
from benchmarks.places import Places
from benchmarks.results import Section
from benchmarks.workloads.postgres.appending import appending
from benchmarks.workloads.postgres.delivery import delivery
from benchmarks.workloads.postgres.one_append import one_append
from benchmarks.workloads.postgres.one_command import one_command
from benchmarks.workloads.postgres.reading import reading
from benchmarks.workloads.postgres.writers import writers


def measure(places: Places) -> list[Section]:
    """Measure all that is measured on PostgreSQL only, or in another way than on SQLite."""
    with ExitStack() as afterwards:
        notes: list[str] = []
        database = None
        try:
            database = afterwards.enter_context(message_db(places))
        except NotThere as error:
            notes.append(f"without message-db: {error}")
        sections = [one_append(places, database), writers(places, database)]
        for section in sections:
            section.notes.extend(notes)
    return [
        one_command(places),
        *sections,
        appending(places),
        reading(places),
        delivery(places),
    ]

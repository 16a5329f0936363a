"""The bytes of a store's file, beside those of the JSON of its events."""

import secrets
import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks.logs import log
from benchmarks.places import Places
from benchmarks.results import Figure, Section, at_most, ratio
from refold import RfDb
from refold.export import json_lines

EVENTS = 1_000_000
RUNS = 100


class Counted(BytesIO):
    """A file that only counts what is written to it."""

    size = 0

    def write(self, content: Any, /) -> int:
        self.size += len(content)
        return len(content)


def measure(places: Places) -> list[Section]:
    """Measure the file of a log of a million events with its views, and of one payload."""
    place = log(places, "sqlite", EVENTS)
    lines = Counted()
    with RfDb(place) as db:
        json_lines.write(db, lines, payloads=False, progress=False)
    work = f"{EVENTS:,} events"
    with closing(sqlite3.connect(place)) as file:
        ((told,),) = file.execute("SELECT sum(length(CAST(data AS BLOB))) FROM events")
        data = _figure("what the events tell, as JSON", work, told)
        whole = _figure("the events as JSON Lines", work, lines.size)
        tables = _tables(file)
    ours = _figure("refold's file, with its views", work, Path(place).stat().st_size)
    events = _figure("refold's table of the events", work, tables["events"])
    once, many = (_with_payload(places, runs) for runs in (1, RUNS))
    shown = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in [*tables.items()][:8])
    return [
        Section(
            "Size on SQLite",
            __doc__ or "",
            [ours, events, data, whole, many, once],
            [
                at_most(1.5, ours, data, "13a"),
                ratio(events, data),
                ratio(ours, whole),
                at_most(1.1, many, once, "13b"),
            ],
            notes=[
                f"Where the bytes are: {shown}.",
                "What the events tell is the column data alone, such as "
                '{"run_id":7,"current_chunk":3,"current_epoch":0}: neither its type, its stream, '
                "its place there, nor who appended it and when. JSON Lines, what `refold export` "
                "writes, have all of that; here without the payloads.",
            ],
        )
    ]


def _tables(file: sqlite3.Connection) -> dict[str, int]:
    """Return the bytes of each table and index, the largest first."""
    return dict(
        file.execute("SELECT name, sum(pgsize) AS size FROM dbstat GROUP BY 1 ORDER BY 2 DESC")
    )


def _with_payload(places: Places, runs: int) -> Figure:
    place = places.store("sqlite")
    with RfDb(place) as db, db.batch():
        experiment_id = db.create_experiment("benchmark")
        config = {"weights": secrets.token_bytes(2_000_000)}
        for _ in range(runs):
            db.create_run(experiment_id, config_leaf=config)
    return _figure(
        f"refold's file, {runs} {'run' if runs == 1 else 'runs'}",
        "a configuration of 2 MB, the same for all",
        Path(place).stat().st_size,
    )


def _figure(contender: str, work: str, size: int) -> Figure:
    return Figure(contender, work, "MB", (size / 1e6,))

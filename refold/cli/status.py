"""`refold status`: what is running, since when, and when something last happened."""

from collections.abc import Callable, Iterable
from typing import Any

from refold.as_json import event_as_json, is_time, select, shown_row
from refold.cli.open_face import lag, open_face, open_log
from refold.cli.options import DEFAULT_STORE, At, Json, Store
from refold.cli.output import (
    Columns,
    colour_of,
    paint,
    print_json,
    print_table,
    printable,
    seconds_of,
    span,
)
from refold.eventstore import times
from refold.eventstore.event import event_type
from refold.eventstore.log.recorded import Recorded
from refold.eventstore.statuses import STAGES, Stage
from refold.projections import View
from refold.projections.entities import ENTITIES
from refold.projections.fit import interactive_control
from refold.rf_db import RfDb
from refold.rows import Row

UNDER_WAY = [word for word, stage in STAGES.items() if stage is Stage.UNDER_WAY]

RUNNING = {"experiments": "experiment", "runs": "run", "pipelines": "pipeline"}
"""What can be running, and the word for one of them."""

COUNTED = ("run", "task", "request", "context", "pipeline", "actor_task")
"""What is counted by status."""


def status(at: At = None, json: Json = False, store: Store = DEFAULT_STORE) -> None:
    """Tell what is running, since when, who works on it, and what happened last.

    Examples:
        refold status
        refold status --at 2026-01-31T12:00Z
        REFOLD_STORE=postgresql://user@host/database refold status --json
    """
    with open_log(store) as log:
        name, behind = log.engine.name, lag(log)
    with open_face(store, at=at) as db:
        last = next(db.store.read(limit=1, backwards=True, unknown=True), None)
        # As of a moment, that moment is now.
        now = last.recorded_at if at is not None and last is not None else times.now()
        state: dict[str, Any] = {
            "store": name,
            "position": db.store.head(),
            "last_event": None if last is None else event_as_json(last),
            "behind": behind,
            **{name: _running(db, ENTITIES[word], config=json) for name, word in RUNNING.items()},
            "who": [shown_row(row) for row in db.members()],
            "pending": select(db, interactive_control, {"status": "PENDING"}, config=json),
            "counts": {f"{word}s": _counts(db, ENTITIES[word].table) for word in COUNTED},
        }
    if json:
        print_json(state)
    else:
        _print(state, last, now)


def _running(db: RfDb, view: View[Any], *, config: bool) -> list[Row]:
    assert view.stream is not None
    rows = select(db, view, {"status": UNDER_WAY}, config=config)
    # The events since whose last one it has been running.
    begun = [
        name
        for name, handler in view.handlers.items()
        if handler.begins or _leads_to(name) in UNDER_WAY
    ]
    for row in rows:
        stream = view.stream.format(row[view.key])
        events = db.store.read(stream=stream, types=begun, backwards=True, limit=1)
        row["since"] = next(
            (times.to_iso(times.within(event.recorded_at)) for event in events), row["created_at"]
        )
    return rows


def _leads_to(type_name: str) -> str | None:
    event = event_type(type_name)
    return None if event is None or event.leads_to is None else event.leads_to.upper()


def _counts(db: RfDb, table: str) -> dict[str, int]:
    sql = f"SELECT status, count(*) AS n FROM {table} GROUP BY status ORDER BY min(position)"
    return {row["status"]: row["n"] for row in db.views.select(sql)}


# --- text ---------------------------------------------------------------------------------------


def _print(state: dict[str, Any], last: Recorded | None, now: int) -> None:
    _print_line("store", printable(f"{state['store']}, position {state['position']}"))
    if last is None:
        _print_line("last event", "nothing has happened yet")
        return
    _print_last(last, now)
    if state["behind"]:
        views = ", ".join(f"{name} by {by}" for name, by in state["behind"].items())
        _print_line("views", f"were behind, and have been caught up: {views}")
    for word, counts in state["counts"].items():
        if counts:
            _print_line(word.replace("_", " "), ", ".join(_counted(counts)))
    for name, columns in _sections(now).items():
        if state[name]:
            print()
            print_table(state[name], columns)
    if not any(state[name] for name in RUNNING):
        print("\nnothing is running")


def _print_last(last: Recorded, now: int) -> None:
    by = f" by {last.metadata.actor}" if last.metadata.actor else ""
    silence = now - last.recorded_at
    # As of a moment there is none; and a clock may have been ahead, see refold doctor.
    ago = f", {span(silence)} ago" if silence > 0 else ""
    happened = (
        f"{last.type} in {last.stream}{by}{ago} ({times.to_iso(times.within(last.recorded_at))})"
    )
    _print_line("last event", printable(happened))


def _sections(now: int) -> dict[str, Columns]:
    """Return the columns of each table that is shown."""

    def since(text: str) -> str:
        if not is_time(text):
            return text
        began = times.from_iso(text)
        return f"{seconds_of(began)} ({span(now - began)})"

    last: Columns = {"SINCE": lambda row: since(row["since"])}
    return {
        "experiments": {
            "EXPERIMENT": "experiment_id",
            "NAME": "experiment_name",
            "KIND": "kind",
            "STATUS": "status",
            **last,
        },
        "runs": {
            "RUN": "run_id",
            "NAME": "run_name",
            "STATUS": "status",
            "EPOCH": "current_epoch",
            "CHUNK": "current_chunk",
            "OF": "num_chunks",
            "METRICS": "metrics",
            **last,
        },
        "pipelines": {
            "PIPELINE": "pipeline_id",
            "NAME": "pipeline_name",
            "STATUS": "status",
            "SHARDS": "shards_completed",
            "SAMPLES": "total_samples_processed",
            **last,
        },
        "who": {
            "WHO": "who",
            "DOES": "does",
            "STATUS": "status",
            "ON": "on",
            **last,
            **columns_of_members(since),
        },
        "pending": {
            "REQUEST": "ic_id",
            "OPERATION": "operation",
            "RUN": "run_id",
            "STATUS": "status",
            "MADE": lambda row: since(row["created_at"]),
        },
    }


def columns_of_members(shown: Callable[[str], str]) -> Columns:
    """Return the columns that tell whether somebody is alive."""
    return {
        "HEARD OF": lambda row: shown(row["heard"]),
        "ALIVE": alive,
        "LOST SINCE": lambda row: row["lost_since"] and shown(row["lost_since"]),
    }


KNOWN_BY = {True: "its lock is held", False: "its lock is free"}


def alive(row: Row) -> str | None:
    """Return whether somebody is alive, and how that is known."""
    if row["alive"] is None:
        return "unknown" if row["known_by"] else None
    known = (
        ""
        if row["known_by"] is None
        else {"lock": KNOWN_BY[row["alive"]]}.get(
            row["known_by"], f"declared by a {row['known_by']}"
        )
    )
    process = "" if row["process"] is None else f", process {row['process']}"
    return f"{'yes' if row['alive'] else 'no'} ({known}{process})"


def _print_line(name: str, text: str) -> None:
    print(f"{paint(f'{name:<12}', dim=True)}{text}")


def _counted(counts: dict[str, int]) -> Iterable[str]:
    return (f"{n} {paint(word, colour_of(word))}" for word, n in counts.items())

"""The faces as of a moment change nothing, and say which event cannot be read."""

import inspect
from collections.abc import Callable

import pytest
from face_methods import METHODS, VALID, Faces
from random_logs import append_row, exactly
from tables import tables
from test_damaged_events import damage

from refold import RFDatabase, RfDb, UnknownEventType, WriteRefused
from refold.commands import SetRunStatus
from refold.eventstore import DamagedEvent, EventStore
from refold.eventstore.events import ExperimentCreated, RunProgressed
from refold.eventstore.statuses import RunStatus
from refold.face import Face

# --- nothing but reads -------------------------------------------------------------------------

READS = {
    "members",
    "backup",
    "as_of",
    "changes_by",
    "close",
    "create_tables",
    "diff",
    "history",
    "checkpoints",
    "latest_checkpoint",
    "metric_history",
    "runs_frame",
    "search_runs",
    "position_at",
    "to_arrow",
    "verify",
    "why",
}
"""The methods that change nothing, besides those that begin with get_."""

CALLS: dict[str, Callable[[Face], object]] = {
    "metrics": lambda past: past.metrics(1),
    "append": lambda face: face.append(ExperimentCreated(9, "fit", "digits", "NEW")),
    "backup": lambda face: face.backup("backup.db"),
    "batch": lambda face: face.batch().__enter__(),
    "rebuild": lambda face: face.rebuild(),
    "send": lambda face: face.send(SetRunStatus(1, RunStatus.ONGOING)),
    "subscribe": lambda face: face.subscribe(),
    "watching": lambda face: face.watching().__enter__(),
}
"""How to call the others that are no commands."""


@pytest.mark.parametrize("kind", ["RfDb", "RFDatabase"])
def test_whatever_changes_something_is_refused(db: RfDb, evals: RFDatabase, kind: str) -> None:
    faces = Faces(db, evals)
    face: Face = db if kind == "RfDb" else evals
    past = face.as_of(face.store.head() - 1)
    before = tables(past), tables(face), faces.kept()
    refused: list[str] = []
    for name, _ in inspect.getmembers(type(face), inspect.isfunction):
        if name.startswith(("_", "get_")) or name in READS:
            continue
        arguments = VALID[kind].get(name) or VALID["RfDb"].get(name, {})
        with pytest.raises(WriteRefused, match=r"as of position \d+") as caught:
            CALLS[name](past) if name in CALLS else getattr(past, name)(**arguments)
        assert face.store.engine.name in str(caught.value)
        assert (tables(past), tables(face), faces.kept()) == before
        refused.append(name)
    assert {"append", "put_payload", "reset_all_tables", "create_experiment"} < set(refused)
    assert face.verify() == past.verify() == []


def test_whatever_reads_is_not(db: RfDb, evals: RFDatabase) -> None:
    faces = Faces(db, evals)
    digest = db.put_payload(1)
    for kind, name in METHODS:
        if name.startswith("get_"):
            arguments = {"digest": digest} if name == "get_payload" else VALID[kind][name]
            face = db if kind == "RfDb" else evals
            past = face.as_of(face.store.head())
            assert getattr(past, name)(**arguments) == faces.call(kind, name, **arguments)


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.append("run-1", [RunProgressed(1, 1, 0)]),
        lambda store: store.put_payload(b"1"),
        lambda store: store.perform(lambda _: None),
        lambda store: store.transaction().__enter__(),
        lambda store: store.subscribe(),
    ],
)
def test_its_store_refuses_too(db: RfDb, write: Callable[[EventStore], object]) -> None:
    db.create_experiment("digits")
    with pytest.raises(WriteRefused, match="as of position 1"):
        write(db.as_of(1).store)
    assert db.store.head() == 1


def test_statements_that_would_write_are_refused(db: RfDb) -> None:
    db.create_run(db.create_experiment("digits"))
    past = db.as_of(2)
    before = tables(past)
    for statement in [
        "DELETE FROM runs",
        "DELETE FROM runs_folded",
        "DELETE FROM main.runs_folded",
        "UPDATE experiments SET status = 'x'",
        "INSERT INTO payloads VALUES ('x', 'y')",
        "CREATE TABLE t (x)",
        "CREATE TEMP TABLE t (x)",
        "DROP VIEW temp.runs",
        "DROP TABLE main.runs_folded",
        "ATTACH ':memory:' AS other",
        "PRAGMA user_version = 5",
        "PRAGMA journal_mode = DELETE",
        "BEGIN",
        "VACUUM",
    ]:
        for commit in (False, True):
            with pytest.raises(WriteRefused, match="would write"):
                past.db.execute(statement, commit=commit)
        assert tables(past) == before


# --- what cannot be read -----------------------------------------------------------------------


def test_everything_before_a_damaged_event_stays_readable(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    for chunk in range(1, 6):
        db.set_run_progress(run_id, chunk, 0)
    shown = {p: exactly(tables(db.as_of(p))) for p in range(5)}
    damage(place, 5, '{"run_id":1,"curr')
    with RfDb(place) as fresh:
        for face in (db, fresh):
            for position in range(5):
                past = face.as_of(position)
                assert exactly(tables(past)) == shown[position]
                assert past.verify() == []
        for position in (5, 6, 7):
            past = fresh.as_of(position)
            for look in (lambda: past.get_run(run_id), lambda: tables(past), past.verify) * 2:  # noqa: B023
                with pytest.raises(DamagedEvent, match=r"event 5 .*cannot be decoded") as caught:
                    look()
                assert caught.value.position == 5
        past = fresh.as_of(4)
        assert past.get_run(run_id)["current_chunk"] == 2
        assert fresh.get_run(run_id)["current_chunk"] == 5


def test_an_event_of_a_newer_release_in_the_way(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    append_row(place, "run-1", "RunProgressed", {"percent": 12.5}, schema_version=9)
    assert db.as_of(2).get_run(run_id)["run_name"] == "run_1"
    assert db.as_of(2).verify() == []
    with pytest.raises(UnknownEventType, match="event 3: type 'RunProgressed', schema version 9"):
        db.as_of(3).get_run(run_id)


def test_a_type_that_no_view_takes_in_is_in_nobodys_way(db: RfDb, place: str) -> None:
    db.create_experiment("digits")
    append_row(place, "patient-1", "DoseForgotten", {})
    db.create_experiment("letters")
    assert [len(tables(db.as_of(p))["experiments"]) for p in range(4)] == [0, 1, 1, 2]

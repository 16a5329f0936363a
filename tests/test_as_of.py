"""The faces as of a moment: what they showed then, and nothing but reads."""

import gc
import inspect
import os
import re
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from children import Child, Parent, call
from face_methods import METHODS, VALID, Faces
from hypothesis import given
from hypothesis import settings as Settings
from hypothesis import strategies as st
from random_logs import (
    OWN,
    BirdSeen,
    BirdsFlown,
    BirdsRinged,
    FlockLed,
    Log,
    Step,
    append_row,
    exactly,
    log_of,
    steps,
)
from tables import folded, tables
from test_damaged_events import damage
from test_forks import ended_well, forked
from tries import tries

from commands import SetRunStatus
from eventstore import DamagedEvent, EventStore, Id
from eventstore.events import (
    Event,
    ExperimentCreated,
    RunCreated,
    RunMetricsRecorded,
    RunProgressed,
    TablesReset,
)
from eventstore.recorded import EPOCH, MICROSECOND
from eventstore.statuses import RunStatus
from projections import Row, View
from projections.past import recorder, versions
from refold import (
    DBException,
    InvalidMoment,
    InvalidQuery,
    NotFound,
    PayloadRefused,
    RFDatabase,
    RfDb,
    StoreClosed,
    StoreFailed,
    StoreFull,
    UnknownEventType,
    WriteRefused,
    encode_payload,
)
from refold.face import Face

Place = Callable[[], str]


# --- as it was ---------------------------------------------------------------------------------


def check_every_position(log: Log) -> None:
    for position, then in log.folded().items():
        with log.db.as_of(position) as past:
            assert past.store.head() == position
            assert tables(past) == then
            assert past.verify() == []
            if position in log.seen:
                assert exactly(tables(past)) == exactly(log.seen[position])


def check_random_logs(
    new_place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    """With all rows in memory while they are folded, and with few or none of them."""

    @settings
    @given(
        st.lists(steps, max_size=longest),
        st.sampled_from([400_000, 4, 2, 1, 0]),
        st.sampled_from([20_000, 4, 1]),
    )
    def check(happens: list[Step], remembered: int, per_flush: int) -> None:
        monkeypatch.setattr(recorder, "ROWS_REMEMBERED", remembered)
        monkeypatch.setattr(versions, "EVENTS_PER_FLUSH", per_flush)
        with log_of(new_place(), happens) as log:
            check_every_position(log)

    check()


def test_every_position_shows_what_was_seen_then(
    new_place: Place, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_random_logs(new_place, tries(engine, 32), monkeypatch, 10)


def test_rows_that_are_not_in_memory_are_loaded_again(
    new_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "ROWS_REMEMBERED", 0)
    monkeypatch.setattr(versions, "EVENTS_PER_FLUSH", 1)
    runs: list[Event] = [RunCreated(n, 1, f"run_{n}", num_chunks=n) for n in range(1, 4)]
    happens: list[Step] = [
        ("append", [ExperimentCreated(1, "fit", "digits", "NEW"), *runs]),
        ("append", [RunProgressed(2, 1, 0), RunProgressed(3, 1, 0), RunProgressed(2, 2, 0)]),
        ("append", [TablesReset(False), runs[1], RunProgressed(1, 7, 0), RunProgressed(2, 3, 0)]),
        ("append", [BirdSeen(1, "oak", 2.0), BirdSeen(2, "oak"), BirdsRinged([1, 1, 2])]),
        ("append", [FlockLed(1), BirdsFlown([1, 1]), BirdSeen(1, "elm"), TablesReset(True)]),
    ]
    with log_of(new_place(), happens) as log:
        check_every_position(log)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_position_of_long_logs_shows_what_was_seen_then(
    new_place: Place, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_random_logs(new_place, tries(engine, 1_000), monkeypatch, 60)


def test_a_face_shows_the_same_for_ever(
    new_place: Place, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it looked before the log went on, or looks only now."""

    @tries(engine, 20)
    @given(st.lists(st.tuples(steps, st.booleans()), max_size=10), st.integers(0, 4))
    def check(happens: list[tuple[Step, bool]], remembered: int) -> None:
        monkeypatch.setattr(recorder, "ROWS_REMEMBERED", remembered)
        monkeypatch.setattr(versions, "EVENTS_PER_FLUSH", 2)
        with log_of(new_place(), []) as log:
            faces: list[tuple[RfDb, str]] = []
            for step, looks in happens:
                log.take(step)
                past, shown = log.db.as_of(log.db.store.head()), exactly(tables(log.db))
                if looks:
                    assert exactly(tables(past)) == shown
                faces.append((past, shown))
            for past, shown in faces:
                assert exactly(tables(past)) == shown
                assert past.verify() == []

    check()


def answers(face: Face) -> dict[str, Any]:
    """Return what all get_ methods of a face say, for a few ids."""
    found: dict[str, Any] = {}
    for name, method in inspect.getmembers(face, inspect.ismethod):
        if not name.startswith("get_") or name == "get_payload":
            continue
        valid = VALID[type(face).__name__].get(name) or VALID["RfDb"].get(name, {})
        for number in range(3):
            arguments = {n: number if isinstance(v, int) else v for n, v in valid.items()}
            try:
                found[f"{name} {arguments}"] = method(**arguments)
            except DBException as error:
                found[f"{name} {arguments}"] = f"{type(error).__name__}: {error}"
            if not valid:
                break
    return found


def test_the_faces_answer_as_they_did(new_place: Place, engine: str) -> None:
    @tries(engine, 16)
    @given(st.lists(steps, max_size=8))
    def check(happens: list[Step]) -> None:
        seen: dict[int, tuple[str, str]] = {}
        with log_of(new_place(), []) as log, RFDatabase(log.place, projections=OWN) as evals:
            for step in happens:
                log.take(step)
                seen[log.db.store.head()] = exactly(answers(log.db)), exactly(answers(evals))
            for position, told in seen.items():
                past = exactly(answers(log.db.as_of(position)))
                assert (past, exactly(answers(evals.as_of(position)))) == told

    check()


def test_the_beginning_is_empty(db: RfDb) -> None:
    assert not any(tables(db.as_of(0)).values())
    db.create_experiment("digits")
    past = db.as_of(0)
    assert not any(tables(past).values())
    assert list(past.store.read()) == []
    assert past.verify() == []
    with pytest.raises(NotFound, match="no experiment 1"):
        past.get_experiment(1)


def test_the_log_ends_at_the_moment(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    db.set_run_progress(run_id, 1, 0)
    db.set_run_progress(run_id, 2, 0)
    past, events = db.as_of(3).store, list(db.store.read())
    assert list(past.read()) == events[:3]
    assert list(past.read(backwards=True, limit=1)) == events[2:3]
    assert list(past.read(until=2)) == events[:2]
    assert list(past.read(until=9)) == events[:3]
    assert list(past.read(stream="run-1")) == events[1:3]
    assert list(past.read(types=[RunProgressed])) == events[2:3]
    assert list(past.read_at([1, 3, 4])) == [events[0], events[2]]
    assert [past.version(stream) for stream in ("run-1", "experiment-1", "run-2")] == [2, 1, 0]
    assert past.current() is None
    with past.snapshot(), past.reading() as connection:
        assert connection.execute("SELECT 1") == [(1,)]


def test_a_moment_of_a_moment(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    for chunk in (1, 2, 3):
        db.set_run_progress(run_id, chunk, 0)
    times = {e.position: e.time for e in db.store.read()}
    past = db.as_of(4)
    for earlier in (3, times[3]):
        assert past.as_of(earlier).get_run(run_id)["current_chunk"] == 1
        assert past.as_of(earlier).store.head() == past.position_at(earlier) == 3
    assert past.as_of(4).get_run(run_id) == past.get_run(run_id)
    with pytest.raises(InvalidMoment, match=r"no position 5: .*4"):
        past.as_of(5)
    assert past.position_at(datetime.now(UTC)) == 4
    assert [t.recorded.position for t in past.history("run", run_id)] == [2, 3, 4]
    assert past.why("run", run_id, "current_chunk").value == 2
    assert [c.after and c.after["current_chunk"] for c in past.diff(3, 4)] == [2]


# --- reads of every kind -----------------------------------------------------------------------


def test_queries_see_the_moment(db: RfDb) -> None:
    experiment_id = db.create_experiment("digits", status="RUNNING")
    for lr in (0.1, 0.2):
        db.create_run(experiment_id, config_leaf={"lr": lr})
    past = db.as_of(db.store.head())
    before = past.db.execute("SELECT * FROM runs ORDER BY run_id")
    assert before == db.db.execute("SELECT * FROM runs ORDER BY run_id")
    db.set_run_status(1, "ONGOING")
    db.create_run(experiment_id)
    query = "SELECT count(*) AS n FROM runs WHERE status = ?"
    assert past.db.execute(query, ("NEW",)) == [{"n": 2}]
    assert past.db.execute(query, ["ONGOING"]) == [{"n": 0}]
    assert past.db.execute("SELECT * FROM runs ORDER BY run_id") == before
    assert past.db.execute(
        "WITH r AS (SELECT * FROM runs_folded) SELECT experiment_name, max(r.run_id) AS last "
        "FROM r JOIN experiments USING (experiment_id) GROUP BY 1"
    ) == [{"experiment_name": "digits", "last": 2}]
    assert past.db.execute('SELECT "run_id" FROM "Runs" WHERE run_id = 2') == [{"run_id": 2}]
    [row] = past.db.execute("SELECT created_at, updated_at FROM runs WHERE run_id = 1")
    assert row["created_at"] == row["updated_at"] == before[0]["created_at"]


def test_a_query_of_nothing(db: RfDb) -> None:
    past = db.as_of(0)
    assert [past.db.execute(nothing) for nothing in ("", "-- a remark", " ; ")] == [[], [], []]


def test_a_wrong_query_is_refused_and_spoils_nothing(db: RfDb) -> None:
    db.create_experiment("digits")
    past = db.as_of(1)
    for query in ("SELEC 1", "SELECT ?", "SELECT 1; SELECT 2", "SELECT * FROM nowhere"):
        with pytest.raises(InvalidQuery, match=re.escape(query)):
            past.db.execute(query)
        assert past.get_experiment(1)["experiment_name"] == "digits"


def test_payloads_and_configurations(place: str) -> None:
    with RfDb(place, signing_key="secret") as db:
        experiment_id = db.create_experiment("digits")
        digest = db.put_payload({"weights": (1, 2.0)})
        configs: list[Any] = [{"lr": (0.1, None), "table": b"\0" * 100_000}, None]
        for config in configs:
            db.create_run(experiment_id, config_leaf=config)
        request = db.request_clone_modify(1, config_leaf=configs[0])
        past = db.as_of(db.store.head())
        db.mark_ic_ops_completed(request)
        db.create_run(experiment_id, config_leaf={"later": True})
        assert past.get_payload(digest) == {"weights": (1, 2.0)}
        assert [run["config_leaf"] for run in past.get_all_runs()] == configs
        assert [r["config_leaf"] for r in past.get_ic_ops_request()] == configs[:1]
        assert db.as_of(db.store.head()).get_run(3)["config_leaf"] == {"later": True}
        with pytest.raises(NotFound, match="no payload has the digest"):
            past.get_payload("0" * 64)
    with RfDb(place, signing_key="another") as db, pytest.raises(PayloadRefused):
        db.as_of(2).get_run(1)


def test_many_payloads_at_a_time(db: RfDb, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {db.put_payload(n): encode_payload(n) for n in range(9)}
    large = db.put_payload("x" * 99)
    contents[large] = encode_payload("x" * 99)
    wanted = [*contents, large, "0" * 64, "no digest"]
    for keys, parcel in [(500, 2**24), (2, 2**24), (3, 20), (1, 1)]:
        monkeypatch.setattr("eventstore.store.KEYS", keys)
        monkeypatch.setattr("eventstore.parcels.PARCEL", parcel)
        for store in (db.store, db.as_of(0).store):
            found = list(store.get_payloads(iter(wanted)))
            assert found == sorted(contents.items())
    assert list(db.store.get_payloads([])) == []


class Leased(Event, frozen=True):
    lease_id: Id
    until: int
    terms: str | None = None

    @property
    def stream(self) -> str:
        return f"lease-{self.lease_id}"


class Lease(Row, frozen=True, kw_only=False):
    """Its columns have names that mean something elsewhere."""

    lease_id: int
    until: int
    rowid: int = 7


leases = View("leases", Lease, version=1)
leases.created_by(Leased, lambda e: Lease(e.lease_id, e.until))


class Term(Row, frozen=True, kw_only=False):
    lease_id: int
    share: float
    terms_digest: str | None


# With a schema of its own, and an SQL view that reads other views and a payload.
terms = View(
    "terms",
    Term,
    version=1,
    table="terms_folded",
    schema="""
        CREATE TABLE terms_folded (
            lease_id INTEGER PRIMARY KEY, share REAL NOT NULL, terms_digest TEXT,
            created_at TEXT NOT NULL, updated_at TEXT NOT NULL, position INTEGER NOT NULL
        );
        CREATE INDEX terms_by_share ON terms_folded (share);
        create view terms as
        SELECT lease_id, share, (SELECT count(*) FROM experiments) AS experiments, until, content
        FROM terms_folded JOIN leases USING (lease_id) LEFT JOIN payloads ON digest = terms_digest;
    """,
)
terms.put_by(Leased, lambda _, e: Term(e.lease_id, e.until / 2, e.terms), key=lambda e: e.lease_id)


def test_views_of_ones_own(place: str) -> None:
    with RfDb(place, projections=[leases, terms]) as db:
        texts = [db.store.put_payload(content) for content in (b"first", b"second")]
        db.append(Leased(1, 5, texts[0]))
        db.create_experiment("digits")
        db.append(Leased(1, 6, texts[1]), Leased(2, 4))
        for position, expected in [
            (1, (5, 2.5, 0, b"first")),
            (2, (5, 2.5, 1, b"first")),
            (4, (6, 3.0, 1, b"second")),
        ]:
            past = db.as_of(position)
            [row] = past.db.execute("SELECT * FROM terms WHERE lease_id = 1")
            told = (row["until"], row["share"], row["experiments"], row["content"])
            assert exactly(told) == exactly(expected)
            [row] = past.db.execute("SELECT * FROM leases WHERE lease_id = 1")
            assert (row["until"], row["rowid"]) == (expected[0], 7)
            assert past.verify() == []
        assert tables(db.as_of(4)) == tables(db)
        changed = [change for change in db.diff(1, 4) if change.view == "leases"]
        assert [change.columns.get("until") for change in changed] == [(5, 6), (None, 4)]
        assert [one.change.kind for one in db.history("leases", 1)] == ["added", "changed"]


# --- nothing but reads -------------------------------------------------------------------------

READS = {
    "as_of",
    "changes_by",
    "close",
    "create_tables",
    "diff",
    "history",
    "position_at",
    "to_arrow",
    "verify",
    "why",
}
"""The methods that change nothing, besides those that begin with get_."""

CALLS: dict[str, Callable[[Face], object]] = {
    "append": lambda face: face.append(ExperimentCreated(9, "fit", "digits", "NEW")),
    "batch": lambda face: face.batch().__enter__(),
    "rebuild": lambda face: face.rebuild(),
    "send": lambda face: face.send(SetRunStatus(1, RunStatus.ONGOING)),
    "subscribe": lambda face: face.subscribe(),
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


# --- what is no moment -------------------------------------------------------------------------

ABROAD = timezone(timedelta(hours=-11, minutes=-30))


NO_MOMENTS: list[tuple[Any, str]] = [
    (3, r"no position 3: the last that was committed is 2"),
    (2**63, r"no position 9223372036854775808"),
    (2**200, r"no position"),
    (-1, r"-1"),
    (True, r"True is no moment: pass a position, or a time with its zone"),
    (1.0, r"1\.0 is no moment"),
    (float("nan"), r"nan is no moment"),
    ("1", r"'1' is no moment"),
    ("2026-01-31T12:00:00Z", r"is no moment"),
    (None, r"None is no moment"),
    ([1], r"\[1\] is no moment"),
    (date(2026, 1, 31), r"is no moment"),
    (timedelta(1), r"is no moment"),
    (datetime(2026, 1, 31, 12), r"2026-01-31 12:00:00 has no zone: pass it with one"),
    (datetime.max, r"has no zone"),
    (datetime.max.replace(tzinfo=UTC), r"lies in the future"),
    (datetime.max.replace(tzinfo=ABROAD), r"lies in the future"),
    (EPOCH, r"no event had happened by 1970-01-01 00:00:00\+00:00: the first is of"),
    (datetime.min.replace(tzinfo=UTC), r"no event had happened by 0001-01-01"),
    (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), r"no event had happened by"),
]


@pytest.mark.parametrize("look", ["as_of", "position_at", "diff from", "diff to"])
def test_what_is_no_moment(db: RfDb, look: str) -> None:
    db.create_run(db.create_experiment("digits"))
    looks: dict[str, Callable[[Any], object]] = {
        "as_of": db.as_of,
        "position_at": db.position_at,
        "diff from": lambda a: db.diff(a, 2),
        "diff to": lambda b: db.diff(2, b),
    }
    for moment, message in NO_MOMENTS:
        with pytest.raises(InvalidMoment, match=message):
            looks[look](moment)


def test_moments_of_an_empty_store(db: RfDb) -> None:
    assert db.position_at(0) == 0
    with pytest.raises(InvalidMoment, match=r"no position 1: .*0"):
        db.as_of(1)
    with pytest.raises(InvalidMoment, match="none has yet"):
        db.as_of(datetime.now(UTC))


# --- times -------------------------------------------------------------------------------------

START = 1_700_000_000_000_000


def test_a_time_is_the_last_event_up_to_it(new_place: Place, engine: str) -> None:
    jumps = st.sampled_from([0, 0, 1, 2, 1_000_000, -1, -3_600_000_000, 86_400_000_000])

    @tries(engine, 20)
    @given(st.lists(st.tuples(jumps, st.integers(1, 3)), min_size=1, max_size=8))
    def check(batches: list[tuple[int, int]]) -> None:
        now = START
        with RfDb(new_place(), clock=lambda: now) as db:
            for jump, count in batches:
                now += jump
                db.append(*[RunProgressed(1, n, 0) for n in range(count)])
            times = {e.position: e.recorded_at for e in db.store.read()}
            for recorded_at in set(times.values()):
                for microseconds in (recorded_at - 1, recorded_at, recorded_at + 1):
                    moment = EPOCH + microseconds * MICROSECOND
                    by_then = [p for p, at in times.items() if at <= microseconds]
                    for zone in (UTC, ABROAD):
                        if by_then:
                            assert db.position_at(moment.astimezone(zone)) == max(by_then)
                        else:
                            with pytest.raises(InvalidMoment, match="the first is of"):
                                db.position_at(moment.astimezone(zone))
                by_then = [p for p, at in times.items() if at <= recorded_at]
                face = db.as_of(EPOCH + recorded_at * MICROSECOND)
                assert tables(face) == tables(db.as_of(max(by_then)))

    check()


def test_the_time_of_an_event_is_no_future(place: str) -> None:
    """The clock of the machine that recorded it may be ahead of this one."""
    ahead = time.time_ns() // 1_000 + 3_600_000_000
    with RfDb(place, clock=lambda: ahead) as db:
        db.create_experiment("digits")
        [recorded] = db.store.read()
        assert db.position_at(recorded.time) == 1
        assert db.as_of(recorded.time).get_experiment(1)["experiment_name"] == "digits"
        with pytest.raises(InvalidMoment, match="lies in the future"):
            db.as_of(recorded.time + MICROSECOND)


def test_times_of_a_log_whose_events_cannot_be_decoded(place: str) -> None:
    append_row(place, "patient-1", "DoseForgotten", {})
    with RfDb(place) as db:
        db.create_experiment("digits")
        append_row(place, "patient-1", "DoseForgotten", {})
        first, second, _ = db.store.read(unknown=True)
        assert db.position_at(first.time) == 1
        assert db.position_at(second.time - MICROSECOND) == 1
        assert db.as_of(datetime.now(UTC)).get_experiment(1)["experiment_name"] == "digits"
        assert db.as_of(3).store.version("patient-1") == 2


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


# --- many at once, and for long ----------------------------------------------------------------


def test_many_faces_are_open_at_once(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    for chunk in range(1, 61):
        db.set_run_progress(run_id, chunk, 0)
    faces = [db.as_of(position) for position in range(2, 63)]
    for _ in range(2):
        assert [face.get_run(run_id)["current_chunk"] for face in faces] == list(range(61))
    for face in faces[::2]:
        face.close()
    assert [face.get_run(run_id)["current_chunk"] for face in faces[1::2]] == list(range(1, 61, 2))


def test_threads_look_back_while_the_log_goes_on(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    done = threading.Event()
    shared = db.as_of(2)

    def look(seed: int) -> int:
        looks = 0
        while not done.is_set() or not looks:
            head = db.store.head()
            for position in {2, (head + seed) // 2, head} - {1}:
                position = max(2, position)
                assert db.as_of(position).get_run(run_id)["current_chunk"] == position - 2
                assert shared.get_run(run_id)["current_chunk"] == 0
                assert len(db.diff(2, position)) == (position > 2)
            looks += 1
        return looks

    with ThreadPoolExecutor(4) as pool:
        try:
            looking = [pool.submit(look, seed) for seed in range(4)]
            for chunk in range(1, 41):
                db.set_run_progress(run_id, chunk, 0)
        finally:
            done.set()
        assert all(looked.result() for looked in looking)


def progress(parent: Parent, place: str, run_id: int, count: int) -> None:
    with RfDb(place) as db:
        parent.tell("ready")
        for chunk in range(count):
            db.append(RunProgressed(run_id, chunk, 0), RunMetricsRecorded(run_id, {"loss": chunk}))


def test_other_processes_append_meanwhile(db: RfDb, place: str) -> None:
    """A moment, once seen, stays as it is: nothing comes in below it, on any engine."""
    count = 20
    for _ in range(3):
        db.create_run(1 if db.store.head() else db.create_experiment("digits"))
    seen: dict[int, str] = {}
    children = [Child(progress, place, run_id, count) for run_id in (1, 2, 3)]
    try:
        for child in children:
            child.hear()
        while not all(child.has_ended() for child in children):
            head = db.store.head()
            seen[head] = exactly(tables(db.as_of(head)))
        for child in children:
            child.result()
    finally:
        for child in children:
            child.__exit__(None, None, None)
    seen[db.store.head()] = exactly(tables(db))
    events = list(db.store.read())
    for position, shown in seen.items():
        past = tables(db.as_of(position))
        assert past == folded(e for e in events if e.position <= position)
        assert exactly(past) == shown


# --- batches -----------------------------------------------------------------------------------


class Regret(Exception):
    pass


def test_within_a_batch_only_what_is_committed_is_past(db: RfDb) -> None:
    db.create_experiment("a")
    with db.batch():
        db.create_experiment("b")
        past = db.as_of(1)
        assert len(tables(past)["experiments"]) == 1
        for look in (
            db.as_of,
            db.position_at,
            partial(db.diff, 1),
            lambda _: db.changes_by(list(db.store.read())[-1]),
        ):
            with pytest.raises(InvalidMoment, match="2"):
                look(2)
        assert len(tables(db)["experiments"]) == 2
    assert len(tables(past)["experiments"]) == 1
    assert len(tables(db.as_of(2))["experiments"]) == 2
    assert [change.key for change in db.diff(1, 2) if change.view == "experiments"] == [2]


def test_a_batch_that_is_rolled_back_leaves_nothing_in_the_past(db: RfDb) -> None:
    db.create_experiment("a")
    with suppress(Regret), db.batch():
        db.create_experiment("b")
        db.put_payload({"never": "stored"})
        assert len(tables(db.as_of(1))["experiments"]) == 1
        raise Regret
    with suppress(Regret), db.batch():
        db.create_run(1)
        raise Regret
    db.create_experiment("c")
    past = db.as_of(db.store.head())
    assert [row["experiment_name"] for row in tables(past)["experiments"]] == ["a", "c"]
    assert past.verify() == []
    [created] = db.history("experiment", 2)
    assert created.change.columns["experiment_name"] == (None, "c")


# --- when a fold of the past is interrupted ----------------------------------------------------


class Interrupted(Exception):
    pass


def test_an_interrupted_fold_leaves_open_faces_right(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, a full disk, a projection that raises: whoever looks next sees all."""
    with RfDb(place, projections=OWN) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.append(BirdSeen(1, "oak"))
        past = db.as_of(3)
        assert past.get_experiment(1)["experiment_name"] == "digits"
        handlers = OWN[0].handlers
        whole = handlers["BirdSeen"]

        def interrupt(*_: object) -> None:
            raise Interrupted

        with monkeypatch.context() as patch:
            patch.setitem(handlers, "BirdSeen", type(whole)(interrupt, whole.key, begins=True))
            with pytest.raises(Interrupted):
                db.as_of(3).db.execute("SELECT * FROM birds")
        assert past.get_run(run_id)["run_name"] == "run_1"
        assert tables(past) == tables(db.as_of(3)) == tables(db)
        assert past.verify() == []


def test_a_temporary_folder_that_somebody_sweeps(
    db: RfDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systems remove old temporary files by themselves."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    db.create_experiment("a")
    assert len(tables(db.as_of(1))["experiments"]) == 1
    [folder] = tmp_path.glob("refold-*")
    shutil.rmtree(folder)
    assert len(tables(db.as_of(1))["experiments"]) == 1
    db.create_experiment("b")
    assert len(tables(db.as_of(2))["experiments"]) == 2
    assert len(tables(db.as_of(1))["experiments"]) == 1


def test_no_temporary_folder(db: RfDb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    db.create_experiment("a")
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        with pytest.raises(StoreFailed, match=r"nowhere.*TMPDIR"):
            db.as_of(1).get_experiment(1)
    assert db.as_of(1).get_experiment(1)["experiment_name"] == "a"


def fold_without_room(_: Parent, place: str) -> None:
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.append(*[RunMetricsRecorded(run_id, {"loss": "x" * 500}) for _ in range(1_000)])
        past = db.as_of(1_000)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
        for _ in range(2):
            with pytest.raises((StoreFull, StoreFailed), match=r"versions.db: "):
                past.get_run(run_id)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert past.get_run(run_id)["position"] == 1_000
        assert db.as_of(db.store.head()).verify() == []


def test_no_room_for_the_temporary_file(place: str) -> None:
    call(fold_without_room, place)


# --- the end -----------------------------------------------------------------------------------


def test_a_closed_face_answers_no_more_and_its_store_stays_open(db: RfDb) -> None:
    db.create_experiment("digits")
    with db.as_of(1) as past:
        assert past.get_experiment(1)["experiment_name"] == "digits"
    past.close()
    with pytest.raises(StoreClosed):
        past.get_experiment(1)
    assert db.get_experiment(1) == db.as_of(1).get_experiment(1)
    unused = db.as_of(1)
    unused.close()
    with pytest.raises(StoreClosed):
        unused.db.execute("SELECT 1")


def test_a_closed_store_has_no_past(place: str) -> None:
    db = RfDb(place)
    db.create_experiment("digits")
    past = db.as_of(1)
    assert past.get_experiment(1)["experiment_name"] == "digits"
    db.close()
    for look in (
        lambda: db.as_of(1),
        lambda: db.position_at(1),
        lambda: db.diff(0, 1),
        lambda: db.history("experiment", 1),
        lambda: past.get_experiment(1),
        lambda: past.db.execute("SELECT 1"),
        lambda: list(past.store.read()),
        lambda: past.history("experiment", 1),
    ):
        with pytest.raises(StoreClosed):
            look()
    past.close()
    db.close()


def used(place: str) -> RfDb:
    """A face that has looked back."""
    db = RfDb(place)
    db.create_experiment("digits")
    assert db.as_of(1).get_experiment(1)["experiment_name"] == "digits"
    return db


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Tell which temporary files there are; in other processes too."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield lambda: sorted(path.name for path in folder.glob("refold-*"))
    tempfile.tempdir = None


def test_the_temporary_file_goes_with_the_face(
    place: str, temporary: Callable[[], list[str]]
) -> None:
    db = used(place)
    assert len(temporary()) == 1
    gc.disable()  # nobody should have to wait for it
    try:
        db.close()
        assert temporary() == []
    finally:
        gc.enable()
    db = used(place)
    assert len(temporary()) == 1
    del db
    gc.collect()
    assert temporary() == []


def leave_open(_: Parent, place: str) -> list[str]:
    globals()["kept"] = used(place)
    return sorted(path.name for path in Path(tempfile.gettempdir()).glob("refold-*"))


def test_the_temporary_file_goes_with_the_process(
    place: str, temporary: Callable[[], list[str]]
) -> None:
    assert len(call(leave_open, place)) == 1
    assert temporary() == []


# --- forks -------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def alone(work: Callable[[], object]) -> Callable[[], object]:
    """Have a forked child end, rather than hang."""

    def in_time() -> None:
        signal.alarm(10)
        work()

    return in_time


def look_in_a_fork(_: Parent, place: str) -> None:
    signal.alarm(50)  # a hang is told, not waited for
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.set_run_progress(run_id, 1, 0)
        past, unused = db.as_of(2), db.as_of(3)
        assert past.get_run(run_id)["current_chunk"] == 0
        read_end, write_end = os.pipe()

        def work() -> None:
            assert past.get_run(run_id)["current_chunk"] == 0
            assert unused.get_run(run_id)["current_chunk"] == 1
            assert past.verify() == []
            db.set_run_progress(run_id, 2, 0)
            assert db.as_of(4).get_run(run_id)["current_chunk"] == 2
            assert len(db.history("run", run_id)) == 3
            past.close()
            db.close()
            gc.collect()
            os.write(write_end, b"!")

        child = forked(alone(work))
        os.read(read_end, 1)
        assert past.get_run(run_id)["current_chunk"] == 0
        db.set_run_progress(run_id, 3, 0)
        assert ended_well(child)
        assert db.as_of(5).get_run(run_id)["current_chunk"] == 3
        assert unused.get_run(run_id)["current_chunk"] == 1
        assert past.verify() == unused.verify() == []

        # A thread that is reading does not exist in the child, where its lock must not stay.
        reads, read = threading.Event(), threading.Event()

        def keep_reading() -> None:
            with past.views.reading():
                reads.set()
                read.wait()

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(keep_reading)
            reads.wait()
            children = [forked(alone(past.close)), forked(alone(lambda: past.get_run(run_id)))]
            ended = [ended_well(child) for child in children]
            read.set()
            reading.result()
        assert ended == [True, True]
        db.set_run_progress(run_id, 4, 0)
        assert db.as_of(6).get_run(run_id)["current_chunk"] == 4
        assert past.get_run(run_id)["current_chunk"] == 0


class FeedGiven(Event, frozen=True):
    feed_id: Id

    @property
    def stream(self) -> str:
        return "feed"


class Feed(Row, frozen=True, kw_only=False):
    feed_id: int


def fork_beside_threads_that_fold(_: Parent, places: list[str]) -> None:
    signal.alarm(50)
    versions.EVENTS_PER_FLUSH = 1  # so that folding reads again and again
    versions.FORK_PATIENCE = 1_000  # nobody waits in vain
    everybody = threading.Barrier(len(places) + 1)
    forks = threading.Event()
    live = threading.local()

    def fed(event: FeedGiven) -> Feed:
        if event.feed_id == 0 and getattr(live, "looks_back", False):
            everybody.wait()
            forks.wait()
        return Feed(event.feed_id)

    feeds = View("feeds", Feed, version=1)
    feeds.created_by(FeedGiven, fed)
    faces = [RfDb(place, projections=[feeds]) for place in places]
    for face in faces:
        face.append(*map(FeedGiven, range(100)))

    def look(face: RfDb) -> int:
        live.looks_back = True
        return len(face.as_of(100).db.execute("SELECT * FROM feeds"))

    with ThreadPoolExecutor(len(faces)) as pool:
        looking = [pool.submit(look, face) for face in faces]
        everybody.wait()
        os.register_at_fork(before=forks.set)

        def work() -> None:
            assert [len(f.as_of(9).db.execute("SELECT * FROM feeds")) for f in faces] == [9] * 6

        assert ended_well(forked(alone(work)))
        assert [looked.result() for looked in looking] == [100] * len(faces)
    for face in faces:
        face.close()


@forks
def test_parent_and_child_look_back_after_a_fork(place: str) -> None:
    call(look_in_a_fork, place)


@forks
def test_a_fork_beside_threads_that_fold_the_past(new_place: Place) -> None:
    call(fork_beside_threads_that_fold, [new_place() for _ in range(6)])


# --- gaps --------------------------------------------------------------------------------------


def test_positions_without_an_event_show_what_was_before(new_place: Place) -> None:
    """On PostgreSQL transactions that are rolled back leave gaps."""
    place = new_place()
    with RfDb(place) as db:
        db.create_experiment("a")
        for _ in range(3):
            with suppress(Regret), db.batch():
                db.create_experiment("never")
                raise Regret
        db.create_experiment("b")
        events = list(db.store.read())
        for position in range(events[-1].position + 1):
            by_then = [e for e in events if e.position <= position]
            past = db.as_of(position)
            assert len(tables(past)["experiments"]) == len(by_then)
            assert past.store.head() == position
            assert list(past.store.read()) == by_then
        assert db.as_of(events[-1].position - 1).verify() == []
        assert [db.position_at(e.time) for e in events] == [e.position for e in events]

"""The faces as of a moment: what they showed then."""

import inspect
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from children import Parent, WarmChild
from face_methods import VALID
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
    exactly,
    log_of,
    steps,
)
from tables import folded, tables
from tries import tries

from refold import (
    DBException,
    InvalidMoment,
    InvalidQuery,
    NotFound,
    PayloadRefused,
    RFDatabase,
    RfDb,
    WriteRefused,
    encode_payload,
)
from refold.eventstore import Id, paging
from refold.eventstore.event import Event
from refold.eventstore.events import (
    ExperimentCreated,
    RunCreated,
    RunMetricsRecorded,
    RunProgressed,
    TablesReset,
)
from refold.face import Face
from refold.projections import Row, View
from refold.projections.past import version_writer

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
        monkeypatch.setattr(version_writer, "ROWS_REMEMBERED", remembered)
        monkeypatch.setattr(paging, "PAGE", per_flush)
        with log_of(new_place(), happens) as log:
            check_every_position(log)

    check()


@pytest.mark.property
def test_every_position_shows_what_was_seen_then(
    new_place: Place, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_random_logs(new_place, tries(32, engine), monkeypatch, 10)


def test_rows_that_are_not_in_memory_are_loaded_again(
    new_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_writer, "ROWS_REMEMBERED", 0)
    monkeypatch.setattr(paging, "PAGE", 1)
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
def test_every_position_of_long_logs_shows_what_was_seen_then(
    new_place: Place, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_random_logs(new_place, tries(1_000, engine), monkeypatch, 60)


@pytest.mark.property
def test_a_face_shows_the_same_for_ever(
    new_place: Place, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it looked before the log went on, or looks only now."""

    @tries(20, engine)
    @given(st.lists(st.tuples(steps, st.booleans()), max_size=10), st.integers(0, 4))
    def check(happens: list[tuple[Step, bool]], remembered: int) -> None:
        monkeypatch.setattr(version_writer, "ROWS_REMEMBERED", remembered)
        monkeypatch.setattr(paging, "PAGE", 2)
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
            arguments = {
                n: number if type(v) is int else v
                for n, v in valid.items()
                if n in inspect.signature(method).parameters
            }
            try:
                found[f"{name} {arguments}"] = method(**arguments)
            except DBException as error:
                found[f"{name} {arguments}"] = f"{type(error).__name__}: {error}"
            if not valid:
                break
    return found


@pytest.mark.property
def test_the_faces_answer_as_they_did(new_place: Place, engine: str) -> None:
    @tries(16, engine)
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
        monkeypatch.setattr("refold.eventstore.paging.KEYS", keys)
        monkeypatch.setattr("refold.eventstore.paging.PARCEL", parcel)
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


def test_threads_that_look_back_at_once_share_the_versions(db: RfDb) -> None:
    """Since Python 3.12 two of them may both find that nobody has looked back yet."""
    look_back = RfDb._versions.func
    assert look_back(db) is look_back(db) is db._versions


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
    children = [WarmChild(progress, place, run_id, count) for run_id in (1, 2, 3)]
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


# --- the log as of a moment --------------------------------------------------------------------


def test_the_log_of_the_past_answers_all_that_can_be_read(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    head = db.store.head()
    digest = db.put_payload("kept")
    with db.as_of(head) as past:
        db.append(RunProgressed(run_id, 1, 0), stream="elsewhere")
        db.set_run_progress(run_id, 2, 0)
        store = past.store
        assert store.strays() == []
        assert db.store.strays() == [head + 1]
        assert db.as_of(head + 1).store.strays() == [head + 1]
        assert not store.is_held()
        with store.snapshot():
            assert store.is_held()
            assert store.head() == store.committed_head() == store.position_at(head) == head
        with db.batch():
            assert store.is_held()
            assert store.current() is None
        assert store.version(f"run-{run_id}") == 1
        assert [recorded.position for recorded in store.read()] == [1, head]
        assert [recorded.position for recorded in store.read_at([head, head + 1])] == [head]
        assert store.get_payload(digest) == db.store.get_payload(digest)
        with pytest.raises(InvalidMoment, match="no position"):
            store.position_at(head + 1)


def test_the_log_of_the_past_refuses_all_that_would_change_it(db: RfDb) -> None:
    db.create_experiment("digits")
    past = db.as_of(1)
    for change in (
        lambda: past.store.append(None, [RunProgressed(1, 1, 0)]),
        lambda: past.store.put_payload(b""),
        lambda: past.store.transaction().__enter__(),
        lambda: past.store.perform(lambda _: None),
        lambda: past.store.subscribe(),
        lambda: past.rebuild(),
        lambda: past.create_experiment("more"),
        lambda: past.batch().__enter__(),
    ):
        with pytest.raises(WriteRefused, match="as of position 1"):
            change()

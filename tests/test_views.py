"""The views are a fold of the log: live, replayed, for every prefix, whoever appended."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from children import Parent, WarmChild, call
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from strategies import any_command, any_event
from tables import Folding, Tables, folded, tables
from tries import tries

from refold import NotFound, ProjectionFailed, RFDatabase, RfDb
from refold.commands import Command
from refold.eventstore import DBException, Event, EventStore, Id, Recorded, StoreTooNew, open_store
from refold.eventstore.events import (
    ExperimentCreated,
    RunCreated,
    RunMetricsRecorded,
    RunProgressed,
    StopRequested,
    TablesReset,
    WorkerProgressed,
)
from refold.eventstore.paging import KEYS
from refold.eventstore.statuses import TaskStatus, WorkerTask
from refold.projections import ALL, Row, View

Place = Callable[[], str]


def exactly(rows: Tables) -> str:
    """Return rows as text that tells 1 from 1.0 and True."""
    return repr(rows)


def append(store: EventStore, events: list[Event]) -> list[Recorded]:
    with store.transaction() as transaction:
        return transaction.append(events)


# --- views == fold(events) -------------------------------------------------------------------


@pytest.mark.property
def test_any_sequence_of_events_folds_alike(new_place: Place, engine: str) -> None:
    @tries(60, engine)
    @given(st.lists(st.lists(any_event, min_size=1, max_size=6), max_size=8))
    def check(batches: list[list[Event]]) -> None:
        with RfDb(new_place()) as db:
            for batch in batches:
                append(db.store, batch)
                assert tables(db) == folded(db.store.read())
            assert db.verify() == []
            before = exactly(tables(db))
            assert db.rebuild() == db.store.head()
            assert exactly(tables(db)) == before
            assert db.verify() == []

    check()


@pytest.mark.property
def test_every_prefix_folds_to_what_was_seen_then(new_place: Place, engine: str) -> None:
    @tries(40, engine)
    @given(st.lists(st.tuples(st.sampled_from("abc"), any_event), max_size=25))
    def check(steps: list[tuple[str, Event]]) -> None:
        place = new_place()
        seen: list[Tables] = []
        # Two faces and a store without views write in turns; the first face reads.
        with RfDb(place) as db, RFDatabase(place) as evals, open_store(place) as bare:
            writers = {"a": db.store, "b": evals.store, "c": bare}
            for writer, event in steps:
                append(writers[writer], [event])
                seen.append(tables(db))
            log = list(bare.read())
        folding = Folding()
        for recorded, rows in zip(log, seen, strict=True):
            folding.fold(recorded)
            assert rows == folding.tables()

    check()


@pytest.mark.property
def test_any_command_leaves_the_views_equal_to_the_log(new_place: Place, engine: str) -> None:
    @tries(60, engine)
    @given(st.lists(any_command, max_size=25))
    def check(commands: list[Command]) -> None:
        with RfDb(new_place()) as db:
            for command in commands:
                before, head = tables(db), db.store.head()
                try:
                    db.send(command)
                except DBException:
                    assert db.store.head() == head
                if db.store.head() == head:
                    assert tables(db) == before
                else:
                    assert tables(db) == folded(db.store.read())
            assert db.verify() == []

    check()


@pytest.mark.property
def test_an_aborted_transaction_leaves_the_views_as_they_were(
    new_place: Place, engine: str
) -> None:
    @tries(25, engine)
    @given(st.lists(any_event, max_size=20), st.integers(0, 20))
    def check(events: list[Event], kept: int) -> None:
        with RfDb(new_place()) as db:
            append(db.store, events[:kept])
            before = exactly(tables(db))
            with suppress(KeyError), db.batch():
                append(db.store, events[kept:])
                assert tables(db) == folded(db.store.read())
                db.rebuild()
                raise KeyError
            assert exactly(tables(db)) == before
            append(db.store, events[kept:])
            assert tables(db) == folded(db.store.read())

    check()


def test_rows_tell_when_they_were_created_and_last_changed(place: str) -> None:
    seconds = 1
    with RfDb(place, clock=lambda: seconds * 1_000_000) as db:
        run_id = db.create_run(db.create_experiment("digits"))

        def told() -> tuple[str, str, int]:
            run = db.get_run(run_id)
            return run["created_at"], run["updated_at"], run["position"]

        assert told() == ("1970-01-01 00:00:01.000000", "1970-01-01 00:00:01.000000", 2)
        seconds = 2
        db.create_worker_task(run_id, 0, 0)
        assert told() == ("1970-01-01 00:00:01.000000", "1970-01-01 00:00:01.000000", 2)
        seconds = 3
        db.set_run_progress(run_id, 1, 0)
        assert told() == ("1970-01-01 00:00:01.000000", "1970-01-01 00:00:03.000000", 4)
        seconds = 4
        db.set_run_progress(run_id, 1, 0)
        db.rebuild()
        assert told() == ("1970-01-01 00:00:01.000000", "1970-01-01 00:00:03.000000", 4)


def test_a_row_that_begins_anew_is_created_anew(place: str) -> None:
    seconds = 1
    with RfDb(place, clock=lambda: seconds * 1_000_000) as db:
        db.set_worker_progress(0, "IDLE")
        db.reset_all_tables()
        seconds = 2
        db.set_worker_progress(0, "IDLE")
        progress = db.get_worker_progress(0)
        assert progress is not None
        assert progress["created_at"] == progress["updated_at"] == "1970-01-01 00:00:02.000000"


def test_a_reset_and_what_follows_it_in_the_same_transaction(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    append(db.store, [TablesReset(False), RunProgressed(run_id, 1, 0), RunCreated(5, 1, "b")])
    assert [run["run_name"] for run in db.get_all_runs()] == ["b"]
    assert tables(db) == folded(db.store.read())


@pytest.mark.parametrize("rows", [50, 1_000])
def test_a_long_log_is_folded_flush_by_flush(
    db: RfDb, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refold.projections.views.ROWS_PER_FLUSH", rows)
    runs = [RunCreated(n, 1, f"run_{n}") for n in range(1, 101)]
    progress: list[Event] = [RunProgressed(n % 100 + 1, n, 0) for n in range(3 * KEYS + 1)]
    append(db.store, [*runs, *progress[:4_500], TablesReset(True), *runs, *progress[4_500:]])
    before = exactly(tables(db))
    assert db.verify() == []
    assert db.rebuild() == db.store.head()
    assert exactly(tables(db)) == before


# --- whoever appends -------------------------------------------------------------------------


def test_what_a_store_without_views_appended_is_there_when_a_face_reads(
    db: RfDb, evals: RFDatabase, store: EventStore
) -> None:
    append(store, [ExperimentCreated(1, "fit", "digits", "RUNNING"), RunCreated(1, 1, "a")])
    assert db.get_run(1)["run_name"] == "a"
    append(store, [RunProgressed(1, 4, 2)])
    assert db.db.execute("SELECT current_chunk FROM runs") == [{"current_chunk": 4}]
    append(store, [RunMetricsRecorded(1, {"loss": 0.5})])
    assert [run["metrics"] for run in db.get_all_runs()] == [{"loss": 0.5}]
    append(store, [StopRequested(3, 1)])
    assert [request["ic_id"] for request in db.get_ic_ops_request()] == [3]
    append(store, [WorkerProgressed(0, WorkerTask.TRAIN_VAL, TaskStatus.IN_PROGRESS)])
    assert db.verify() == []
    append(store, [ExperimentCreated(7, "evals", "test", "running")])
    assert evals.get_current_experiment()["experiment_id"] == 7
    append(store, [RunCreated(9, 1, "b"), RunCreated(4, 1, "c")])
    assert db.create_run(1) == 10
    append(store, [TablesReset(False)])
    assert db.get_all_runs() == []


def append_without_views(_: Parent, place: str) -> None:
    with open_store(place) as store:
        append(store, [RunCreated(1, 1, "a"), RunProgressed(1, 4, 2)])


def test_what_another_process_appended_is_there_when_a_face_reads(db: RfDb, place: str) -> None:
    with pytest.raises(NotFound):
        db.get_run(1)
    call(append_without_views, place)
    assert db.get_run(1)["current_chunk"] == 4
    assert db.verify() == []


def append_and_append(parent: Parent, place: str, count: int) -> None:
    with open_store(place) as store:
        parent.tell("ready")
        for n in range(count):
            append(store, [RunProgressed(1, n, 0)])


def test_verify_is_clean_while_stores_without_views_append(
    db: RfDb, place: str, engine: str
) -> None:
    count = 1_000 if engine == "sqlite" else 300
    db.create_run(db.create_experiment("digits"))
    with ExitStack() as stack:
        writers = [
            stack.enter_context(WarmChild(append_and_append, place, count)) for _ in range(3)
        ]
        for writer in writers:
            writer.hear()
        while not any(writer.has_ended() for writer in writers):
            assert db.verify() == []
        for writer in writers:
            writer.result()
    assert db.get_run(1)["position"] == 3 * count + 2
    assert db.verify() == []


# --- resets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("experiments_table", [False, True])
def test_a_reset_empties_the_views_and_no_id_comes_again(
    db: RfDb, evals: RFDatabase, experiments_table: bool
) -> None:
    def create() -> list[int]:
        experiment_id = evals.create_experiment("test")
        run_id = db.create_run(experiment_id)
        pipeline_id = evals.create_pipeline(experiment_id, "p", "vllm")
        return [
            experiment_id,
            run_id,
            pipeline_id,
            db.create_worker_task(run_id, 0, 0),
            db.request_stop(run_id),
            evals.create_context("hash"),
            evals.create_actor_task(experiment_id, pipeline_id, 0, 0),
        ]

    assert create() == [1] * 7
    experiments = tables(db)["experiments"]
    db.reset_all_tables(experiments_table=experiments_table)
    emptied = tables(db)
    assert emptied.pop("experiments") == ([] if experiments_table else experiments)
    assert {row["last"] for row in emptied.pop("ids")} == {1}
    assert not any(emptied.values())
    before = exactly(tables(db))
    db.rebuild()
    assert exactly(tables(db)) == before
    assert create() == [2] * 7
    assert db.verify() == []


# --- views of a user's own -------------------------------------------------------------------


class Sampled(Event, frozen=True):
    sensor_id: Id
    value: float
    unit: str | None = None

    @property
    def stream(self) -> str:
        return f"sensor-{self.sensor_id}"


class Sensor(Row, frozen=True, kw_only=False):
    sensor_id: int
    value: float
    highest: float
    alarm: bool
    previous: Id | None = None
    unit: str | None = None
    raw: bytes | None = None


def _sampled(row: Sensor | None, event: Sampled) -> Sensor:
    return Sensor(
        event.sensor_id,
        event.value,
        event.value if row is None else max(row.highest, event.value),
        event.value > 100,
        None if row is None else row.position,
        event.unit,
        str(event.value).encode(),
    )


sensors = View("sensors", Sensor, version=1)
sensors.put_by(Sampled, _sampled, key=lambda e: e.sensor_id)
sensors.cleared_by(TablesReset)


class Count(Row, frozen=True, kw_only=False):
    unit: str
    samples: int


units = View("units", Count, version=1)
units.put_by(
    Sampled,
    lambda row, e: Count(e.unit or "", 1 if row is None else row.samples + 1),
    key=lambda e: e.unit or "",
)


samples_and_resets = st.lists(
    st.one_of(
        st.builds(
            Sampled,
            st.integers(0, 2),
            st.floats(allow_nan=False, allow_infinity=False),
            st.sampled_from([None, "K", "Pa"]),
        ),
        st.just(TablesReset(False)),
    ),
    max_size=20,
)


@pytest.mark.property
def test_views_of_a_users_own_fold_like_ours(new_place: Place, engine: str) -> None:
    @tries(40, engine)
    @given(samples_and_resets)
    def check(events: list[Event]) -> None:
        with RfDb(new_place(), projections=[sensors, units]) as db:
            for event in events:
                append(db.store, [event])
            assert tables(db) == folded(db.store.read(), [*ALL, sensors, units])
            assert db.verify() == []
            before = exactly(tables(db))
            db.rebuild()
            assert exactly(tables(db)) == before

    check()


def sample_without_views(_: Parent, place: str) -> None:
    with RfDb(place) as db:
        append(db.store, [Sampled(1, 300.0, "K"), Sampled(2, 1.5)])
        db.create_experiment("digits")


def test_a_view_that_others_do_not_have_is_caught_up(place: str) -> None:
    with RfDb(place, projections=[sensors]) as db:
        append(db.store, [Sampled(1, 200.0, "K")])
        for n in range(1, 4):
            call(sample_without_views, place)
            assert [row["highest"] for row in tables(db)["sensors"]] == [300.0, 1.5]
            assert db.verify() == []
            append(db.store, [Sampled(1, 200.0, "K")])
            assert db.db.execute("SELECT value FROM sensors WHERE sensor_id = 1") == [
                {"value": 200.0}
            ]
            assert len(tables(db)["experiments"]) == n


def test_views_that_are_behind_by_different_amounts_are_caught_up(place: str) -> None:
    for views in ([sensors], [units], [], [sensors, units], [units], [sensors], [units, sensors]):
        with RfDb(place, projections=views) as db:
            append(db.store, [Sampled(1, float(db.store.head()), "K")])
            assert tables(db) == folded(db.store.read(), [*ALL, *views])
            assert db.verify() == []


def test_a_view_that_is_added_later_holds_what_was_before(place: str) -> None:
    with RfDb(place) as db:
        append(db.store, [Sampled(1, 20.0, "K"), Sampled(1, 10.0, "K")])
    with RfDb(place, projections=[sensors]) as db:
        [row] = tables(db)["sensors"]
        assert (row["value"], row["highest"], row["previous"]) == (10.0, 20.0, 1)


@pytest.mark.parametrize("name", ["events", "streams", "payloads", "projections", "runs", "ids"])
def test_a_view_cannot_take_the_place_of_another_table(place: str, name: str) -> None:
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
        before, log = tables(db), list(db.store.read())
    with pytest.raises((DBException, ValueError), match=name):
        RfDb(place, projections=[View(name, Sensor, version=7)])
    with RfDb(place) as db:
        assert tables(db) == before
        assert list(db.store.read()) == log
        assert db.get_run(run_id)["config_leaf"] == {"lr": 0.1}


# --- versions of views -----------------------------------------------------------------------


class Mean(Row, frozen=True, kw_only=False):
    sensor_id: int
    mean: float
    samples: int


def _averaged(row: Mean | None, event: Sampled) -> Mean:
    if row is None:
        return Mean(event.sensor_id, event.value, 1)
    total = row.mean * row.samples + event.value
    return Mean(event.sensor_id, total / (row.samples + 1), row.samples + 1)


sensors_2 = View("sensors", Mean, version=2)
sensors_2.put_by(Sampled, _averaged, key=lambda e: e.sensor_id)


def test_an_older_view_is_rebuilt_when_it_is_opened(place: str) -> None:
    with RfDb(place, projections=[sensors]) as db:
        append(db.store, [Sampled(1, 20.0), Sampled(1, 10.0)])
    for _ in range(2):
        with RfDb(place, projections=[sensors_2]) as db:
            [row] = tables(db)["sensors"]
            assert (row["mean"], row["samples"]) == (15.0, 2)
            assert db.verify() == []


def test_a_newer_view_is_refused_and_left_alone(place: str) -> None:
    with RfDb(place, projections=[sensors]) as older:
        run_id = older.create_run(older.create_experiment("digits"))
        append(older.store, [Sampled(1, 20.0), Sampled(1, 10.0)])
        with RfDb(place, projections=[sensors_2]) as newer:
            before, head = tables(newer), newer.store.head()
            for use in (
                lambda: older.get_run(run_id),
                lambda: older.db.execute("SELECT * FROM sensors"),
                lambda: older.set_run_progress(run_id, 1, 0),
                lambda: append(older.store, [Sampled(1, 1.0)]),
                older.verify,
                older.rebuild,
                lambda: RfDb(place, projections=[sensors]),
            ):
                with pytest.raises(StoreTooNew, match="view sensors is at version 2, this"):
                    use()
            assert tables(newer) == before
            assert newer.store.head() == head
            with RfDb(place) as without:  # the view is none of its business
                without.set_run_progress(run_id, 1, 0)
            assert newer.get_run(run_id)["current_chunk"] == 1
            assert newer.verify() == []


# --- rebuilding while others read, and rebuilding that fails ----------------------------------


class Gate:
    """Where a fold comes to a halt, if a test has shut it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.opened.set()

    def shut(self) -> None:
        self.reached.clear()
        self.opened.clear()

    def pass_through(self) -> None:
        self.reached.set()
        self.opened.wait()


gate = Gate()


@pytest.fixture
def shut_gate() -> Iterator[Gate]:
    gate.shut()
    yield gate
    gate.opened.set()


def _gated(row: Mean | None, event: Sampled) -> Mean:
    if row is not None:
        gate.pass_through()
    return _averaged(row, event)


gated = View("sensors", Mean, version=2)
gated.put_by(Sampled, _gated, key=lambda e: e.sensor_id)


def read_all_runs(_: Parent, place: str) -> list[int]:
    with RfDb(place) as db:
        return [run["current_chunk"] for run in db.get_all_runs()]


def test_readers_see_the_old_views_until_a_rebuild_is_complete(place: str, shut_gate: Gate) -> None:
    with ThreadPoolExecutor(1) as pool, RfDb(place, projections=[sensors]) as db:
        db.set_run_progress(db.create_run(db.create_experiment("digits")), 3, 0)
        append(db.store, [Sampled(1, 20.0), Sampled(1, 10.0)])
        before = exactly(tables(db))
        try:
            rebuilt = pool.submit(RfDb, place, projections=[gated])
            shut_gate.reached.wait()
            assert exactly(tables(db)) == before
            assert call(read_all_runs, place) == [3]
            assert not rebuilt.done()
        finally:
            shut_gate.opened.set()
        with rebuilt.result() as newer:
            assert [row["mean"] for row in tables(newer)["sensors"]] == [15.0]
        with pytest.raises(StoreTooNew):
            tables(db)


def test_readers_see_the_old_rows_while_the_same_views_are_rebuilt(
    place: str, shut_gate: Gate
) -> None:
    shut_gate.opened.set()
    with ThreadPoolExecutor(1) as pool, RfDb(place, projections=[gated]) as db:
        db.set_run_progress(db.create_run(db.create_experiment("digits")), 3, 0)
        append(db.store, [Sampled(1, 20.0), Sampled(1, 10.0)])
        before = exactly(tables(db))
        shut_gate.shut()
        try:
            rebuilt = pool.submit(db.rebuild)
            shut_gate.reached.wait()
            assert exactly(tables(db)) == before
            assert call(read_all_runs, place) == [3]
            assert not rebuilt.done()
        finally:
            shut_gate.opened.set()
        assert rebuilt.result() == 5
        assert exactly(tables(db)) == before


class Broken(ArithmeticError):
    """What a faulty view raises."""


def _broken(row: Mean | None, event: Sampled) -> Mean:
    if event.value < 0:
        raise Broken
    return _averaged(row, event)


broken = View("sensors", Mean, version=2)
broken.put_by(Sampled, _broken, key=lambda e: e.sensor_id)


def test_a_rebuild_in_which_one_view_fails_rebuilds_the_others(place: str) -> None:
    with RfDb(place, projections=[sensors]) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        append(db.store, [Sampled(1, 20.0), Sampled(1, -10.0)])
    with RfDb(place, projections=[broken]) as db:
        assert db.get_run(run_id)["status"] == "NEW"
        with pytest.raises(ProjectionFailed, match="sensors fails on event 4, Sampled") as told:
            db.db.execute("SELECT * FROM sensors")
        assert isinstance(told.value.__cause__, Broken)
        db.set_run_progress(run_id, 1, 0)
        assert db.get_run(run_id)["current_chunk"] == 1


def test_a_batch_goes_on_after_a_rebuild_within_it(db: RfDb) -> None:
    with db.batch():
        run_id = db.create_run(db.create_experiment("digits"))
        db.set_run_progress(run_id, 1, 0)
        assert db.rebuild() == 3
        db.set_run_progress(run_id, 2, 0)
        assert db.get_run(run_id)["current_chunk"] == 2
    assert db.verify() == []


def test_a_transaction_within_a_snapshot_folds_what_came_after_it(place: str) -> None:
    with RfDb(place) as db, open_store(place) as bare:
        db.create_experiment("digits")
        with db.store.snapshot():
            db.get_experiment(1)
            bare.append(None, [RunCreated(7, 1, "of a store without views")])
            assert db.create_run(1) == 8
        assert db.verify() == []
        assert db.get_run(7)["run_name"] == "of a store without views"


def test_a_flag_is_a_bool_whether_it_was_loaded_or_not(place: str) -> None:
    class FlagRaised(Event, frozen=True):
        name: str

    class FlagNoted(Event, frozen=True):
        name: str

    class Flag(Row, frozen=True):
        name: str
        up: bool
        note: str = ""

    flags = View("flags", Flag, version=1)
    flags.created_by(FlagRaised, lambda e: Flag(e.name, True))
    flags.on(FlagNoted, lambda row, _: replace(row, note=repr(row.up)))
    with RfDb(place, projections=[flags]) as db:
        db.append(FlagRaised("a"), stream="flags")
    with RfDb(place, projections=[flags]) as db:
        db.append(FlagNoted("a"), stream="flags")
        assert db.db.execute("SELECT note FROM flags") == [{"note": "True"}]
        assert db.verify() == []

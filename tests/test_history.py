"""What happened to a row, and why it is as it is."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_logs import OWN, BirdSeen, BirdsFlown, Step, append_row, exactly, log_of, steps
from test_damaged_events import damage
from tries import tries

from refold import (
    InvalidCommand,
    InvalidEvent,
    NotFound,
    RFDatabase,
    RfDb,
    UnknownEventType,
    copy_store,
)
from refold.eventstore import DamagedEvent, Event, EventStore, open_store
from refold.eventstore.events import (
    RunCompleted,
    RunMetricsRecorded,
    RunProgressed,
    RunStarted,
    RunStopped,
    TablesReset,
)
from refold.projections.entities import ENTITIES, entity_of, view_of
from refold.projections.past.changes import BOOKKEEPING
from refold.projections.past.history import Touched

Place = Callable[[], str]
LOGS = sorted((Path(__file__).parent / "stored_logs").glob("*.db"))


def positions(touched: list[Touched]) -> list[int]:
    return [one.recorded.position for one in touched]


# --- three ways to the same history ------------------------------------------------------------


@pytest.mark.property
def test_streams_versions_and_changes_tell_the_same(new_place: Place, engine: str) -> None:
    @tries(24, engine)
    @given(st.lists(steps, max_size=10))
    def check(happens: list[Step]) -> None:
        with log_of(new_place(), happens) as log, RfDb(log.place, projections=OWN) as fresh:
            db, expected = log.db, {}
            for recorded in log.events:
                for change in db.changes_by(recorded):
                    row = expected.setdefault((change.view, change.key), [])
                    row.append(Touched(recorded, change))
            for (view, key), touched in expected.items():
                from_streams = fresh.history(view, key)
                from_versions = db.history(view, key)
                assert from_streams == from_versions == touched
                assert exactly(from_streams) == exactly(from_versions)
                chain = [None, *(one.change.after for one in touched)]
                assert [one.change.before for one in touched] == chain[:-1]
                rows = db.db.execute(
                    f"SELECT * FROM {view_of(view, db.views.views).table} "
                    f"WHERE {view_of(view, db.views.views).key} = ?",
                    [key],
                )
                assert ([chain[-1]] if chain[-1] else []) == rows

    check()


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_logs_of_every_release_have_a_history(log: Path, place: str, tmp_path: Path) -> None:
    copy = str(shutil.copy(log, tmp_path / "copy.db"))
    if "://" in place:
        copy_store(copy, place)
    else:
        shutil.copy(log, place)
    with RfDb(place) as fresh, RfDb(place) as db:
        db.diff(0, db.store.head())
        for entity, view in ENTITIES.items():
            for row in db.db.execute(f"SELECT {view.key} AS key FROM {view.table}"):
                touched = fresh.history(entity, row["key"])
                assert touched == db.history(entity, row["key"])
                assert touched[0].change.kind == "added"


ELSEWHERE = {
    "a new stream": "elsewhere",
    "another row's stream": "run-2",
    "another entity's stream": "experiment-1",
    "a stream of a similar name": "run-01",
    "the store's": "store",
}


@pytest.mark.parametrize("stream", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_events_in_odd_streams_are_in_the_history(db: RfDb, place: str, stream: str) -> None:
    """Also where what they changed has been overwritten since, so that the row tells nothing."""
    run_id = db.create_run(db.create_experiment("digits"))
    db.append(RunStarted(run_id), stream=stream)
    with open_store(place) as bare:
        bare.append(stream, [RunProgressed(run_id, 1, 0), RunMetricsRecorded(run_id, {"a": 1})])
    db.set_run_status(run_id, "STOPPED")
    db.append(RunProgressed(run_id, 0, 0), RunMetricsRecorded(run_id, {}))
    for face in (db, RfDb(place)):
        assert positions(face.history("run", run_id)) == [2, 3, 4, 5, 6, 7, 8]
        assert positions(face.as_of(4).history("run", run_id)) == [2, 3, 4]
    assert db.why("run", run_id, "status").links[0].recorded.position == 6


class KeyLost(Event, frozen=True):
    owner: str | None = None

    @property
    def stream(self) -> str:
        if self.owner is None:
            raise InvalidEvent("nobody owns the key: say which stream it belongs to")
        return f"owner-{self.owner}"


def test_an_event_that_cannot_name_its_stream_can_be_told_one(db: RfDb) -> None:
    with db.batch():
        with pytest.raises(InvalidEvent, match="nobody owns the key"):
            db.append(KeyLost())
        db.append(KeyLost(), KeyLost("Ada"), stream="lost-and-found")
        db.create_experiment("digits")
    assert [recorded.stream for recorded in db.store.read()] == [
        "lost-and-found",
        "lost-and-found",
        "experiment-1",
    ]


def test_a_reset_in_an_odd_stream_is_in_the_history(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    db.append(TablesReset(True), stream="elsewhere")
    with RfDb(place) as fresh:
        touched = fresh.history("run", run_id)
    assert [one.change.kind for one in touched] == ["added", "removed"]
    assert touched[-1].recorded.stream == "elsewhere"


# --- what it tells -----------------------------------------------------------------------------


def test_each_event_with_what_it_changed_who_when_and_its_cause(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"), actor="user")
    db.set_run_status(run_id, "ONGOING", actor="controller")
    request = db.request_stop(run_id, actor="dispatcher")
    [pending] = db.get_ic_ops_request()
    db.set_run_status(run_id, "STOPPED", actor="controller", cause=pending["position"])
    db.mark_ic_ops_completed(request, actor="controller")
    created, started, stopped = db.history("run", run_id)
    assert created.change.before is None
    assert created.change.after == db.as_of(2).db.execute("SELECT * FROM runs_folded")[0]
    assert started.change.columns == {"status": ("NEW", "ONGOING")}
    assert stopped.change.columns == {"status": ("ONGOING", "STOPPED")}
    assert [one.recorded.metadata.actor for one in (created, started, stopped)] == [
        "user",
        "controller",
        "controller",
    ]
    assert stopped.recorded.metadata.cause == 4
    assert str(stopped) == (
        f"5  {at(db, 5)}  RunStopped by controller: runs 1 changed: status 'ONGOING' -> 'STOPPED'"
    )
    for part in ("2  ", "RunCreated by user: runs 1 added: ", "status 'NEW'", "run_name 'run_1'"):
        assert part in str(created)
    assert not BOOKKEEPING & created.change.columns.keys()
    assert [one.recorded.type for one in db.history("request", request)] == [
        "StopRequested",
        "InteractiveControlCompleted",
    ]


def test_a_row_that_is_removed_and_begins_anew(db: RfDb) -> None:
    db.set_worker_progress(7, "IDLE")
    db.reset_all_tables()
    db.set_worker_progress(7, "IDLE")
    db.set_worker_progress(7, "IDLE")
    for _ in range(2):
        added, removed, again, *_ = touched = db.history("worker", 7)
        assert [one.change.kind for one in touched[:3]] == ["added", "removed", "added"]
        assert removed.change.after is None
        assert removed.change.columns == {
            n: (v, None) for n, (_, v) in added.change.columns.items()
        }
        assert again.change.before is None
        assert str(removed).endswith(
            "worker_progress 7 removed: worker_id 7, task 'IDLE', status 'IN_PROGRESS'"
        )
        db.diff(0, db.store.head())  # then from the versions


def test_an_event_that_changed_nothing_of_a_row_is_not_in_its_history(db: RfDb) -> None:
    db.append(RunStarted(1))  # there is no run yet
    db.append(RunCompleted(2))
    run_id = db.create_run(db.create_experiment("digits"))
    assert run_id == 1
    for _ in range(2):
        assert positions(db.history("run", 1)) == [4]
        with pytest.raises(NotFound, match="runs: no event up to 4 touches run_id 2"):
            db.history("run", 2)
        db.diff(0, 4)


def test_entities_have_the_words_that_people_use(db: RfDb, evals: RFDatabase) -> None:
    experiment_id = evals.create_experiment("test")
    pipeline_id = evals.create_pipeline(experiment_id, "p", "vllm")
    run_id = db.create_run(experiment_id)
    keys: dict[str, Any] = {
        "experiment": experiment_id,
        "run": run_id,
        "task": db.create_worker_task(run_id, 0, 0),
        "worker": db.set_worker_progress(3, "IDLE") or 3,
        "controller": db.set_controller_task("IDLE") or 1,
        "request": db.request_stop(run_id),
        "context": evals.create_context("hash"),
        "pipeline": pipeline_id,
        "actor_task": evals.create_actor_task(experiment_id, pipeline_id, 0, 0),
        "pipeline_request": evals.request_stop(pipeline_id),
        "member": db.join("worker-3") or "worker-3",
    }
    assert keys.keys() == ENTITIES.keys()
    for entity, key in keys.items():
        view = ENTITIES[entity]
        assert entity_of(view) == entity
        by_word, by_view = db.history(entity, key), db.history(view.name, key)
        assert by_word == by_view
        assert by_word[0].change.view == view.name
    assert positions(db.history("ids", "run")) == positions(db.history("run", run_id))


def test_views_of_ones_own_have_a_history(place: str) -> None:
    with RfDb(place, projections=OWN) as db:
        db.append(BirdSeen(1, "oak", 2.0), BirdSeen(2, "oak"), BirdsFlown([2, 1, 1]))
        db.append(BirdSeen(1, "elm", 0.5))
        for _ in range(2):
            kinds = [one.change.kind for one in db.history("birds", 1)]
            assert kinds == ["added", "removed", "added"]
            assert db.history("birds", 1)[0].change.columns["heavy"] == (None, True)
            assert positions(db.history("perches", "oak")) == [1, 2]
            assert db.why("birds", 1, "perch").entity == "birds"
            db.diff(0, 4)
    with RfDb(place) as db, pytest.raises(NotFound, match="there is no entity 'birds'"):
        db.history("birds", 1)


# --- moments -----------------------------------------------------------------------------------


def test_the_history_as_of_a_moment_ends_there(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    db.set_run_progress(run_id, 1, 0)
    for _ in range(2):
        assert [len(db.as_of(p).history("run", run_id)) for p in (2, 3)] == [1, 2]
        with pytest.raises(NotFound, match="no event up to 1 touches run_id 1"):
            db.as_of(1).history("run", run_id)
        db.diff(0, 3)


class Regret(Exception):
    pass


def test_a_history_within_a_batch_holds_what_the_batch_has_done(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    for _ in range(2):
        before = {e: positions(db.history(e, k)) for e, k in [("run", run_id), ("ids", "run")]}
        with suppress(Regret), db.batch():
            db.set_run_progress(run_id, 1, 0)
            db.append(RunStarted(run_id), stream="elsewhere")
            db.create_run(1)
            assert len(db.history("run", run_id)) == len(before["run"]) + 2
            assert len(db.history("ids", "run")) == len(before["ids"]) + 1
            assert db.why("run", run_id, "status").value == "ONGOING"
            raise Regret
        after = {e: positions(db.history(e, k)) for e, k in [("run", run_id), ("ids", "run")]}
        assert after == before
        db.diff(0, 2)


def test_a_history_goes_on_with_the_log(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    with RfDb(place) as other:
        for chunk in range(1, 6):
            other.set_run_progress(run_id, chunk, 0)
            assert len(db.history("run", run_id)) == len(other.history("run", run_id)) == chunk + 1
            assert db.as_of(chunk + 2).get_run(run_id)["current_chunk"] == chunk
            assert len(db.history("run", run_id)) == len(other.history("run", run_id)) == chunk + 1


# --- why ---------------------------------------------------------------------------------------


def at(db: RfDb, position: int) -> str:
    [recorded] = db.store.read_at([position])
    return f"{recorded.time:%Y-%m-%dT%H:%M:%S.%f}Z"


def test_why_a_run_is_stopped(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"), actor="user")
    db.set_run_status(run_id, "ONGOING")
    request = db.request_stop(run_id, actor="dispatcher")
    [pending] = db.get_ic_ops_request()
    before = db.store.head() + 1
    db.set_run_status(run_id, "STOPPED", actor="controller", cause=pending["position"])
    db.mark_ic_ops_completed(request, actor="controller")
    why = db.why("run", run_id, "status")
    assert (why.entity, why.key, why.column, why.value) == ("run", 1, "status", "STOPPED")
    assert [link.recorded.position for link in why.links] == [5, 4]
    assert [link.processed and link.processed.position for link in why.links] == [None, 6]
    assert str(why) == (
        f"run 1: status is 'STOPPED' since event 5, RunStopped in run-1 by controller at "
        f"{at(db, 5)}\n"
        f"  because of event 4, StopRequested in ic-1 by dispatcher at {at(db, 4)}; processed by "
        f"InteractiveControlCompleted in ic-1 by controller at {at(db, 6)}"
    )
    past = db.as_of(before).why("run", run_id, "status")
    assert "processed" not in str(past)
    assert db.as_of(before - 1).why("run", run_id, "status").value == "ONGOING"


def test_why_goes_back_to_the_start_of_a_chain(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    cause = 2
    for chunk in range(1, 30):
        db.set_run_progress(run_id, chunk, 0, cause=cause)
        cause = db.store.head()
    why = db.why("run", run_id, "current_chunk")
    assert [link.recorded.position for link in why.links] == list(range(31, 1, -1))
    assert str(why).count("because of") == 29


def test_why_a_column_that_never_changed_is_as_it_is(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"), "first", actor="user")
    db.set_run_status(run_id, "ONGOING")
    why = db.why("run", run_id, "run_name")
    assert str(why) == (
        f"run 1: run_name is 'first' since event 2, RunCreated in run-1 by user at {at(db, 2)}\n"
        f"  no cause of it was noted"
    )
    assert db.why("run", run_id, "seed").value is None
    assert db.why("run", run_id, "position").links[0].recorded.position == 3


def test_why_tells_when_a_value_came_back(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    for chunk in (1, 2, 1, 1):
        db.set_run_progress(run_id, chunk, 0)
    db.set_run_status(run_id, "ONGOING")
    assert db.why("run", run_id, "current_chunk").links[0].recorded.position == 5


@pytest.mark.parametrize(
    ("cause", "links"),
    [(1, [3, 1]), (3, [3]), (4, [3]), (0, [3]), (2**63 - 1, [3])],
    ids=["before", "itself", "later", "none", "far off"],
)
def test_a_cause_that_points_somewhere(db: RfDb, cause: int, links: list[int]) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    db.set_run_status(run_id, "ONGOING", cause=cause)
    db.set_run_progress(run_id, 1, 0, cause=3)  # with 4 above: a circle
    why = db.why("run", run_id, "status")
    assert [link.recorded.position for link in why.links] == links
    last = str(why).splitlines()[-1]
    assert f"because of event {cause}" in last
    assert ("which is not in the log" in last) == (cause in (0, 2**63 - 1))
    assert ("which came no earlier" in last) == (cause in (3, 4))
    chunk = db.why("run", run_id, "current_chunk")
    assert [link.recorded.position for link in chunk.links] == [4, *links]


def test_a_cause_that_cannot_be_read(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    unknown = append_row(place, "patient-1", "DoseDoubled", {"mg": 5})
    db.set_run_status(run_id, "ONGOING", cause=unknown)
    why = db.why("run", run_id, "status")
    assert [link.recorded.type for link in why.links] == ["RunStarted", "DoseDoubled"]
    assert "because of event 3, DoseDoubled in patient-1 at" in str(why)
    db.set_run_status(run_id, "STOPPED", cause=1)
    damage(place, 1, "{")
    with pytest.raises(DamagedEvent, match="event 1 ") as caught:
        db.why("run", run_id, "status")
    assert caught.value.position == 1
    assert db.why("run", run_id, "seed").value is None


def test_there_is_no_why_of_what_is_not_there(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    with pytest.raises(NotFound, match="no event up to 2 touches run_id 9"):
        db.why("run", 9, "status")
    # config_leaf is joined in by the SQL view.
    for column in ("stat", "config_leaf"):
        told = rf"runs, .* have no column '{column}': take one of run_id, .*status, .*config_digest"
        with pytest.raises(NotFound, match=told):
            db.why("run", run_id, column)
    db.reset_all_tables(actor="user")
    with pytest.raises(
        NotFound, match=r"no run_id 1 any more, since event 3, TablesReset in store by user at 20"
    ):
        db.why("run", run_id, "status")
    assert db.as_of(2).why("run", run_id, "status").value == "NEW"


# --- bad input ---------------------------------------------------------------------------------


def test_an_unknown_entity(db: RfDb) -> None:
    db.create_run(db.create_experiment("digits"))
    unknown: list[Any] = ["runz", "Run", "", "runs_folded", "events", None, 5, [], b"run"]
    for entity in unknown:
        for look in (db.history, partial(db.why, column="status")):
            with pytest.raises(NotFound, match=r"there is no entity .*: take one of experiment, "):
                look(entity, 1)


NO_KEYS: list[Any] = ["1", "x", "", b"1", 1.0, 1.5, float("nan"), True, None, [], (1,), {}]


@pytest.mark.parametrize("built", [False, True], ids=["fresh", "built"])
def test_a_key_that_no_row_has(db: RfDb, built: bool) -> None:
    db.create_run(db.create_experiment("digits"))
    if built:
        db.diff(0, 2)
    for key in [*NO_KEYS, -(2**70), 2**63, 2**63 - 1, -1, 0, 2]:
        for look in (db.history, partial(db.why, column="status"), db.as_of(1).history):
            with pytest.raises((NotFound, InvalidCommand), match="run_id") as caught:
                look("run", key)
            assert str(key) in str(caught.value)
            assert len(str(caught.value)) < 200


def test_a_key_that_no_row_of_words_has(db: RfDb) -> None:
    db.create_run(db.create_experiment("digits"))
    keys: list[Any] = [1, True, None, "RUN", b"run", "run\0", "\ud800"]
    for _ in range(2):
        for key in keys:
            with pytest.raises((NotFound, InvalidCommand), match="kind"):
                db.history("ids", key)
        db.diff(0, 2)


def test_the_history_of_an_empty_store(db: RfDb) -> None:
    for entity in ENTITIES:
        with pytest.raises(NotFound, match="no event up to 0 touches"):
            db.history(entity, "worker-1" if entity == "member" else 1)


def test_a_damaged_event_in_a_history(db: RfDb, place: str) -> None:
    experiment_id = db.create_experiment("digits")
    for _ in range(2):
        db.create_run(experiment_id)
    for chunk in range(1, 5):
        db.set_run_progress(1, chunk, 0)
        db.set_run_progress(2, chunk, 0)
    whole = {run_id: db.history("run", run_id) for run_id in (1, 2)}
    damage(place, 6, "{")  # of run 1
    with RfDb(place) as fresh:
        with pytest.raises(DamagedEvent, match=r"event 6 \(RunProgressed") as caught:
            fresh.history("run", 1)
        assert caught.value.position == 6
        with pytest.raises(DamagedEvent, match="event 6"):
            fresh.why("run", 1, "current_chunk")
        assert fresh.history("run", 2) == whole[2]  # nothing of it is damaged
        assert fresh.as_of(5).history("run", 1) == whole[1][:2]
        assert fresh.as_of(5).why("run", 1, "current_chunk").value == 1
        assert fresh.history("experiment", 1)[0].change.kind == "added"


def test_an_event_of_tomorrow_in_a_history(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    append_row(place, "run-1", "RunPraised", {})
    db.store.append("run-1", [RunStopped(run_id)])
    assert positions(db.history("run", run_id)) == [2, 4]
    assert positions(db.as_of(4).history("run", run_id)) == [2, 4]


@pytest.mark.parametrize("stray", [False, True], ids=["in its stream", "elsewhere"])
def test_an_event_of_a_newer_release_in_the_way_of_a_history(
    db: RfDb, place: str, stray: bool
) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    stream = "elsewhere" if stray else "run-1"
    append_row(place, stream, "RunProgressed", {"percent": 5}, schema_version=9, stray=stray)
    for _ in range(2):
        with pytest.raises(UnknownEventType, match=r"event 3: .*'RunProgressed', schema version 9"):
            db.history("run", run_id)
        assert positions(db.as_of(2).history("run", run_id)) == [2]
        db.diff(0, 2)


# --- events by their positions -----------------------------------------------------------------


def test_events_by_their_positions(store: EventStore) -> None:
    store.append("run-1", [RunProgressed(1, n, 0) for n in range(1, 1203)])
    whole = list(store.read())
    assert list(store.read_at([])) == []
    assert list(store.read_at([3, 1, 3, 2])) == whole[:3]
    assert list(store.read_at(range(0, 3000))) == whole
    assert list(store.read_at(p for p in (-5, 0, 1202, 1203, 2**63 - 1))) == whole[-1:]
    with store.transaction():
        store.append("run-1", [RunStopped(1)])
        assert [r.type for r in store.read_at([1202, 1203])] == ["RunProgressed", "RunStopped"]


def test_what_is_no_position(db: RfDb) -> None:
    db.append(RunStarted(1))
    nothing: list[Any] = ["1", 1.5, None]
    for store in (db.store, db.as_of(1).store):
        for position in nothing:
            with pytest.raises(InvalidCommand, match="is not a position"):
                list(store.read_at([position]))
        for far in (2**63, 2**200, -(2**70)):
            assert [recorded.position for recorded in store.read_at([far, 1])] == [1]

"""Which rows differ between two moments, and what an event has changed."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from random_logs import (
    OWN,
    VIEWS,
    BirdSeen,
    BirdsFlown,
    BirdsRinged,
    FlockLed,
    Step,
    append_row,
    apply,
    exactly,
    log_of,
    steps,
)
from tables import tables
from test_damaged_events import damage
from tries import tries

from refold import DBException, InvalidMoment, NotFound, RfDb, UnknownEventType
from refold.eventstore import DamagedEvent, paging
from refold.eventstore.events import RunProgressed, TablesReset
from refold.projections.past import version_writer
from refold.projections.past.changes import Change

Place = Callable[[], str]


# --- one end makes the other -------------------------------------------------------------------


@pytest.mark.property
def test_a_diff_applied_to_one_end_gives_the_other(new_place: Place, engine: str) -> None:
    @tries(24, engine)
    @given(st.lists(steps, max_size=10), st.data())
    def check(happens: list[Step], data: st.DataObject) -> None:
        with log_of(new_place(), happens) as log:
            then = {p: tables(log.db.as_of(p)) for p in log.positions}
            moments = st.sampled_from(log.positions)
            for a, b in data.draw(st.lists(st.tuples(moments, moments), max_size=8)):
                changes = log.db.diff(a, b)
                # Also columns that SQL keeps as 0 or 1 come back as bools: apply compares by value.
                assert apply(changes, then[a]) == then[b]
                assert log.db.diff(b, a) == [inverse(change) for change in changes]
                assert in_order(changes)
                if a == b:
                    assert changes == []

    check()


def inverse(change: Change) -> Change:
    return replace(change, before=change.after, after=change.before)


def in_order(changes: list[Change]) -> bool:
    names = [view.name for view in VIEWS]
    told = [(names.index(change.view), change.key) for change in changes]
    return told == sorted(set(told))


@pytest.mark.property
def test_what_an_event_changed_is_the_diff_to_the_moment_before(
    new_place: Place, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tries(24, engine)
    @given(st.lists(steps, max_size=10), st.sampled_from([0, 2, 400_000]))
    def check(happens: list[Step], remembered: int) -> None:
        monkeypatch.setattr(version_writer, "ROWS_REMEMBERED", remembered)
        monkeypatch.setattr(paging, "PAGE", 3)
        with log_of(new_place(), happens) as log, RfDb(log.place, projections=OWN) as fresh:
            rows = tables(fresh.as_of(0))
            for recorded in log.events:
                changes = log.db.changes_by(recorded)
                assert changes == fresh.diff(recorded.position - 1, recorded.position)
                assert exactly(changes) == exactly(
                    fresh.diff(recorded.position - 1, recorded.position)
                )
                rows = apply(changes, rows)
            assert rows == tables(log.db)

    check()


# --- what it tells -----------------------------------------------------------------------------


def test_rows_added_changed_and_removed(db: RfDb) -> None:
    experiment_id = db.create_experiment("digits")
    db.create_run(experiment_id, seed=7)
    start = db.store.head()
    db.set_run_status(1, "ONGOING")
    db.set_run_progress(1, 2, 0)
    db.create_worker_task(1, 0, 0)
    middle = db.store.head()
    db.reset_all_tables()
    changed, added, *_ = db.diff(start, middle)
    assert (changed.view, changed.key, changed.kind) == ("runs", 1, "changed")
    assert changed.columns == {"status": ("NEW", "ONGOING"), "current_chunk": (0, 2)}
    assert str(changed) == "runs 1 changed: status 'NEW' -> 'ONGOING', current_chunk 0 -> 2"
    assert (added.view, added.key, added.kind, added.before) == ("worker_task", 1, "added", None)
    assert added.columns["status"] == (None, "SCHEDULED")
    assert "error" not in added.columns  # None as before
    removed = [change for change in db.diff(middle, db.store.head()) if change.kind == "removed"]
    assert [(change.view, change.key) for change in removed] == [("runs", 1), ("worker_task", 1)]
    assert removed[0].columns["seed"] == (7, None)
    assert str(removed[0]).startswith("runs 1 removed: run_id 1, ")
    assert db.diff(start, start) == []
    ids = [change for change in db.diff(0, middle) if change.view == "ids"]
    assert [(change.key, change.columns["last"]) for change in ids] == [
        ("experiment", (None, 1)),
        ("run", (None, 1)),
        ("task", (None, 1)),
    ]


def test_a_diff_of_some_entities(db: RfDb) -> None:
    before = db.store.head()
    run_id = db.create_run(db.create_experiment("digits"))
    db.create_worker_task(run_id, 0, 0)
    whole = db.diff(before, db.store.head())
    some = db.diff(before, db.store.head(), entities=["task", "experiments"])
    assert some == [one for one in whole if one.view in ("experiments", "worker_task")]
    assert len(some) == 2
    assert db.diff(before, db.store.head(), entities=[]) == []
    with pytest.raises(NotFound, match="there is no entity 'cat'"):
        db.diff(before, db.store.head(), entities=["cat"])


def test_a_row_that_is_what_it_was_has_changed_only_its_bookkeeping(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    for chunk in (1, 0):
        db.set_run_progress(run_id, chunk, 0)
    [change] = db.diff(2, 4)
    assert change.columns == {}
    assert change.before
    assert change.after
    assert (change.before["position"], change.after["position"]) == (2, 4)


def test_a_row_that_was_removed_and_began_anew_has_changed(db: RfDb) -> None:
    db.set_worker_progress(7, "IDLE")
    db.reset_all_tables()
    db.set_worker_progress(7, "TRAIN_VAL")
    [change] = db.diff(1, 3)
    assert change.columns == {"task": ("IDLE", "TRAIN_VAL")}
    assert [c.kind for c in db.diff(1, 2)] == ["removed"]
    assert [c.kind for c in db.diff(2, 1)] == ["added"]
    assert db.diff(0, 2) == []


def test_the_columns_have_the_types_of_the_rows(place: str) -> None:
    with RfDb(place, projections=OWN) as db:
        db.append(BirdSeen(1, "oak", 2.0))
        _, change = [None, *(c for c in db.diff(0, 1) if c.view == "birds")]
        assert change.after == {
            "bird_id": 1,
            "perch": "oak",
            "weight": 2.0,
            "heavy": True,
            "looks": 1,
            "previous": None,
            "raw": b"\0\xff",
            "created_at": change.after["created_at"],
            "updated_at": change.after["created_at"],
            "position": 1,
        }
        assert type(change.after["heavy"]) is bool
        assert type(change.after["weight"]) is float
        assert "heavy True" in str(change)


def test_an_event_that_touches_many_rows(place: str) -> None:
    with RfDb(place, projections=OWN) as db:
        db.append(*[BirdSeen(n, "oak") for n in range(4)])
        flown, led = db.append(BirdsFlown([3, 1, 1, 9]), FlockLed(2))
        assert [(c.key, c.kind) for c in db.changes_by(flown)] == [(1, "removed"), (3, "removed")]
        assert [(c.key, c.kind) for c in db.changes_by(led)] == [(0, "removed"), (2, "changed")]
        [ringed] = db.append(BirdsRinged([2, 9, 2]))
        [change] = db.changes_by(ringed)
        assert change.columns == {"looks": (1, 3)}
        assert db.history("birds", 2)[-1].change == change
        [reset] = db.append(TablesReset(True))
        assert [(c.view, c.kind) for c in db.changes_by(reset)] == [("birds", "removed")]
        assert db.changes_by(*db.append(TablesReset(True))) == []


# --- moments -----------------------------------------------------------------------------------


def test_a_diff_between_times(place: str) -> None:
    now = 1_700_000_000_000_000
    with RfDb(place, clock=lambda: now) as db:
        db.create_run(db.create_experiment("digits"))
        now += 1_000_000
        db.set_run_status(1, "ONGOING")
        first, last = db.store.read_at([1, 3])
        assert db.diff(first.time, last.time) == db.diff(2, 3) != []
        assert db.diff(last.time, 0) == db.diff(3, 0)


def test_the_diff_of_a_moment_ends_there(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    recorded = [
        db.append(RunProgressed(run_id, chunk, 0), actor="worker-0")[0] for chunk in (1, 2, 3)
    ]
    past = db.as_of(4)
    assert past.diff(0, 4) == db.diff(0, 4)
    assert past.changes_by(recorded[1]) == db.changes_by(recorded[1]) != []
    with pytest.raises(InvalidMoment, match="no position 5"):
        past.diff(0, 5)
    with pytest.raises(InvalidMoment, match="5"):  # it has not happened yet
        past.changes_by(recorded[2])


def test_an_event_of_another_log_has_changed_nothing_here(new_place: Place) -> None:
    with RfDb(new_place()) as db, RfDb(new_place()) as other:
        for face, count in ((db, 2), (other, 4)):
            for n in range(count):
                face.create_experiment(f"digits {n}")
        with pytest.raises(InvalidMoment, match="4"):
            db.changes_by(list(other.store.read())[-1])


# --- what cannot be read -----------------------------------------------------------------------


def test_diffs_before_a_damaged_event(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    for chunk in range(1, 5):
        db.set_run_progress(run_id, chunk, 0)
    events = list(db.store.read())
    whole = {(a, b): db.diff(a, b) for a in range(4) for b in range(4)}
    damage(place, 4, '{"run_id":1}')
    with RfDb(place) as fresh:
        for _ in range(2):
            for (a, b), changes in whole.items():
                assert fresh.diff(a, b) == changes
            for recorded in events[:3]:
                assert fresh.changes_by(recorded) == db.changes_by(recorded)
            looks: list[Callable[[], object]] = [
                lambda: fresh.diff(3, 4),
                lambda: fresh.diff(6, 0),
                lambda: fresh.changes_by(events[3]),
                lambda: fresh.changes_by(events[4]),
            ]
            for look in looks:
                with pytest.raises(DamagedEvent, match="event 4 ") as caught:
                    look()
                assert caught.value.position == 4


def test_an_event_of_tomorrow_changes_nothing_or_is_in_the_way(db: RfDb, place: str) -> None:
    db.create_run(db.create_experiment("digits"))
    append_row(place, "run-1", "RunPraised", {})
    append_row(place, "run-1", "RunProgressed", {"percent": 5}, schema_version=9)
    *_, unknown, newer = db.store.read(unknown=True)
    assert db.changes_by(unknown) == db.diff(2, 3) == []
    for look in (lambda: db.changes_by(newer), lambda: db.diff(3, 4)):
        with pytest.raises(UnknownEventType, match="event 4") as caught:
            look()
        assert isinstance(caught.value, DBException)

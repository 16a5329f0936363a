"""Stepping through a log, forwards and backwards, with the state at each event."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_logs import Step, append_row, log_of, steps
from tables import tables
from test_damaged_events import damage
from tries import tries

from refold import InvalidCommand, InvalidMoment, RfDb, replay
from refold.eventstore import DamagedEvent, Recorded
from refold.eventstore.events import ExperimentCreated, RunProgressed

Place = Callable[[], str]


def small_windows(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    # By way of sys.modules, as `refold.replay` is the function too.
    monkeypatch.setattr(sys.modules[replay.__module__], "WINDOW", window)


def fill(db: RfDb, count: int) -> list[Recorded]:
    """Make a log of so many events."""
    run_id = db.create_run(db.create_experiment("digits"))
    db.append(*[RunProgressed(run_id, chunk, 0) for chunk in range(1, count - 1)])
    return list(db.store.read())


def where(step: Any) -> int | None:
    return None if step is None else step.position


# --- every event, there and back ---------------------------------------------------------------


@pytest.mark.property
def test_a_replay_shows_every_event_with_the_state_at_it(new_place: Place, engine: str) -> None:
    @tries(16, engine)
    @given(st.lists(steps, max_size=8))
    def check(happens: list[Step]) -> None:
        with log_of(new_place(), happens) as log:
            then, events = log.folded(), log.events
            walk = replay(log.db)
            assert walk.here.recorded is None
            assert tables(walk.here.state) == then[0]
            forwards = list(walk)
            assert [step.recorded for step in forwards] == events
            for step in forwards:
                assert tables(step.state) == then[step.position]
                assert step.changes == log.db.changes_by(step.recorded)
            backwards = list(replay(log.db, step=-1))
            assert [step.recorded for step in backwards] == [*reversed(events[:-1]), None][
                : len(events)
            ]
            for step in backwards:
                assert tables(step.state) == then[step.position]

    check()


@pytest.mark.property
def test_a_walk_of_any_steps(
    new_place: Place, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a list and an index: stepping back undoes a step, whatever was done before."""
    moves = st.one_of(
        st.sampled_from(["forward", "back", "forward", "back", "next"]),
        st.tuples(st.sampled_from(["seek", "seek back"]), st.integers(0, 14)),
    )

    @tries(60, engine)
    @given(
        st.integers(0, 12),
        st.integers(1, 4),
        st.integers(-3, 3).filter(bool),
        st.lists(moves, max_size=30),
        st.data(),
    )
    def check(count: int, window: int, step: int, walk: list[Any], data: st.DataObject) -> None:
        small_windows(monkeypatch, window)
        with RfDb(new_place()) as db:
            db.append(*[RunProgressed(1, chunk, 0) for chunk in range(count)])
            positions = [0, *(e.position for e in db.store.read())]
            stop = data.draw(st.integers(0, count))
            low, high = (0, stop) if step > 0 else (stop, count)
            here = data.draw(st.integers(low, high))
            walking = replay(db, start_at=positions[here], stop_at=positions[stop], step=step)
            for move in walk:
                if isinstance(move, tuple):
                    what, chunk = move
                    wanted = chunk + 1  # the index of the event with it
                    found = here < wanted <= high if what == "seek" else low <= wanted < here
                    got = walking.seek(
                        lambda e, chunk=chunk: e.event.current_chunk == chunk,
                        backwards=what == "seek back",
                    )
                    here = wanted if found else here
                    assert where(got) == (positions[here] if found else None)
                else:
                    forwards = move == "forward" or (move == "next" and step > 0)
                    to = min(high, here + abs(step)) if forwards else max(low, here - abs(step))
                    calls = {"forward": walking.forward, "back": walking.back}
                    got = calls[move]() if move in calls else next(walking, None)
                    assert where(got) == (positions[to] if to != here else None)
                    here = to
                assert walking.here.position == positions[here]

    check()


@pytest.mark.parametrize("window", [1, 2, 3, 250])
def test_there_and_back(db: RfDb, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch, window)
    events = fill(db, 9)
    walk = replay(db)
    seen = [walk.here.recorded]
    while step := walk.forward():
        seen.append(step.recorded)
    assert seen == [None, *events]
    assert walk.forward() is None
    back = [walk.here.recorded]
    while step := walk.back():
        back.append(step.recorded)
    assert back == seen[::-1]
    assert walk.back() is None
    assert [where(walk.forward()) for _ in range(2)] == [1, 2]
    assert [where(walk.back()) for _ in range(3)] == [1, 0, None]


@pytest.mark.parametrize(
    ("step", "seen"),
    [
        (2, [2, 4, 6, 7]),
        (3, [3, 6, 7]),
        (7, [7]),
        (100, [7]),
        (-1, [6, 5, 4, 3, 2, 1, 0]),
        (-2, [5, 3, 1, 0]),
        (-100, [0]),
    ],
)
def test_several_events_at_a_time(db: RfDb, step: int, seen: list[int]) -> None:
    fill(db, 7)
    walk = replay(db, step=step)
    assert [moment.position for moment in walk] == seen
    assert next(walk, None) is None
    # As an iterator it has ended, and the other way is open.
    other = walk.back if step > 0 else walk.forward
    assert where(other()) == (max(0, 7 - step) if step > 0 else min(7, -step))


# --- where it begins and ends ------------------------------------------------------------------


def test_it_begins_and_ends_where_it_is_told(db: RfDb) -> None:
    events = fill(db, 6)
    assert [step.position for step in replay(db, start_at=2)] == [3, 4, 5, 6]
    assert [step.position for step in replay(db, start_at=2, stop_at=4)] == [3, 4]
    assert replay(db, start_at=3).here.recorded == events[2]
    assert [step.position for step in replay(db, stop_at=0)] == []
    assert [step.position for step in replay(db, start_at=6)] == []
    assert [step.position for step in replay(db, start_at=4, step=-1)] == [3, 2, 1, 0]


def test_it_begins_and_ends_at_times(place: str) -> None:
    now = 1_700_000_000_000_000
    with RfDb(place, clock=lambda: now) as db:
        for _ in range(5):
            now += 1
            db.create_experiment("digits")
        second, fourth = (recorded.time for recorded in db.store.read_at([2, 4]))
        walk = replay(db, start_at=second, stop_at=fourth)
        assert walk.here.position == 2
        assert [step.position for step in walk] == [3, 4]


def test_backwards_it_ends_where_it_is_told_too(db: RfDb) -> None:
    """`stop_at` is the last event to come to, whatever the direction."""
    fill(db, 6)
    assert [step.position for step in replay(db, start_at=5, stop_at=3, step=-1)] == [4, 3]


def test_what_comes_in_later_is_not_walked_to(db: RfDb) -> None:
    fill(db, 4)
    walk = replay(db, start_at=3)
    db.set_run_progress(1, 9, 9)
    assert [step.position for step in walk] == [4]


def test_a_replay_of_a_moment(db: RfDb) -> None:
    fill(db, 6)
    walk = replay(db.as_of(4))
    assert [step.position for step in walk] == [1, 2, 3, 4]
    assert walk.here.state.get_run(1)["current_chunk"] == 2
    assert walk.here.changes == db.diff(3, 4)
    with pytest.raises(InvalidMoment):
        replay(db.as_of(4), stop_at=5)


def test_the_replay_of_an_empty_store(db: RfDb) -> None:
    walk = replay(db)
    assert list(walk) == []
    assert (walk.forward(), walk.back(), walk.seek(lambda _: True)) == (None, None, None)
    assert (walk.here.position, walk.here.recorded, walk.here.changes) == (0, None, [])
    assert not any(tables(walk.here.state).values())


def test_a_seek(db: RfDb) -> None:
    fill(db, 8)
    walk = replay(db)
    assert where(walk.seek(lambda e: isinstance(e.event, RunProgressed))) == 3
    assert where(walk.seek(lambda e: e.position > 5)) == 6
    assert walk.seek(lambda e: isinstance(e.event, ExperimentCreated)) is None
    assert walk.here.position == 6
    assert where(walk.forward()) == 7
    assert where(walk.back()) == 6
    assert where(walk.seek(lambda e: e.stream != "run-1", backwards=True)) == 1
    assert walk.seek(lambda _: True, backwards=True) is None
    assert [where(walk.back()), where(walk.forward())] == [0, 1]


# --- bad input ---------------------------------------------------------------------------------


def test_what_is_no_step_and_no_moment(db: RfDb) -> None:
    fill(db, 3)
    no_steps: list[Any] = [0, 0.5, 1.0, "1", None, [], float("inf")]
    for step in no_steps:
        with pytest.raises(InvalidCommand, match="pass a number of events"):
            replay(db, step=step)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    no_moments: list[Any] = [9, -1, True, "1", 1.0, datetime(2026, 1, 1), tomorrow]
    for moment in no_moments:
        for end in ("start_at", "stop_at"):
            with pytest.raises(InvalidMoment):
                replay(db, **{end: moment})


def test_every_event_before_a_damaged_one_is_walked_to(db: RfDb, place: str) -> None:
    events = fill(db, 9)
    damage(place, 5, "{")
    walk = replay(db)
    for _ in range(2):
        assert [where(walk.forward()) for _ in range(4)] == [1, 2, 3, 4]
        for _ in range(2):
            with pytest.raises(DamagedEvent, match="event 5 ") as caught:
                walk.forward()
            assert caught.value.position == 5
            assert walk.here.recorded == events[3]
            assert walk.here.state.get_run(1)["current_chunk"] == 2
        assert [where(walk.back()) for _ in range(4)] == [3, 2, 1, 0]
    steps = iter(replay(db))
    assert [next(steps).position for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(DamagedEvent, match="event 5 "):
        next(steps)
    with pytest.raises(DamagedEvent, match="event 5 "):
        replay(db).seek(lambda e: e.position > 5)
    several = replay(db, step=3)
    assert [where(several.forward()) for _ in range(2)] == [3, 4]
    with pytest.raises(DamagedEvent, match="event 5 "):
        several.forward()


def test_every_event_behind_a_damaged_one_is_walked_back_to(db: RfDb, place: str) -> None:
    events = fill(db, 9)
    damage(place, 5, "{")
    walk = replay(db, start_at=9)
    assert [walk.back().recorded for _ in range(3)] == [events[n] for n in (7, 6, 5)]  # type: ignore[union-attr]
    with pytest.raises(DamagedEvent, match="event 5 "):
        walk.back()
    assert walk.here.recorded == events[5]
    assert where(walk.forward()) == 7
    with pytest.raises(DamagedEvent, match="event 5 "):
        walk.here.state.get_run(1)


def test_events_of_tomorrow_are_walked_over(db: RfDb, place: str) -> None:
    fill(db, 3)
    append_row(place, "run-1", "RunPraised", {"by": "all"})
    db.set_run_progress(1, 7, 0)
    walk = replay(db)
    assert [step.recorded.type for step in walk][3:] == ["RunPraised", "RunProgressed"]
    step = walk.back()
    assert step is not None
    assert step.changes == []
    assert step.state.get_run(1)["current_chunk"] == 1

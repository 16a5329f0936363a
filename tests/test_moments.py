"""What a moment is: a position that was committed, or a time with its zone."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_logs import append_row
from tables import tables
from tries import tries

from refold import InvalidMoment, RfDb
from refold.eventstore.events import RunProgressed
from refold.eventstore.times import EPOCH, MICROSECOND, SECOND, now, to_datetime

Place = Callable[[], str]


# --- what is not a moment -----------------------------------------------------------------------

ABROAD = timezone(timedelta(hours=-11, minutes=-30))


NO_MOMENTS: list[tuple[Any, str]] = [
    (3, r"no position 3: the last that was committed is 2"),
    (2**63, r"no position 9223372036854775808"),
    (2**200, r"no position"),
    (-1, r"-1"),
    (True, r"True is not a moment: pass a position, or a time with its zone"),
    (1.0, r"1\.0 is not a moment"),
    (float("nan"), r"nan is not a moment"),
    ("1", r"'1' is not a moment"),
    ("2026-01-31T12:00:00Z", r"is not a moment"),
    (None, r"None is not a moment"),
    ([1], r"\[1\] is not a moment"),
    (date(2026, 1, 31), r"is not a moment"),
    (timedelta(1), r"is not a moment"),
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


@pytest.mark.property
def test_a_time_is_the_last_event_up_to_it(new_place: Place, engine: str) -> None:
    jumps = st.sampled_from([0, 0, 1, 2, 1_000_000, -1, -3_600_000_000, 86_400_000_000])

    @tries(20, engine)
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
                    moment = to_datetime(microseconds)
                    by_then = [p for p, at in times.items() if at <= microseconds]
                    for zone in (UTC, ABROAD):
                        if by_then:
                            assert db.position_at(moment.astimezone(zone)) == max(by_then)
                        else:
                            with pytest.raises(InvalidMoment, match="the first is of"):
                                db.position_at(moment.astimezone(zone))
                by_then = [p for p, at in times.items() if at <= recorded_at]
                face = db.as_of(to_datetime(recorded_at))
                assert tables(face) == tables(db.as_of(max(by_then)))

    check()


def test_the_time_of_an_event_is_no_future(place: str) -> None:
    """The clock of the machine that recorded it may be ahead of this one."""
    ahead = now() + 3_600 * SECOND
    with RfDb(place, clock=lambda: ahead) as db:
        db.create_experiment("digits")
        [recorded] = db.store.read()
        assert db.position_at(recorded.time) == 1
        assert db.as_of(recorded.time).get_experiment(1)["experiment_name"] == "digits"
        with pytest.raises(InvalidMoment, match="lies in the future"):
            db.as_of(recorded.time + MICROSECOND)


def test_now_is_what_is_there_now(place: str) -> None:
    """A clock was a year ahead for one event."""
    begun, year = now() - 3_600 * SECOND, 365 * 86_400 * SECOND
    with RfDb(place, clock=lambda: begun) as db:
        run_id = db.create_run(db.create_experiment("digits"))
    with RfDb(place, clock=lambda: now() + year) as db:
        db.set_run_status(run_id, "ONGOING")
    with RfDb(place, clock=now) as db:
        db.set_run_status(run_id, "STOPPED")
        head = db.store.head()
        for ago in (0, 1, 60, 3_599):
            for zone in (UTC, ABROAD):
                then = (datetime.now(UTC) - timedelta(seconds=ago)).astimezone(zone)
                assert db.position_at(then) == head
                assert db.as_of(then).get_run(run_id)["status"] == "STOPPED"
        # The time of an event is its own; and in the present everything has happened.
        created, ongoing, stopped = db.store.read_at([head - 2, head - 1, head])
        assert db.position_at(created.time) == head - 2
        assert ongoing.time == stopped.time
        assert db.position_at(stopped.time) == head
        with pytest.raises(InvalidMoment, match="lies in the future"):
            db.position_at(stopped.time + MICROSECOND)
        # What may have happened since is not left out.
        assert db.store.position_before(datetime.now(UTC)) == head - 2
        assert db.as_of(head - 2).position_at(datetime.now(UTC)) == head - 2


def test_now_is_the_last_event_in_the_same_microsecond(place: str) -> None:
    at = now()
    with RfDb(place, clock=lambda: at) as db:
        db.create_run(db.create_experiment("digits"))
        assert db.position_at(to_datetime(at)) == db.store.head()


def test_a_clock_that_was_behind(place: str) -> None:
    with RfDb(place) as db:
        db.create_experiment("digits")
    with RfDb(place, clock=lambda: 0) as db:
        db.create_run(1)
    with RfDb(place) as db:
        db.create_run(1)
        assert db.position_at(datetime.now(UTC)) == db.store.head()
        first, second, _ = db.store.read()
        assert first.time == second.time


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

"""How a time is written: each way gives back what it was given."""

from datetime import UTC, datetime, timedelta, timezone
from sqlite3 import connect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.eventstore import times

FIRST, LAST = (
    times.from_datetime(moment.replace(tzinfo=UTC)) for moment in (datetime.min, datetime.max)
)
moments = st.integers(FIRST, LAST)


@given(moments)
def test_each_way_gives_back_what_it_was_given(moment: int) -> None:
    assert times.from_datetime(times.to_datetime(moment)) == moment
    assert times.from_calendar(times.to_calendar(moment)) == moment
    assert times.from_text(times.to_text(moment)) == moment
    assert times.from_iso(times.to_iso(moment)) == moment
    assert times.to_iso(times.to_text(moment)) == times.to_iso(moment)


@given(moments)
def test_they_are_written_as_python_writes_them(moment: int) -> None:
    local = times.to_datetime(moment).replace(tzinfo=None)
    assert times.to_text(moment) == local.isoformat(" ", "microseconds")
    assert times.to_iso(moment) == f"{local.isoformat(timespec='microseconds')}Z"


@given(st.integers(0, LAST))
def test_sqlite_writes_the_same_text(moment: int) -> None:
    sql = f"SELECT {times.text_in_sqlite('moment')} FROM (SELECT ? AS moment)"
    assert connect(":memory:").execute(sql, (moment,)).fetchone() == (times.to_text(moment),)


@pytest.mark.parametrize("moment", [FIRST - 1, LAST + 1, -(2**63), 2**63 - 1])
def test_beyond_the_calendar(moment: int) -> None:
    for write in (times.to_datetime, times.to_text, times.to_iso):
        with pytest.raises(OverflowError, match="date value out of range"):
            write(moment)
    assert times.to_calendar(moment) == times.from_calendar(moment) == moment


def test_a_zone_is_needed_but_in_the_text_of_the_views() -> None:
    abroad = datetime(2026, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))
    assert times.to_text(times.from_datetime(abroad)) == "2026-01-31 12:00:00.000000"
    for convert, refused in (
        (times.from_datetime, datetime(2026, 1, 31)),
        (times.from_iso, "2026-01-31T12:00"),
        (times.from_text, "2026-01-31 12:00Z"),
    ):
        with pytest.raises(TypeError):
            convert(refused)

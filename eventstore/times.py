"""How a time is written: as microseconds in the log, and from these in every other way.

>>> from refold.eventstore import times
>>> times.to_text(1_769_860_800_000_000)
'2026-01-31 12:00:00.000000'
>>> times.from_text("2026-01-31 12:00:00.000000") == times.from_iso("2026-01-31T13:00+01:00")
True
"""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

SECOND = 1_000_000
"""In microseconds."""

NOW_ON_POSTGRES = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The server's time, in SQL."""


def now() -> int:
    """Return this machine's time, in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000


# --- datetime -----------------------------------------------------------------------------------


def to_datetime(microseconds: int) -> datetime:
    """Return a time as a datetime in UTC.

    Raises:
        OverflowError: it lies before the year 1 or beyond 9999.
    """
    return EPOCH + microseconds * MICROSECOND


def from_datetime(moment: datetime) -> int:
    """Return a datetime that has a zone as microseconds.

    Raises:
        TypeError: it has none.
    """
    return (moment - EPOCH) // MICROSECOND


def to_calendar(microseconds: int) -> datetime | int:
    """Return a time as a datetime or, where it lies beyond the calendar, as it is."""
    try:
        return to_datetime(microseconds)
    except OverflowError:
        return microseconds


def from_calendar(moment: datetime | int) -> int:
    """Return the microseconds that `to_calendar` was given."""
    return moment if isinstance(moment, int) else from_datetime(moment)


def within(microseconds: int) -> int:
    """Return a time or, if it lies beyond the calendar, the nearest that the calendar has."""
    return min(max(microseconds, FIRST), LAST)


def checked(microseconds: int) -> int:
    """Return a time that every view can hold.

    Raises:
        ValueError: it is none, or lies before the year 1 or beyond 9999.
    """
    if not isinstance(microseconds, int) or not FIRST <= microseconds <= LAST:
        raise ValueError(
            f"{microseconds!r:.40} is not a time in microseconds since 1970, in the years 1 to 9999"
        )
    return microseconds


FIRST = from_datetime(datetime.min.replace(tzinfo=UTC))
LAST = from_datetime(datetime.max.replace(tzinfo=UTC))


# --- the text of the views ----------------------------------------------------------------------

_LOCAL_EPOCH = EPOCH.replace(tzinfo=None)


def to_text(microseconds: int) -> str:
    """Return a time as in `2026-01-31 12:00:00.000000`.

    Raises:
        OverflowError: it lies before the year 1 or beyond 9999.
    """
    seconds, rest = divmod(microseconds, SECOND)
    return f"{_whole_seconds(seconds)}.{rest:06d}"


# A rebuild writes a time for each row, and many within one second.
@lru_cache(maxsize=256)
def _whole_seconds(seconds: int) -> str:
    return (_LOCAL_EPOCH + timedelta(seconds=seconds)).isoformat(" ")


def from_text(text: str) -> int:
    """Return the microseconds of such a text.

    Raises:
        TypeError, ValueError: it is none.
    """
    return (datetime.fromisoformat(text) - _LOCAL_EPOCH) // MICROSECOND


def text_in_sqlite(column: str) -> str:
    """Return the SQL that makes such a text of the microseconds in a column."""
    return (
        f"strftime('%Y-%m-%d %H:%M:%S.', {column} / {SECOND}, 'unixepoch') || "
        f"printf('%06d', {column} % {SECOND})"
    )


# --- ISO text -----------------------------------------------------------------------------------


def to_iso(moment: int | str) -> str:
    """Return a time, in microseconds or as the text of the views, as `2026-01-31T12:00:00.000000Z`.

    Raises:
        OverflowError: it lies before the year 1 or beyond 9999.
    """
    text = moment if isinstance(moment, str) else to_text(moment)
    return f"{text.replace(' ', 'T')}Z"


def from_iso(text: str) -> int:
    """Return the microseconds of ISO text with a zone.

    Raises:
        TypeError, ValueError: it is none, or has no zone.
    """
    return from_datetime(datetime.fromisoformat(text))

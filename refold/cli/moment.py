"""A moment as people write it: `120`, `2026-01-31T12:00Z`, `5m` (ago), `now`."""

import re
from datetime import UTC, datetime, timedelta

import typer

from refold.eventstore.moments import Moment
from refold.face import Face

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"-?(\d+(?:\.\d+)?)([smhdw])(?: ago)?")


def moment(text: str) -> Moment | None:
    """Return the moment that a text names; None for `now`.

    Raises:
        typer.BadParameter: it names none, or is a time without a zone.
    """
    if text == "now":
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no moment: pass a position such as 120, a time such as "
            f"2026-01-31T12:00Z, or 5m for five minutes ago (s, m, h, d, w)"
        ) from None
    if time.utcoffset() is None:
        whole = text if len(text) > len("2026-01-31") else f"{text}T00:00"
        raise typer.BadParameter(
            f"the time {text!r} has no zone: {whole}Z would be UTC, {whole}+01:00 an hour ahead"
        )
    return time


def position(db: Face, text: str) -> int:
    """Return the position of the last event at a moment.

    Raises:
        typer.BadParameter: it is no moment.
        InvalidMoment: it lies in the future or before the first event.
    """
    when = moment(text)
    return db.store.head() if when is None else db.position_at(when)

"""Rows of the views as the command line shows them: times with zone, what is unreadable as text."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, cast

from refold.eventstore import times
from refold.face import Face
from refold.projections import View
from refold.rows import Row, Unreadable, read_rows


def select(
    db: Face,
    view: View[Any],
    wanted: Mapping[str, Any],
    *,
    limit: int | None = None,
    config: bool = False,
) -> list[Row]:
    """Return the rows of a view whose columns hold what is wanted, by key.

    Args:
        db: the store.
        view: the view.
        wanted: by the column, a value or a list of values; None or no value: any.
        limit: only this many of the last.
        config: whether configurations are decoded, or left out.
    """
    conditions = ["true"]
    parameters: list[Any] = []
    for name, value in wanted.items():
        values = _values(value)
        if values:
            # Statuses are in capitals or small letters, depending on the face that wrote them.
            column = f"lower({name})" if isinstance(values[0], str) else name
            conditions.append(f"{column} IN ({', '.join('?' * len(values))})")
            parameters += [one.lower() if isinstance(one, str) else one for one in values]
    rest = f"WHERE {' AND '.join(conditions)} ORDER BY {view.key} DESC"
    if limit is not None:
        rest += " LIMIT ?"
        parameters.append(limit)
    rows = read_rows(db.views, view, rest, *parameters, payloads=db.payloads, config=config)
    return [shown_row(row) for row in reversed(rows)]


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def shown_row(row: Row) -> Row:
    """Return a row as it is shown."""
    row = {
        name: str(value) if isinstance(value, Unreadable) else value for name, value in row.items()
    }
    if "metrics" in row:
        row["metrics"] = _worded(row["metrics"])
    for name in ("created_at", "updated_at", "since", "heard", "lost_since"):
        if is_time(row.get(name)):
            row[name] = times.to_iso(row[name])
    return row


def _worded(value: Any) -> Any:
    # JSON has no NaN: the word for it stands in its place.
    if isinstance(value, dict):
        return {name: _worded(one) for name, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_worded(one) for one in cast("list[Any]", value)]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def is_time(value: Any) -> bool:
    """Return whether a value is a time as the views have it, or as it is shown."""
    try:
        times.from_text(value.removesuffix("Z"))
    except (AttributeError, TypeError, ValueError):
        return False
    return True

"""Rows, events, changes and reasons as JSON has them, for the command line and the window.

Times have a zone, and what is unreadable is a text.
"""

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

import msgspec

from refold.eventstore import times
from refold.eventstore.event import UnknownEvent
from refold.eventstore.log.recorded import Recorded
from refold.face import Face
from refold.projections import View
from refold.rows import Row, Unreadable, read_rows

if TYPE_CHECKING:
    from refold.projections.past.changes import Change
    from refold.projections.past.history import Why


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


def data_of(recorded: Recorded) -> dict[str, Any]:
    """Return what an event tells, as the log has it."""
    event = recorded.event
    return dict(event.data) if isinstance(event, UnknownEvent) else msgspec.to_builtins(event)


def event_as_json(recorded: Recorded) -> dict[str, Any]:
    """Return an event under the names that the columns of the log have."""
    event = recorded.event
    return {
        "position": recorded.position,
        "stream": recorded.stream,
        "version": recorded.version,
        "type": recorded.type,
        "schema_version": event.version
        if isinstance(event, UnknownEvent)
        else event.schema_version,
        "data": data_of(recorded),
        "metadata": msgspec.to_builtins(recorded.metadata),
        "recorded_at": times.to_iso(times.within(recorded.recorded_at)),
    }


def change_as_json(change: "Change") -> dict[str, Any]:
    """Return a change with its columns, each before and after."""
    return {
        "view": change.view,
        "key": change.key,
        "kind": change.kind,
        "columns": change.columns,
    }


def why_as_json(reason: "Why") -> dict[str, Any]:
    """Return why a column holds what it does, with the events of the chain."""
    return {
        "entity": reason.entity,
        "key": reason.key,
        "column": reason.column,
        "value": plain(reason.value),
        "links": [
            {
                "event": event_as_json(link.recorded),
                "processed": None if link.processed is None else event_as_json(link.processed),
            }
            for link in reason.links
        ],
    }


def plain(value: Any) -> Any:
    """Return what JSON can hold of a value: anything else as its `repr`."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, Any]", value)
        return {
            plain(key) if isinstance(key, str) else repr(key): plain(one)
            for key, one in mapping.items()
        }
    if isinstance(value, list | tuple):
        return [plain(one) for one in cast("list[Any]", value)]
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()  # lone surrogates
    if value is None or isinstance(value, int | float):
        return value
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError):
        return repr(value)

"""Rows of the views as the command line shows them: configurations decoded, times with zone."""

from collections.abc import Mapping
from typing import Any, cast

from refold.eventstore import times
from refold.eventstore.errors import InvalidPayload
from refold.eventstore.words import with_words
from refold.face import Face

Row = dict[str, Any]


def select(
    db: Face, table: str, key: str, wanted: Mapping[str, Any], *, limit: int | None = None
) -> list[Row]:
    """Return the rows of a view whose columns hold what is wanted, by key.

    Args:
        db: the store.
        table: the view, as SQL knows it.
        key: its key column.
        wanted: by the column, a value or a list of values; None or no value: any.
        limit: only the last so many.
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
    sql = f"SELECT * FROM {table} WHERE {' AND '.join(conditions)} ORDER BY {key} DESC"
    if limit is not None:
        sql += " LIMIT ?"
        parameters.append(limit)
    return [decoded(db, row) for row in reversed(db.views.select(sql, *parameters))]


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def decoded(db: Face, row: Row) -> Row:
    """Return a row with its configuration and metrics decoded, and its times as `--at` takes."""
    row = dict(row)
    for name in ("created_at", "updated_at"):
        row[name] = times.to_iso(row[name])
    if "metrics" in row:
        row["metrics"] = with_words(row["metrics"], row.pop("metric_words"), read=str)
    row.pop("config_json", None)  # the same as `config_leaf`
    if "warm_start" in row:
        row["warm_start"] = bool(row["warm_start"])
    if row.get("config_leaf") is not None:
        row["config_leaf"] = _config(db, row["config_leaf"])
    return row


def _config(db: Face, content: bytes) -> Any:
    try:
        return db.payloads.decode(content)
    except InvalidPayload as error:
        return f"not decoded: {error}"

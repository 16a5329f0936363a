"""SQL text: `tables.sql` cut into its sections, marks for parameters, lists cut to size."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

KEYS = 500
"""Keys that one statement looks for: each takes a parameter, of which there are not many more."""


def marks(values: Sequence[Any]) -> str:
    """Return a parameter's mark for each of some values, to stand in `IN (…)` or `VALUES (…)`.

    For no values it is NULL: `IN (NULL)` holds for no row, and `IN ()` is an error on PostgreSQL.
    """
    return ", ".join("?" * len(values)) or "NULL"


def chunks(values: Sequence[T], size: int | None = None) -> Iterator[Sequence[T]]:
    """Cut values into pieces of a size, `KEYS` by default; the last one is shorter."""
    size = size or KEYS
    for start in range(0, len(values), size):
        yield values[start : start + size]


HERE = Path(__file__).resolve().parent  # in a checkout a link leads here


@cache
def _sections() -> dict[str, str]:
    # In the wheel the file lies in this package; in a checkout at the top, where people look.
    packed = HERE / "tables.sql"
    text = (packed if packed.exists() else HERE.parent / "tables.sql").read_text("utf-8")
    _, *parts = text.split("-- section: ")
    return dict(part.split("\n", 1) for part in parts)


def section(name: str) -> str:
    """Return the SQL text of one section of `tables.sql`: `"log"` or the name of a view."""
    return _sections()[name]


def statements(sql: str) -> list[str]:
    """Cut SQL text into single statements; a trigger with its body is one."""
    found: list[str] = []
    pending = ""
    for line in sql.splitlines(keepends=True):
        if not pending and (not line.strip() or line.startswith("--")):
            continue
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    if pending.strip():
        found.append(pending.strip())
    return found


PARCEL = 16 * 2**20
"""Bytes that are in memory at a time; a larger payload travels alone."""


def parcels(weights: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Cut keys, each with the bytes that it stands for, into parcels."""
    parcel: list[str] = []
    weight = 0
    for key, more in weights:
        if parcel and weight + more > PARCEL:
            yield parcel
            parcel, weight = [], 0
        parcel.append(key)
        weight += more
    if parcel:
        yield parcel

"""Pieces of SQL text: marks for parameters, and lists cut to what one statement can take."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

KEYS = 500
"""Keys that one statement looks for: each takes a parameter, of which there are not many more."""


def marks(values: Sequence[Any]) -> str:
    """Return a parameter's mark for each of some values, to stand in `IN (…)` or `VALUES (…)`.

    For no values it is NULL: `IN (NULL)` holds for no row, and `IN ()` is an error on PostgreSQL.
    """
    return ", ".join("?" * len(values)) or "NULL"


def chunks(values: Sequence[T], size: int = KEYS) -> Iterator[Sequence[T]]:
    """Cut values into pieces of a size, the last one shorter."""
    for start in range(0, len(values), size):
        yield values[start : start + size]

"""SQL text: `tables.sql` cut into its sections, marks for parameters."""

import sqlite3
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any


def marks(values: Sequence[Any]) -> str:
    """Return a parameter's mark for each of some values, to stand in `IN (…)` or `VALUES (…)`.

    For no values it is NULL: `IN (NULL)` holds for no row, and `IN ()` is an error on PostgreSQL.
    """
    return ", ".join("?" * len(values)) or "NULL"


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

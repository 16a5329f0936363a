"""What notebooks show: rows as tables, text as it stands."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from refold.rows import Row
from refold.search import flat

SHOWN = 60
"""Rows of a table, and characters of a cell, that are shown."""


class RunList(list[Row]):
    """Runs, which a notebook shows as a table with a column for each parameter and metric."""

    def _repr_html_(self) -> str:
        return self.html_of(len(self))

    def html_of(self, runs: int) -> str:
        """Return a table of the first of so many runs."""
        return table([_shown(row) for row in self[:SHOWN]], runs)


def _shown(run: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: run[name] for name in ("run_id", "run_name", "status") if name in run}
    parameters, metrics = flat(run.get("config_leaf")), flat(run.get("metrics"))
    both = (parameters.keys() & metrics.keys()) | own.keys()
    for group, values in (("params", parameters), ("metrics", metrics)):
        own |= {f"{group}.{name}" if name in both else name: one for name, one in values.items()}
    return own


def table(rows: list[dict[str, Any]], of: int) -> str:
    """Return rows as a table.

    Args:
        rows: by the names of their columns; what one has not got is an empty cell.
        of: how many rows there are.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [_line("th", names), *(_line("td", [row.get(name) for name in names]) for row in rows)]
    rest = f"<p>{len(rows)} of {of:,}</p>" if of > len(rows) else ""
    return f"<table>{''.join(lines)}</table>{rest}"


def text(value: object) -> str:
    """Return a value's text as it stands."""
    return f"<pre>{escape(str(value))}</pre>"


def _line(tag: str, cells: Iterable[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_cell(cell)}</{tag}>' for cell in cells)}</tr>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return escape(shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…")

"""Rows as a table: ruled and coloured on a terminal, aligned by blanks when piped."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refold.cli.output import COLOURS, is_terminal, note, print_json, shown

Row = Mapping[str, Any]

Columns = Mapping[str, str | Callable[[Any], Any]]
"""What a table shows, by the heading: a column of the rows, or a function of a row."""

SHORT = 26
"""Cells up to this width are not wrapped when the terminal is too narrow."""


def show_rows(rows: Sequence[Row], columns: Columns, *, json: bool, none: str) -> None:
    """Print rows: as a table, or whole as a JSON array.

    Args:
        rows: dicts, as the faces return them.
        columns: what the table shows.
        json: print JSON instead.
        none: what to say if there are no rows, such as `no runs`.
    """
    if json:
        print_json(rows)
    elif rows:
        print_table(rows, columns)
    else:
        note(none)


def print_table(rows: Sequence[Row], columns: Columns) -> None:
    """Print rows as a table; columns in which nothing stands are left out."""
    names: list[str] = []
    texts: list[list[str]] = []
    numbers: list[bool] = []
    for name, of in columns.items():
        values = [row.get(of) if isinstance(of, str) else of(row) for row in rows]
        cells = [shown(value) for value in values]
        if not any(cells):
            continue
        names.append(name)
        texts.append(cells)
        numbers.append(all(isinstance(value, int | float | None) for value in values))
    if is_terminal():
        _print_ruled(names, texts, numbers)
    else:
        _print_aligned(names, texts, numbers)


def _print_aligned(names: list[str], columns: list[list[str]], numbers: list[bool]) -> None:
    padded: list[list[str]] = []
    for name, texts, number in zip(names, columns, numbers, strict=True):
        cells = [name, *(text.replace("\n", "\\n") for text in texts)]
        width = max(map(len, cells))
        padded.append([cell.rjust(width) if number else cell.ljust(width) for cell in cells])
    for line in zip(*padded, strict=True):
        print("  ".join(line).rstrip())


def _print_ruled(names: list[str], columns: list[list[str]], numbers: list[bool]) -> None:
    from rich.box import SIMPLE_HEAD  # only a terminal needs it, and it takes long to import
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name, texts, number in zip(names, columns, numbers, strict=True):
        table.add_column(
            name,
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=max(map(len, texts)) <= SHORT,
        )
    for row in zip(*columns, strict=True):
        table.add_row(*(Text(text, style=COLOURS.get(text.lower(), "")) for text in row))
    Console().print(table)

"""Rows as a table: ruled and coloured on a terminal, aligned by blanks when piped."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any, cast

import msgspec
import typer

from refold.as_json import plain
from refold.eventstore import times
from refold.eventstore.statuses import Stage, stage_of

_COLOURS = {
    Stage.UNDER_WAY: "yellow",
    Stage.DONE: "green",
    Stage.FAILED: "red",
    Stage.HALTED: "magenta",
}


def colour_of(status: object) -> str | None:
    """Return the colour of a status in either case; None if it has none, or is no status."""
    stage = stage_of(status) if isinstance(status, str) else None
    return None if stage is None else _COLOURS.get(stage)


_DIGEST = re.compile(r"[0-9a-f]{64}")


@cache
def is_terminal() -> bool:
    """Return whether somebody looks at it, rather than a program or a file."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


@cache
def is_coloured() -> bool:
    """Return whether colours are welcome."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
    """Return text in a colour, if colours are welcome."""
    if not text or not is_coloured():
        return text
    return typer.style(text, fg=colour, bold=bold or None, dim=dim or None)


def note(message: str) -> None:
    """Write a message to the standard error."""
    print(printable(message), file=sys.stderr)


def complain(message: str) -> None:
    """Say what is wrong."""
    note(f"refold: {message}")


# --- JSON -------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """Print a value as JSON, indented on a terminal."""
    text = _json(value)
    print(_harmless((msgspec.json.format(text) if is_terminal() else text).decode()))


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON Lines, at once."""
    print(_harmless(_json(value).decode()), flush=True)


def _harmless(text: str) -> str:
    """Return JSON that cannot play on the terminal, if one shows it: the same value, escaped."""
    if not is_terminal() or text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError):
        return msgspec.json.encode(plain(value))


# --- text -------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Return text whose control characters are escaped, so that it cannot play on the terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def parsed(value: Any) -> Any:
    """Return what a text holds that is a JSON object; any other value as it is."""
    if isinstance(value, str) and value.startswith("{"):
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(value)
    return value


def shown(value: Any) -> str:
    """Return a value as it is shown in a cell or a line; of a time, people see how long ago."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        when = times.from_datetime(value)
        return f"{span(times.now() - when)} ago" if is_terminal() else seconds_of(when)
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, Any]", value)
        return ", ".join(f"{printable(str(key))} {_within(one)}" for key, one in mapping.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_within, cast('list[Any]', value)))}]"
    return printable(str(value))


def shortened(value: Any) -> str:
    """Return a value as it is shown in a line of its own: a digest as its beginning."""
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return f"{value[:8]}…"
    return shown(value).replace("\n", "\\n")


def _within(value: Any) -> str:
    """Return a value as it is shown within another one."""
    if value is None:
        return "null"
    return f"{{{shown(value)}}}" if isinstance(value, Mapping) else shown(value)


def seconds_of(microseconds: int) -> str:
    """Return a time as ISO text, without the fractions of a second."""
    return f"{times.to_iso(times.within(microseconds))[:19]}Z"


TENS = 10
"""From this many days on, hours are left out."""


def span(microseconds: int) -> str:
    """Return how long something takes, or is ago: the largest unit, and the next one to it."""
    seconds = max(0, microseconds) // times.SECOND
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    (largest, unit), *others = parts
    said = [f"{largest} {unit}", *(f"{number} {name}" for number, name in others[:1] if number)]
    return " ".join(said[:1] if days >= TENS else said)


def size(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        del units[0]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


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
        names.append(printable(name))
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

    console = Console()
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    widths = [max(map(len, [name, *texts])) for name, texts in zip(names, columns, strict=True)]
    # Columns that must not be wrapped are cut when they don't all fit: then nothing is left whole.
    fits = sum(min(width, SHORT) + 1 for width in widths) <= console.width
    for name, number, width in zip(names, numbers, widths, strict=True):
        table.add_column(
            name,
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=fits and width <= SHORT,
        )
    for row in zip(*columns, strict=True):
        table.add_row(*(Text(text, style=colour_of(text) or "") for text in row))
    console.print(table)

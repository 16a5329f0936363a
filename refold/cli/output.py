"""What a command prints: for people on a terminal, plain when piped, JSON when asked for."""

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast

import msgspec
import typer

from refold.eventstore.recorded import EPOCH, MICROSECOND

COLOURS = {
    "ongoing": "yellow",
    "running": "yellow",
    "in_progress": "yellow",
    "building": "yellow",
    "completed": "green",
    "ready": "green",
    "failed": "red",
    "killed": "red",
    "deleted": "red",
    "stopped": "magenta",
    "skipped": "magenta",
}
"""Of statuses, in small letters."""

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
    """Say something beside the output, to who looks on."""
    print(printable(message), file=sys.stderr)


def complain(message: str) -> None:
    """Say what is wrong."""
    note(f"refold: {message}")


# --- JSON -------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """Print a value as JSON, indented on a terminal."""
    text = _json(value)
    print((msgspec.json.format(text) if is_terminal() else text).decode())


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON Lines, at once."""
    print(_json(value).decode(), flush=True)


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError):
        return msgspec.json.encode(plain(value))


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
        ago = span((datetime.now(UTC) - value) // MICROSECOND)
        return f"{ago} ago" if is_terminal() else seconds_of(value)
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


def time_of(when: int | str | datetime) -> str:
    """Return a time as ISO text that `--at` takes.

    Args:
        when: microseconds as in the log, text in UTC as in the views, or a time.
    """
    if isinstance(when, str):
        return f"{when.replace(' ', 'T').removesuffix('Z')}Z"
    if isinstance(when, int):
        when = EPOCH + when * MICROSECOND
    return f"{when:%Y-%m-%dT%H:%M:%S.%f}Z"


def seconds_of(when: int | str | datetime) -> str:
    """Return such a time without the fractions of a second."""
    return f"{time_of(when)[:19]}Z"


def span(microseconds: int) -> str:
    """Return how long something takes, or is ago, in the two largest units that matter."""
    seconds = max(0, microseconds) // 1_000_000
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    said = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(said[:2]) or "0 s"


def size(count: int) -> str:
    """Return how much so many bytes are."""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        del units[0]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"

"""`refold step` on a terminal: the keys, and the screen."""

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from textwrap import wrap
from types import FrameType
from typing import Any, cast

from rich.text import Text

from refold.cli.events import COLOURS_OF_CHANGES, fields_in_words
from refold.cli.output import colour_of, printable, shortened
from refold.cli.walk import Standpoint, Walk
from refold.eventstore import times
from refold.eventstore.errors import DBException
from refold.eventstore.log.recorded import Recorded
from refold.projections.past.changes import BOOKKEEPING, Change

NAMES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1b[4~": "end",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    " ": "space",
    "\x04": "end of input",
}
"""What terminals send, and what it is called here; other keys are called as what they send."""

_KEY = re.compile(r"\x1b\[[0-9;?]*[@-~]|\x1bO.|\x1b.|.", re.DOTALL)

WAIT = 0.05
"""Seconds in which the rest of a key arrives whose beginning is there."""


@contextmanager
def undisturbed() -> Generator[None, None, None]:
    """Have the terminal give each key at once and show none; leave it as it was.

    Not by `click.getchar`: that throws away the keys that were pressed since it was last called.
    """
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)  # by the way out, so that the terminal is put right

    ended = signal.signal(signal.SIGTERM, end)
    try:
        tty.setcbreak(terminal, termios.TCSADRAIN)
        settings = termios.tcgetattr(terminal)
        settings[6][termios.VSUSP] = b"\0"  # Ctrl-Z would leave the shell with our screen
        termios.tcsetattr(terminal, termios.TCSADRAIN, settings)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, ended)


def keys() -> Iterator[str]:
    """Iterate over the keys that are pressed, by their names, until there is nobody any more."""
    terminal = sys.stdin.fileno()
    while sent := os.read(terminal, 1024):
        while _is_begun(sent) and select.select([terminal], [], [], WAIT)[0]:
            sent += os.read(terminal, 1024)
        for key in cast("list[str]", _KEY.findall(sent.decode(errors="replace"))):
            # In another mode, terminals send an O for the [.
            yield NAMES.get(key.replace("\x1bO", "\x1b["), key)


def _is_begun(sent: bytes) -> bool:
    return re.search(rb"\x1b([O\[][0-9;?]*)?$|[\xc2-\xf4][\x80-\xbf]{0,2}$", sent) is not None


KEYS = "n next  p back  e entity  x error  g go to  w why  ? help  q quit"

HELP = """\
n  space  →      one event forwards
p  ←             one event back
j  ↓             10 events forwards
k  ↑             10 events back
J  page down     100 events forwards
K  page up       100 events back
e                to the next event of this entity
E                to the one before
x                to the next error: what failed, an error that was noted, a recovery
X                to the one before
g                to a position or a time: 120, 2026-01-31T12:00Z, 5m for five minutes ago
<  home          to the first event
>  end           to the last event
w                why the changed rows are as they are
?                this page
q                the end"""


def picture(walk: Walk, page: str | None, typed: str | None, width: int, height: int) -> Text:
    """Return what is on the screen.

    Args:
        walk: where somebody stands.
        page: text to be shown in place of the event.
        typed: what was typed so far of a moment to go to; None: nobody is typing.
        width: of the screen.
        height: likewise.
    """
    top = [*_header(walk, width)]
    bottom = [*_remark(walk, typed, width), Text(KEYS, style="dim")]
    room = max(0, height - len(top) - len(bottom))
    body = list(_event(walk, room) if page is None else _wrapped(page, width))
    if len(body) > room:
        body[max(0, room - 1) :] = [Text("…", style="dim")]
    body += [Text()] * (room - len(body))
    picture = Text(no_wrap=True)
    for number, line in enumerate([*top, *body, *bottom][:height]):
        line.truncate(width, overflow="ellipsis")
        picture.append("\n" if number else "").append_text(line)
    return picture


def _wrapped(page: str, width: int) -> Iterator[Text]:
    for line in page.split("\n"):
        cut = wrap(printable(line), max(width, 20), subsequent_indent="    ")
        yield from map(Text, cut or [""])


def _header(walk: Walk, width: int) -> Iterator[Text]:
    place, end = walk.place.position, walk.end
    where = f"position {place} of {end}"
    name = Text(printable(walk.db.store.engine.name), style="bold")
    name.truncate(max(0, width - len(where) - 2), overflow="ellipsis", pad=True)
    yield name.append(f"  {where}")
    done = width * place // end if end else width
    yield Text("━" * done, style="cyan").append("─" * (width - done), style="dim")


def _remark(walk: Walk, typed: str | None, width: int) -> Iterator[Text]:
    if typed is not None:
        line = Text("go to position or time: ")
        yield line.append(printable(typed), style="bold").append("█")
        return
    for line in _wrapped(walk.remark, width):
        line.stylize("yellow")
        yield line


def _event(walk: Walk, room: int) -> Iterator[Text]:
    place = walk.place
    if place.recorded is None:
        yield Text("before the first event")
        return
    yield from _what_happened(place, place.recorded)
    yield Text()
    try:
        changes = list(_changes(place))
        row = list(_row(place))
    except DBException as error:  # a damaged event, for one, hides what came after it
        yield Text(printable(str(error)), style="red")
        return
    most = max(3, room // 2)
    yield from changes[:most]
    if len(changes) > most:
        yield Text(f"    … {len(changes) - most} lines more", style="dim")
    yield Text()
    yield from row


def _what_happened(place: Standpoint, recorded: Recorded) -> Iterator[Text]:
    what = Text(
        printable(recorded.type), style=f"bold {colour_of(recorded.event.leads_to) or ''}".strip()
    )
    yield what.append("  in ", style="not bold").append(printable(recorded.stream), style="cyan")
    actor = recorded.metadata.actor
    by = f"  by {printable(actor)}" if actor else ""
    yield Text(f"{times.to_iso(times.within(recorded.recorded_at))}{by}")
    cause = recorded.metadata.cause
    if cause is not None:
        yield Text(f"because of event {cause}{_cause(place)}")
    fields = fields_in_words(recorded)
    if fields:
        yield Text(fields)


def _cause(place: Standpoint) -> str:
    try:
        cause = place.cause
    except DBException:
        return ", which cannot be read"
    if cause is None:
        return ", which is not in the log"
    by = f" by {cause.metadata.actor}" if cause.metadata.actor else ""
    return printable(f": {cause.type} in {cause.stream}{by}")


def _changes(place: Standpoint) -> Iterator[Text]:
    yield Text("what it changed" if place.changes else "it changed nothing", style="bold")
    names = [printable(str(place.entity_of(change))) for change in place.changes]
    width = max(map(len, names), default=0)
    for change, name in zip(place.changes, names, strict=True):
        line = f"  {name:<{width}}  "
        if change.kind == "changed" and change.columns:
            yield from _columns(change, line)
        else:
            yield Text(line).append(change.kind, style=COLOURS_OF_CHANGES[change.kind])


def _columns(change: Change, begin: str) -> Iterator[Text]:
    width = max(map(len, change.columns))
    for column, (before, after) in change.columns.items():
        line = Text(f"{begin}{column:<{width}}  ").append_text(_value(before))
        yield line.append(" -> ", style="dim").append_text(_value(after))
        begin = " " * len(begin)


def _row(place: Standpoint) -> Iterator[Text]:
    if place.entity is None:
        return
    if place.row is None:
        yield Text(f"{place.entity}: there is no such row", style="bold")
        return
    yield Text(f"{place.entity} after it", style="bold")
    changed = {
        column
        for change in place.changes
        if (change.view, change.key) == (place.entity.view.name, place.entity.key)
        for column in change.columns
    }
    shown = {name: value for name, value in place.row.items() if name not in BOOKKEEPING}
    width = max(map(len, shown))
    for name, value in shown.items():
        style = "bold" if name in changed else ""
        yield Text(f"  {name:<{width}}  ", style=style).append_text(_value(value))


def _value(value: Any) -> Text:
    text = "null" if value is None else shortened(value)
    style = "dim" if value is None else colour_of(text) or ""
    return Text(text, style=style)

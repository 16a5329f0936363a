"""The keys that somebody presses, one by one."""

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import cast

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

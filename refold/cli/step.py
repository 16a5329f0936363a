"""`refold step`: going through the log event by event, on a terminal."""

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial

import typer

from refold.cli.open_face import open_face
from refold.cli.options import DEFAULT_STORE, At, Imports, Store, position
from refold.cli.output import is_terminal
from refold.cli.walk import Walk

EXPLAINED = 5
"""Rows of which `w` tells why."""

WAYS: dict[str, Callable[[Walk], None]] = {
    **dict.fromkeys(("n", "space", "right"), Walk.forward),
    **dict.fromkeys(("p", "left"), Walk.back),
    **dict.fromkeys(("j", "down"), partial(Walk.forward, count=10)),
    **dict.fromkeys(("k", "up"), partial(Walk.back, count=10)),
    **dict.fromkeys(("J", "page down"), partial(Walk.forward, count=100)),
    **dict.fromkeys(("K", "page up"), partial(Walk.back, count=100)),
    **dict.fromkeys(("<", "home"), Walk.first),
    **dict.fromkeys((">", "end"), Walk.last),
    "e": Walk.to_entity,
    "E": partial(Walk.to_entity, backwards=True),
    "x": Walk.to_error,
    "X": partial(Walk.to_error, backwards=True),
}
"""Where keys lead."""


def step(at: At = None, store: Store = DEFAULT_STORE, imports: Imports = None) -> None:
    """Go through the log event by event, forwards and backwards, with the state at each.

    The keys: n and p, or the arrows, go on and back; e to the next event of the same entity, x to
    the next error; w tells why; ? lists them all, q ends. It needs a terminal; refold log, diff
    and history do without.

    Examples:
        refold step
        refold step --at 120
        refold step --at 2026-01-31T12:00Z
    """
    if not (sys.stdin.isatty() and is_terminal() and os.name == "posix"):
        raise typer.BadParameter(
            "refold step needs a terminal: refold log, refold diff and refold history do without"
        )
    with open_face(store, imports=imports) as db:
        walk = Walk(db)
        if at is None:
            walk.first()
        else:
            walk.go_to(position(db, at))
        Stepper(walk).run()


class Stepper:
    """Shows where a walk is, and does what keys say."""

    def __init__(self, walk: Walk) -> None:
        from rich.console import Console  # takes long to import

        self._walk = walk
        self._console = Console()
        self._waiting = False
        """Whether a key is waited for: else what is shown is about to be drawn anyway."""
        self._drawn: object = None
        """The size that was drawn last."""
        self._page: str | None = None
        """Text that is shown in place of the event."""
        self._typed: str | None = None
        """What was typed so far of a moment to go to; None: nobody is typing."""

    def run(self) -> None:
        """Go on until somebody quits; then the terminal is as it was."""
        from refold.cli.stepper import keys, undisturbed

        with undisturbed(), self._console.screen(), self._redrawn():
            pressed = keys()
            self._console.update_screen("reading the log …")  # the first time, that may take long
            self._draw()
            while self._press(self._next(pressed)):
                self._draw()

    def _next(self, pressed: Iterator[str]) -> str:
        self._waiting = True
        if self._drawn != self._console.size:
            self._draw()
        key = next(pressed, "q")
        self._waiting = False
        return key

    @contextmanager
    def _redrawn(self) -> Generator[None, None, None]:
        """Have the picture drawn anew when the terminal's size changes."""

        def draw(*_: object) -> None:
            if self._waiting:
                self._draw()

        before = signal.signal(signal.SIGWINCH, draw)
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, before)

    def _draw(self) -> None:
        from refold.cli.stepper import picture

        while True:
            waiting, self._waiting = self._waiting, False
            self._drawn = size = self._console.size
            self._console.update_screen(
                picture(self._walk, self._page, self._typed, size.width, size.height)
            )
            self._waiting = waiting
            # A change of size while it was drawn went unheeded; one from here on does not.
            if self._drawn == self._console.size:
                return

    # --- keys -----------------------------------------------------------------------------

    def _press(self, key: str) -> bool:
        """Do what a key says; return whether to go on."""
        if self._typed is not None:
            self._type(key)
        elif self._page is not None:
            self._page = None  # any key turns it over
        elif key in ("q", "end of input"):
            return False
        else:
            self._act(key)
        return True

    def _act(self, key: str) -> None:
        if key in WAYS:
            WAYS[key](self._walk)
        elif key == "g":
            self._typed = ""
        elif key == "w":
            self._page = self._walk.why(EXPLAINED)
        elif key == "?":
            from refold.cli.stepper import HELP

            self._page = HELP

    def _type(self, key: str) -> None:
        assert self._typed is not None
        if key == "enter":
            self._walk.jump(self._typed.strip())
        if key in ("enter", "escape"):
            self._typed = None
        elif key == "backspace":
            self._typed = self._typed[:-1]
        elif key == "space":
            self._typed += " "
        elif len(key) == 1 and key.isprintable():
            self._typed += key

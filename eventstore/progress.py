"""A progress bar, for what may take long."""

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DELAY = 0.5
"""Seconds before a bar appears: what is done by then needs none."""

INTERVAL = 0.1
"""Seconds between two drawings."""


def _is_terminal(stream: object) -> bool:
    # There may be no standard error, a closed one, or whatever somebody has put in its place.
    try:
        return bool(getattr(stream, "isatty", bool)())
    except ValueError:
        return False


class ProgressBar:
    """Counts units of work and, if it is shown, draws them on the standard error.

    It starts no thread, and takes no lock that another process could hold: a process that is
    killed here must leave nothing behind for which its relatives would wait.

    Args:
        what: the work, such as `copying events`.
        total: the number of units.
        shown: whether the bar is drawn; None: only on a terminal.
        unit: the name of one unit.
    """

    def __init__(self, what: str, total: int, shown: bool | None, *, unit: str = "event") -> None:
        self.n = 0
        """The units that are done."""
        self._what = f"{what} ({unit}s)"
        self._total = total
        if shown is None:
            shown = _is_terminal(sys.stderr)
        self._next = time.monotonic() + DELAY if shown else float("inf")
        self._drawn: tuple[Progress, TaskID] | None = None

    def update(self, units: int) -> None:
        """Count some more units."""
        self.n += units
        if self._next != float("inf") and time.monotonic() >= self._next:
            try:
                self._draw()
            except (OSError, ValueError):  # nobody is there to see it
                self._next, self._drawn = float("inf"), None

    def _draw(self) -> None:
        if self._drawn is None:
            self._drawn = self._begin()
        progress, task = self._drawn
        progress.update(task, completed=self.n)
        progress.refresh()
        self._next = time.monotonic() + INTERVAL

    def _begin(self) -> "tuple[Progress, TaskID]":
        # Takes some 0.1 s to import, which only those pay who see a bar.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        class Quiet(Console):
            """A console that leaves the process alone when nobody reads it any more."""

            def on_broken_pipe(self) -> None:
                raise BrokenPipeError

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Quiet(stderr=True, force_terminal=True),
            auto_refresh=False,
            transient=True,
        )
        task = progress.add_task(self._what, total=self._total)
        progress.start()
        return progress, task

    def close(self) -> None:
        """Take the bar away."""
        if self._drawn is not None:
            progress, _ = self._drawn
            self._drawn = None
            with suppress(OSError, ValueError):
                progress.stop()
        self._next = float("inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

"""What a fork must not catch in the middle of things."""

import os
import weakref
from functools import partial
from itertools import count
from typing import Protocol

FORK_PATIENCE = 5.0
"""Seconds that a fork waits for what other threads are doing."""


class Forkable(Protocol):
    """Something that lets go before a fork and goes on after it, in both processes."""

    def before_fork(self) -> None:
        """Let go of what must not be in both processes."""
        ...

    def after_fork(self, *, child: bool) -> None:
        """Go on."""
        ...


_forkables: weakref.WeakValueDictionary[int, Forkable] = weakref.WeakValueDictionary()
_numbers = count()


def watch_forks(forkable: Forkable) -> None:
    """Have an object told of every fork of this process, as long as it lives."""
    _forkables[next(_numbers)] = forkable


def _before() -> None:
    # What came later stands on what came first.
    for forkable in reversed(list(_forkables.values())):
        forkable.before_fork()


def _after(*, child: bool) -> None:
    for forkable in list(_forkables.values()):
        forkable.after_fork(child=child)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before,
        after_in_parent=partial(_after, child=False),
        after_in_child=partial(_after, child=True),
    )

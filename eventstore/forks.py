"""What a fork must not catch in the middle of things."""

import os
import threading
import weakref
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
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


class Gate:
    """Threads work within it side by side; a fork shuts it, once they are out.

    A library such as SQLite has locks of its own. A child that is forked while a thread holds one
    waits for it for ever, since that thread is not there.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._within: Counter[int] = Counter()
        self._shut = False

    @contextmanager
    def open(self) -> Generator[None, None, None]:
        """Have the block done while no fork is under way; a thread within may enter again."""
        thread = threading.get_ident()
        with self._turn:
            self._turn.wait_for(lambda: not self._shut or thread in self._within)
            self._within[thread] += 1
        try:
            yield
        finally:
            with self._turn:
                self._within[thread] -= 1
                if not self._within[thread]:
                    del self._within[thread]
                    self._turn.notify_all()

    def shut(self, timeout: float) -> None:
        """Let nobody in, and wait until the other threads are out."""
        thread = threading.get_ident()
        with self._turn:
            self._shut = True
            self._turn.wait_for(lambda: not self._within.keys() - {thread}, timeout)

    def reopen(self) -> None:
        """Let everybody in again."""
        with self._turn:
            self._shut = False
            self._turn.notify_all()


_forkables: weakref.WeakValueDictionary[int, Forkable] = weakref.WeakValueDictionary()
_numbers = count()
_turn = threading.Lock()


def watch_forks(forkable: Forkable) -> None:
    """Have an object told of every fork of this process, as long as it lives."""
    _forkables[next(_numbers)] = forkable


def _before() -> None:
    _turn.acquire()  # two threads that fork would undo each other's preparations
    # What came later stands on what came first.
    for forkable in reversed(list(_forkables.values())):
        forkable.before_fork()


def _after(*, child: bool) -> None:
    global _turn
    for forkable in list(_forkables.values()):
        forkable.after_fork(child=child)
    if child:
        _turn = threading.Lock()
    else:
        _turn.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before,
        after_in_parent=partial(_after, child=False),
        after_in_child=partial(_after, child=True),
    )

"""What a fork must not catch in the middle of things."""

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Protocol

from refold.eventstore.blocks import Bell, Block, Use

FORK_PATIENCE = 5.0
"""Seconds that a fork waits for what other threads are doing."""


class Forkable(Protocol):
    """Something that lets go before a fork and goes on after it, in both processes."""

    def before_fork(self) -> None:
        """Let go of what both processes must not share."""
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
        self._bell = Bell()
        self._within: set[Passage] = set()
        self._shut = False

    def open(self) -> Block[None]:
        """Have the block done while no fork is under way; a thread within may enter again."""
        return Block(Passage(self))

    def enter(self, passage: "Passage") -> None:
        """Have a thread come in; if the gate is shut, it waits."""
        while True:
            again = passage.thread in {other.thread for other in self._within.copy()}
            self._within.add(passage)
            if again or not self._shut:
                return
            self.leave(passage)
            self._bell.wait_for(lambda: not self._shut)

    def leave(self, passage: "Passage") -> None:
        """Have it go out."""
        self._within.discard(passage)
        if self._shut:
            self._bell.ring()

    def _is_empty(self, but: int) -> bool:
        return all(
            passage.thread == but or passage.is_left_over() for passage in self._within.copy()
        )

    def shut(self, timeout: float) -> None:
        """Let nobody in, and wait until the other threads are out."""
        thread = threading.get_ident()
        self._shut = True
        self._bell.wait_for(lambda: self._is_empty(but=thread), timeout)

    def reopen(self) -> None:
        """Let everybody in again."""
        self._shut = False
        self._bell.ring()


class Passage(Use[None]):
    """A thread's being within a gate."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate
        self.thread = 0

    def begin(self) -> None:
        """Come in."""
        self.thread = threading.get_ident()
        self._gate.enter(self)

    def end(self, error: BaseException | None) -> None:
        """Go out."""
        self._gate.leave(self)


_forkables: weakref.WeakValueDictionary[int, Forkable] = weakref.WeakValueDictionary()
_numbers = count()
_turn = threading.RLock()


def watch_forks(forkable: Forkable) -> None:
    """Tell an object of every fork of this process, as long as the object lives."""
    _forkables[next(_numbers)] = forkable


def _before() -> None:
    _turn.acquire()  # two threads that fork would undo each other's preparations
    # What came later stands on what came first.
    _each(lambda forkable: forkable.before_fork(), reversed(list(_forkables.values())))


def _after(*, child: bool) -> None:
    global _turn
    try:
        _each(lambda forkable: forkable.after_fork(child=child), list(_forkables.values()))
    finally:
        if child:
            _turn = threading.RLock()
        else:
            with suppress(RuntimeError):  # an interrupted fork may have left it more than once
                while True:
                    _turn.release()


def _each(do: Callable[[Forkable], None], forkables: Iterable[Forkable]) -> None:
    """Do it for all of them, also if an interrupt comes in between."""
    interrupt = None
    for forkable in forkables:
        try:
            do(forkable)
        except BaseException as error:  # noqa: BLE001
            interrupt = error
            do(forkable)
    if interrupt is not None:
        raise interrupt


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before,
        after_in_parent=partial(_after, child=False),
        after_in_child=partial(_after, child=True),
    )

"""What this process is in a store: what it has claimed, and as whom it has joined."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import UNSET, UnsetType

from refold.commands.claims import Claim
from refold.commands.liveness import Membership
from refold.eventstore.engines.engine import Engine
from refold.eventstore.engines.log_end import store_row
from refold.eventstore.liveness.locks import Locks, Seen
from refold.eventstore.log.store import EventStore
from refold.eventstore.log.transaction import Outcome
from refold.projections.evals import actor_tasks
from refold.projections.fit import worker_task
from refold.projections.view import View

OWNERS = {worker_task.name: "run_id", actor_tasks.name: "pipeline_id"}
"""The column that says what a task is a part of, whose progress and metrics it brings."""


class Held:
    """A claim that this process has made."""

    __slots__ = ("begun", "claim", "ended")

    def __init__(self, claim: Claim, begun: Outcome) -> None:
        self.claim = claim
        self.begun = begun
        """What became of the transaction that made it: one that was rolled back made none."""
        self.ended: Outcome | None = None
        """Of the one in which this process gave it back: completed the task, or had it fail."""

    def is_made(self, now: Outcome | None) -> bool:
        """Return whether it was made, as seen within a transaction (None: within none)."""
        return self.begun.committed or self.begun is now

    def is_live(self, now: Outcome | None) -> bool:
        """Return whether this process has made it and not given it back."""
        ended = self.ended
        return self.is_made(now) and not (ended and (ended.committed or ended is now))


class Presence:
    """What this process holds in one store, whichever of its faces is used.

    It is in memory alone. So a process that is started again holds nothing until it claims or joins
    again. What shows to others that it is alive are the locks.

    Args:
        locks: of the store.
    """

    def __init__(self, locks: Locks) -> None:
        self.locks = locks
        self._process = os.getpid()
        self._membership: tuple[Membership, Outcome] | None = None
        self._tasks: dict[tuple[str, int], Held] = {}
        self._last: dict[tuple[str, int], Held] = {}
        """By what the tasks are parts of: the last claim on one of them."""

    # --- claims ---------------------------------------------------------------------------

    def add(self, view: View[Any], task: dict[str, Any], begun: Outcome) -> None:
        """Keep the claim that a transaction has made on a task."""
        for key, before in list(self._tasks.items()):
            if before.ended is not None and before.ended.committed:
                self._tasks.pop(key, None)
        held = Held(Claim(task["task_id"], task["claim"]), begun)
        self._tasks[view.name, task["task_id"]] = held
        self._last[view.name, task[OWNERS[view.name]]] = held
        self._hold(task["claim"], begun)

    def _hold(self, position: int, begun: Outcome) -> None:
        # Before the commit: nobody must see what was taken on without the lock that goes with it.
        self.locks.hold(position)
        begun.then(lambda committed: None if committed else self.locks.release(position))

    def _let_go(self, position: int, ended: Outcome) -> None:
        ended.then(lambda committed: self.locks.release(position) if committed else None)

    def give_back(self, view: View[Any], task_id: int, ended: Outcome) -> None:
        """Note that this process has ended its work on a task."""
        held = self._tasks.get((view.name, task_id))
        if held is not None:
            held.ended = ended
            self._let_go(held.claim.position, ended)

    def give_back_all(self, ended: Outcome) -> None:
        """Note that it has ended its work on all of them."""
        for held in list(self._tasks.values()):
            held.ended = ended
            self._let_go(held.claim.position, ended)

    def of_task(self, view: View[Any], task_id: Any, now: Outcome | None) -> int | UnsetType:
        """Return the claim on a task."""
        held = _find(self._tasks, view, task_id)
        return held.claim.position if held is not None and held.is_live(now) else UNSET

    def of_part(self, view: View[Any], owner: Any, now: Outcome | None) -> Claim | UnsetType:
        """Return the claim within which this process works on a run or a pipeline."""
        held = _find(self._last, view, owner)
        return held.claim if held is not None and held.is_live(now) else UNSET

    def attempt(self, view: View[Any], owner: Any, now: Outcome | None) -> int | UnsetType:
        """Return the last claim within which it has worked on one, though it has ended."""
        held = _find(self._last, view, owner)
        return held.claim.position if held is not None and held.is_made(now) else UNSET

    # --- membership -----------------------------------------------------------------------

    def joined(self, membership: Membership, begun: Outcome) -> None:
        """Keep as whom this process has joined, in a transaction."""
        self._membership = membership, begun
        self._hold(membership.position, begun)

    def left(self, ended: Outcome) -> None:
        """Note that it has left."""
        if self._membership is None:
            return
        membership, _ = self._membership

        def forget(committed: bool) -> None:
            if committed:
                self._membership = None

        ended.then(forget)
        self._let_go(membership.position, ended)

    def membership(self, now: Outcome | None) -> Membership | None:
        """Return as whom this process takes part."""
        # The child of a fork is somebody else.
        if self._membership is None or self._process != os.getpid():
            return None
        membership, begun = self._membership
        return membership if begun.committed or begun is now else None

    def look(self, positions: Iterable[int]) -> dict[int, Seen]:
        """Return what is seen of those who took something on at some positions."""
        return self.locks.look(positions)


_all: dict[tuple[Any, ...], Presence] = {}


def _find(held: dict[tuple[str, int], Held], view: View[Any], key: Any) -> Held | None:
    try:
        return held.get((view.name, key))
    except TypeError:  # it is not an id: the command will say so
        return None


def presence_in(store: EventStore) -> Presence:
    """Return what this process is in a store, whatever path or URL leads to it."""
    with store.reading() as connection:
        log = store_row(connection).id
    # Copies of a log have its id. Where a server has it, its place there tells them apart.
    place = store.engine.identity()[-2:]
    return _all.setdefault((log, *place), Presence(_locks_of(store.engine, log, place)))


def _locks_of(engine: Engine, log: str, place: tuple[Any, ...]) -> Locks:
    if engine.sql == "sqlite":
        file = Path(os.path.realpath(engine.name))
        return Locks(file.with_name(f"{file.name}-alive"), like=file)
    # Beside a server there is no file: in a folder of this user, which outlives a reboot.
    folder = Path("/var/tmp") / f"refold-{os.getuid()}"
    return Locks(folder / f"{log}-{place[-1]}-alive")

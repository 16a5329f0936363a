"""What this process has claimed: the claims that its reports are sent with."""

from typing import Any

from msgspec import UNSET, UnsetType

from refold.commands.claims import Claim
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


class Claims:
    """The claims that this process holds in one store, whichever faces made them.

    They are in memory alone. So a process that is started again holds none until it claims again.
    """

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, int], Held] = {}
        self._last: dict[tuple[str, int], Held] = {}
        """By what the tasks are parts of: the last claim on one of them."""

    def add(self, view: View[Any], task: dict[str, Any], begun: Outcome) -> None:
        """Keep the claim that a transaction has made on a task."""
        for key, before in list(self._tasks.items()):
            if before.ended is not None and before.ended.committed:
                self._tasks.pop(key, None)
        held = Held(Claim(task["task_id"], task["claim"]), begun)
        self._tasks[view.name, task["task_id"]] = held
        self._last[view.name, task[OWNERS[view.name]]] = held

    def give_back(self, view: View[Any], task_id: int, ended: Outcome) -> None:
        """Note that this process has ended its work on a task."""
        held = self._tasks.get((view.name, task_id))
        if held is not None:
            held.ended = ended

    def give_back_all(self, ended: Outcome) -> None:
        """Note that it has ended its work on all of them."""
        for held in list(self._tasks.values()):
            held.ended = ended

    def of_task(self, view: View[Any], task_id: Any, now: Outcome | None) -> int | UnsetType:
        """Return the claim on a task."""
        held = self._tasks.get((view.name, task_id))
        return held.claim.position if held is not None and held.is_live(now) else UNSET

    def of_part(self, view: View[Any], owner: Any, now: Outcome | None) -> Claim | UnsetType:
        """Return the claim within which this process works on a run or a pipeline."""
        held = self._last.get((view.name, owner))
        return held.claim if held is not None and held.is_live(now) else UNSET

    def attempt(self, view: View[Any], owner: Any, now: Outcome | None) -> int | UnsetType:
        """Return the last claim within which it has worked on one, though it has ended."""
        held = self._last.get((view.name, owner))
        return held.claim.position if held is not None and held.is_made(now) else UNSET


_all: dict[tuple[Any, ...], Claims] = {}


def claims_in(store: tuple[Any, ...]) -> Claims:
    """Return what this process has claimed in a store, given by its identity."""
    return _all.setdefault(store, Claims())

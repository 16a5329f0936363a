"""Commands about who is there: to join, to leave, to say who was lost, and what follows from it."""

from collections.abc import Container, Iterable
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from refold.commands.command import Command, Decision, existing
from refold.commands.retries import offered_again
from refold.eventstore.errors import (
    AlreadyJoined,
    InvalidCommand,
    MembershipLost,
    NotFound,
)
from refold.eventstore.event import Id, Int, Name
from refold.eventstore.events import Offered, RetriesSet, WorkerJoined, WorkerLeft, WorkerLost
from refold.eventstore.statuses import ActorTaskStatus, MemberStatus, TaskStatus
from refold.projections.evals import ActorTask, actor_tasks, pipelines
from refold.projections.experiments import experiments
from refold.projections.fit import (
    CONTROLLER,
    Task,
    controller_progress,
    runs,
    worker_progress,
    worker_task,
)
from refold.projections.liveness import members, number_of
from refold.projections.unit_of_work import Rows

KnownBy = Literal["lock", "person", "successor"]


class Membership(msgspec.Struct, frozen=True):
    """As whom a process takes part."""

    name: Name
    position: Id
    """Of the event by which it joined."""


class Gone(msgspec.Struct, frozen=True):
    """That the lock of a position was seen free, which its process would hold if it were alive."""

    position: Id
    process: Int | None = None
    """The number that the process had."""


class Join(Command, frozen=True):
    """Take part under a name; the result is the name.

    One who has that name and is gone is declared lost. One who is alive, or of whom that is not
    known, keeps it, unless this one takes over.
    """

    name: Name
    now: Int
    gone: Gone | UnsetType = UNSET
    """What was seen of who has the name."""
    take_over: bool = False

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        before = rows.get(members, self.name)
        joined = WorkerJoined(self.name)
        if before is None or before.status != MemberStatus.JOINED:
            return Decision([joined], self.name)
        gone = self.gone
        if gone is not UNSET and gone.position == before.joined:
            return Decision([_lost(rows, self.name, "lock", self.now, gone.process), joined])
        if not self.take_over:
            raise AlreadyJoined(
                f"{self.name} has joined at position {before.joined} and has neither left nor is "
                f"known to be gone: take another name, or end that process; take_over=True puts "
                f"this one in its place, and is recorded"
            )
        return Decision([_lost(rows, self.name, "successor", self.now), joined], self.name)


class Leave(Command, frozen=True):
    """End one's part."""

    name: Name

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, members, self.name, "member")
        return Decision([WorkerLeft(self.name)] if row.status == MemberStatus.JOINED else [])


class DeclareLost(Command, frozen=True):
    """Say that somebody is lost, whatever its lock shows; the result tells what followed."""

    name: Name
    now: Int

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        lost = _lost(rows, self.name, "person", self.now)
        member = rows.get(members, self.name)
        if not lost.claims and (member is None or member.status != MemberStatus.JOINED):
            raise NotFound(
                f"{self.name} has not joined, and has no task in progress: refold workers lists "
                f"those that there are"
            )
        return Decision([lost], _told([lost]))


class RecoverLost(Command, frozen=True):
    """Declare those lost whose locks are free, and nobody else; the result tells what followed."""

    gone: tuple[Gone, ...]
    now: Int

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        gone = {one.position: one.process for one in self.gone}
        processes: dict[str, int | None] = {
            member.name: gone[member.joined]
            for member in rows.find(members, status=MemberStatus.JOINED)
            if member.joined in gone
        }
        for task in _in_progress(rows):
            if task.claim in gone:
                processes.setdefault(_worker_of(task), gone[task.claim])
        lost = [
            _lost(rows, name, "lock", self.now, process, claims=gone)
            for name, process in sorted(processes.items())
        ]
        return Decision(lost, _told(lost))


class SetRetries(Command, frozen=True):
    """Decide how often the tasks of an experiment, run or pipeline are offered again."""

    kind: Literal["experiment", "run", "pipeline"]
    key: Id
    max_attempts: Int
    wait: float = 0.0

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        view: Any = {"experiment": experiments, "run": runs, "pipeline": pipelines}[self.kind]
        existing(rows, view, self.key, self.kind)
        if self.max_attempts < 1 or not 0 <= self.wait < 10**9:
            raise InvalidCommand(
                f"{self.kind} {self.key}: max_attempts is {self.max_attempts} and wait is "
                f"{self.wait}: pass 1 or more, and seconds"
            )
        scope = f"{self.kind}-{self.key}"
        return Decision([RetriesSet(scope, self.max_attempts, self.wait)])


# --- what follows from a loss -----------------------------------------------------------------

AnyTask = Task | ActorTask


def _worker_of(task: AnyTask) -> str:
    if isinstance(task, Task):
        return f"worker-{task.worker_id}"
    return f"actor-{task.actor_id}"


def _in_progress(rows: Rows) -> list[AnyTask]:
    return [
        *rows.find(worker_task, status=TaskStatus.IN_PROGRESS),
        *rows.find(actor_tasks, status=ActorTaskStatus.IN_PROGRESS),
    ]


def _lost(
    rows: Rows,
    name: str,
    known_by: KnownBy,
    now: int,
    process: int | None = None,
    claims: Container[int | None] | None = None,
) -> WorkerLost:
    """Return the loss of somebody, with what follows for the tasks that it had in progress.

    Args:
        rows: see `Command.decide`.
        name: its name.
        known_by: how it is known.
        now: the time.
        process: the number that its process had.
        claims: those that are lost; None: all of them.
    """
    tasks = [
        task
        for task in _in_progress(rows)
        if _worker_of(task) == name and (claims is None or task.claim in claims)
    ]
    failed: list[AnyTask] = []
    offered: list[tuple[AnyTask, Offered]] = []
    for task in tasks:
        again = offered_again(rows, task, now)
        if again is None:
            failed.append(task)
        else:
            offered.append((task, again))
    return WorkerLost(
        name=name,
        known_by=known_by,
        heard_at=_heard_at(rows, name, tasks),
        process=process,
        claims=tuple(task.claim for task in tasks if task.claim is not None),
        failed_tasks=tuple(t.task_id for t in failed if isinstance(t, Task)),
        offered_tasks=tuple(again for t, again in offered if isinstance(t, Task)),
        failed_actor_tasks=tuple(t.task_id for t in failed if isinstance(t, ActorTask)),
        offered_actor_tasks=tuple(again for t, again in offered if isinstance(t, ActorTask)),
    )


def _heard_at(rows: Rows, name: str, tasks: Iterable[AnyTask]) -> int:
    known: list[Any] = [rows.get(members, name), *tasks]
    known += [rows.get(worker_progress, number) for number in number_of(name, "worker")]
    if name == "controller":
        known.append(rows.get(controller_progress, CONTROLLER))
    return max((row.updated_at for row in known if row is not None), default=0)


def _told(lost: Iterable[WorkerLost]) -> dict[str, Any]:
    """Return what followed from losses, as JSON can hold it."""
    lost = list(lost)
    return {
        "lost": [one.name for one in lost],
        "failed_tasks": [key for one in lost for key in one.failed_tasks],
        "offered_tasks": [task.task_id for one in lost for task in one.offered_tasks],
        "failed_actor_tasks": [key for one in lost for key in one.failed_actor_tasks],
        "offered_actor_tasks": [task.task_id for one in lost for task in one.offered_actor_tasks],
    }


NOBODY = _told(())
"""The result if nobody was lost."""


def check_membership(own: Membership, rows: Rows) -> None:
    """Refuse a command of a process whose membership another process has taken over.

    Raises:
        MembershipLost: it was declared lost, or another process has joined under its name.
    """
    member = rows.get(members, own.name)
    if member is None or member.joined != own.position or member.status != MemberStatus.JOINED:
        what = "nobody" if member is None else f"{member.status} (joined at {member.joined})"
        raise MembershipLost(
            f"this process joined as {own.name} at position {own.position}, and {own.name} is "
            f"{what} now: it was taken for lost. Nothing was changed; join again to go on"
        )

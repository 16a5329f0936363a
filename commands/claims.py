"""The claim that a report on a task needs: a process that lost it, or never had one, is refused."""

from typing import Protocol

import msgspec
from msgspec import UNSET, UnsetType

from refold.eventstore.errors import ClaimLost
from refold.eventstore.event import Id
from refold.eventstore.statuses import Stage, stage_of


class Claim(msgspec.Struct, frozen=True):
    """What a process holds of a task that it has claimed."""

    task_id: Id
    position: Id
    """Of the event that started the task."""


class Claimed(Protocol):
    """A row of a task."""

    @property
    def status(self) -> str:
        """Where it stands."""
        ...

    @property
    def claim(self) -> int | None:
        """The position of the event that started it last."""
        ...


def check_claim(entity: str, task: Claimed, claim: int | UnsetType) -> None:
    """Refuse a report under a claim that is no longer the task's last; without one, anything goes.

    Raises:
        ClaimLost: it was offered, or claimed, again meanwhile.
    """
    if claim is UNSET or claim == task.claim:
        return
    meanwhile = (
        "was offered again" if task.claim is None else f"was claimed again at position {task.claim}"
    )
    raise ClaimLost(
        f"{entity}: the claim of position {claim} is lost, as the task {meanwhile}; nothing of "
        f"this report is kept: claim another task"
    )


def check_completion(entity: str, task: Claimed, claim: int | UnsetType, how: str) -> None:
    """Refuse the completion of a task that is reported without a claim.

    Raises:
        ClaimLost: there is none.
    """
    if claim is UNSET:
        raise ClaimLost(
            f"{entity} was claimed at position {task.claim}, and this process holds no claim on "
            f"it: {how}() makes one, and claim={task.claim} passes that one on. To fail the task "
            f"needs none"
        )


def check_part(entity: str, task: Claimed | None, claim: Claim) -> None:
    """Refuse what is reported within a task that the sender has lost.

    Args:
        entity: the task.
        task: its row, if it is still there.
        claim: of the sender.

    Raises:
        ClaimLost: it has lost the task.
    """
    if task is None:
        raise ClaimLost(f"{entity} is gone, by a reset: nothing can be reported within it")
    check_claim(entity, task, claim.position)
    if stage_of(task.status) is Stage.FAILED:
        raise ClaimLost(
            f"{entity} is {task.status} since it was claimed at position {task.claim}; nothing of "
            f"this report is kept: claim another task"
        )

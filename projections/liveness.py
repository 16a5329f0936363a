"""The views of who is there: members, and how often what a lost one did is offered again."""

from msgspec.structs import replace

from refold.eventstore.events import (
    MemberEvent,
    RetriesSet,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from refold.eventstore.sql import section
from refold.eventstore.statuses import MemberStatus
from refold.projections.view import Row, View


class Member(Row, frozen=True):
    """A row of `members`: a worker, an actor or the controller."""

    name: str
    status: str
    joined: int | None = None
    known_by: str | None = None
    heard_at: int | None = None
    process: int | None = None


# No reset empties it: who is there does not depend on what the tables hold.
members = View(
    "members", Member, version=1, schema=section("members"), stream=MemberEvent.stream_of
)


def _joined(row: Member | None, event: WorkerJoined) -> Member:
    joined = MemberStatus.JOINED.value
    if row is None:
        return Member(event.name, joined)
    return replace(row, status=joined, known_by=None, heard_at=None, process=None)


def _lost(row: Member | None, event: WorkerLost) -> Member:
    return replace(
        row or Member(event.name, ""),
        status=MemberStatus.LOST.value,
        known_by=event.known_by,
        heard_at=event.heard_at,
        process=event.process,
    )


members.put_by(WorkerJoined, _joined, key=lambda e: e.name, marks="joined")
members.on(WorkerLeft, lambda row, _: replace(row, status=MemberStatus.LEFT.value))
members.put_by(WorkerLost, _lost, key=lambda e: e.name)


class Retry(Row, frozen=True):
    """A row of `retries`."""

    scope: str
    max_attempts: int
    wait: float


retries = View("retries", Retry, version=1, schema=section("retries"))
retries.put_by(
    RetriesSet,
    lambda row, e: replace(row or Retry(e.scope, 0, 0.0), max_attempts=e.max_attempts, wait=e.wait),
    key=lambda e: e.scope,
)


def number_of(name: str, kind: str) -> tuple[int, ...]:
    """Return the id of a member of a kind, such as 3 of `worker-3`; none if it is of another."""
    word, _, number = name.rpartition("-")
    return (int(number),) if word == kind and number.isdecimal() and len(number) < 19 else ()


def cause_of(event: WorkerLost) -> str:
    """Return what stands as the error of a task that was lost."""
    return f"{event.name} was lost ({_KNOWN_BY[event.known_by]})"


_KNOWN_BY = {
    "lock": "its process is gone",
    "person": "it was declared so",
    "successor": "another process took over",
}

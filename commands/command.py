"""What someone asks for, and the way that it takes: load, decide, append, evolve, commit."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgspec

from refold.eventstore.arguments import converted
from refold.eventstore.errors import InvalidCommand, NotFound
from refold.eventstore.event import NO_METADATA, Event, Metadata, to_json
from refold.eventstore.log.transaction import Transaction
from refold.projections.unit_of_work import Rows, unit_of
from refold.projections.view import Key, R, View
from refold.projections.views import Views


class Decision(msgspec.Struct, frozen=True):
    """What follows from a command."""

    events: Sequence[Event] = ()
    """What then happened; empty if the command changes nothing."""
    result: Any = None
    """What the caller gets, as JSON can hold it: an id, for example."""
    payloads: Sequence[bytes] = ()
    """Bytes whose digests the events hold."""


class Command(msgspec.Struct, frozen=True):
    """Something that is asked for. Its `decide` is pure: no I/O, no clock, no ids of its own."""

    def decide(self, rows: Rows) -> Decision:
        """Return the events that follow from the present rows.

        Raises:
            NotFound: an id that the command names has no row.
            IllegalTransition: the entity's status does not allow it.
            InvalidCommand: the arguments do not fit together.
        """
        raise NotImplementedError

    def validated(self) -> Self:
        """Return the command with its fields checked against their types.

        Raises:
            InvalidCommand: one does not fit; the message names it.
        """
        try:
            return converted(self, type(self))
        except (TypeError, ValueError) as error:
            raise InvalidCommand(f"{type(self).__name__}: {error}") from None


def existing(rows: Rows, view: View[R], key: Key, noun: str) -> R:
    """Return the row with a key.

    Raises:
        NotFound: there is none.
    """
    row = rows.get(view, key)
    if row is None:
        raise NotFound(
            f"there is no {noun} {key}: check the id (SELECT {view.key} FROM {view.name} lists "
            f"those that there are; a reset may have removed it)"
        )
    return row


def named(content: bytes | None) -> tuple[str | None, tuple[bytes, ...]]:
    """Return the digest of a payload, if there is one, and the payloads that a decision holds."""
    return (None, ()) if content is None else (hashlib.sha256(content).hexdigest(), (content,))


def execute(
    views: Views,
    command: Command,
    metadata: Metadata = NO_METADATA,
    check: Callable[[Rows], None] | None = None,
) -> Any:
    """Carry out a command in one transaction and return its result.

    With a command id in the metadata it is carried out once: sent again, it changes nothing and
    returns what it returned then.

    Args:
        views: of the store.
        command: what is asked for.
        metadata: the actor, and the reason for the command.
        check: looks first whether who asks may still do so; it raises if not.

    Raises:
        DBException: the command is refused or the store failed; nothing was changed.
    """
    command = command.validated()

    def work(transaction: Transaction) -> Any:
        if check is not None:
            check(unit_of(transaction))
        if metadata.command_id is not None:
            sent = transaction.sent(metadata.command_id, _fingerprint(command))
            if sent is not None:
                return sent.result
        decision = command.decide(unit_of(transaction))
        for content in decision.payloads:
            transaction.put_payload(content)
        appended = transaction.append(decision.events, metadata=metadata)
        if metadata.command_id is not None:
            transaction.remember(
                metadata.command_id, _fingerprint(command), appended, decision.result
            )
        return decision.result

    return views.store.perform(work, pure=True)


_CIRCUMSTANCES = {"claim", "attempt", "now", "gone"}
"""The fields that say on what right, and when, something is asked; not what."""


def _fingerprint(command: Command) -> str:
    # Payloads are left out: the same object may be pickled to other bytes in another process. So
    # are claims: a process that was started again holds none.
    fields = msgspec.structs.asdict(command)
    asked = {
        name: value
        for name, value in fields.items()
        if value is not msgspec.UNSET
        and not isinstance(value, bytes)
        and name not in _CIRCUMSTANCES
    }
    digest = hashlib.sha256(to_json(asked).encode()).hexdigest()[:16]
    return f"{type(command).__name__} {digest}"

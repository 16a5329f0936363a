"""The one way that a change takes: load, decide, append, evolve, commit."""

import hashlib
from typing import Any

import msgspec

from refold.commands.command import Command
from refold.eventstore.events.codec import to_json
from refold.eventstore.recorded import NO_METADATA, Metadata
from refold.eventstore.transaction import Transaction
from refold.projections.views import Views


def execute(views: Views, command: Command, metadata: Metadata = NO_METADATA) -> Any:
    """Carry out a command in one transaction and return its result.

    With a command id in the metadata it is carried out once: sent again, it changes nothing and
    returns what it returned then.

    Raises:
        DBException: the command is refused or the store failed; nothing was changed.
    """
    command = command.validated()

    def work(transaction: Transaction) -> Any:
        if metadata.command_id is not None:
            sent = transaction.sent(metadata.command_id, _told(command))
            if sent is not None:
                return sent.result
        decision = command.decide(views.unit_of_work(transaction))
        for content in decision.payloads:
            transaction.put_payload(content)
        appended = transaction.append(decision.events, metadata=metadata)
        if metadata.command_id is not None:
            transaction.remember(metadata.command_id, _told(command), appended, decision.result)
        return decision.result

    return views.store.perform(work)


def _told(command: Command) -> str:
    # Payloads are left out: the same object may be pickled to other bytes in another process.
    fields = msgspec.structs.asdict(command)
    asked = {name: value for name, value in fields.items() if not isinstance(value, bytes)}
    digest = hashlib.sha256(to_json(asked).encode()).hexdigest()[:16]
    return f"{type(command).__name__} {digest}"

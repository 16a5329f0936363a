"""The one way that a change takes: load, decide, append, evolve, commit."""

from typing import Any

from commands.command import Command
from eventstore.recorded import NO_METADATA, Metadata
from projections.views import Views


def execute(views: Views, command: Command, metadata: Metadata = NO_METADATA) -> Any:
    """Carry out a command in one transaction and return its result.

    With a command id in the metadata it is carried out once: sent again, it changes nothing and
    returns what it returned then.

    Raises:
        DBException: the command is refused or the store failed; nothing was changed.
    """
    command = command.validated()
    name = type(command).__name__
    with views.store.transaction() as transaction:
        if metadata.command_id is not None:
            sent = transaction.sent(metadata.command_id, name)
            if sent is not None:
                return sent.result
        decision = command.decide(views.unit_of_work(transaction))
        for content in decision.payloads:
            transaction.put_payload(content)
        appended = transaction.append(decision.events, metadata=metadata)
        if metadata.command_id is not None:
            transaction.remember(metadata.command_id, name, appended, decision.result)
    return decision.result

"""Commands on contexts."""

from refold.commands.command import Command, Decision, existing
from refold.commands.transitions import CONTEXT, check_move
from refold.eventstore.events import (
    ContextBuildStarted,
    ContextCreated,
    ContextEndTimeRecorded,
    ContextErrorRecorded,
    ContextFailed,
    ContextReady,
    ContextStartTimeRecorded,
    Id,
    Name,
)
from refold.eventstore.statuses import ContextStatus
from refold.projections.contexts import contexts
from refold.projections.ids import next_id
from refold.projections.unit_of_work import Rows

_BECAME = {
    ContextStatus.BUILDING: ContextBuildStarted,
    ContextStatus.READY: ContextReady,
    ContextStatus.FAILED: ContextFailed,
}


class CreateContext(Command, frozen=True):
    """Describe a context; the result is its id, that of the existing one if the hash is known."""

    context_hash: Name
    rag_config_json: str | None = None
    prompt_config_json: str | None = None
    status: ContextStatus = ContextStatus.PENDING

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        # In this order: who asks for the next id keeps others from creating the same meanwhile.
        context_id = next_id(rows, "context")
        known = rows.first(contexts, context_hash=self.context_hash)
        if known is not None:
            return Decision(result=known.context_id)
        created = ContextCreated(
            context_id,
            self.context_hash,
            self.rag_config_json,
            self.prompt_config_json,
            self.status,
        )
        return Decision([created], context_id)


class SetContextStatus(Command, frozen=True):
    """Move a context to a status."""

    context_id: Id
    status: ContextStatus

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        before = ContextStatus(existing(rows, contexts, self.context_id, "context").status)
        if before is self.status:
            return Decision()
        check_move(f"context {self.context_id}", CONTEXT, before, self.status)
        return Decision([_BECAME[self.status](self.context_id)])


class SetContextStartTime(Command, frozen=True):
    """Note when the building of a context began."""

    context_id: Id
    started_at: Name

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if existing(rows, contexts, self.context_id, "context").started_at == self.started_at:
            return Decision()
        return Decision([ContextStartTimeRecorded(self.context_id, self.started_at)])


class SetContextEndTime(Command, frozen=True):
    """Note when the building of a context ended, and how many seconds it took."""

    context_id: Id
    completed_at: Name
    duration_seconds: float | None = None

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        row = existing(rows, contexts, self.context_id, "context")
        if (row.completed_at, row.duration_seconds) == (self.completed_at, self.duration_seconds):
            return Decision()
        return Decision(
            [ContextEndTimeRecorded(self.context_id, self.completed_at, self.duration_seconds)]
        )


class SetContextError(Command, frozen=True):
    """Note a context's error message."""

    context_id: Id
    error: str

    def decide(self, rows: Rows) -> Decision:
        """See `Command.decide`."""
        if existing(rows, contexts, self.context_id, "context").error == self.error:
            return Decision()
        return Decision([ContextErrorRecorded(self.context_id, self.error)])

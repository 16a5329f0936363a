"""What happens to a context: the index (RAG) that pipelines read from."""

from refold.eventstore.events.event import Event, Id, Name
from refold.eventstore.statuses import ContextStatus


class ContextEvent(Event, frozen=True):
    """Something happened to a context."""

    context_id: Id

    @property
    def stream(self) -> str:
        """`context-2`."""
        return f"context-{self.context_id}"


class ContextCreated(ContextEvent, frozen=True):
    """A context was described; the hash of its description tells it from all others."""

    context_hash: Name
    rag_config_json: str | None = None
    prompt_config_json: str | None = None
    status: ContextStatus = ContextStatus.PENDING


class ContextBuildStarted(ContextEvent, frozen=True):
    """The building of the context began."""


class ContextReady(ContextEvent, frozen=True):
    """The context was built."""


class ContextFailed(ContextEvent, frozen=True):
    """The building of the context ended with an error."""


class ContextStartTimeRecorded(ContextEvent, frozen=True):
    """It was noted when the building began."""

    started_at: Name


class ContextEndTimeRecorded(ContextEvent, frozen=True):
    """It was noted when the building ended and how many seconds it took."""

    completed_at: Name
    duration_seconds: float | None = None


class ContextErrorRecorded(ContextEvent, frozen=True):
    """An error message was noted for the context."""

    error: str

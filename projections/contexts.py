"""The view `contexts`: the indexes (RAG) that pipelines read from."""

from msgspec.structs import replace

from refold.eventstore.events import (
    ContextBuildStarted,
    ContextCreated,
    ContextEndTimeRecorded,
    ContextErrorRecorded,
    ContextFailed,
    ContextReady,
    ContextStartTimeRecorded,
    ExperimentStatesReset,
    TablesReset,
)
from refold.eventstore.schema import section
from refold.projections.view import Row, View


class Context(Row, frozen=True):
    """A row of `contexts`."""

    context_id: int
    context_hash: str
    rag_config_json: str | None
    prompt_config_json: str | None
    status: str
    error: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_seconds: float | None = None


contexts = View("contexts", Context, version=1, schema=section("contexts"), stream="context-{}")

contexts.created_by(
    ContextCreated,
    lambda e: Context(
        e.context_id, e.context_hash, e.rag_config_json, e.prompt_config_json, e.status.value
    ),
)
contexts.on(ContextBuildStarted, lambda row, _: replace(row, status="building"))
contexts.on(ContextReady, lambda row, _: replace(row, status="ready"))
contexts.on(ContextFailed, lambda row, _: replace(row, status="failed"))
contexts.on(ContextStartTimeRecorded, lambda row, e: replace(row, started_at=e.started_at))
contexts.on(
    ContextEndTimeRecorded,
    lambda row, e: replace(row, completed_at=e.completed_at, duration_seconds=e.duration_seconds),
)
contexts.on(ContextErrorRecorded, lambda row, e: replace(row, error=e.error))
contexts.on(
    ExperimentStatesReset,
    lambda row, _: replace(row, status="failed"),
    keys=lambda e: e.contexts,
)
contexts.cleared_by(TablesReset)

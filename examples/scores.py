"""What an evaluation finds out: events and a view of our own for inference."""

from msgspec.structs import replace

from refold.eventstore.event import Digest, Int
from refold.eventstore.events import ContextEvent, PipelineEvent, TablesReset
from refold.projections import Row, View


class IndexBuilt(ContextEvent, frozen=True):
    """A context's index was built; the digest names the payload that holds it."""

    digest: Digest


class ShardEvaluated(PipelineEvent, frozen=True):
    """A pipeline has read the digits of a shard."""

    shard_id: Int
    samples: Int
    correct: Int
    looked_up: Int


class Score(Row, frozen=True):
    """A row of `scores`: how many digits a pipeline has read, and how many of them rightly."""

    pipeline_id: int
    samples: int = 0
    correct: int = 0
    looked_up: int = 0


def _add(row: Score | None, event: ShardEvaluated) -> Score:
    row = row or Score(event.pipeline_id)
    return replace(
        row,
        samples=row.samples + event.samples,
        correct=row.correct + event.correct,
        looked_up=row.looked_up + event.looked_up,
    )


scores = View("scores", Score, version=1)
scores.put_by(ShardEvaluated, _add, key=lambda e: e.pipeline_id)
scores.cleared_by(TablesReset)

"""Checkpoints: events and a view of our own, on the same log as everything else.

Open a store with `RfDb(path, projections=[checkpoints])`, and the view is kept equal to the log
like the others: folded in the transaction that appends, rebuilt, and verified.
"""

from refold import RfDb
from refold.eventstore import Digest, Id, Int
from refold.eventstore.events import RunEvent, TablesReset
from refold.projections import Row, View


class CheckpointSaved(RunEvent, frozen=True):
    """A run was trained on a chunk; the digest names the payload that holds its model."""

    epoch: Int
    chunk: Int
    digest: Digest


class WarmStarted(RunEvent, frozen=True):
    """A cloned run began with its parent's checkpoint."""

    parent_run_id: Id
    digest: Digest


class Checkpoint(Row, frozen=True):
    """A row of `checkpoints`: the latest checkpoint of a run."""

    run_id: int
    digest: str
    epoch: int | None = None
    chunk: int | None = None


checkpoints = View("checkpoints", Checkpoint, version=1)
checkpoints.created_by(CheckpointSaved, lambda e: Checkpoint(e.run_id, e.digest, e.epoch, e.chunk))
checkpoints.created_by(WarmStarted, lambda e: Checkpoint(e.run_id, e.digest))
checkpoints.cleared_by(TablesReset)


def latest_checkpoint(db: RfDb, run_id: int) -> str | None:
    """Return the digest of a run's latest checkpoint, or None if there is none yet."""
    found = db.db.execute("SELECT digest FROM checkpoints WHERE run_id = ?", (run_id,))
    return found[0]["digest"] if found else None

"""An actor: evaluates pipelines on the shards that it is given.

REFOLD_STORE=path-or-URL python -m examples.actor ACTOR_ID
"""

import json
import sys
from datetime import UTC, datetime
from typing import Any

from examples import digits, prototypes
from examples.checkpoints import checkpoints
from examples.place import place
from examples.scores import IndexBuilt, ShardEvaluated, scores
from refold import ActorTaskStatus, PipelineStatus, RFDatabase
from refold.eventstore.events import ActorTaskScheduled, ExperimentCompleted

Row = dict[str, Any]


def main(store: str, actor_id: int) -> None:
    data = digits.load()
    with (
        RFDatabase(store, actor=f"actor-{actor_id}", projections=[checkpoints, scores]) as db,
        db.subscribe(after=None, types=[ActorTaskScheduled, ExperimentCompleted]) as news,
    ):
        while True:
            while (task := claim(db, actor_id)) is not None:
                evaluate(db, task, data.test)
            if isinstance(next(news).event, ExperimentCompleted):
                return


def claim(db: RFDatabase, actor_id: int) -> Row | None:
    """Take up the next task, if there is one."""
    with db.batch():
        task = db.claim_next_actor_task(actor_id)
        if task is not None:
            db.set_pipeline_status(task["pipeline_id"], PipelineStatus.ONGOING)
        return task


def evaluate(db: RFDatabase, task: Row, test: digits.Part) -> None:
    """Read one shard with the pipeline's model and context, and report it as a whole."""
    task_id, pipeline_id, shard_id = task["task_id"], task["pipeline_id"], task["shard_id"]
    started = datetime.now(UTC)
    db.set_actor_task_start_time(task_id, started)
    pipeline = db.get_pipeline(pipeline_id)
    reading = prototypes.read(
        test.share(shard_id, db.get_experiment(task["experiment_id"])["num_shards"]),
        db.get_payload(json.loads(pipeline["model_config_json"])["checkpoint"]),
        load_index(db, pipeline["context_id"]),
        json.loads(pipeline["sampling_params_json"])["confidence"],
    )
    ended = datetime.now(UTC)
    with db.batch():
        db.set_actor_task_status(task_id, ActorTaskStatus.COMPLETED)
        db.set_actor_task_end_time(task_id, ended, (ended - started).total_seconds())
        db.append(ShardEvaluated(pipeline_id, shard_id, *reading))
        pipeline = db.get_pipeline(pipeline_id)  # again: the other actor adds to it too
        db.set_pipeline_progress(
            pipeline_id,
            current_shard_id=shard_id,
            shards_completed=pipeline["shards_completed"] + 1,
            total_samples_processed=pipeline["total_samples_processed"] + reading.samples,
        )


def load_index(db: RFDatabase, context_id: int | None) -> prototypes.Index | None:
    """Return the index that was built for a context."""
    if context_id is None:
        return None
    stream = f"context-{context_id}"
    [built] = db.store.read(stream=stream, types=[IndexBuilt], backwards=True, limit=1)
    assert isinstance(built.event, IndexBuilt)
    return db.get_payload(built.event.digest)


if __name__ == "__main__":
    main(place(), int(sys.argv[1]))

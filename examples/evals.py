"""An evaluation: trained models, alone and with contexts, become pipelines, shards become tasks.

    REFOLD_STORE=path-or-URL python -m examples.evals

It evaluates the latest checkpoint of every completed run on the digits that no run has seen, and
ends when the actors have read all shards.
"""

import hashlib
import json
from datetime import UTC, datetime

from examples import digits, prototypes
from examples.checkpoints import checkpoints
from examples.place import place
from examples.scores import IndexBuilt, scores
from refold import ContextStatus, InferenceStatus, PipelineStatus, RFDatabase
from refold.eventstore.events import ShardCompleted

SHARDS, ACTORS = 4, 2
PROTOTYPES = [1, 20]  # of each digit: a context for each
CONFIDENCE = 0.9


def main(store: str) -> None:
    with (
        RFDatabase(store, actor="evals", projections=[checkpoints, scores]) as db,
        db.subscribe(after=None, types=[ShardCompleted]) as news,
    ):
        contexts = [build_context(db, per_digit) for per_digit in PROTOTYPES]
        experiment_id = plan(db, contexts)
        while not advance(db, experiment_id):
            next(news)


def build_context(db: RFDatabase, per_digit: int) -> int:
    """Build an index of prototypes, unless there is one already; return the context's id."""
    config = {"prototypes_per_digit": per_digit}
    context_hash = hashlib.sha256(json.dumps(config).encode()).hexdigest()
    context_id = db.create_context(context_hash, rag_config_json=config)
    if db.get_context(context_id)["status"] == ContextStatus.READY:
        return context_id
    started = datetime.now(UTC)
    with db.batch():
        db.set_context_status(context_id, ContextStatus.BUILDING)
        db.set_context_start_time(context_id, started)
    index = prototypes.build(digits.load().train, per_digit)
    ended = datetime.now(UTC)
    with db.batch():
        db.append(IndexBuilt(context_id, db.put_payload(index)))
        db.set_context_end_time(context_id, ended, (ended - started).total_seconds())
        db.set_context_status(context_id, ContextStatus.READY)
    return context_id


def plan(db: RFDatabase, contexts: list[int]) -> int:
    """Give each trained model its pipelines, and each actor its shards, in one transaction."""
    models = db.db.execute(
        "SELECT run_id, run_name, digest FROM runs JOIN checkpoints USING (run_id) "
        "WHERE status = 'COMPLETED' ORDER BY run_id"
    )
    with db.batch():
        experiment_id = db.create_experiment("digits", num_shards=SHARDS, num_actors=ACTORS)
        pipelines = [
            db.create_pipeline(
                experiment_id,
                model["run_name"] + (f"_context_{context_id}" if context_id else "_alone"),
                pipeline_type="mlp",
                model_config_json={"run_id": model["run_id"], "checkpoint": model["digest"]},
                sampling_params_json={"confidence": CONFIDENCE if context_id else 0.0},
                context_id=context_id,
            )
            for model in models
            for context_id in (None, *contexts)
        ]
        for shard_id in range(SHARDS):
            for pipeline_id in pipelines:
                actor_id = (shard_id + pipeline_id) % ACTORS
                db.create_actor_task(experiment_id, pipeline_id, actor_id, shard_id)
    return experiment_id


def advance(db: RFDatabase, experiment_id: int) -> bool:
    """Complete the pipelines that have read all shards; return whether all have."""
    with db.batch():
        pipelines = db.get_all_pipelines(experiment_id)
        done = [p["pipeline_id"] for p in pipelines if p["shards_completed"] == SHARDS]
        for pipeline_id in done:
            db.set_pipeline_status(pipeline_id, PipelineStatus.COMPLETED)
        if len(done) < len(pipelines):
            return False
        db.set_experiment_status(experiment_id, InferenceStatus.COMPLETED)
        return True


if __name__ == "__main__":
    main(place())

"""A worker: trains the chunks that the controller gives it.

    REFOLD_STORE=path-or-URL python -m examples.worker WORKER_ID

A chunk's checkpoint, its metrics, the run's progress and the task's end are one transaction. Killed
at any moment, a worker leaves all of them or none, and the chunk is trained again.

While the store is out of reach, a worker keeps what it has and tries again. If it was taken for
lost meanwhile, its late report is refused, and it makes itself known again.
"""

import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

from examples import digits
from examples.checkpoints import CheckpointSaved, checkpoints, latest_checkpoint
from examples.place import place
from refold import (
    ConnectionLost,
    IllegalTransition,
    OutcomeUnknown,
    RfDb,
    StoreBusy,
    StoreUnreachable,
    TaskStatus,
    WorkerTask,
)
from refold.eventstore.events import ExperimentCompleted, TaskScheduled

P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]


def main(store: str, worker_id: int) -> None:
    data = digits.load()
    with (
        RfDb(store, actor=f"worker-{worker_id}", projections=[checkpoints]) as db,
        db.subscribe(after=None, types=[TaskScheduled, ExperimentCompleted]) as news,
    ):
        insist(db.join, f"worker-{worker_id}")  # perhaps in the place of one that was killed
        insist(begin, db, worker_id)
        while True:
            while (task := insist(claim, db, worker_id, command_id=str(uuid4()))) is not None:
                work(db, task, data)
            if isinstance(insist(next, news).event, ExperimentCompleted):
                insist(db.leave)
                return


def insist(attempt: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do something with the store, again and again while it is out of reach."""
    while True:
        try:
            return attempt(*args, **kwargs)
        except (ConnectionLost, OutcomeUnknown, StoreBusy, StoreUnreachable) as error:
            print(f"trying again: {error}", file=sys.stderr)


def begin(db: RfDb, worker_id: int) -> None:
    """Make this worker known as ready for work."""
    db.set_worker_progress(worker_id, WorkerTask.IDLE, TaskStatus.COMPLETED)


def claim(db: RfDb, worker_id: int, command_id: str) -> Row | None:
    """Take up the next task, if there is one; the same one if only the answer got lost."""
    with db.batch():
        task = db.claim_next_worker_task(worker_id, command_id=command_id)
        if task is not None:
            db.set_worker_progress(worker_id, WorkerTask.TRAIN_VAL)
        return task


def work(db: RfDb, task: Row, data: digits.Digits) -> None:
    """Train the task's run on the task's chunk."""
    run = insist(db.get_run, task["run_id"])
    model = insist(load_model, db, run)
    try:
        chunk = data.train.share(task["chunk_id"], run["num_chunks"])
        digits.train(model, run["config_leaf"], chunk)
        insist(save, db, task, run, model, accuracy=model.score(*data.validation))
    except IllegalTransition as refused:
        # A recovery took this worker for lost and failed its task: the chunk will come again.
        print(f"reported too late: {refused}", file=sys.stderr)
        insist(free, db, task)
    except ValueError as error:  # by scikit-learn: a wrong configuration, weights beyond all bounds
        insist(free, db, task, str(error))


def load_model(db: RfDb, run: Row) -> digits.Classifier:
    """Return the run's model as its latest checkpoint has it, or a new one."""
    digest = latest_checkpoint(db, run["run_id"])
    if digest is None:
        return digits.new_model(run["config_leaf"], run["seed"])
    return db.get_payload(digest)


def save(db: RfDb, task: Row, run: Row, model: digits.Classifier, accuracy: float) -> None:
    """Report a chunk as trained: all of it or, if the task was given up meanwhile, nothing."""
    worker_id, run_id, epoch, chunk = (
        task[column] for column in ("worker_id", "run_id", "epoch", "chunk_id")
    )
    next_epoch, next_chunk = divmod(epoch * run["num_chunks"] + chunk + 1, run["num_chunks"])
    with db.batch():
        if db.get_worker_task(task["task_id"])["status"] == TaskStatus.COMPLETED:
            return  # it was reported, only the answer got lost
        db.set_worker_task_status(task["task_id"], TaskStatus.COMPLETED)
        db.append(CheckpointSaved(run_id, epoch, chunk, db.put_payload(model)))
        db.update_run_metrics(run_id, {"loss": model.loss_, "accuracy": accuracy})
        db.set_run_progress(run_id, current_chunk=next_chunk, current_epoch=next_epoch)
        db.set_worker_progress(worker_id, WorkerTask.TRAIN_VAL, TaskStatus.COMPLETED)


def free(db: RfDb, task: Row, error: str | None = None) -> None:
    """Report a task as failed, unless it is already, and this worker as ready for the next."""
    with db.batch():
        db.set_worker_task_status(task["task_id"], TaskStatus.FAILED, error)
        db.set_worker_progress(task["worker_id"], WorkerTask.IDLE, TaskStatus.COMPLETED)


if __name__ == "__main__":
    main(place(), int(sys.argv[1]))

"""A worker: trains the chunks that the controller gives it.

    REFOLD_STORE=path-or-URL python -m examples.worker WORKER_ID

A chunk's checkpoint, its metrics, the run's progress and the task's end are one transaction. Killed
at any moment, a worker leaves all of them or none, and the chunk is trained again.

What it has trained while the network was down it reports as soon as the store can be reached. If it
was taken for lost meanwhile, the report is refused, and it makes itself known again.
"""

import sys
from typing import Any

from eventstore.events import ExperimentCompleted, TaskScheduled
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

OUT_OF_REACH = (ConnectionLost, OutcomeUnknown, StoreBusy, StoreUnreachable)

Row = dict[str, Any]


def main(store: str, worker_id: int) -> None:
    data = digits.load()
    with (
        RfDb(store, actor=f"worker-{worker_id}", projections=[checkpoints]) as db,
        db.subscribe(after=None, types=[TaskScheduled, ExperimentCompleted]) as news,
    ):
        begin(db, worker_id)
        while True:
            while (task := claim(db, worker_id)) is not None:
                work(db, task, data)
            if isinstance(next(news).event, ExperimentCompleted):
                return


def begin(db: RfDb, worker_id: int) -> None:
    """Make this worker known, and give up what it was killed at the last time."""
    with db.batch():
        for task in db.get_worker_tasks(worker_id=worker_id, status=TaskStatus.IN_PROGRESS):
            db.set_worker_task_status(task["task_id"], TaskStatus.FAILED, "the worker was killed")
        db.set_worker_progress(worker_id, WorkerTask.IDLE, TaskStatus.COMPLETED)


def claim(db: RfDb, worker_id: int) -> Row | None:
    """Take up the next task, if there is one."""
    with db.batch():
        task = db.claim_next_worker_task(worker_id)
        if task is not None:
            db.set_worker_progress(worker_id, WorkerTask.TRAIN_VAL)
        return task


def work(db: RfDb, task: Row, data: digits.Digits) -> None:
    """Train the task's run on the task's chunk."""
    try:
        run = db.get_run(task["run_id"])
        model = load_model(db, run)
        chunk = data.train.share(task["chunk_id"], run["num_chunks"])
        digits.train(model, run["config_leaf"], chunk)
        report(db, task, run, model, accuracy=model.score(*data.validation))
    except IllegalTransition as refused:
        # A recovery took this worker for lost and failed its task: the chunk will come again.
        print(refused, file=sys.stderr)
        db.set_worker_progress(task["worker_id"], WorkerTask.IDLE, TaskStatus.COMPLETED)
    except ValueError as error:  # by scikit-learn: a wrong configuration, weights beyond all bounds
        with db.batch():
            db.set_worker_task_status(task["task_id"], TaskStatus.FAILED, str(error))
            db.set_worker_progress(task["worker_id"], WorkerTask.IDLE, TaskStatus.COMPLETED)


def load_model(db: RfDb, run: Row) -> digits.Classifier:
    """Return the run's model as its latest checkpoint has it, or a new one."""
    digest = latest_checkpoint(db, run["run_id"])
    if digest is None:
        return digits.new_model(run["config_leaf"], run["seed"])
    return db.get_payload(digest)


def report(db: RfDb, task: Row, run: Row, model: digits.Classifier, accuracy: float) -> None:
    """Report a chunk as trained, however long it takes until the store can be reached."""
    while True:
        try:
            save(db, task, run, model, accuracy)
        except OUT_OF_REACH as error:
            print(error, file=sys.stderr)
        else:
            return


def save(db: RfDb, task: Row, run: Row, model: digits.Classifier, accuracy: float) -> None:
    """Save what was trained: all of it or, if the task was given up meanwhile, nothing."""
    worker_id, run_id, epoch, chunk = (
        task[column] for column in ("worker_id", "run_id", "epoch", "chunk_id")
    )
    next_epoch, next_chunk = divmod(epoch * run["num_chunks"] + chunk + 1, run["num_chunks"])
    with db.batch():
        if db.get_worker_task(task["task_id"])["status"] == TaskStatus.COMPLETED:
            return  # an earlier attempt was heard, only its answer got lost
        db.set_worker_task_status(task["task_id"], TaskStatus.COMPLETED)
        db.append(CheckpointSaved(run_id, epoch, chunk, db.put_payload(model)))
        db.update_run_metrics(run_id, {"loss": model.loss_, "accuracy": accuracy})
        db.set_run_progress(run_id, current_chunk=next_chunk, current_epoch=next_epoch)
        db.set_worker_progress(worker_id, WorkerTask.TRAIN_VAL, TaskStatus.COMPLETED)


if __name__ == "__main__":
    main(place(), int(sys.argv[1]))

"""A controller: gives each configuration a run and hands the runs' chunks to the workers.

    REFOLD_STORE=path-or-URL python -m examples.controller

It remembers nothing that is not in the store, so it can be killed at any moment: started again, it
goes on from the last completed chunk of every run. Meanwhile the workers do what they have been
given. It sees at once when one of them dies, and gives the chunk to another. It ends when every run
has ended; a stopped run has not, for it may be resumed.
"""

from typing import Any

from examples.checkpoints import checkpoints
from examples.interactive_control import carry_out
from examples.place import place
from refold import (
    ControllerTask,
    ExperimentStatus,
    NotFound,
    RfDb,
    RunEndedBy,
    RunStatus,
    TaskStatus,
)
from refold.eventstore.events import (
    InteractiveControlEvent,
    TaskCompleted,
    TaskFailed,
    WorkerLost,
    WorkerProgressed,
)

CONFIGS = [
    {"hidden": (64,), "learning_rate": 0.0001, "epochs": 4},
    {"hidden": (64,), "learning_rate": 0.001, "epochs": 4},
    {"hidden": (128, 64), "learning_rate": 0.001, "epochs": 4},
    {"hidden": (64,), "learning_rate": 0.1, "epochs": 4},
]
CHUNKS = 4
ATTEMPTS = 5  # at one chunk, before its run is given up

NEWS = [InteractiveControlEvent, TaskCompleted, TaskFailed, WorkerLost, WorkerProgressed]

Row = dict[str, Any]


def main(store: str) -> None:
    with (
        RfDb(store, actor="controller", projections=[checkpoints]) as db,
        db.subscribe(after=None, types=NEWS) as news,
    ):
        db.join("controller")  # perhaps in the place of one that was killed
        with db.watching():
            experiment_id = running_experiment(db)
            db.set_controller_task(ControllerTask.RUN_FIT)
            while not advance(db, experiment_id):
                news.wait(timeout=60)  # for anything at all: `advance` looks at everything
        db.leave()


def running_experiment(db: RfDb) -> int:
    """Return the id of the experiment that runs, or begin one."""
    try:
        return db.get_running_experiment()["experiment_id"]
    except NotFound:
        with db.batch():
            experiment_id = db.create_experiment("digits", status=ExperimentStatus.RUNNING)
            for config in CONFIGS:
                db.create_run(experiment_id, config_leaf=config, seed=1, num_chunks=CHUNKS)
        return experiment_id


def advance(db: RfDb, experiment_id: int) -> bool:
    """Do all that can be done now; return whether the experiment is over."""
    for request in db.get_ic_ops_request():
        carry_out(db, request)
    with db.batch():
        for run in runs(db, experiment_id, RunStatus.ONGOING):
            end_if_over(db, run)
        hand_out(db, runs(db, experiment_id, RunStatus.NEW, RunStatus.ONGOING))
        alive = runs(db, experiment_id, RunStatus.NEW, RunStatus.ONGOING, RunStatus.STOPPED)
        if alive or db.get_ic_ops_request():
            return False
        db.set_experiment_status(experiment_id, ExperimentStatus.COMPLETED)
        db.set_controller_task(ControllerTask.RUN_FIT, TaskStatus.COMPLETED)
        return True


def runs(db: RfDb, experiment_id: int, *status: RunStatus) -> list[Row]:
    """Return the experiment's runs that have one of these statuses."""
    found = db.get_runs_by_status(status)
    return [run for run in found if run["experiment_id"] == experiment_id]


def end_if_over(db: RfDb, run: Row) -> None:
    """End a run that has trained on all its data, or whose next chunk fails again and again."""
    run_id, epoch, chunk = run["run_id"], run["current_epoch"], run["current_chunk"]
    failed = [
        task
        for task in db.get_worker_tasks(run_id, status=TaskStatus.FAILED)
        if (task["epoch"], task["chunk_id"]) == (epoch, chunk)
    ]
    if epoch == run["config_leaf"]["epochs"]:
        db.set_run_status(run_id, RunStatus.COMPLETED)
        db.set_run_ended_by(run_id, RunEndedBy.COMPLETED)
    elif len(failed) >= ATTEMPTS:
        db.set_run_status(run_id, RunStatus.FAILED)
        db.set_run_ended_by(run_id, RunEndedBy.FAILED)


def hand_out(db: RfDb, runnable: list[Row]) -> None:
    """Give each idle worker the next chunk of a run that no worker has, least trained first.

    A worker whose progress has FAILED was taken for lost: it gets nothing until it tells otherwise.
    """
    tasks = db.db.execute(
        "SELECT run_id, worker_id FROM worker_task WHERE status IN ('SCHEDULED', 'IN_PROGRESS')"
    )
    workers = db.db.execute(
        "SELECT worker_id FROM worker_progress WHERE status <> 'FAILED' ORDER BY worker_id"
    )
    idle = [w for w in workers if w["worker_id"] not in {task["worker_id"] for task in tasks}]
    waiting = [run for run in runnable if run["run_id"] not in {task["run_id"] for task in tasks}]
    waiting.sort(key=lambda run: (run["current_epoch"], run["current_chunk"]))
    for worker, run in zip(idle, waiting, strict=False):
        run_id, chunk, epoch = run["run_id"], run["current_chunk"], run["current_epoch"]
        db.set_run_status(run_id, RunStatus.ONGOING)
        db.create_worker_task(run_id, worker["worker_id"], chunk_id=chunk, epoch=epoch)


if __name__ == "__main__":
    main(place())

"""An experiment's whole life on the event log, with all that can happen to it.

    python -m examples.demo [--store PATH-OR-URL]

A controller and two workers train on scanned digits: processes that talk through the store alone.
Meanwhile a user stops a run, deletes one, clones one; a worker and the controller are killed in the
middle of their work and started again. Then two actors evaluate the trained models.
"""

import argparse
import os
import signal
import sys
import threading
from itertools import count
from pathlib import Path
from typing import NoReturn

from examples.checkpoints import checkpoints
from examples.follower import DemoFailed, Follower
from examples.place import VARIABLE
from examples.processes import Processes
from examples.report import report
from refold import DBException, RfDb
from refold.eventstore import open_store
from refold.eventstore.events import (
    ExperimentCompleted,
    RunCreated,
    RunKilled,
    RunResumed,
    RunStopped,
    TaskStarted,
    WorkerLost,
)

TIME_LIMIT = 240  # seconds after which something must be wrong

SLOW, PAUSED, HOPELESS = 1, 2, 4  # runs, see CONFIGS in controller.py


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo")
    parser.add_argument(
        "--store",
        default=os.environ.get(VARIABLE, ""),
        help=f"path or URL of a new store (default: ${VARIABLE}, which `ps` does not show, "
        "or else demo.db or the next free)",
    )
    signal.signal(signal.SIGTERM, end_by_signal)
    place: str = parser.parse_args().store
    try:
        store = new_store(place)
        play(store)
        return report(store)
    except (DemoFailed, DBException) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def end_by_signal(number: int, _: object) -> NoReturn:
    sys.exit(f"demo: ended by {signal.Signals(number).name}")


def new_store(place: str) -> str:
    """Return the path or URL of a store that holds nothing yet."""
    if not place:
        names = (f"demo-{number}.db" if number > 1 else "demo.db" for number in count(1))
        place = next(name for name in names if not Path(name).exists())
    if "://" in place:
        with open_store(place) as store:
            if store.head() > 0:
                sys.exit(f"demo: {store.engine.name} is there already: pass another ?schema=name")
        return place
    path = Path(place).absolute()
    if path.exists():
        sys.exit(f"demo: {path} is there already: pass a new path")
    return str(path)


def play(store: str) -> None:
    """Run the whole story."""
    with RfDb(store, actor="user", projections=[checkpoints]) as db, Follower(db) as follower:
        processes = Processes(store, follower.say, follower.fail)
        late = f"not done after {TIME_LIMIT} s: a process hangs"
        limit = threading.Timer(TIME_LIMIT, follower.fail, [late])
        limit.start()
        follower.say(f"everything goes into {db.store.engine.name}: look into it while it runs")
        try:
            train(db, follower, processes)
            evaluate(follower, processes)
            processes.wait()
            follower.check()
        finally:
            limit.cancel()
            processes.kill_all()


def train(db: RfDb, follower: Follower, processes: Processes) -> None:
    """Train the runs, while a user and accidents interfere."""
    follower.say("a controller and two workers start")
    for name in ("controller", "worker-0", "worker-1"):
        processes.start(name)
    follower.until_found("SELECT worker_id FROM worker_progress WHERE worker_id = 1")

    until_trained(follower, PAUSED, chunks=1)
    follower.say(f"user: stop run {PAUSED}")
    db.request_stop(PAUSED)
    follower.until(RunStopped, run_id=PAUSED)

    until_trained(follower, HOPELESS, chunks=2)
    follower.say(f"user: delete run {HOPELESS}, which learns badly")
    db.request_delete(HOPELESS)
    follower.until(RunKilled, run_id=HOPELESS)

    until_trained(follower, SLOW, chunks=3)
    follower.say(f"user: clone run {SLOW} with its weights, and learn twenty times as fast")
    config = db.get_run(SLOW)["config_leaf"]
    faster = {**config, "learning_rate": 20 * config["learning_rate"]}
    db.request_clone_modify(SLOW, faster, warm_start=True)
    follower.until(RunCreated, parent_run_id=SLOW)

    lost = kill_in_task(db, follower, processes, worker_id=1)
    follower.until(WorkerLost, failed_tasks=(lost,))  # which the controller finds by itself
    processes.start("worker-1")

    follower.until(TaskStarted)
    pid = processes.kill("controller")
    left = ", ".join(map(str, in_progress(db))) or "none"
    follower.say(f"SIGKILL: the controller (process {pid}) dies; tasks in progress: {left}")
    follower.say(f"user: resume run {PAUSED}; nobody is there to hear it")
    db.request_resume(PAUSED)
    processes.start("controller")
    follower.until(WorkerLost, name="controller")
    follower.until(RunResumed, run_id=PAUSED)
    follower.until(ExperimentCompleted)


def until_trained(follower: Follower, run_id: int, chunks: int) -> None:
    """Follow until a run has been trained on so many chunks."""
    follower.until_found(
        "SELECT run_id FROM runs "
        "WHERE run_id = ? AND current_epoch * num_chunks + current_chunk >= ?",
        run_id,
        chunks,
    )


def in_progress(db: RfDb) -> dict[int, int]:
    """Return the tasks that are in progress, and the worker of each."""
    tasks = db.db.execute("SELECT task_id, worker_id FROM worker_task WHERE status = 'IN_PROGRESS'")
    return {task["task_id"]: task["worker_id"] for task in tasks}


def kill_in_task(db: RfDb, follower: Follower, processes: Processes, worker_id: int) -> int:
    """Kill a worker in the middle of a task; return the id of the task."""
    name = f"worker-{worker_id}"
    while True:
        follower.until(TaskStarted, actor=name)
        pid = processes.kill(name)
        for task_id, owner in in_progress(db).items():
            if owner == worker_id:
                follower.say(f"SIGKILL: {name} (process {pid}) dies in task {task_id}")
                return task_id
        processes.start(name)  # it was faster and had just completed the task: once more


def evaluate(follower: Follower, processes: Processes) -> None:
    """Let two actors evaluate the trained models."""
    follower.say("two actors evaluate the trained models, alone and with contexts")
    for name in ("actor-0", "actor-1", "evals"):
        processes.start(name)
    follower.until(ExperimentCompleted)


if __name__ == "__main__":
    sys.exit(main())

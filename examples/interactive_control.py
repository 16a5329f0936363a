"""How the controller carries out what users ask of runs that train: stop, resume, delete, clone.

Each change names, as its cause, the position of the request that led to it.
"""

from typing import Any

from examples.checkpoints import WarmStarted, latest_checkpoint
from refold import IllegalTransition, RfDb, RunEndedBy, RunSource, RunStatus

Row = dict[str, Any]


def carry_out(db: RfDb, request: Row) -> None:
    """Do what a user asks for, or note why it cannot be done. A chunk under way is finished."""
    run_id, ic_id, cause = request["run_id"], request["ic_id"], request["position"]
    try:
        with db.batch():
            match request["operation"]:
                case "STOP":
                    db.set_run_status(run_id, RunStatus.STOPPED, cause=cause)
                case "RESUME":
                    db.set_run_status(run_id, RunStatus.ONGOING, cause=cause)
                case "DELETE":
                    db.set_run_status(run_id, RunStatus.KILLED, cause=cause)
                    db.set_run_ended_by(run_id, RunEndedBy.KILLED, cause=cause)
                case _:
                    clone(db, request)
            db.mark_ic_ops_completed(ic_id, cause=cause)
    except IllegalTransition as refused:
        db.mark_ic_ops_failed(ic_id, str(refused), cause=cause)


def clone(db: RfDb, request: Row) -> None:
    """Give a changed configuration a run, which begins with its parent's weights if asked to."""
    parent, cause = db.get_run(request["run_id"]), request["position"]
    run_id = db.create_run(
        parent["experiment_id"],
        config_leaf=request["config_leaf"] or parent["config_leaf"],
        source=RunSource.CLONE_MODIFY,
        seed=parent["seed"],
        num_chunks=parent["num_chunks"],
        parent_run_id=parent["run_id"],
        warm_start=request["warm_start"],
        cause=cause,
    )
    checkpoint = latest_checkpoint(db, parent["run_id"])
    if request["warm_start"] and checkpoint is not None:
        db.append(WarmStarted(run_id, parent["run_id"], checkpoint), cause=cause)

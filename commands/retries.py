"""Whether what a lost worker did is offered again, and when: pure functions of what was decided."""

from refold.eventstore.events import Offered
from refold.eventstore.statuses import PipelineStatus, RunStatus
from refold.eventstore.times import SECOND
from refold.projections.evals import ActorTask, pipelines
from refold.projections.fit import Task, runs
from refold.projections.liveness import Retry, retries
from refold.projections.unit_of_work import Rows

LONGEST_WAIT = 3600.0
"""In seconds."""


def offered_again(rows: Rows, task: Task | ActorTask, now: int) -> Offered | None:
    """Return when a task that was lost can be claimed again; None: it has failed.

    Args:
        rows: see `Command.decide`.
        task: its row.
        now: the time, in microseconds since 1970-01-01 UTC.
    """
    policy = policy_of(rows, task)
    if policy is None or task.attempts >= policy.max_attempts or _is_ended(rows, task):
        return None
    return Offered(task.task_id, now + round(wait_before(task.attempts + 1, policy) * SECOND))


def policy_of(rows: Rows, task: Task | ActorTask) -> Retry | None:
    """Return what was decided for a task: for its run or pipeline, or else for its experiment."""
    if isinstance(task, Task):
        run = rows.get(runs, task.run_id)
        scopes = [f"run-{task.run_id}"]
        experiment_id = None if run is None else run.experiment_id
    else:
        scopes, experiment_id = [f"pipeline-{task.pipeline_id}"], task.experiment_id
    if experiment_id is not None:
        scopes.append(f"experiment-{experiment_id}")
    found = (rows.get(retries, scope) for scope in scopes)
    return next((policy for policy in found if policy is not None), None)


def wait_before(attempt: int, policy: Retry) -> float:
    """Return how many seconds an attempt waits: the second as decided, each further one twice."""
    return min(policy.wait * 2.0 ** min(attempt - 2, 60), max(policy.wait, LONGEST_WAIT))


def _is_ended(rows: Rows, task: Task | ActorTask) -> bool:
    if isinstance(task, Task):
        run = rows.get(runs, task.run_id)
        return run is not None and run.status == RunStatus.KILLED
    pipeline = rows.get(pipelines, task.pipeline_id)
    return pipeline is not None and pipeline.status == PipelineStatus.DELETED

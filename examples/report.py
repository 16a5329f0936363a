"""What the demo prints at its end: what is in the store, and whether it is right."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from examples.checkpoints import checkpoints
from examples.scores import scores
from refold import RfDb, RunStatus, TaskStatus
from refold.eventstore.events import WorkerLost

Row = dict[str, Any]

PIPELINES = """
    SELECT pipeline_id, pipeline_name, pipelines.status, sampling_params_json, rag_config_json,
           shards_completed, samples, looked_up, 1.0 * correct / samples AS accuracy
    FROM pipelines JOIN scores USING (pipeline_id) LEFT JOIN contexts USING (context_id)
    ORDER BY pipeline_id"""


def report(store: str) -> int:
    """Print the runs, the pipelines, the events, the checks and commands to go on with.

    Returns:
        The exit code.
    """
    width = None if sys.stdout.isatty() else 110  # a pipe has none of its own
    console = Console(width=width, highlight=False, markup=False)
    with RfDb(store, projections=[checkpoints, scores]) as db:
        runs = db.get_all_runs()
        pipelines = db.db.execute(PIPELINES)
        types = db.db.execute(
            "SELECT type, count(*) AS n FROM events GROUP BY type ORDER BY n DESC, type"
        )
        differences = db.verify()
        name = db.store.engine.name  # without any password
        questions = worth_asking(db)
    console.print()
    console.print(table("Runs, on the validation digits", [run_line(run) for run in runs]))
    console.print()
    lines = [pipeline_line(pipeline) for pipeline in pipelines]
    console.print(table("Pipelines, on the test digits, which no model has seen before", lines))
    console.print(f"\n{sum(row['n'] for row in types)} events")
    console.print(Columns([f"{row['n']:4} {row['type']}" for row in types], width=32))
    run = max(runs, key=accuracy)
    pipeline = max(pipelines, key=lambda row: row["accuracy"])
    print(f"\nbest run: {run['run_name']}, accuracy {percent(accuracy(run))} (validation)")
    print(f"best pipeline: {pipeline['pipeline_name']}, {percent(pipeline['accuracy'])} (test)")
    for difference in differences:
        print(f"verify: {difference}")
    if not differences:
        print("verify: views equal the log")
    print(f"store: {name}")
    if "://" not in name:
        name = from_here(Path(name))
    elif name != store:
        print("\nThe commands need the password of the URL: put it into PGPASSWORD or ~/.pgpass.")
    print(f"\nOpen it in the browser:\n{shlex.join([*command_line(), 'ui', '--store', name])}")
    print("\nLook into it:")
    for question in questions:
        print(shlex.join([*command_line(), *question, "--store", name]))
    return 1 if differences else 0


def worth_asking(db: RfDb) -> list[list[str]]:
    """Return commands of `refold`, with their arguments, that show what happened here."""
    [killed] = db.get_runs_by_status([RunStatus.KILLED])
    failed = db.get_worker_tasks(status=TaskStatus.FAILED)
    [recovery] = [
        recorded
        for recorded in db.store.read(types=[WorkerLost])
        if isinstance(recorded.event, WorkerLost) and recorded.event.name == "controller"
    ]
    return [
        ["status"],
        ["why", "run", str(killed["run_id"]), "status"],
        ["history", "task", str(failed[0]["task_id"])],
        ["runs", "--at", str(recovery.position - 1)],  # while the controller was dead
        ["verify", "--import", "examples.checkpoints", "--import", "examples.scores"],
    ]


def command_line() -> list[str]:
    """Return how to start the `refold` of this environment from here."""
    script = Path(sys.executable).with_name("refold")
    if script.exists():
        return [from_here(script)]
    return [from_here(Path(sys.executable)), "-m", "refold"]


def from_here(path: Path) -> str:
    """Write a path as it is shortest from the present folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def run_line(run: Row) -> dict[str, str]:
    """Return what the table tells of a run."""
    config = run["config_leaf"]
    return {
        "run": run["run_name"],
        "layers": "-".join(map(str, config["hidden"])),
        "learning rate": f"{config['learning_rate']:g}",
        "status": run["status"],
        "warm start from": f"run_{run['parent_run_id']}" if run["warm_start"] else "",
        "chunks": str(run["current_epoch"] * run["num_chunks"] + run["current_chunk"]),
        "loss": f"{run['metrics']['loss']:.3f}",
        "accuracy": percent(accuracy(run)),
    }


def pipeline_line(pipeline: Row) -> dict[str, str]:
    """Return what the table tells of a pipeline."""
    context = json.loads(pipeline["rag_config_json"] or "{}")
    sampling = json.loads(pipeline["sampling_params_json"])
    return {
        "pipeline": pipeline["pipeline_name"],
        "prototypes": str(context.get("prototypes_per_digit", 0)),
        "sure at": f"{sampling['confidence']:g}",
        "status": pipeline["status"],
        "shards": str(pipeline["shards_completed"]),
        "lookups": str(pipeline["looked_up"]),
        "accuracy": percent(pipeline["accuracy"]),
    }


def table(title: str, lines: list[dict[str, str]]) -> Table:
    """Return lines as a table, with numbers to the right."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for name, value in lines[0].items():
        table.add_column(name, justify="right" if value[:1].isdigit() else "left")
    for line in lines:
        table.add_row(*line.values())
    return table


def accuracy(run: Row) -> float:
    """Return a run's accuracy on the validation digits."""
    return run["metrics"]["accuracy"]


def percent(share: float) -> str:
    """Write a share in percent."""
    return f"{100 * share:.1f} %"

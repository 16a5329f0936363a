"""An existing database of RapidFire's, of training or of inference, becomes a log."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from msgspec import UNSET, UnsetType

from refold.eventstore import times
from refold.eventstore.errors import InvalidCommand, InvalidFile
from refold.eventstore.event import Event
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskEndTimeRecorded,
    ActorTaskErrorRecorded,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    ActorTaskStartTimeRecorded,
    CloneModifyRequested,
    ContextCreated,
    ContextDetailsRecorded,
    ContextEndTimeRecorded,
    ContextErrorRecorded,
    ContextStartTimeRecorded,
    DeleteRequested,
    ExperimentCreated,
    ExperimentDetailsRecorded,
    ExperimentErrorRecorded,
    InteractiveControlCompleted,
    InteractiveControlFailed,
    InteractiveControlSkipped,
    InteractiveControlStarted,
    PipelineCloneRequested,
    PipelineCreated,
    PipelineDeleteRequested,
    PipelineDetailsRecorded,
    PipelineErrorRecorded,
    PipelineProgressed,
    PipelineRequestCompleted,
    PipelineRequestFailed,
    PipelineRequestStarted,
    PipelineResumeRequested,
    PipelineStopRequested,
    ResumeRequested,
    RunCreated,
    RunDetailsRecorded,
    StopRequested,
    TaskCompleted,
    TaskDetailsRecorded,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from refold.eventstore.statuses import PipelineStatus, RunSource, RunStatus
from refold.face import Face
from refold.rf_database import time_text

ACTOR = "import"
"""Marks every event that was imported."""

Row = dict[str, Any]

RUN_STATUS = {
    "New": RunStatus.NEW,
    "Ongoing": RunStatus.ONGOING,
    "Stopped": RunStatus.STOPPED,
    "Deleted": RunStatus.KILLED,
    "Completed": RunStatus.COMPLETED,
    "Failed": RunStatus.FAILED,
}
TASK_ENDS = {
    "Scheduled": (),
    "In Progress": (TaskStarted,),
    "Completed": (TaskCompleted,),
    "Failed": (TaskFailed,),
}
ASKED = {
    "Interactive Control Stop": StopRequested,
    "Interactive Control Resume": ResumeRequested,
    "Interactive Control Delete": DeleteRequested,
}
CLONES = {
    "Interactive Control Clone Modify": False,
    "Interactive Control Clone Modify with Warm-Start": True,
}
ANSWERS = {
    "Scheduled": (),
    "In Progress": (InteractiveControlStarted,),
    "Completed": (InteractiveControlCompleted,),
    "Skipped": (InteractiveControlSkipped,),
    "Failed": (InteractiveControlFailed,),
}
CONTEXT_STATUS = {
    "new": "pending",
    "ongoing": "building",
    "completed": "ready",
    "failed": "failed",
    "deleted": "deleted",
}
ACTOR_ENDS = {
    "scheduled": (),
    "in_progress": (ActorTaskStarted,),
    "completed": (ActorTaskCompleted,),
    "failed": (ActorTaskFailed,),
}
PIPELINE_ASKED = {
    "stop": PipelineStopRequested,
    "resume": PipelineResumeRequested,
    "delete": PipelineDeleteRequested,
    "clone": PipelineCloneRequested,
}


class Fact(NamedTuple):
    """What is known from a row, and when it was so, if that is known: in microseconds."""

    at: int | None
    events: Sequence[Event]


def import_database(old: str | Path, target: str) -> int:
    """Turn a database of RapidFire's into a log, in one transaction; return the number of events.

    Ids stay. Each event bears the time that the database tells, or that of the one before it; and
    the actor `import`.

    Args:
        old: the file of a database; it is only read.
        target: the path or URL of a store in which nothing has happened to that kind yet.

    Raises:
        InvalidFile: it is not a database of RapidFire's, is damaged, or holds what is not known.
        InvalidCommand: the store holds experiments already.
    """
    now = times.now()
    clock = [now]
    with closing(_opened(old)) as connection, Face(target, clock=lambda: clock[0]) as face:
        if face.store.head():
            raise InvalidCommand(
                f"{face.store.engine.name} holds a log already: import into a store that is new"
            )
        try:
            facts = list(_Reader(connection, face).facts())
        except (sqlite3.Error, KeyError, ValueError, TypeError) as error:
            raise InvalidFile(f"{old}: {type(error).__name__}: {error}") from error
        with face.batch():
            for fact in _in_order(facts, now):
                clock[0] = fact.at or clock[0]
                face.append(*fact.events, actor=ACTOR, correlation=str(old))
        return face.store.head()


def _opened(old: str | Path) -> sqlite3.Connection:
    if not Path(old).is_file():
        raise InvalidFile(f"{old} is no file")
    connection = sqlite3.connect(f"{Path(old).absolute().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")  # RapidFire may be writing to it: one moment for all reads
        [(found,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.Error as error:
        connection.close()
        raise InvalidFile(f"{old} cannot be read as a database: {error}") from error
    if found != "ok":
        connection.close()
        raise InvalidFile(f"{old} is damaged: {found}")
    return connection


def _in_order(facts: Iterable[Fact], now: int) -> list[Fact]:
    """Return facts by their times; one without goes with the latest before it."""
    last, timed = min((fact.at for fact in facts if fact.at is not None), default=now), list[Fact]()
    for fact in facts:
        last = max(last, fact.at or last)
        timed.append(fact._replace(at=last if fact.at is None else fact.at))
    return sorted(timed, key=lambda fact: cast("int", fact.at))


class _Reader:
    """Reads the rows of one database as facts."""

    def __init__(self, connection: sqlite3.Connection, face: Face) -> None:
        self._connection = connection
        self._face = face

    def facts(self) -> Iterator[Fact]:
        names = {row["name"] for row in self._rows("SELECT name FROM sqlite_master")}
        if not names >= {"experiments", "interactive_control"} or not names & {"runs", "pipelines"}:
            raise ValueError("it has not the tables of RapidFire's databases")
        return self._fit() if "runs" in names else self._evals()

    def _rows(self, sql: str) -> list[Row]:
        return [dict(row) for row in self._connection.execute(sql)]

    def _payload(self, text: str | None) -> str | None:
        if not text or text == "{}":
            return None
        from refold.rapidfire.package import decoded

        try:
            value = decoded(text)
        except Exception as error:
            raise ValueError(f"a configuration cannot be decoded: {error}") from error
        return self._face.store.put_payload(self._face.payloads.encode(value, outlined=True))

    # --- training -------------------------------------------------------------------------

    def _fit(self) -> Iterator[Fact]:
        experiments = self._rows("SELECT * FROM experiments ORDER BY experiment_id")
        for row in experiments:
            options = self._payload(row["config_options"])
            known: Row = {} if options is None else self._face.get_payload(options)
            path = known.get("experiments_path")
            yield self._experiment(
                row,
                ExperimentCreated(
                    row["experiment_id"],
                    "fit",
                    row["experiment_name"],
                    row["status"].upper(),
                    None if path is None else str(path),
                ),
                ExperimentDetailsRecorded(
                    row["experiment_id"],
                    metric_experiment_id=row["metric_experiment_id"],
                    current_task=row["current_task"],
                    options=options or UNSET,
                ),
            )
        current = self._current(experiments)
        for row in self._rows("SELECT * FROM runs ORDER BY run_id"):
            yield Fact(None, self._run(row, current))
        for row in self._rows("SELECT * FROM controller_progress ORDER BY run_id"):
            details = RunDetailsRecorded(row["run_id"], controller_progress=row["progress"])
            yield Fact(None, [details])
        for row in self._rows("SELECT * FROM worker_progress ORDER BY run_id"):
            old = "subchunk_progress" in row
            progress = row["subchunk_progress" if old else "subshard_progress"]
            noted = RunDetailsRecorded(row["run_id"], worker_progress=progress)
            yield Fact(None, [noted])
        for row in self._rows("SELECT * FROM worker_task ORDER BY task_id"):
            key = row["task_id"]
            shard = row["shard_id"] if "shard_id" in row else row["chunk_id"]
            options = self._payload(row["config_options"])
            details = row["multi_worker_details"] or "{}"
            scheduled = TaskScheduled(key, row["run_id"], row["worker_id"], shard)
            told = TaskDetailsRecorded(key, row["worker_id"], row["task_type"], details, options)
            ends = [event(key) for event in TASK_ENDS[row["status"]]]
            yield Fact(None, [scheduled, told, *ends])
        for row in self._rows("SELECT * FROM interactive_control ORDER BY task_id"):
            key, config = row["task_id"], self._payload(row["config_leaf"])
            if row["ic_op"] in CLONES:
                warm = CLONES[row["ic_op"]]
                asked: Event = CloneModifyRequested(key, row["run_id"], config, warm)
            else:
                asked = ASKED[row["ic_op"]](key, row["run_id"], config or UNSET)
            yield Fact(None, [asked, *(event(key) for event in ANSWERS[row["status"]])])

    def _experiment(self, row: Row, created: Event, details: Event) -> Fact:
        error = row["error"]
        noted = [ExperimentErrorRecorded(row["experiment_id"], error)] if error else []
        return Fact(_micros(row.get("created_at")), [created, details, *noted])

    @staticmethod
    def _current(experiments: list[Row]) -> int:
        """Return the experiment to which the other rows belong: the one that runs, or the last."""
        running = [row for row in experiments if row["status"] == "running"]
        return ([*experiments, *running] or [{"experiment_id": 0}])[-1]["experiment_id"]

    def _run(self, row: Row, experiment_id: int) -> list[Event]:
        key = row["run_id"]
        old = "num_chunks_visited_curr_epoch" in row
        visited = row["num_chunks_visited_curr_epoch" if old else "num_shards_visited_curr_epoch"]
        cloned = row["source"] == "Interactive Control"
        created = RunCreated(
            run_id=key,
            experiment_id=experiment_id,
            run_name=f"run_{key}",
            status=RUN_STATUS[row["status"]],
            source=RunSource.CLONE_MODIFY if cloned else RunSource.USER,
            mlflow_run_id=row["metric_run_id"],
            parent_run_id=row["cloned_from"],
            warm_start=row["warm_started_from"] is not None,
            config=self._payload(row["config_leaf"]),
        )
        details = RunDetailsRecorded(
            key,
            flattened_config=row["flattened_config"],
            completed_steps=row["completed_steps"],
            total_steps=row["total_steps"],
            shards_visited=visited,
            epochs_completed=row["num_epochs_completed"],
            shard_offset=row["chunk_offset" if old else "shard_offset"],
            error=row["error"],
            source=row["source"],
            ended_by=row["ended_by"],
            warm_started_from=row["warm_started_from"],
            cloned_from=row["cloned_from"],
            estimated_runtime=float(row["estimated_runtime"]),
            required_workers=row["required_workers"],
        )
        return [created, details]

    # --- inference ------------------------------------------------------------------------

    def _evals(self) -> Iterator[Fact]:
        experiments = self._rows("SELECT * FROM experiments ORDER BY experiment_id")
        for row in experiments:
            key = row["experiment_id"]
            yield self._experiment(
                row,
                ExperimentCreated(
                    key,
                    "evals",
                    row["experiment_name"],
                    row["status"],
                    None,
                    row["num_shards"],
                    row["num_actors"],
                    row["num_cpus_per_actor"],
                    row["num_gpus_per_actor"],
                ),
                ExperimentDetailsRecorded(key, metric_experiment_id=row["metric_experiment_id"]),
            )
        current = self._current(experiments)
        for row in self._rows("SELECT * FROM contexts ORDER BY context_id"):
            yield Fact(None, list(_context(row)))
        for row in self._rows("SELECT * FROM pipelines ORDER BY pipeline_id"):
            yield Fact(_micros(row["created_at"]), list(self._pipeline(row, current)))
        for row in self._rows("SELECT * FROM actor_tasks ORDER BY task_id"):
            yield Fact(None, list(_actor_task(row, current)))
        for row in self._rows("SELECT * FROM interactive_control ORDER BY ic_id"):
            yield from _pipeline_request(row)

    def _pipeline(self, row: Row, experiment_id: int) -> Iterator[Event]:
        key = row["pipeline_id"]
        yield PipelineCreated(
            pipeline_id=key,
            experiment_id=experiment_id,
            pipeline_name=row["pipeline_type"],
            pipeline_type=row["pipeline_type"],
            context_id=row["context_id"],
            status=PipelineStatus(row["status"]),
        )
        yield PipelineDetailsRecorded(
            key,
            config=self._payload(row["pipeline_config"]) or UNSET,
            config_json=row["pipeline_config_json"] or UNSET,
            flattened_config=row["flattened_config"] or "{}",
            metric_run_id=row["metric_run_id"],
        )
        # RapidFire writes an empty text for none.
        shard = row["current_shard_id"] if row["current_shard_id"] != "" else None
        done = (row["shards_completed"], row["total_samples_processed"])
        if (shard, *done) != (None, 0, 0):
            yield PipelineProgressed(key, shard, *done)
        if row["error"]:
            yield PipelineErrorRecorded(key, row["error"])


def _context(row: Row) -> Iterator[Event]:
    key = row["context_id"]
    yield ContextCreated(
        key,
        row["context_hash"],
        row["rag_config_json"],
        row["prompt_config_json"],
        cast("Any", CONTEXT_STATUS[row["status"]]),
    )
    gpu, store = bool(row.get("enable_gpu")), row.get("vector_store_json")
    if gpu or store is not None:
        yield ContextDetailsRecorded(key, gpu, store)
    if row["started_at"] is not None:
        yield ContextStartTimeRecorded(key, *_given(row["started_at"]))
    if row["completed_at"] is not None:
        text, seconds = _given(row["completed_at"])
        yield ContextEndTimeRecorded(key, text, row["duration_seconds"], seconds)
    if row["error"]:
        yield ContextErrorRecorded(key, row["error"])


def _actor_task(row: Row, experiment_id: int) -> Iterator[Event]:
    key = row["task_id"]
    yield ActorTaskScheduled(
        key, experiment_id, row["pipeline_id"], row["actor_id"], row["shard_id"]
    )
    if row["started_at"] is not None:
        yield ActorTaskStartTimeRecorded(key, *_given(row["started_at"]))
    if row["completed_at"] is not None:
        text, seconds = _given(row["completed_at"])
        yield ActorTaskEndTimeRecorded(key, text, row["duration_seconds"], seconds)
    for event in ACTOR_ENDS[row["status"]]:
        yield event(key)
    if row["error_message"]:
        yield ActorTaskErrorRecorded(key, row["error_message"])


def _pipeline_request(row: Row) -> Iterator[Fact]:
    key = row["ic_id"]
    asked = PIPELINE_ASKED[row["operation"]](key, row["pipeline_id"], row["request_data"])
    yield Fact(_micros(row["created_at"]), [asked])
    answers: dict[str, list[Event]] = {
        "pending": [],
        "processing": [PipelineRequestStarted(key)],
        "completed": [PipelineRequestCompleted(key)],
        "failed": [PipelineRequestFailed(key, row["error"] or None)],
    }
    if answers[row["status"]]:
        yield Fact(_micros(row["processed_at"]), answers[row["status"]])


def _given(time: Any) -> tuple[str, float | UnsetType]:
    if isinstance(time, int | float):
        return time_text(time), float(time)
    return time, UNSET


def _micros(time: Any) -> int | None:
    """Return a time as a database of RapidFire's holds it, in microseconds."""
    if time is None:
        return None
    if isinstance(time, int | float):
        return round(time * 1_000_000)
    return times.from_datetime(datetime.fromisoformat(time).replace(tzinfo=UTC))

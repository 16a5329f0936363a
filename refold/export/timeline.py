"""What happened as a timeline: slices, instants and counters, each in a lane."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from refold.eventstore.event import Event
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskFailed,
    ActorTaskScheduled,
    ActorTaskStarted,
    CloneModifyRequested,
    ContextBuildStarted,
    ContextCreated,
    ContextFailed,
    ContextReady,
    ControllerTaskSet,
    DeleteRequested,
    ExperimentCompleted,
    ExperimentCreated,
    ExperimentFailed,
    ExperimentStarted,
    ExperimentStatesReset,
    MetricsLogged,
    PipelineCreated,
    PipelineEvent,
    ResumeRequested,
    RunCreated,
    RunEvent,
    RunMetricsRecorded,
    StopRequested,
    TablesReset,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from refold.eventstore.log.recorded import Recorded
from refold.eventstore.statuses import PipelineStatus, RunStatus, Stage, TaskStatus, Word, stage_of
from refold.export.metrics import numbers

Args = dict[str, Any]

METRICS = "metrics"
"""The group that holds the counters, rather than lanes."""

GROUPS = ("experiments", "control", "workers", "runs", METRICS, "actors", "contexts", "pipelines")
"""Of lanes, in the order in which they are shown."""

CREATED: dict[type[Event], str] = {
    ExperimentCreated: "experiment",
    RunCreated: "run",
    ContextCreated: "context",
    PipelineCreated: "pipeline",
}
REQUESTED: dict[type[Event], str] = {
    StopRequested: "stop",
    ResumeRequested: "resume",
    DeleteRequested: "delete",
    CloneModifyRequested: "clone",
}


class Lane(NamedTuple):
    """A line of the timeline."""

    group: str
    name: str


STORE = Lane("control", "store")
"""Of what concerns everything."""


class Slice(NamedTuple):
    """Something that took its time, in microseconds since 1970-01-01 UTC."""

    lane: Lane
    name: str
    start: int
    end: int
    args: Args


class Instant(NamedTuple):
    """Something that happened at once."""

    lane: Lane
    name: str
    time: int
    args: Args


class Counter(NamedTuple):
    """Numbers that were measured of a run, at a time."""

    run_id: int
    time: int
    values: dict[str, float]


class _Task(NamedTuple):
    """A slice that has not begun."""

    lanes: tuple[tuple[Lane, str], ...]
    """Where it will be shown, and under which name."""
    args: Args


class _Open(NamedTuple):
    """A slice that has not ended."""

    lanes: tuple[tuple[Lane, str], ...]
    """Where it is shown, and under which name."""
    start: int
    args: Args


class Timeline:
    """Folds events into slices, instants and counters."""

    def __init__(self, events: Iterable[Recorded]) -> None:
        self.slices: list[Slice] = []
        self.instants: list[Instant] = []
        self.counters: list[Counter] = []
        self.actors: set[Lane] = set()
        """The lanes of all who acted."""
        self._scheduled: dict[tuple[str, int], _Task] = {}
        self._open: dict[tuple[str, int], _Open] = {}
        self.start = self._now = 0
        """When the first event happened."""
        self._last: Recorded | None = None
        for recorded in events:
            self._take_note(recorded)
            self._show(recorded)
        self._end_all()

    def _take_note(self, recorded: Recorded) -> None:
        """Keep when it happened, and who acted."""
        # On a server, of two events the later may bear a time some milliseconds earlier.
        if self._last is None:
            self.start = self._now = recorded.recorded_at
        self._now = max(self._now, recorded.recorded_at)
        self._last = recorded
        if recorded.metadata.actor is not None:
            self.actors.add(_lane_of(recorded.metadata.actor))

    def _show(self, recorded: Recorded) -> None:
        """Make of an event what is seen of it."""
        event: Event = recorded.event
        kind = type(event)
        if kind in CREATED:
            key = event.stream.rpartition("-")[2]
            self._happened(recorded, f"create {CREATED[kind]} {key}")
        match event:
            case ExperimentCreated() | ExperimentStarted():
                lane = Lane("experiments", event.stream)
                self._begin(("experiment", event.experiment_id), (lane, event.stream))
            case ExperimentCompleted() | ExperimentFailed():
                self._end("experiment", event.experiment_id, event.leads_to)
            case TaskScheduled():
                self._scheduled["task", event.task_id] = _task(event)
            case TaskStarted():
                self._begin_task(("task", event.task_id))
            case TaskCompleted():
                self._end("task", event.task_id, event.leads_to)
            case TaskFailed():
                self._fail_task(recorded, event)
            case ActorTaskScheduled():
                self._scheduled["actor_task", event.task_id] = _actor_task(event)
            case ActorTaskStarted():
                self._begin_task(("actor_task", event.task_id))
            case ActorTaskCompleted() | ActorTaskFailed():
                self._end("actor_task", event.task_id, event.leads_to)
            case ContextBuildStarted():
                lane = Lane("contexts", event.stream)
                self._begin(("context", event.context_id), (lane, f"build {event.stream}"))
            case ContextReady() | ContextFailed():
                self._end("context", event.context_id, event.leads_to)
            case ControllerTaskSet():
                self._turn_to(event)
            case RunMetricsRecorded():
                if values := numbers(event.metrics):
                    self.counters.append(Counter(event.run_id, self._now, values))
            case MetricsLogged():
                if last := {n: m.last for n, m in event.metrics.items() if m.last is not None}:
                    self.counters.append(Counter(event.run_id, self._now, last))
            case StopRequested() | ResumeRequested() | DeleteRequested() | CloneModifyRequested():
                self._happened(recorded, f"{REQUESTED[kind]} run {event.run_id}", ic=event.ic_id)
            case ExperimentStatesReset():
                self._recover(recorded, event)
            case TablesReset():
                self._end_all()
                self._scheduled.clear()
                self._mark(recorded, STORE, "tables reset", by=recorded.metadata.actor)
            case RunEvent() | PipelineEvent() if event.leads_to is not None:
                group = "runs" if isinstance(event, RunEvent) else "pipelines"
                self._now_is(recorded, group, event.stream, event.leads_to)
            case _:
                pass

    # --- what takes its time --------------------------------------------------------------

    def _begin(self, key: tuple[str, int], *lanes: tuple[Lane, str], **args: Any) -> None:
        if key not in self._open:
            assert self._last is not None
            known = {**args, "since": self._last.position}
            self._open[key] = _Open(lanes, self._now, known)

    def _begin_task(self, key: tuple[str, int]) -> None:
        task = self._scheduled.get(key)
        if task is not None:
            self._begin(key, *task.lanes, **task.args)

    def _turn_to(self, event: ControllerTaskSet) -> None:
        """End what the controller was at, and begin what it is at."""
        before = self._open.get(("controller", 0))
        same = before is not None and before.args["task"] == event.task
        status = event.status if same else TaskStatus.IN_PROGRESS
        self._end("controller", 0, status)
        if event.status == TaskStatus.IN_PROGRESS:
            task = event.task.value
            self._begin(("controller", 0), (_lane_of("controller"), task), task=task)

    def _end(self, entity: str, key: int, status: Word | None, **args: Any) -> None:
        assert status is not None
        begun = self._open.pop((entity, key), None)
        if begun is not None:
            known = {**begun.args, "status": status.value}
            known |= {name: value for name, value in args.items() if value is not None}
            failed = " failed" if stage_of(status) is Stage.FAILED else ""
            for lane, name in begun.lanes:
                self.slices.append(Slice(lane, name + failed, begun.start, self._now, known))

    def _end_all(self) -> None:
        """End what nothing else ends: it was in progress when the log ended, or was forgotten."""
        for entity, key in list(self._open):
            self._end(entity, key, TaskStatus.IN_PROGRESS)

    # --- what happens at once -------------------------------------------------------------

    def _happened(self, recorded: Recorded, name: str, **args: Any) -> None:
        """Show an event in the lane of who did it."""
        self._mark(recorded, _lane_of(recorded.metadata.actor or "somebody"), name, **args)

    def _now_is(self, recorded: Recorded, group: str, stream: str, status: Word) -> None:
        """Show a status in the lane of what has come to it."""
        self._mark(recorded, Lane(group, stream), status.value, by=recorded.metadata.actor)

    def _mark(self, recorded: Recorded, lane: Lane, name: str, **args: Any) -> None:
        known = {"event": recorded.type, "position": recorded.position, **args}
        known["cause"] = recorded.metadata.cause
        shown = {name: value for name, value in known.items() if value is not None}
        self.instants.append(Instant(lane, name, self._now, shown))

    def _fail_task(self, recorded: Recorded, event: TaskFailed) -> None:
        task = self._scheduled.get(("task", event.task_id))
        if task is not None:
            (lane, _), *_ = task.lanes
            self._mark(recorded, lane, f"task {event.task_id} failed", error=event.error)
        self._end("task", event.task_id, event.leads_to, error=event.error)

    def _recover(self, recorded: Recorded, event: ExperimentStatesReset) -> None:
        failed = {
            "tasks": event.worker_tasks,
            "actor_tasks": event.actor_tasks,
            "contexts": event.contexts,
        }
        shown = {name: list(ids) for name, ids in failed.items() if ids}
        self._mark(recorded, STORE, "recovery", by=recorded.metadata.actor, **shown)
        for entity, ids in zip(("task", "actor_task", "context"), failed.values(), strict=True):
            for key in ids:
                self._end(entity, key, TaskStatus.FAILED, error="recovery")
        if event.controller:
            self._end("controller", 0, TaskStatus.FAILED, error="recovery")
        for run_id in event.runs:
            self._now_is(recorded, "runs", f"run-{run_id}", RunStatus.FAILED)
        for pipeline_id in event.pipelines:
            self._now_is(recorded, "pipelines", f"pipeline-{pipeline_id}", PipelineStatus.FAILED)


def _task(event: TaskScheduled) -> _Task:
    return _Task(
        (
            (Lane("workers", f"worker-{event.worker_id}"), f"run {event.run_id}"),
            (Lane("runs", f"run-{event.run_id}"), f"chunk {event.chunk_id}, epoch {event.epoch}"),
        ),
        {
            "task": event.task_id,
            "run": event.run_id,
            "worker": event.worker_id,
            "epoch": event.epoch,
            "chunk": event.chunk_id,
        },
    )


def _actor_task(event: ActorTaskScheduled) -> _Task:
    return _Task(
        (
            (Lane("actors", f"actor-{event.actor_id}"), f"pipeline {event.pipeline_id}"),
            (Lane("pipelines", f"pipeline-{event.pipeline_id}"), f"shard {event.shard_id}"),
        ),
        {
            "task": event.task_id,
            "pipeline": event.pipeline_id,
            "actor": event.actor_id,
            "shard": event.shard_id,
        },
    )


def _lane_of(actor: str) -> Lane:
    """Return the lane of who acts: a worker's and an actor's is also that of its tasks."""
    if re.fullmatch(r"worker-\d+", actor):
        return Lane("workers", actor)
    return Lane("actors" if re.fullmatch(r"actor-\d+", actor) else "control", actor)

"""The log as a timeline: what is in it, and that it is what the Trace Event Format says."""

import io
import json
from collections import defaultdict
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from command_line import record
from hypothesis import given
from hypothesis import strategies as st
from logs import append_rows
from random_logs import append_row
from strategies import any_event
from test_damaged_events import damage
from tries import tries

from refold import ControllerTask, RfDb, TaskStatus
from refold.eventstore import DamagedEvent, Event, EventStore, open_store
from refold.eventstore.engines.log_end import EventRow
from refold.eventstore.events import (
    ActorTaskScheduled,
    ActorTaskStarted,
    ControllerTaskSet,
    ExperimentStatesReset,
    RunMetricsRecorded,
    TablesReset,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from refold.eventstore.times import SECOND
from refold.export import trace

# --- the format --------------------------------------------------------------------------------

# https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
FIELDS = {
    "X": {"ph", "name", "cat", "ts", "dur", "pid", "tid", "args"},
    "i": {"ph", "name", "cat", "ts", "s", "pid", "tid", "args"},
    "C": {"ph", "name", "cat", "ts", "pid", "tid", "args"},
    "M": {"ph", "name", "pid", "tid", "args"},
}
NAMES = {
    "process_name": ("name", str),
    "process_sort_index": ("sort_index", int),
    "thread_name": ("name", str),
    "thread_sort_index": ("sort_index", int),
}


def checked(text: bytes) -> list[dict[str, Any]]:
    """Return the events of a trace, which is as strict as the format can be."""
    whole = json.loads(text)
    assert whole.keys() == {"displayTimeUnit", "otherData", "traceEvents"}
    assert whole["displayTimeUnit"] == "ms"
    events: list[dict[str, Any]] = whole["traceEvents"]
    lanes: dict[tuple[int, int], str] = {}
    groups: dict[int, str] = {}
    for event in events:
        assert event.keys() - {"cname"} == FIELDS[event["ph"]], event
        assert isinstance(event["name"], str)
        assert event["name"]
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            key, kind = NAMES[event["name"]]
            assert event["args"].keys() == {key}
            assert isinstance(event["args"][key], kind)
            if event["name"] == "process_name":
                assert event["pid"] not in groups
                groups[event["pid"]] = event["args"]["name"]
            if event["name"] == "thread_name":
                assert (event["pid"], event["tid"]) not in lanes
                lanes[event["pid"], event["tid"]] = event["args"]["name"]
            continue
        assert type(event["ts"]) is int
        assert event["ts"] >= 0
        assert event["pid"] in groups, "it is named before it is used"
        assert isinstance(event["args"], dict)
        if event["ph"] == "C":
            assert event["args"]
            assert all(type(value) in (int, float) for value in event["args"].values())
        else:
            assert (event["pid"], event["tid"]) in lanes
        if event["ph"] == "X":
            assert type(event["dur"]) is int
            assert event["dur"] >= 0
        if event["ph"] == "i":
            assert event["s"] == "t"
    assert len(set(groups.values())) == len(groups)
    assert len(set(lanes.values())) == len(lanes)
    assert {pid for pid, _ in lanes} <= groups.keys()
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times)
    by_lane: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            by_lane[event["pid"], event["tid"]].append(event)
    for together in by_lane.values():
        for one, after in pairwise(together):
            assert one["ts"] + one["dur"] <= after["ts"], "slices of a lane stand apart"
    return events


def traced(store: EventStore | RfDb) -> list[dict[str, Any]]:
    file = io.BytesIO()
    written = trace.write(store, file)
    events = checked(file.getvalue())
    assert len(events) == written
    return events


Told = tuple[str, str, float, float]
"""Lane, name, and from when to when in seconds."""


def shown(events: list[dict[str, Any]], phase: str) -> list[Told]:
    """Return the slices or instants of a trace."""
    lanes = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["name"] == "thread_name"
    }
    return [
        (
            lanes[event["pid"], event["tid"]],
            event["name"],
            event["ts"] / SECOND,
            (event["ts"] + event.get("dur", 0)) / SECOND,
        )
        for event in events
        if event["ph"] == phase
    ]


def argued(events: list[dict[str, Any]], lane: str, name: str) -> dict[str, Any]:
    """Return the arguments of the one thing of that name in that lane."""
    [tid] = [
        event["tid"]
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == lane
    ]
    [args] = [event["args"] for event in events if event["tid"] == tid and event["name"] == name]
    return args


# --- a log that is the same each time ----------------------------------------------------------


@pytest.fixture
def recorded(place: str) -> list[dict[str, Any]]:
    """The trace of the fixed log."""
    record(place)
    with RfDb(place) as db:
        return traced(db)


def test_what_took_its_time_is_a_slice(recorded: list[dict[str, Any]]) -> None:
    end = 111.01
    slices = {
        ("experiment-1", "experiment-1", 0.0, end),
        ("controller", "RUN_FIT failed", 0.0, 39.01),
        ("worker-0", "run 1", 1.25, 2.75),
        ("run-1", "chunk 0, epoch 0", 1.25, 2.75),
        ("worker-1", "run 2", 3.0, 4.5),
        ("run-2", "chunk 0, epoch 0", 3.0, 4.5),
        ("worker-0", "run 1 failed", 8.51, 38.51),
        ("run-1", "chunk 1, epoch 0 failed", 8.51, 38.51),
        ("worker-1", "run 4 failed", 8.51, 39.01),
        ("run-4", "chunk 0, epoch 0 failed", 8.51, 39.01),
        ("worker-1", "run 3", 41.01, 108.01),
        ("run-3", "chunk 0, epoch 0", 41.01, 108.01),
        ("experiment-2", "experiment-2", 101.01, 108.01),
        ("context-1", "build context-1", 101.01, 105.01),
        ("actor-0", "pipeline 1", 105.01, 108.01),
        ("pipeline-1", "shard 0", 105.01, 108.01),
    }
    told = shown(recorded, "X")
    last = max(until for *_, until in told)
    assert {(lane, name, begun, until) for lane, name, begun, until in told} == {
        (lane, name, begun, min(until, last)) for lane, name, begun, until in slices
    }
    assert len(told) == len(slices)


def test_a_slice_tells_what_it_was(recorded: list[dict[str, Any]]) -> None:
    args = argued(recorded, "worker-0", "run 1 failed")
    assert args.pop("since") > 0
    assert args == {
        "task": 3,
        "run": 1,
        "worker": 0,
        "epoch": 0,
        "chunk": 1,
        "status": "FAILED",
        "error": "worker-0 was killed",
    }
    assert argued(recorded, "run-1", "chunk 1, epoch 0 failed")["task"] == 3
    assert argued(recorded, "worker-1", "run 4 failed")["error"] == "recovery"
    assert argued(recorded, "worker-1", "run 3")["status"] == "IN_PROGRESS"
    assert argued(recorded, "pipeline-1", "shard 0")["status"] == "completed"
    assert argued(recorded, "context-1", "build context-1")["status"] == "ready"


def test_what_happened_at_once_is_an_instant(recorded: list[dict[str, Any]]) -> None:
    instants = [(lane, name, time) for lane, name, time, _ in shown(recorded, "i")]
    assert instants == [
        ("controller", "create experiment 1", 0.0),
        ("controller", "create run 1", 0.0),
        ("controller", "create run 2", 0.0),
        ("controller", "create run 3", 0.0),
        ("run-1", "ONGOING", 1.0),
        ("run-2", "ONGOING", 1.0),
        ("ada", "stop run 2", 6.5),
        ("run-2", "STOPPED", 6.51),
        ("ada", "clone run 1", 7.51),
        ("controller", "create run 4", 7.51),
        ("run-4", "ONGOING", 8.51),
        ("worker-0", "task 3 failed", 38.51),
        ("store", "recovery", 39.01),
        ("run-3", "ONGOING", 41.01),
        ("ada", "delete run 3", 41.01),
        ("evals", "create experiment 2", 101.01),
        ("evals", "create context 1", 101.01),
        ("evals", "create pipeline 1", 105.01),
        ("evals", "create pipeline 2", 105.01),
        ("pipeline-1", "ongoing", 105.01),
    ]
    stopped = argued(recorded, "run-2", "STOPPED")
    request = argued(recorded, "ada", "stop run 2")
    assert stopped["cause"] == request["position"]
    assert stopped["by"] == "controller"
    assert argued(recorded, "store", "recovery")["tasks"] == [4]


def test_metrics_are_counters(recorded: list[dict[str, Any]]) -> None:
    counters = [
        (event["name"], event["ts"] / SECOND, event["args"])
        for event in recorded
        if event["ph"] == "C"
    ]
    assert counters == [
        ("run 1", 2.75, {"loss": 0.5, "accuracy": 0.5}),
        ("run 2", 4.5, {"loss": 1 / 3, "accuracy": 0.5}),
    ]


def test_lanes_are_named_and_in_order(recorded: list[dict[str, Any]]) -> None:
    groups = {e["pid"]: e["args"]["name"] for e in recorded if e["name"] == "process_name"}
    lanes: defaultdict[str, list[str]] = defaultdict(list)
    for event in recorded:
        if event["name"] == "thread_name":
            lanes[groups[event["pid"]]].append(event["args"]["name"])
    assert lanes == {
        "experiments": ["experiment-1", "experiment-2"],
        "control": ["controller", "ada", "evals", "store"],
        "workers": ["worker-0", "worker-1"],
        "runs": ["run-1", "run-2", "run-3", "run-4"],
        "actors": ["actor-0"],
        "contexts": ["context-1"],
        "pipelines": ["pipeline-1"],
    }
    assert "metrics" in groups.values()


def test_as_of_a_moment_it_ends_there(place: str) -> None:
    record(place)
    with RfDb(place) as db:
        whole = traced(db)
        [failed] = [e["args"]["position"] for e in whole if e["name"] == "task 3 failed"]
        part = traced(db.as_of(failed - 1))
    assert ("worker-0", "run 1", 8.51, 8.51) in shown(part, "X")
    assert argued(part, "controller", "RUN_FIT")["status"] == "IN_PROGRESS"
    assert not [name for _, name, *_ in shown(part, "i") if "failed" in name]


# --- whatever happens --------------------------------------------------------------------------


def write(path: Path, events: list[Event], clock: Any) -> list[dict[str, Any]]:
    with open_store(path, clock=clock) as store:
        for event in events:
            store.append(None, [event])
        return traced(store)


@pytest.mark.property
def test_every_log_has_a_trace_of_the_format(tmp_path: Path) -> None:
    numbers = count()
    busy = st.one_of(
        any_event,
        st.builds(TaskScheduled, *[st.integers(1, 4)] * 4),
        st.builds(TaskStarted, st.integers(1, 4)),
        st.builds(TaskCompleted, st.integers(1, 4)),
        st.builds(TaskFailed, st.integers(1, 4), st.none()),
    )

    @tries(40)
    @given(st.lists(st.tuples(busy, st.integers(0, 3)), max_size=20))
    def check(happens: list[tuple[Event, int]]) -> None:
        moments = iter([sum(step for _, step in happens[:n]) for n in range(len(happens))])
        path = tmp_path / f"store-{next(numbers)}.db"
        write(path, [event for event, _ in happens], moments.__next__)

    check()


def test_slices_of_one_lane_that_overlap_are_put_apart(tmp_path: Path) -> None:
    times = iter(range(0, 100, 10))
    events = write(
        tmp_path / "store.db",
        [
            TaskScheduled(1, 1, 0, 0),
            TaskScheduled(2, 2, 0, 0),
            TaskStarted(1),
            TaskStarted(2),
            TaskStarted(2),
            TaskCompleted(1),
            TaskCompleted(2),
            TaskCompleted(2),
        ],
        times.__next__,
    )
    told = [
        (lane, name, round(begun * SECOND), round(until * SECOND))
        for lane, name, begun, until in shown(events, "X")
        if lane.startswith("worker")
    ]
    # A task that is said to start again has started.
    assert told == [("worker-0", "run 1", 20, 50), ("worker-0 (2)", "run 2", 30, 60)]


def test_the_controller_is_at_one_thing_at_a_time(tmp_path: Path) -> None:
    at, left = TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED
    events = write(
        tmp_path / "store.db",
        [
            ControllerTaskSet(ControllerTask.RUN_FIT, at),
            ControllerTaskSet(ControllerTask.IC_STOP, at),
            ControllerTaskSet(ControllerTask.IC_STOP, TaskStatus.FAILED),
            ControllerTaskSet(ControllerTask.IDLE, left),
            ControllerTaskSet(ControllerTask.RUN_FIT, at),
        ],
        iter(range(9)).__next__,
    )
    assert [
        (e["name"], e["ts"], e["dur"], e["args"]["status"]) for e in events if e["ph"] == "X"
    ] == [
        ("RUN_FIT", 0, 1, "IN_PROGRESS"),
        ("IC_STOP failed", 1, 1, "FAILED"),
        ("RUN_FIT", 4, 0, "IN_PROGRESS"),
    ]


def test_a_task_that_fails_without_a_word(tmp_path: Path) -> None:
    happened = [TaskScheduled(1, 1, 0, 0), TaskStarted(1), TaskFailed(1)]
    events = write(tmp_path / "store.db", happened, iter(range(9)).__next__)
    assert "error" not in argued(events, "worker-0", "run 1 failed")


def test_lanes_are_sorted_as_people_count(tmp_path: Path) -> None:
    happened: list[Event] = []
    for n in (10, 2, 1):
        happened += [TaskScheduled(n, n, n, 0), TaskStarted(n)]
    events = write(tmp_path / "store.db", happened, iter(range(9)).__next__)
    lanes = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert lanes == ["worker-1", "worker-2", "worker-10", "run-1", "run-2", "run-10"]


def test_what_is_forgotten_ends(tmp_path: Path) -> None:
    times = iter(range(0, 100, 10))
    events = write(
        tmp_path / "store.db",
        [
            TaskScheduled(1, 1, 0, 0),
            TaskStarted(1),
            ActorTaskScheduled(9, 1, 1, 1, 1),
            TablesReset(experiments=False),
            TaskCompleted(1),
            TaskStarted(1),
            ActorTaskStarted(9),
            ActorTaskScheduled(1, 1, 1, 1, 1),
            ActorTaskStarted(1),
            ExperimentStatesReset(actor_tasks=(1,), runs=(7,), pipelines=(8,)),
        ],
        times.__next__,
    )
    assert [(*_, begun * SECOND, until * SECOND) for *_, begun, until in shown(events, "X")] == [
        ("worker-0", "run 1", 10, 30),
        ("run-1", "chunk 0, epoch 0", 10, 30),
        ("actor-1", "pipeline 1 failed", 80, 90),
        ("pipeline-1", "shard 1 failed", 80, 90),
    ]
    assert [(lane, name) for lane, name, *_ in shown(events, "i")] == [
        ("store", "tables reset"),
        ("store", "recovery"),
        ("run-7", "FAILED"),
        ("pipeline-8", "failed"),
    ]


def test_a_clock_that_runs_back_turns_nothing_round(tmp_path: Path) -> None:
    # As on a server, where of two events the later may bear a time that is earlier.
    path = tmp_path / "store.db"
    data = {"TaskScheduled": {"task_id": 1, "run_id": 1, "worker_id": 0, "chunk_id": 0}}
    rows = [
        EventRow(
            n,
            "task-1",
            n,
            n - 1 or None,
            name,
            1,
            json.dumps(data.get(name, {"task_id": 1})),
            "{}",
            t,
        )
        for n, (name, t) in enumerate(
            [("TaskScheduled", 50), ("TaskStarted", 70), ("TaskCompleted", 60)], 1
        )
    ]
    with open_store(path) as store:
        with store.transaction() as transaction:
            append_rows(transaction, rows)
        events = traced(store)
    assert [(e["ts"], e["dur"]) for e in events if e["ph"] == "X"] == [(20, 0), (20, 0)]


def test_only_numbers_are_counters(tmp_path: Path) -> None:
    metrics = {"loss": 1, "eval": {"loss": 2.5, "best": True, "x": {"y": 0}}, "note": "a", "h": [1]}
    events = write(
        tmp_path / "store.db",
        [RunMetricsRecorded(1, metrics), RunMetricsRecorded(1, {"note": "b"})],
        iter(range(9)).__next__,
    )
    assert [event["args"] for event in events if event["ph"] == "C"] == [
        {"loss": 1, "eval.loss": 2.5, "eval.x.y": 0}
    ]


def test_an_empty_log(store: EventStore) -> None:
    assert traced(store) == []


def test_events_of_unknown_types_are_passed_over(store: EventStore, place: str) -> None:
    append_row(place, "run-1", "BirdSung", {"song": 1})
    assert traced(store) == []


def test_a_damaged_event_is_named(store: EventStore, place: str) -> None:
    store.append(None, [TaskStarted(1), TaskCompleted(1)])
    damage(place, 2, "{}")
    with pytest.raises(DamagedEvent, match="event 2"):
        trace.write(store, io.BytesIO())

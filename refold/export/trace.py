"""The log as a timeline in the Trace Event Format, which Perfetto and chrome://tracing open.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Literal

import msgspec

from refold.eventstore import times
from refold.eventstore.log.readable import ReadableLog
from refold.export.columns import Source
from refold.export.timeline import GROUPS, METRICS, Counter, Instant, Lane, Slice, Timeline

_encode = msgspec.json.Encoder().encode

_COLOURS = {"FAILED": "terrible", "IN_PROGRESS": "bad"}


class TraceEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """An event of the format."""

    ph: Literal["X", "i", "C", "M"]
    """Its phase: a complete slice, an instant, a counter, or metadata."""
    name: str
    pid: int
    """The group of its lane."""
    tid: int
    """Its lane."""
    ts: int | None = None
    """When, in microseconds."""
    dur: int | None = None
    """For how long, likewise."""
    s: Literal["t"] | None = None
    """An instant's scope: its own lane."""
    cat: str | None = None
    cname: str | None = None
    """A colour by its name, where the viewer has such."""
    args: Mapping[str, Any] = {}


def write(log: Source | ReadableLog, file: BinaryIO) -> int:
    """Write the log as a timeline: a lane for each worker, actor, run, and whoever else acted.

    Tasks, the building of contexts and the shards of pipelines are slices, and what was in progress
    at the end ends there; requests, changes of status and recoveries are instants; metrics are
    counters. Times count from the first event.

    Args:
        log: a store, or the face of one; also as of a moment.
        file: open for writing bytes.

    Returns:
        how many events of the trace were written.

    Raises:
        DamagedEvent: an event cannot be decoded; as of a moment before, the log is readable.

    >>> from refold import RfDb
    >>> from refold.export import trace
    >>> with RfDb("example.db", actor="controller") as db, open("trace.json", "wb") as file:
    ...     run_id = db.create_run(db.create_experiment("digits"))
    ...     trace.write(db, file) > 0
    True
    """
    store = log if isinstance(log, ReadableLog) else log.store
    until = store.head()
    timeline = Timeline(store.read(until=until, unknown=True))
    events = _trace_events(timeline)
    about = {"began": times.to_calendar(timeline.start), "until": until}
    file.write(b'{"displayTimeUnit":"ms","otherData":' + _encode(about) + b',"traceEvents":[\n')
    for number, event in enumerate(events):
        file.write((b",\n" if number else b"") + _encode(event))
    file.write(b"\n]}\n")
    return len(events)


def _trace_events(timeline: Timeline) -> list[TraceEvent]:
    """Return what the format has for a timeline: the names of the lanes, then all in order."""
    apart = list(_apart(timeline.slices))
    lanes = {lane for lane, _ in apart} | {one.lane for one in timeline.instants} | timeline.actors
    numbers = {lane: number for number, lane in enumerate(sorted(lanes, key=_order), 1)}
    start = timeline.start
    events = [
        *(_slice(one, lane, numbers[lane], start) for lane, one in apart),
        *(_instant(one, numbers[one.lane], start) for one in timeline.instants),
        *(_counter(one, start) for one in timeline.counters),
    ]
    events.sort(key=lambda event: event.ts or 0)
    groups = {lane.group for lane in lanes} | {METRICS for _ in timeline.counters[:1]}
    return [*_names(groups, numbers), *events]


def _apart(slices: Iterable[Slice]) -> Iterator[tuple[Lane, Slice]]:
    """Put slices of one lane that overlap into further lanes: the format wants them apart."""
    by_lane: defaultdict[Lane, list[Slice]] = defaultdict(list)
    for one in slices:
        by_lane[one.lane].append(one)
    for lane, together in by_lane.items():
        ends: list[int] = []
        for one in sorted(together, key=lambda one: (one.start, one.end)):
            free = next((n for n, end in enumerate(ends) if end <= one.start), len(ends))
            ends[free : free + 1] = [one.end]
            yield (Lane(lane.group, f"{lane.name} ({free + 1})") if free else lane), one


def _order(lane: Lane) -> tuple[int, bool, list[str | int]]:
    """Sort by group, the controller first, and `worker-2` before `worker-10`."""
    parts = re.split(r"(\d+)", lane.name)
    natural: list[str | int] = [int(part) if n % 2 else part for n, part in enumerate(parts)]
    return GROUPS.index(lane.group), lane.name != "controller", natural


def _pid(group: str) -> int:
    return GROUPS.index(group) + 1


def _slice(one: Slice, lane: Lane, number: int, start: int) -> TraceEvent:
    return TraceEvent(
        ph="X",
        name=one.name,
        cat=lane.group,
        ts=one.start - start,
        dur=one.end - one.start,
        pid=_pid(lane.group),
        tid=number,
        cname=_COLOURS.get(str(one.args.get("status")).upper()),
        args=one.args,
    )


def _instant(one: Instant, number: int, start: int) -> TraceEvent:
    return TraceEvent(
        ph="i",
        name=one.name,
        cat=one.lane.group,
        ts=one.time - start,
        s="t",
        pid=_pid(one.lane.group),
        tid=number,
        args=one.args,
    )


def _counter(one: Counter, start: int) -> TraceEvent:
    return TraceEvent(
        ph="C",
        name=f"run {one.run_id}",
        cat=METRICS,
        ts=one.time - start,
        pid=_pid(METRICS),
        tid=0,
        args=one.values,
    )


def _names(groups: Iterable[str], numbers: dict[Lane, int]) -> Iterator[TraceEvent]:
    """Name the groups and the lanes, in the order in which they are to be shown."""
    for group in sorted(groups, key=GROUPS.index):
        pid = _pid(group)
        yield TraceEvent(ph="M", name="process_name", pid=pid, tid=0, args={"name": group})
        yield TraceEvent(
            ph="M", name="process_sort_index", pid=pid, tid=0, args={"sort_index": pid}
        )
    for lane, number in numbers.items():
        pid = _pid(lane.group)
        yield TraceEvent(ph="M", name="thread_name", pid=pid, tid=number, args={"name": lane.name})
        yield TraceEvent(
            ph="M", name="thread_sort_index", pid=pid, tid=number, args={"sort_index": number}
        )

"""Logs of everything that can happen to a store, for the properties of its past."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hypothesis import strategies as st
from logs import append_rows
from msgspec.structs import replace
from strategies import any_command, any_event, structs
from tables import Tables, folded, tables

from refold import RfDb
from refold.commands import Command
from refold.eventstore import DBException, Event, Id, Recorded, open_store
from refold.eventstore.engines.log_end import EventRow
from refold.eventstore.events import (
    ContextCreated,
    ExperimentStatesReset,
    RunCreated,
    RunProgressed,
    RunStarted,
    StopRequested,
    TablesReset,
    TaskScheduled,
    TaskStarted,
    WorkerProgressed,
)
from refold.projections import ALL, Row, View
from refold.projections.past.changes import Change

# --- views of one's own: columns of every type, and events that delete, or touch several rows --


class BirdSeen(Event, frozen=True):
    bird_id: Id
    perch: str
    weight: float | None = None

    @property
    def stream(self) -> str:
        return f"bird-{self.bird_id}"


class BirdsFlown(Event, frozen=True):
    bird_ids: list[Id]

    @property
    def stream(self) -> str:
        return "store"  # as whatever touches several rows


class BirdsRinged(Event, frozen=True):
    """A bird that is named twice is looked at twice."""

    bird_ids: list[Id]

    @property
    def stream(self) -> str:
        return "store"


class FlockLed(Event, frozen=True):
    """All birds are gone but their leader, who begins anew."""

    leader_id: Id

    @property
    def stream(self) -> str:
        return "store"


class Bird(Row, frozen=True, kw_only=False):
    bird_id: int
    perch: str
    weight: float | None
    heavy: bool
    looks: int = 1
    previous: int | None = None
    raw: bytes = b"\0\xff"


def _seen(row: Bird | None, event: BirdSeen) -> Bird:
    return Bird(
        event.bird_id,
        event.perch,
        event.weight,
        (event.weight or 0) > 1,
        1 if row is None else row.looks + 1,
        None if row is None else row.position,
    )


birds = View("birds", Bird, version=1, stream="bird-{}")
birds.put_by(BirdSeen, _seen, key=lambda e: e.bird_id)
birds.on(BirdsFlown, lambda *_: None, keys=lambda e: e.bird_ids)
birds.on(BirdsRinged, lambda row, _: replace(row, looks=row.looks + 1), keys=lambda e: e.bird_ids)
birds.cleared_by(FlockLed)
birds.put_by(
    FlockLed, lambda _, e: Bird(e.leader_id, "the air", None, False), key=lambda e: e.leader_id
)
birds.cleared_by(TablesReset, when=lambda e: e.experiments)


class Perch(Row, frozen=True, kw_only=False):
    perch: str
    birds: int


perches = View("perches", Perch, version=1)
perches.put_by(
    BirdSeen,
    lambda row, e: Perch(e.perch, 1 if row is None else row.birds + 1),
    key=lambda e: e.perch,
)

OWN = (birds, perches)
VIEWS = (*ALL, *OWN)

# --- what happens ------------------------------------------------------------------------------

_few = st.integers(0, 2)
_own_event: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        BirdSeen, _few, st.sampled_from(["", "oak", "ü'"]), st.sampled_from([None, 0.5, 2.0, -0.0])
    ),
    st.builds(BirdsFlown, st.lists(_few, max_size=3)),
    st.builds(BirdsRinged, st.lists(_few, max_size=3)),
    st.builds(FlockLed, _few),
)
_lively_event = st.one_of(
    [
        structs(cls)
        for cls in (
            RunCreated,
            RunStarted,
            RunProgressed,
            TaskScheduled,
            TaskStarted,
            ExperimentStatesReset,
            WorkerProgressed,
            StopRequested,
            ContextCreated,
            TablesReset,
        )
    ]
)
# Not `|`, which would choose among all types alike: few would meet.
_event: st.SearchStrategy[Event] = st.sampled_from(
    [any_event, _own_event, _lively_event, _lively_event]
).flatmap(lambda events: events)

Step = tuple[str, Any]
"""One thing that somebody does: `Log.take` does it."""

steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("append"), st.lists(_event, min_size=1, max_size=5)),
    st.tuples(st.just("send"), any_command),
    st.tuples(st.just("batch"), st.lists(any_command, max_size=4)),
    st.tuples(st.just("roll back"), st.lists(_event, min_size=1, max_size=3)),
    st.tuples(st.just("append elsewhere"), _event),
    st.tuples(st.just("append of tomorrow"), st.sampled_from(["run-1", "store"])),
)


class _TakenBack(Exception):
    """Nothing of a batch is to be kept."""


class Log:
    """A store to which things happen."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.db = RfDb(place, projections=OWN)
        self.seen: dict[int, Tables] = {}
        """What its tables were when a position was the last."""
        self._note()

    def take(self, step: Step) -> None:
        """Do what a step says, and note what the tables are then."""
        what, details = step
        if what == "append":
            self.db.append(*details)
        elif what == "append elsewhere":
            self.db.append(details, stream="elsewhere")
        elif what == "append of tomorrow":
            append_row(self.place, details, "BirdSung", {"song": [1, None]})
        elif what == "roll back":
            with suppress(_TakenBack), self.db.batch():
                self.db.append(*details)
                raise _TakenBack
        elif what == "send":
            self._send(details)
        else:
            with self.db.batch():
                for command in details:
                    self._send(command)
        self._note()

    def _send(self, command: Command) -> None:
        with suppress(DBException):
            self.db.send(command)

    def _note(self) -> None:
        self.seen[self.db.store.head()] = tables(self.db)

    @property
    def events(self) -> list[Recorded]:
        """All events."""
        return list(self.db.store.read(unknown=True))

    @property
    def positions(self) -> range:
        """All moments, also those at which nothing happened."""
        return range(self.db.store.head() + 1)

    def folded(self) -> dict[int, Tables]:
        """Return what the events up to each position make of the views."""
        events = self.events
        return {
            position: folded((e for e in events if e.position <= position), VIEWS)
            for position in self.positions
        }


@contextmanager
def log_of(place: str, happens: list[Step]) -> Iterator[Log]:
    """Open a store and let things happen to it."""
    log = Log(place)
    with log.db:
        for step in happens:
            log.take(step)
        yield log


def append_row(
    place: str,
    stream: str,
    event_type: str,
    data: dict[str, Any],
    *,
    schema_version: int = 1,
    stray: bool = False,
) -> int:
    """Append an event of a type that need not be defined here, as another release would have."""
    with open_store(place) as store, store.transaction() as transaction:
        position = transaction.head + 1
        last = list(store.read(stream=stream, backwards=True, limit=1, unknown=True))
        previous = last[0].position if last else None
        latest = next(store.read(backwards=True, limit=1, unknown=True), None)
        now = 1_700_000_000_000_000 if latest is None else latest.recorded_at
        row = EventRow(
            position=position,
            stream=stream,
            version=transaction.version(stream) + 1,
            previous=previous,
            type=event_type,
            schema_version=schema_version,
            data=json.dumps(data),
            metadata="{}",
            recorded_at=now,
        )
        append_rows(transaction, [row], [position] if stray else [])
    return position


# --- what is seen ------------------------------------------------------------------------------


def exactly(value: object) -> str:
    """Return a value as text that tells 1 from 1.0 and True, and 0.0 from -0.0."""
    return repr(value)


def apply(changes: list[Change], rows: Tables) -> Tables:
    """Return tables with changes made to them; each must fit what is there."""
    views = {view.name: view for view in VIEWS}
    changed = {name: {row[views[name].key]: row for row in some} for name, some in rows.items()}
    for change in changes:
        there = changed[change.view]
        assert there.pop(change.key, None) == change.before
        assert change.before != change.after
        if change.after is not None:
            there[change.key] = change.after
    return {name: [row for _, row in sorted(some.items())] for name, some in changed.items()}

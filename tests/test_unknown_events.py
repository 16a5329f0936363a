"""Events of types that are not defined here, read as they stand."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import other_releases
import pytest
from children import call
from ids import told
from random_logs import append_row
from test_damaged_events import damage

from refold import InvalidEvent, RfDb, UnreadableEvent
from refold.eventstore import DamagedEvent, Event, EventStore, UnknownEventType, open_store
from refold.eventstore.event import UnknownEvent
from refold.eventstore.events import RunProgressed, RunStarted

DOSE = {"mg": 5, "at": [1, 2.5, None], "by": {"name": "Ada"}, "ok": True}


@pytest.fixture
def doses(store: EventStore, place: str) -> EventStore:
    """A log of known and unknown events, in turns."""
    for n in range(3):
        store.append("run-1", [RunProgressed(1, n, 0)])
        append_row(place, "run-1", "DoseTaken", {**DOSE, "mg": n})
    return store


@pytest.fixture
def mixed(doses: EventStore, place: str) -> EventStore:
    """The same, and last an event of a newer schema version, which no view could take in."""
    append_row(place, "patient-1", "RunProgressed", {"percent": 12.5}, schema_version=7)
    return doses


def names(events: Any) -> list[str]:
    return [recorded.type for recorded in events]


def test_they_are_given_as_they_stand(mixed: EventStore) -> None:
    events = list(mixed.read(unknown=True))
    assert names(events) == ["RunProgressed", "DoseTaken"] * 3 + ["RunProgressed"]
    dose, newer = events[1], events[-1]
    assert dose.event == UnknownEvent("DoseTaken", 1, {**DOSE, "mg": 0})
    assert repr(dose.event.data) == repr({**DOSE, "mg": 0})
    assert (dose.position, dose.stream, dose.version) == (events[0].position + 1, "run-1", 2)
    assert newer.event == UnknownEvent("RunProgressed", 7, {"percent": 12.5})
    assert newer.event.schema_version == UnknownEvent.schema_version  # its own is `version`
    assert isinstance(events[0].event, RunProgressed)


def test_all_ways_of_reading_give_them(mixed: EventStore) -> None:
    whole = list(mixed.read(unknown=True))
    positions = [recorded.position for recorded in whole]
    assert list(mixed.read(unknown=True, backwards=True)) == whole[::-1]
    assert list(mixed.read(unknown=True, limit=2)) == whole[:2]
    assert list(mixed.read(positions[0], until=positions[2], unknown=True)) == whole[1:3]
    assert list(mixed.read(stream="run-1", unknown=True)) == whole[:-1]
    assert list(mixed.read(stream="run-1", unknown=True, backwards=True, limit=1)) == whole[-2:-1]
    assert list(mixed.read(types=["DoseTaken"], unknown=True)) == whole[1:-1:2]
    assert list(mixed.read(types=[RunProgressed], unknown=True)) == [*whole[:-1:2], whole[-1]]
    assert list(mixed.read_at(positions[1:3], unknown=True)) == whole[1:3]
    with mixed.subscribe(unknown=True) as events:
        assert [next(events) for _ in whole] == whole
    with mixed.subscribe(positions[-2], unknown=True) as events:
        assert events.wait(60) == whole[-1:]


def test_they_are_refused_unless_asked_for(mixed: EventStore) -> None:
    whole = list(mixed.read(unknown=True))
    second = whole[1].position
    message = f"event {second}: type 'DoseTaken', schema version 1, is not known here"
    reads: list[Callable[[], Any]] = [
        mixed.read,
        lambda: mixed.read(stream="run-1"),
        lambda: mixed.read_at([whole[0].position, second]),
    ]
    for read in reads:
        events = iter(read())
        assert next(events) == whole[0]
        with pytest.raises(UnknownEventType, match=message) as caught:
            next(events)
        assert caught.value.position == second
    with mixed.subscribe() as events:
        assert next(events) == whole[0]
        for _ in range(2):
            with pytest.raises(UnknownEventType, match=message):
                next(events)
    assert list(mixed.read(types=[RunProgressed], until=whole[5].position)) == whole[:6:2]
    with pytest.raises(UnknownEventType, match="'RunProgressed', schema version 7, is not known"):
        list(mixed.read(whole[5].position))


def test_a_moment_of_them(doses: EventStore, place: str) -> None:
    with RfDb(place) as db:
        whole = list(doses.read(unknown=True))
        past = db.as_of(whole[3].position).store
        assert list(past.read(unknown=True)) == whole[:4]
        assert list(past.read_at([e.position for e in whole], unknown=True)) == whole[:4]
        assert past.version("run-1") == 4
        with pytest.raises(UnknownEventType):
            list(past.read())


def test_what_another_program_wrote(place: str) -> None:
    call(other_releases.write_unknown_type, place)
    call(other_releases.write_newer_schema, place)
    with open_store(place) as store:
        refused, measured = (recorded.event for recorded in store.read(unknown=True))
    assert refused == UnknownEvent("DoseRefused", 1, {})
    assert measured == UnknownEvent("DoseMeasured", 4, {"micrograms": 20_000})


def test_a_type_that_is_defined_later_is_known_from_then_on(store: EventStore, place: str) -> None:
    name = f"DosePostponed{'OnPostgres' if '://' in place else ''}"
    append_row(place, "patient-1", name, {})
    [before] = store.read(unknown=True)
    assert isinstance(before.event, UnknownEvent)
    defined = other_releases.event_type(name)
    [after] = store.read(unknown=True)
    assert type(after.event) is defined
    assert (after.position, after.type) == (before.position, before.type)


def test_they_cannot_be_appended(doses: EventStore, place: str) -> None:
    unknown = next(doses.read(types=["DoseTaken"], unknown=True))
    head = doses.head()
    with pytest.raises(InvalidEvent, match="'DoseTaken' is not known here: import or define"):
        doses.append("run-1", [RunStarted(1), unknown.event])
    with RfDb(place) as db, pytest.raises(InvalidEvent, match="'DoseTaken' is not known here"):
        db.append(unknown.event)
    assert doses.head() == head


def test_the_views_pass_them_by(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    append_row(place, f"run-{run_id}", "DoseTaken", DOSE)
    db.set_run_progress(run_id, 1, 0)
    assert db.get_run(run_id)["current_chunk"] == 1
    assert db.verify() == []
    db.rebuild()
    assert db.get_run(run_id)["current_chunk"] == 1
    assert db.as_of(4).verify() == []


@pytest.mark.parametrize(
    "data", ["", "{", "[1]", "5", "null", '"text"', '{"a":1}}', "{1:2}"], ids=told
)
def test_one_that_is_damaged_is_named_by_its_position(
    store: EventStore, place: str, data: str
) -> None:
    store.append("run-1", [RunStarted(1)])
    position = append_row(place, "patient-1", "DoseTaken", DOSE)
    damage(place, position, data)
    events = store.read(unknown=True)
    assert next(events).event == RunStarted(1)
    with pytest.raises(DamagedEvent, match=rf"event {position} \(DoseTaken") as caught:
        next(events)
    assert caught.value.position == position
    with pytest.raises(UnreadableEvent, match=f"event {position}"):
        list(store.read())


def test_one_whose_metadata_is_damaged_is_too(store: EventStore, place: str) -> None:
    position = append_row(place, "patient-1", "DoseTaken", DOSE)
    damage(place, position, "[]", column="metadata")
    with pytest.raises(DamagedEvent, match=f"event {position}"):
        list(store.read(unknown=True))


@pytest.mark.parametrize(
    "data",
    [{}, {"type": "x", "version": 9, "data": 1}, {"ü": "\u2028"}, {"n": 2**63, "m": -1.5e300}],
    ids=told,
)
def test_whatever_an_object_holds(store: EventStore, place: str, data: dict[str, Any]) -> None:
    append_row(place, "patient-1", "DoseTaken", data)
    [recorded] = store.read(unknown=True)
    assert isinstance(recorded.event, UnknownEvent)
    assert json.dumps(recorded.event.data) == json.dumps(data)
    assert msgspec.json.decode(msgspec.json.encode(recorded))["event"]["data"] == data


def test_it_is_no_type_of_the_log(store: EventStore) -> None:
    """An event of one's own cannot be taken for it."""
    with pytest.raises(InvalidEvent, match="UnknownEvent"):
        type("UnknownEvent", (Event,), {"__module__": "mine"})
    assert list(store.read(types=[UnknownEvent], unknown=True)) == []

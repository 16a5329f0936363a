"""Events that were damaged in the database."""

import pytest
from raw import raw

from refold import RfDb
from refold.eventstore import DamagedEvent, EventStore
from refold.eventstore.events import RunProgressed

DAMAGE = {
    "no JSON": '{"run_id":1,"current_chu',
    "empty": "",
    "JSON of something else": "[1, 2]",
    "a field is missing": '{"run_id":1}',
    "a field of another type": '{"run_id":"x","current_chunk":0,"current_epoch":0}',
}


def damage(place: str, position: int, data: str, *, column: str = "data") -> None:
    with raw(place) as connection:
        of_the_table = " ON events" if "://" in place else ""
        connection.execute(f"DROP TRIGGER events_are_never_updated{of_the_table}")
        connection.execute(f"UPDATE events SET {column} = '{data}' WHERE position = {position}")


@pytest.mark.parametrize("data", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_event_is_named_by_its_position(store: EventStore, place: str, data: str) -> None:
    whole = store.append("run-1", [RunProgressed(1, n, 0) for n in range(5)])
    damage(place, 3, data)
    events = store.read()
    assert [next(events), next(events)] == whole[:2]
    with pytest.raises(
        DamagedEvent, match=r"event 3 \(RunProgressed, schema version 1\)"
    ) as caught:
        next(events)
    assert caught.value.position == 3
    assert list(store.read(after=3)) == whole[3:]
    latest = store.read(backwards=True)
    assert [next(latest), next(latest)] == whole[:2:-1]
    with pytest.raises(DamagedEvent, match="event 3"):
        next(latest)


@pytest.mark.parametrize("metadata", ["", "[]", '{"cause":"x"}'])
def test_damaged_metadata_is_named_by_its_position(
    store: EventStore, place: str, metadata: str
) -> None:
    store.append("run-1", [RunProgressed(1, n, 0) for n in range(3)])
    damage(place, 2, metadata, column="metadata")
    events = store.read()
    next(events)
    with pytest.raises(DamagedEvent, match="event 2"):
        next(events)


def test_a_subscription_gives_what_comes_before_a_damaged_event(
    store: EventStore, place: str
) -> None:
    whole = store.append("run-1", [RunProgressed(1, n, 0) for n in range(5)])
    damage(place, 3, "")
    with store.subscribe() as events:
        assert [next(events), next(events)] == whole[:2]
        for _ in range(2):
            with pytest.raises(DamagedEvent, match="event 3"):
                next(events)


def test_a_rebuild_that_meets_a_damaged_event_keeps_the_old_views(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    db.set_run_progress(run_id, 1, 0)
    damage(place, 3, "{}")
    for replay in (db.rebuild, db.verify):
        with pytest.raises(DamagedEvent, match="event 3"):
            replay()
    assert db.get_run(run_id)["current_chunk"] == 1
    db.set_run_progress(run_id, 2, 0)
    assert db.get_run(run_id)["current_chunk"] == 2

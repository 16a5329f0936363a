"""A fork is a store of its own, which holds the log up to a moment and all that belongs to it."""

import os
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from children import Parent, WarmChild
from hypothesis import given
from hypothesis import strategies as st
from logs import LOG, Rows, heads, log
from places import Place
from random_logs import OWN, Step, append_row, exactly, log_of, steps
from raw import raw
from tables import tables
from tries import tries

from refold import RFDatabase, RfDb, copy_store, fork
from refold.eventstore import (
    DamagedEvent,
    DBException,
    InvalidCommand,
    InvalidMoment,
    NotAStore,
    NotFound,
    UnreadableEvent,
    open_store,
    times,
)
from refold.eventstore.events import RunKilled, RunProgressed
from refold.eventstore.paging import KEYS, PAGE
from refold.projections import Views

# --- what is in it ---------------------------------------------------------------------------


def check_forks(
    new_place: Place, new_target: Place, happens: list[Step], data: st.DataObject
) -> None:
    with log_of(new_place(), happens) as source:
        whole = log(source.place)
        position = data.draw(st.integers(0, source.db.store.head()), label="position")
        past = source.db.as_of(position)
        beginning = [row for row in whole["events"] if row.position <= position]
        for to in (new_place(), new_target()):
            origin = data.draw(st.sampled_from([source.db, past]), label="origin")
            with fork(origin, at=position, to=to) as other:
                assert other.verify() == []
                assert exactly(tables(other)) == exactly(tables(past))
                assert other.store.head() == position
                assert log(to)["events"] == beginning
                assert log(to)["streams"] == heads(beginning)
            with RfDb(to, projections=OWN) as again:
                assert exactly(tables(again)) == exactly(tables(past))
        assert log(source.place) == whole
        assert source.db.verify() == []


@pytest.mark.property
def test_a_fork_holds_the_log_and_the_views_as_of_a_moment(
    new_place: Place, new_target: Place, engine: str
) -> None:
    @tries(8, engine)
    @given(st.lists(steps, max_size=8), st.data())
    def check(happens: list[Step], data: st.DataObject) -> None:
        check_forks(new_place, new_target, happens, data)

    check()


def test_the_payloads_that_its_events_name_come_along(
    db: RfDb, place: str, new_place: Place
) -> None:
    experiment_id = db.create_experiment("digits")
    named = [db.put_payload(f"checkpoint {n}") for n in range(4)]
    db.put_payload("which no event names")
    db.create_run(experiment_id, config_leaf={"lr": 0.1})
    # Wherever in the text a digest stands, and whoever knows the type.
    append_row(place, "elsewhere", "WeightsKept", {"at": [f"s3://weights/{named[0]}.pt"]})
    append_row(place, "elsewhere", "WeightsKept", {"a": f"\x1f{named[1]}ab", "b": f"\f{named[2]}"})
    at = db.store.head()
    db.create_run(experiment_id, config_leaf={"lr": 0.2})
    append_row(place, "elsewhere", "WeightsKept", {"digest": named[3]})
    with fork(db, at=at, to=new_place()) as other:
        assert other.get_run(1)["config_leaf"] == {"lr": 0.1}
        for digest in named[:3]:
            assert other.get_payload(digest) == db.get_payload(digest)
        with pytest.raises(NotFound):
            other.get_payload(named[3])
        with other.store.reading() as connection:
            assert connection.execute("SELECT count(*) FROM payloads") == [(4,)]


def test_many_events_and_payloads_come_along(db: RfDb, new_place: Place) -> None:
    experiment_id = db.create_experiment("digits")
    with db.batch():
        for n in range(KEYS + 1):
            db.create_run(experiment_id, config_leaf=n)
        db.append(*[RunProgressed(1, n, 0) for n in range(PAGE)])
    at = db.store.head()
    db.set_run_progress(1, 0, 1)
    with fork(db, at=at, to=new_place()) as other:
        assert tables(other) == tables(db.as_of(at))
        configs = [run["config_leaf"] for run in other.get_all_runs()]
        assert configs == list(range(KEYS + 1))


def test_the_results_of_commands_up_to_then_come_along(db: RfDb, new_place: Place) -> None:
    experiment_id = db.create_experiment("digits", command_id="first")
    at = db.store.head()
    run_id = db.create_run(experiment_id, command_id="second")
    db.set_run_status(run_id, "NEW", command_id="which changed nothing")
    with fork(db, at=at, to=new_place()) as other:
        assert other.create_experiment("digits", command_id="first") == experiment_id
        assert other.store.head() == at
        assert other.create_run(experiment_id, command_id="second") == run_id
        assert other.store.head() == at + 1
        # Maybe it was sent before, maybe not: here it is of another run anyway.
        other.set_run_status(run_id, "ONGOING", command_id="which changed nothing")
    with fork(db, to=new_place()) as other:
        assert len(log_commands(other)) == 3


def log_commands(db: RfDb) -> Rows:
    with db.store.reading() as connection:
        return connection.execute(LOG["commands"])


def test_an_event_that_is_damaged_later_is_no_obstacle(
    db: RfDb, place: str, new_place: Place
) -> None:
    run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    db.set_run_progress(run_id, 1, 0)
    damage(place, 3)
    to = new_place()
    with pytest.raises(DamagedEvent, match="event 3"):
        fork(db, to=to)
    # What was refused has left nothing that looks like a store with something in it.
    assert {name: rows for name, rows in log(to).items() if rows} == {}
    with fork(db, at=2, to=to) as other:
        assert other.verify() == []
        assert other.get_run(run_id)["config_leaf"] == {"lr": 0.1}


def damage(place: str, position: int) -> None:
    with raw(place) as connection:
        of_the_table = " ON events" if "://" in place else ""
        connection.execute(f"DROP TRIGGER events_are_never_updated{of_the_table}")
        connection.execute(f"UPDATE events SET data = '{{' WHERE position = {position}")


# --- what it is ------------------------------------------------------------------------------


def test_it_goes_its_own_way(db: RfDb, place: str, new_place: Place) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    at = db.store.head()
    db.set_run_status(run_id, "ONGOING")
    kept = log(place)
    with fork(db, at=at, to=new_place()) as other:
        [killed] = other.append(RunKilled(run_id))
        assert (killed.position, killed.version) == (at + 1, 2)
        assert other.create_run(1) == run_id + 1
        assert other.verify() == []
        assert other.get_run(run_id)["status"] == "KILLED"
    assert db.get_run(run_id)["status"] == "ONGOING"
    assert log(place) == kept


def test_its_face_is_as_the_one_that_it_was_forked_from(place: str, new_place: Place) -> None:
    with RFDatabase(place, actor="controller", signing_key="key", projections=OWN) as db:
        db.create_experiment("answers")
        digest = db.put_payload([1])
        for origin in (db, db.as_of(1)):
            with fork(origin, to=new_place()) as other:
                assert type(other) is RFDatabase
                assert other.views.views == db.views.views
                other.create_context("c0ffee")
                [recorded] = other.store.read(after=1)
                assert recorded.metadata.actor == "controller"
                assert other.put_payload([1]) == digest  # signed alike
        assert db.store.head() == 1


def test_a_time_is_a_moment_too(db: RfDb, new_place: Place) -> None:
    db.create_experiment("digits")
    [first] = db.store.read()
    at = times.to_datetime(first.recorded_at)
    with fork(db, at=at, to=new_place()) as other:
        assert other.store.head() == 1


def test_a_fork_of_nothing_is_an_empty_store(db: RfDb, new_place: Place) -> None:
    with fork(db, to=new_place()) as other:
        assert other.create_experiment("digits") == 1
    db.create_experiment("digits")
    with fork(db, at=0, to=new_place()) as other:
        assert tables(other) == tables(db.as_of(0))


def test_what_is_not_committed_is_not_forked(db: RfDb, new_place: Place) -> None:
    with db.batch():
        db.create_experiment("digits")
        with pytest.raises(InvalidCommand, match="in the middle of a batch"):
            fork(db, to=new_place())


# --- places ----------------------------------------------------------------------------------


def test_it_can_be_made_again_and_made_longer(db: RfDb, new_place: Place) -> None:
    to = new_place()
    run_id = db.create_run(db.create_experiment("digits"), config_leaf=1, command_id="c")
    for n in range(3):
        db.set_run_progress(run_id, n, 0)
    for at in (2, 2, 4, None):
        with fork(db, at=at, to=to) as other:
            assert tables(other) == tables(db if at is None else db.as_of(at))
            assert other.verify() == []
    copied = new_place()
    copy_store(to, copied)
    assert log(copied) == log(to)


def check_refused(db: RfDb, to: str, error: type[DBException], match: str) -> None:
    before = log(to)
    with pytest.raises(error, match=match) as refused:
        fork(db, to=to, at=min(2, db.store.head()))
    assert log(to) == before
    password = to.partition("@")[0].rpartition(":")[2]
    assert "@" not in to or password not in str(refused.value)


def test_a_place_with_other_events_is_refused(
    db: RfDb, place: str, new_place: Place, new_target: Place
) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    db.set_run_progress(run_id, 1, 0)
    aside, ahead = new_place(), new_target()
    with RfDb(aside) as other:
        other.create_experiment("other")
    check_refused(db, aside, NotAStore, "holds other events than .*: pass an empty place")
    copy_store(place, ahead)
    check_refused(db, ahead, NotAStore, "holds more of .* than its log up to event 2")
    further = new_place()
    with fork(db, at=1, to=further) as other:
        other.create_experiment("a second one")
    check_refused(db, further, NotAStore, "holds other events")


def test_a_store_is_not_forked_to_itself(
    db: RfDb, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.create_run(db.create_experiment("digits"))
    names = [place]
    if "://" in place:
        names.append(f"{place}&application_name=other")
    else:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "symbolic.db").symlink_to(place)
        names += [os.path.relpath(place), "symbolic.db", f"sqlite:///{place}"]
    for name in names:
        for origin in (db, db.as_of(1)):
            check_refused(origin, name, InvalidCommand, "cannot be forked to itself")


@pytest.mark.parametrize(
    "at",
    [4, -1, True, "2", datetime(2020, 1, 1), datetime(1999, 1, 1, tzinfo=UTC)],
    ids=["beyond the end", "negative", "a bool", "text", "without zone", "before the first event"],
)
def test_a_moment_that_is_none_is_refused(db: RfDb, tmp_path: Path, at: Any) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    db.set_run_progress(run_id, 1, 0)
    to = tmp_path / "fork.db"
    with pytest.raises(InvalidMoment):
        fork(db, at=at, to=to)
    with pytest.raises(InvalidMoment, match="future"):
        fork(db, at=datetime.now(UTC) + timedelta(hours=1), to=to)
    with pytest.raises(InvalidMoment, match="no position 3"):
        fork(db.as_of(2), at=3, to=to)
    assert not to.exists()


@pytest.mark.parametrize("to", ["mysql://host/db", "postgresql://[", 5, "a\0b", "/no/such/x"])
def test_what_cannot_be_a_place_is_refused(db: RfDb, to: Any) -> None:
    with pytest.raises(NotAStore):
        fork(db, to=to)


def test_what_is_no_store_is_left_alone(db: RfDb, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing for us\n" * 100)
    with pytest.raises(NotAStore):
        fork(db, to=path)
    assert path.read_text() == "nothing for us\n" * 100


# --- interruptions ---------------------------------------------------------------------------


def fork_and_tell(parent: Parent, place: str, at: int, to: str) -> None:
    with RfDb(place) as db:
        parent.tell("begins")
        fork(db, at=at, to=to)


def test_a_fork_that_is_killed_leaves_all_or_nothing(
    place: str, new_place: Place, new_target: Place, moments: random.Random
) -> None:
    with RfDb(place) as db:
        experiment_id = db.create_experiment("digits")
        with db.batch():
            for n in range(100):
                db.create_run(experiment_id, config_leaf=n, command_id=f"{n}")
        db.append(*[RunProgressed(n % 100, n, 0) for n in range(PAGE)])
        at = db.store.head() - 10
        began = time.monotonic()
        with fork(db, at=at, to=new_place()) as other:
            whole = tables(other)
        takes = time.monotonic() - began
        for new in (new_place, new_target):
            to = new()
            with WarmChild(fork_and_tell, place, at, to) as child:
                child.hear()
                time.sleep(moments.uniform(0, takes))  # the moment
                child.kill()
            with open_store(to) as bare, bare.reading() as connection:
                counts = [
                    connection.execute(f"SELECT count(*) FROM {name}")[0][0]
                    for name in ("events", "payloads", "commands", "projections")
                ]
            assert counts in ([0, 0, 0, 0], [at, 100, 100, len(db.views.views)])
            with fork(db, at=at, to=to) as other:
                assert tables(other) == whole
                assert other.verify() == []


class Interrupted(BaseException):
    pass


def test_a_fork_that_is_interrupted_leaves_nothing(
    db: RfDb, new_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = db.create_run(db.create_experiment("digits"), config_leaf=1)
    to = new_place()

    def interrupt(*_: Any, **__: Any) -> int:
        raise Interrupted

    # As late as can be: the log is there, and nothing is committed.
    monkeypatch.setattr(Views, "rebuild", interrupt)
    with pytest.raises(Interrupted):
        fork(db, to=to)
    assert {name: rows for name, rows in log(to).items() if rows} == {}
    monkeypatch.undo()
    with fork(db, to=to) as other:
        assert other.get_run(run_id)["config_leaf"] == 1


def test_an_event_of_a_newer_schema_stands_in_the_way(
    db: RfDb, place: str, new_place: Place
) -> None:
    db.create_experiment("digits")
    append_row(place, "elsewhere", "RunCreated", {"id": 1}, schema_version=99)
    with pytest.raises(UnreadableEvent, match="event 2"):
        fork(db, to=new_place())
    with fork(db, at=1, to=new_place()) as other:
        assert other.verify() == []

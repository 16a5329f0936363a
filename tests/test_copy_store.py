"""A store is copied to every engine from every engine, whole and resumably."""

import os
import random
import sys
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count, pairwise
from pathlib import Path
from threading import Event as Signal
from typing import Any

import logs
import other_releases
import pytest
from children import Parent, WarmChild, call
from hypothesis import given
from hypothesis import strategies as st
from logs import LOG, Rows, heads, log
from places import ENGINES, OTHER, Place, new_places
from postgres import drop_schema, new_schema
from raw_sqlite import raw
from strategies import any_command, any_event
from tables import tables
from tries import tries

from refold import DBException, RfDb, copy_store, fork
from refold.commands import Command, execute
from refold.eventstore import (
    DamagedEvent,
    Event,
    InvalidCommand,
    Metadata,
    NotAStore,
    StoreBusy,
    Transaction,
    UnknownEventType,
    open_store,
)
from refold.eventstore.engines.log_end import EventRow
from refold.eventstore.events import RunCreated, RunProgressed, WorkerProgressed
from refold.eventstore.log.rows import copy_log
from refold.eventstore.paging import KEYS, PAGE, PARCEL
from refold.eventstore.statuses import TaskStatus, WorkerTask
from refold.projections import Row, View


@pytest.fixture(params=ENGINES, ids="to_{}".format)
def new_target(request: pytest.FixtureRequest, engine: str, tmp_path: Path) -> Iterator[Place]:
    """Yield a function that names a place where no store is yet, on the engine to copy to."""
    to = OTHER[engine] if request.param == "other" else request.param
    with new_places(to, request, tmp_path / "target") as new_target:
        yield new_target


# For what takes its time: from each engine to the other.
across = pytest.mark.parametrize("new_target", ["other"], ids=["across"], indirect=True)


def views(place: str) -> str:
    """Return the rows of all views, as text that tells 1 from 1.0 and True."""
    with RfDb(place) as db:
        assert db.verify() == []
        return repr(tables(db))


def append_rows(place: str, rows: Rows) -> None:
    """Append rows of the table `events` as they are."""
    with open_store(place) as store, store.transaction() as transaction:
        logs.append_rows(transaction, [EventRow(*row) for row in rows])


def fill(place: str, runs: int = 3) -> None:
    """Append what refers to payloads and what was sent with ids."""
    with RfDb(place, actor="filler") as db:
        begin_runs(db, runs)


def begin_runs(db: RfDb, runs: int) -> None:
    experiment_id = db.create_experiment("digits")
    for n in range(runs):
        run_id = db.create_run(experiment_id, config_leaf={"lr": n}, command_id=str(uuid.uuid4()))
        db.set_run_progress(run_id, n + 1, 0)


# --- everything is copied --------------------------------------------------------------------


Step = Command | list[Event]
steps = st.lists(any_command | st.lists(any_event, min_size=1, max_size=4), max_size=12)


def carry_out(db: RfDb, taken: list[Step], first: int) -> dict[str, tuple[Command, Any]]:
    """Send commands, each with an id, and append events; return the results of the former."""
    results: dict[str, tuple[Command, Any]] = {}
    for n, step in enumerate(taken, first):
        if isinstance(step, list):
            db.append(*step)
            continue
        with suppress(DBException):
            results[f"{n}"] = step, execute(db.views, step, Metadata(command_id=f"{n}"))
    return results


@across
@tries(12)
@given(steps, steps)
def test_the_copy_equals_its_source(
    new_place: Place, new_target: Place, before: list[Step], after: list[Step]
) -> None:
    source, target = new_place(), new_target()
    results: dict[str, tuple[Command, Any]] = {}
    with RfDb(source) as db:
        for taken in (before, after):
            head = db.store.head()
            results.update(carry_out(db, taken, len(results)))
            db.put_payload(len(results))  # which no event names
            kept = log(source)
            assert copy_store(source, target) == db.store.head() - head
            assert log(target) == kept == log(source)
            assert views(target) == views(source)
            assert copy_store(source, target) == 0
    with RfDb(target) as db:
        head = db.store.head()
        for command_id, (command, result) in results.items():
            assert execute(db.views, command, Metadata(command_id=command_id)) == result
        assert db.store.head() == head
        # Life goes on there.
        version = db.store.version("run-1")
        with db.store.transaction():
            db.store.append("run-1", [RunProgressed(1, 7, 0)], expected_version=version)
            db.append(RunProgressed(1, 8, 0))
        assert [recorded.version for recorded in db.store.read(head)] == [version + 1, version + 2]
        assert db.verify() == []


def test_a_long_log_is_copied(place: str, target: str) -> None:
    events = [RunProgressed(n % 700, n, 0) for n in range(4 * PAGE + 1)]
    count = len(events[::700])
    with RfDb(place) as db:
        db.append(*events)
    assert copy_store(place, target) == len(events)
    assert log(target) == log(place)
    assert views(target) == views(place)
    with open_store(target) as store:
        [last] = store.append("run-0", [RunProgressed(0, 0, 1)], expected_version=count)
        assert last.position == len(events) + 1
        assert len(list(store.read(stream="run-0"))) == count + 1


def test_many_payloads_and_commands_are_copied(place: str, target: str) -> None:
    with RfDb(place) as db:
        experiment_id = db.create_experiment("digits")
        with db.batch():
            for n in range(2 * KEYS + 1):
                db.create_run(experiment_id, config_leaf=n, command_id=f"ä {n}")
                db.create_experiment("digits", command_id=f"no event {n}")
    copy_store(place, target)
    assert log(target) == log(place)
    assert views(target) == views(place)


def test_an_empty_store_is_copied(place: str, target: str) -> None:
    RfDb(place).close()
    assert copy_store(place, target) == 0
    assert copy_store(place, target) == 0
    fill(place)
    assert copy_store(place, target) == 7
    assert log(target) == log(place)


def test_positions_keep_their_gaps(place: str, target: str, new_target: Place) -> None:
    data = '{"run_id":1,"current_chunk":0,"current_epoch":0}'
    positions = [2, 3, 7, 1_000, 2**53 + 1]
    about = '{"actor":"ü"}'
    rows = [
        (position, "run-1", n, previous or None, "RunProgressed", 1, data, about, n)
        for n, (previous, position) in enumerate(pairwise([0, *positions]), 1)
    ]
    append_rows(place, rows[:3])
    assert copy_store(place, target) == 3
    append_rows(place, rows[3:])
    assert copy_store(place, target) == 2
    assert log(target) == log(place)
    with open_store(target) as store:
        assert [recorded.position for recorded in store.read(stream="run-1")] == positions
        [last] = store.append("run-1", [RunProgressed(1, 1, 0)], expected_version=5)
        assert last.position == 2**53 + 2
    again = new_target()
    assert copy_store(target, again) == 6
    assert log(again) == log(target)


def test_events_that_nobody_here_knows_are_copied(place: str, target: str) -> None:
    for write in (
        other_releases.write_first_schemas,
        other_releases.write_unknown_type,
        other_releases.write_newer_schema,
    ):
        call(write, place)
    assert copy_store(place, target) == 4
    assert log(target) == log(place)
    assert views(target) == views(place)
    with open_store(target) as store, pytest.raises(UnknownEventType):
        list(store.read())


def test_an_event_of_a_newer_schema_stands_in_the_way_of_a_view_only(
    place: str, target: str
) -> None:
    fill(place)
    later = (8, "run-4", 1, None, "RunCreated", 99, '{"run":{"id":4}}', "{}", 2**60)
    append_rows(place, [later])
    for _ in range(2):
        with pytest.raises(UnknownEventType, match="event 8"):
            copy_store(place, target)
        assert log(target) == log(place)


def test_a_damaged_event_is_copied_as_it_is(place: str, target: str) -> None:
    rows = [
        (1, "run-1", 1, None, "RunProgressed", 1, "{", "{}", 5),
        (2, "run-1", 7, 77, "", -1, "", "null", -5),
        (3, "", 2, 1, "NeverSeen", 1, "[]", "", 4),
    ]
    append_rows(place, rows)
    with pytest.raises(DamagedEvent, match="event 1"):
        copy_store(place, target)
    assert log(target) == log(place)
    assert [row[:-1] for row in log(target)["events"]] == rows


ALTERED = {
    "bytes": ("data = CAST(data AS BLOB)", r"event 5: its data is b'.*, and the target makes it"),
    "a NUL": ("data = 'a' || char(0)", "one of the events 1 to 7 holds what the target cannot"),
    "no integer": ("version = 'x'", "one of the events 1 to 7 holds what the target cannot"),
}


@pytest.mark.parametrize(("change", "message"), ALTERED.values(), ids=ALTERED.keys())
def test_what_a_server_cannot_hold_is_not_turned_into_something_else(
    tmp_path: Path, postgres_url: str, change: str, message: str
) -> None:
    source, target = str(tmp_path / "source.db"), new_schema(postgres_url)
    fill(source)
    with raw(source) as connection:
        connection.execute("DROP TRIGGER events_are_never_updated")
        connection.execute(f"UPDATE events SET {change} WHERE position = 5")
    try:
        with pytest.raises(DamagedEvent, match=message):
            copy_store(source, target)
        assert log(target)["events"] == []
    finally:
        drop_schema(target)


class Mean(Row, frozen=True, kw_only=False):
    run_id: int
    chunks: int


chunks = View("chunks_seen", Mean, version=1)
chunks.put_by(
    RunProgressed,
    lambda row, e: Mean(e.run_id, e.current_chunk + (0 if row is None else row.chunks)),
    key=lambda e: e.run_id,
)


def test_views_of_ones_own_are_built_too(place: str, target: str) -> None:
    fill(place)
    copy_store(place, target, projections=[chunks])
    with open_store(target) as store, store.reading() as connection:  # which builds nothing
        assert connection.execute("SELECT run_id, chunks FROM chunks_seen ORDER BY run_id") == [
            (1, 1),
            (2, 2),
            (3, 3),
        ]
    assert views(target) == views(place)


# --- memory ----------------------------------------------------------------------------------


def copy_large_payloads(_: Parent, place: str, target: str) -> int:
    tracemalloc.start()
    copy_store(place, target)
    return tracemalloc.get_traced_memory()[1]


@across
def test_large_payloads_are_not_in_memory_all_at_once(place: str, target: str) -> None:
    with RfDb(place) as db:
        experiment_id = db.create_experiment("digits")
        for size in [PARCEL // 4] * 12 + [PARCEL + 1, 0, 1]:
            db.create_run(experiment_id, config_leaf={"weights": random.randbytes(size)})
    most = call(copy_large_payloads, place, target)
    assert most < 3 * PARCEL
    assert log(target) == log(place)


# --- interruptions ---------------------------------------------------------------------------


def copy_and_tell(parent: Parent, source: str, target: str) -> None:
    parent.tell("begins")
    copy_store(source, target)


@across
def test_a_copy_that_is_killed_goes_on(
    place: str, new_target: Place, moments: random.Random
) -> None:
    with RfDb(place) as db, db.batch():
        begin_runs(db, KEYS)
        db.append(*[RunProgressed(n % 50, n, 0) for n in range(3 * PAGE)])
        for n in range(KEYS):
            db.set_controller_task("RUN_FIT", command_id=f"{n}")
    whole = log(place)
    began = time.monotonic()
    copy_store(place, new_target())
    takes = time.monotonic() - began
    for _ in range(4):
        target = new_target()
        for _ in range(2):
            with WarmChild(copy_and_tell, place, target) as child:
                child.hear()
                time.sleep(moments.uniform(0, takes))  # the moment
                child.kill()
            kept = log(target)
            there = {position for position, *_ in kept["events"]}
            assert kept["events"] == whole["events"][: len(there)]
            assert kept["streams"] == heads(kept["events"])
            assert set(kept["payloads"]) <= set(whole["payloads"])
            assert set(kept["commands"]) <= set(whole["commands"])
            assert {last for *_, last, _ in kept["commands"]} <= {None, *there}
        assert copy_store(place, target) == len(whole["events"]) - len(there)
        assert log(target) == whole
        assert views(target) == views(place)


def test_an_end_that_is_not_settled_is_waited_for(postgres_url: str, tmp_path: Path) -> None:
    place, path = new_schema(postgres_url), str(tmp_path / "target.db")
    first_begun, second_done = Signal(), Signal()

    def append_slowly(transaction: Transaction) -> None:
        transaction.append([RunProgressed(1, 1, 0)])
        transaction.flush()
        first_begun.set()
        second_done.wait()

    with ThreadPoolExecutor(1) as pool, open_store(place) as writer:
        slow = pool.submit(writer.perform, append_slowly)
        try:
            first_begun.wait()
            writer.append(None, [RunProgressed(2, 1, 0)])
            with open_store(place, timeout=0.1) as source, open_store(path) as target:
                with pytest.raises(StoreBusy, match="that began before event 2: end it"):
                    copy_log(source, target)
                assert target.head() == 0
        finally:
            second_done.set()
        slow.result()
    assert copy_store(place, path) == 2
    assert log(path) == log(place)
    drop_schema(place)


def write_for_ever(parent: Parent, place: str) -> None:
    with RfDb(place) as db:
        for n in count():
            fill(place)
            db.append(*[RunProgressed(1, n, part) for part in range(50)])
            parent.tell(n)


@across
def test_a_source_that_is_written_meanwhile_is_copied_as_far_as_it_was(
    place: str, target: str
) -> None:
    with WarmChild(write_for_ever, place) as child:
        for _ in range(8):
            child.hear()
            there = log(place)["events"]
            copy_store(place, target)
            kept = log(target)
            assert kept["events"][: len(there)] == there
            assert kept["events"] == log(place)["events"][: len(kept["events"])]
            assert kept["streams"] == heads(kept["events"])
            last, *_ = kept["events"][-1]
            assert all(end is None or end <= last for *_, end, _ in kept["commands"])
            views(target)
        child.kill()
    copy_store(place, target)
    assert log(target) == log(place)
    assert views(target) == views(place)


def report_for_ever(parent: Parent, place: str) -> None:
    with RfDb(place) as db:
        for n in count():
            db.get_all_runs()
            assert db.verify() == []
            parent.tell(n)


@across
def test_a_target_can_be_read_meanwhile(place: str, target: str) -> None:
    with WarmChild(report_for_ever, target) as child:
        for _ in range(5):
            child.hear()
            fill(place)
            copy_store(place, target)
        child.kill()
        assert child.last_words()
    assert log(target) == log(place)
    assert views(target) == views(place)


def copy_until_refused(parent: Parent, source: str, target: str) -> str:
    parent.tell("ready")
    parent.hear()
    try:
        copy_store(source, target)
    except StoreBusy as refused:
        return str(refused)
    return "copied"


@across
def test_two_copies_at_once_do_no_harm(place: str, target: str) -> None:
    fill(place, runs=50)
    with RfDb(place) as db:
        db.append(*[RunProgressed(n % 50, n, 0) for n in range(3 * PAGE)])
    with ExitStack() as stack:
        copiers = [
            stack.enter_context(WarmChild(copy_until_refused, place, target)) for _ in range(3)
        ]
        for copier in copiers:
            copier.hear()
        for copier in copiers:
            copier.tell("go")
        results = [copier.result() for copier in copiers]
    assert "copied" in results
    assert {result for result in results if "something else writes" not in result} == {"copied"}
    assert copy_store(place, target) == 0
    assert log(target) == log(place)
    assert views(target) == views(place)


# --- refusals --------------------------------------------------------------------------------


def check_refused(source: str, target: str, error: type[DBException], match: str) -> None:
    """The copy is refused in words without a password, and both places are as they were."""
    before = log(source), log(target)
    with pytest.raises(error, match=match) as refused:
        copy_store(source, target)
    assert (log(source), log(target)) == before
    for place in (source, target):
        if "@" in place:
            password = place.partition("@")[0].rpartition(":")[2]
            assert password not in str(refused.value)


def test_a_target_with_other_events_is_refused(
    place: str, new_place: Place, new_target: Place
) -> None:
    fill(place)
    shorter, longer, ahead, aside = (new_target() for _ in range(4))
    fill(shorter, runs=1)
    fill(longer, runs=4)
    copy_store(place, ahead)
    fill(ahead, runs=1)
    copy_store(place, aside)
    with RfDb(place) as one, RfDb(aside) as other:
        for db in (one, other):
            db.set_run_progress(1, 9, 9)
    for target in (shorter, longer, ahead, aside):
        check_refused(place, target, NotAStore, "holds other events than .*: pass an empty place")
    # The last event is the same, and one before it is missing.
    gapped, rows = new_target(), log(place)["events"]
    append_rows(gapped, [*rows[:2], *rows[3:]])
    check_refused(place, gapped, NotAStore, "holds other events")


def test_a_source_that_is_not_there_is_not_made(
    new_place: Place, new_target: Place, tmp_path: Path
) -> None:
    source, target = new_place(), new_target()
    for _ in range(2):
        with pytest.raises(NotAStore, match="there is no store"):
            copy_store(source, target)
        with pytest.raises(NotAStore, match="there is no store"):
            copy_store(target, source)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"text, and no store at all" * 50])
def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "source.db"
    path.write_bytes(content)
    with pytest.raises(NotAStore):
        copy_store(path, tmp_path / "target.db")
    assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["source.db"]


@pytest.mark.parametrize("source", ["mysql://host/db", "postgresql://[", 5, None, "a\0b", "/tmp"])
def test_what_cannot_be_a_source_is_refused(source: Any, tmp_path: Path) -> None:
    with pytest.raises(NotAStore):
        copy_store(source, tmp_path / "target.db")
    assert not any(tmp_path.iterdir())


def test_a_store_is_not_copied_to_itself(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(place)
    names = [place]
    linked: Path | None = None
    if "://" in place:
        account, host = place.removeprefix("postgresql://").split("@", 1)
        names += [
            f"postgres://{account}@{host}",
            f"{place}&application_name=other&connect_timeout=7",
        ]
    else:
        monkeypatch.chdir(tmp_path)
        os.link(place, linked := tmp_path / "linked.db")
        (tmp_path / "symbolic.db").symlink_to(place)
        names += [os.path.relpath(place), "linked.db", "symbolic.db", f"sqlite:///{place}"]
    for name in names:
        with pytest.raises(InvalidCommand, match="source and target are the same store"):
            copy_store(place, name)
    if linked is not None:
        linked.unlink()
    assert views(place)


def copy_without_psycopg(_: Parent, url: str, path: str) -> list[str]:
    for name in [
        name for name in sys.modules if name.startswith(("psycopg", "refold.eventstore.post"))
    ]:
        del sys.modules[name]
    sys.modules["psycopg"] = None  # type: ignore[assignment]
    told: list[str] = []
    for places in ((url, path), (path, url)):
        try:
            copy_store(*places)
        except NotAStore as error:
            told.append(str(error))
    return told


def test_a_url_needs_the_extra(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    fill(path)
    told = call(copy_without_psycopg, "postgresql://user:secret@localhost/db", path)
    assert len(told) == 2
    assert all("pip install 'refold[postgres]'" in message for message in told)


def test_the_source_is_as_it_was(place: str, target: str) -> None:
    fill(place)
    with open_store(place) as bare:  # which leaves the views behind
        event = WorkerProgressed(0, WorkerTask.TRAIN_VAL, TaskStatus.IN_PROGRESS)
        bare.append(None, [event])
        with bare.reading() as connection:
            everything = [
                connection.execute(f"SELECT * FROM {name} ORDER BY 1")
                for name in (*LOG, "projections", "worker_progress", "runs_folded")
            ]
        copy_store(place, target)
        with bare.reading() as connection:
            assert everything == [
                connection.execute(f"SELECT * FROM {name} ORDER BY 1")
                for name in (*LOG, "projections", "worker_progress", "runs_folded")
            ]


@across
def test_payloads_that_are_not_there_are_left_out(
    place: str, new_target: Place, new_place: Place
) -> None:
    """As of an event that names payloads of which the store has none, some, or nothing at all."""
    with RfDb(place) as db:
        experiment_id = db.create_experiment("digits")
        known = db.put_payload({"lr": 0.1})
        db.append(RunCreated(1, experiment_id, "none", config="0" * 64))
        db.append(RunCreated(2, experiment_id, "some", config=known))
        for at in (1, 2, 3):
            for to in (new_target(), new_place()):
                with fork(db, at=at, to=to) as other:
                    assert other.store.head() == at
                    assert dict(other.store.get_payloads([known, "0" * 64, "f" * 64])).keys() == (
                        {known} if at == 3 else set()
                    )
                    assert list(other.store.get_payloads([])) == []
    target = new_target()
    assert copy_store(place, target) == 3
    assert log(target) == log(place)

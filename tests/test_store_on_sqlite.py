"""The log in a SQLite file: what the file refuses, and what it survives."""

import os
import sqlite3
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from children import Parent, call
from raw_sqlite import raw

from eventstore import DBException, EventStore, StoreFailed, StoreFull, open_store
from eventstore.events import RunProgressed, RunStarted
from refold import RfDb


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


CHANGES = [
    "UPDATE events SET data = '{}'",
    "UPDATE events SET position = position + 10",
    "DELETE FROM events",
    "DELETE FROM events WHERE position = 1",
    "REPLACE INTO events SELECT * FROM events WHERE position = 1",
    "INSERT OR REPLACE INTO payloads SELECT digest, x'00' FROM payloads",
    "UPDATE payloads SET content = x'00'",
    "DELETE FROM payloads",
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_file_refuses_to_change_what_happened(
    store: EventStore, place: str, change: str
) -> None:
    digest = store.put_payload(b"weights")
    appended = store.append("run-1", [RunStarted(1), RunProgressed(1, 1, 0)])
    with raw(place) as connection, pytest.raises(sqlite3.IntegrityError, match="never"):
        connection.execute(change)
    assert list(store.read()) == appended
    assert store.get_payload(digest) == b"weights"


def read_positions(_: Parent, place: str) -> list[int]:
    with open_store(place) as store:
        return [recorded.position for recorded in store.read()]


def test_a_connection_of_ones_own_in_the_same_process_loses_nothing(
    store: EventStore, place: str
) -> None:
    # Closing a file drops all locks that the process holds on it, unless one knows better.
    for n in range(1, 6):
        store.append("run-1", [RunProgressed(1, n, 0)])
        with raw(place) as connection:
            assert connection.execute("SELECT max(position) FROM events").fetchone() == (2 * n - 1,)
        store.append("run-2", [RunProgressed(2, n, 0)])
        assert call(read_positions, place) == list(range(1, 2 * n + 1))


def test_what_a_connection_of_ones_own_appends_is_followed(store: EventStore, place: str) -> None:
    store.append("run-1", [RunStarted(1)])
    with raw(place) as connection:
        connection.execute(
            "INSERT INTO events VALUES (2, 'run-1', 2, 1, 'RunCompleted', 1, '{\"run_id\":1}', "
            "'{}', 9)"
        )
        connection.execute("UPDATE streams SET version = 2, position = 2")
    [third] = store.append("run-1", [RunStarted(1)], expected_version=2)
    assert third.position == 3
    assert [r.type for r in store.read(stream="run-1")] == [
        "RunStarted",
        "RunCompleted",
        "RunStarted",
    ]


TOO_LARGE: dict[str, Callable[[RfDb, int], object]] = {
    "payload": lambda db, run_id: db.put_payload(bytes(1_000_000)),
    "configuration": lambda db, run_id: db.request_clone_modify(run_id, bytes(1_000_000).hex()),
    "command id": lambda db, run_id: db.request_stop(run_id, command_id="x" * 1_000_000),
    "event": lambda db, run_id: db.update_run_metrics(run_id, {"log": "x" * 1_000_000}),
}


@pytest.mark.parametrize("large", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_a_batch_that_meets_a_full_disk_is_whole_or_gone(
    db: RfDb, place: str, large: Callable[[RfDb, int], object]
) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    before = list(db.store.read())
    committed = _write_on_a_full_disk(db, run_id, lambda: large(db, run_id))
    with RfDb(place) as again:
        for face in (db, again):
            log = list(face.store.read())
            assert [r.position for r in log] == list(range(1, len(log) + 1))
            expected = [RunProgressed(run_id, n, 0) for n in (1, 2)] if committed else []
            assert [r.event for r in log[len(before) :]] == expected
            assert face.verify() == []
            assert face.get_run(run_id)["current_chunk"] == (2 if committed else 0)
        again.set_run_progress(run_id, 3, 0)
        assert again.get_run(run_id)["current_chunk"] == 3


def _write_on_a_full_disk(db: RfDb, run_id: int, write_much: Callable[[], object]) -> bool:
    """Make the disk full in the middle of a batch; return whether the batch was committed."""
    with suppress(StoreFull, StoreFailed):
        with db.batch():
            db.set_run_progress(run_id, 1, 0)
            assert db.get_run(run_id)["current_chunk"] == 1
            with db.store.reading() as connection:
                connection.execute("PRAGMA max_page_count = 1")  # no more than there are
            with suppress(StoreFull):
                write_much()
                db.store.head()  # writes it out
            # Whatever the caller does about the error, it goes on in the transaction or not at all.
            db.set_run_progress(run_id, 2, 0)
        return True
    return False


def test_a_fork_beside_threads_that_read_and_follow_leaves_both_processes_whole(
    db: RfDb, place: str
) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    done = threading.Event()
    errors: list[DBException] = []

    def keep(do: Callable[[], object]) -> None:
        try:
            while not done.is_set():
                do()
        except DBException as error:
            errors.append(error)

    news = db.subscribe(after=None)
    threads = [
        threading.Thread(target=keep, args=(lambda: db.get_run(run_id),)),
        threading.Thread(target=keep, args=(lambda: news.wait(0.01),)),
    ]
    for thread in threads:
        thread.start()
    try:
        statuses = []
        for chunk in range(20):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads
                child = os.fork()
            if child == 0:
                with suppress(DBException):
                    db.set_run_progress(run_id, chunk + 1, 0)
                    os._exit(0)
                os._exit(1)
            statuses.append(os.waitpid(child, 0)[1])
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert statuses == [0] * 20
    assert errors == []
    assert db.get_run(run_id)["current_chunk"] == 20
    assert db.verify() == []


def test_a_subscription_that_nobody_closed_does_not_hinder_a_fork(db: RfDb) -> None:
    db.create_experiment("digits")
    next(db.subscribe())
    child = os.fork()
    if child == 0:
        with suppress(DBException):
            db.create_experiment("of the child")
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert db.get_experiment(2)["experiment_name"] == "of the child"

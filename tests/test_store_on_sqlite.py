"""The log in a SQLite file: what other connections do to it, and a disk that gets full."""

import os
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from children import Child, Parent, call
from raw_sqlite import raw

from refold import InvalidCommand, RfDb, copy_store, fork
from refold.eventstore import DBException, EventStore, NotAStore, StoreFailed, StoreFull, open_store
from refold.eventstore.events import RunProgressed, RunStarted


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
            "'{}', 9, zeroblob(16))"
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


# --- one file by two names -----------------------------------------------------------------------


def copied(parent: Parent, source: str, target: str) -> None:
    """Try to copy, and tell what came of it."""
    try:
        copy_store(source, target)
    except InvalidCommand as error:
        parent.tell(str(error))


@pytest.mark.parametrize("turned", [False, True])
def test_a_copy_to_another_name_of_the_file_is_refused_and_harms_nothing(
    tmp_path: Path, turned: bool
) -> None:
    """Although the store is in use meanwhile: the other name must not even be opened."""
    path, link = tmp_path / "store.db", tmp_path / "link.db"
    with RfDb(path) as db:
        db.create_experiment("first")
        os.link(path, link)
        names = (link, path) if turned else (path, link)
        with Child(copied, *map(str, names)) as child:
            assert "the same store" in child.hear()
        with pytest.raises(InvalidCommand, match="to itself"):
            fork(db, to=link)
        db.create_experiment("second")
    assert not Path(f"{link}-wal").exists()
    with pytest.warns(match="2 names of the same file"), RfDb(path) as db:
        assert [e["experiment_name"] for e in db.db.execute("SELECT * FROM experiments")] == [
            *("first", "second"),
        ]


def test_a_database_that_is_empty_is_not_made_a_store(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    with closing(sqlite3.connect(path)) as bare:
        bare.execute("PRAGMA journal_mode = WAL")
    before = path.read_bytes()
    with pytest.raises(NotAStore, match="the database is empty"):
        open_store(path, create=False)
    assert path.read_bytes() == before


def use_up_descriptors(_: Parent, place: str) -> list[str]:
    heard: list[str] = []
    db = RfDb(place)
    run_id = db.create_run(db.create_experiment("digits"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for left in range(4):
        held: list[int] = []
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(left):
            os.close(held.pop())
        try:
            with db.store.snapshot():  # it takes the reader that is open
                db.get_run(run_id)
                RfDb(place).create_experiment("another connection")
            heard.append("there were enough")
        except DBException as error:
            heard.append(f"{type(error).__name__}: {error}")
        for descriptor in held:
            os.close(descriptor)
        db.set_run_progress(run_id, left + 1, 0)  # there are some again
    assert db.get_run(run_id)["current_chunk"] == 4
    return heard


def test_a_process_without_file_descriptors_is_told_so(place: str) -> None:
    for heard in call(use_up_descriptors, place):
        assert heard.startswith("StoreFailed")
        assert "has used up its file descriptors" in heard

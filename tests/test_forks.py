"""Forks: parent and child go on with connections of their own, and nothing is lost."""

import os
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from children import Parent, call

from refold import RfDb
from refold.eventstore import DBException, StoreFailed, open_store
from refold.eventstore.events import RunCompleted, RunProgressed, RunStarted
from refold.eventstore.forks import watch_forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def forked(work: Callable[[], object]) -> int:
    """Fork; return the process id of the child, which does the work and ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()  # nobody else would hear of it
    finally:
        os._exit(status)


def ended_well(child: int) -> bool:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


class Witness:
    """Notes what it is told of forks; the first waits whether another begins meanwhile."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.another = threading.Event()

    def before_fork(self) -> None:
        if self.heard:
            self.another.set()
        self.heard.append("before")
        if len(self.heard) == 1:
            self.another.wait(0.5)

    def after_fork(self, *, child: bool) -> None:
        self.heard.append("after")


def fork_in_two_threads(_: Parent) -> list[str]:
    witness = Witness()
    watch_forks(witness)
    with ThreadPoolExecutor(2) as threads:
        children = list(threads.map(forked, [lambda: None] * 2))
    assert all(map(ended_well, children))
    return witness.heard


def test_threads_that_fork_take_turns() -> None:
    assert call(fork_in_two_threads) == ["before", "after"] * 2


def use_in_a_fork(_: Parent, place: str) -> None:
    with open_store(place) as store, store.subscribe() as events:
        store.append("run-1", [RunStarted(1)])
        assert next(events).position == 1

        def work() -> None:
            assert store.head() == 1
            store.append("run-1", [RunProgressed(1, 1, 0)], expected_version=1)
            assert next(events).version == 2
            with open_store(place) as own:
                own.append("run-1", [RunProgressed(1, 2, 0)], expected_version=2)

        assert ended_well(forked(work))
        store.append("run-1", [RunCompleted(1)], expected_version=3)
        assert [next(events).version for _ in range(3)] == [2, 3, 4]


def outlive_the_parents_store(_: Parent, place: str) -> None:
    child_writes, child_wrote = os.pipe()
    parent_closes, parent_closed = os.pipe()
    store = open_store(place)
    store.append("run-1", [RunStarted(1)])

    def work() -> None:
        with open_store(place) as own:
            store.append("run-1", [RunProgressed(1, 1, 0)])
            own.append("run-1", [RunProgressed(1, 2, 0)])
            os.write(child_wrote, b"!")
            os.read(parent_closes, 1)
            store.append("run-1", [RunProgressed(1, 3, 0)])
            own.append("run-1", [RunCompleted(1)])

    child = forked(work)
    os.read(child_writes, 1)
    store.close()
    os.write(parent_closed, b"!")
    assert ended_well(child)


def fork_while_a_thread_writes(_: Parent, place: str) -> None:
    with open_store(place) as store, ThreadPoolExecutor(1) as pool:
        began, forks = threading.Event(), threading.Event()

        def write() -> None:
            with store.transaction():
                store.append("run-1", [RunStarted(1)])
                began.set()
                forks.wait()
                store.append("run-1", [RunProgressed(1, 1, 0)])

        written = pool.submit(write)
        began.wait()
        # The fork waits for the end of the transaction, which comes only after the fork began.
        os.register_at_fork(before=forks.set)
        child = forked(lambda: store.append("run-1", [RunCompleted(1)], expected_version=2))
        written.result()
        assert ended_well(child)


def fork_within_a_transaction(_: Parent, place: str) -> None:
    with open_store(place) as store:

        def work() -> None:
            with pytest.raises(StoreFailed, match="forked in the middle of a transaction"):
                store.append("run-9", [RunStarted(9)])

        with store.transaction():
            store.append("run-1", [RunStarted(1), RunProgressed(1, 1, 0)])
            assert ended_well(forked(work))
            store.append("run-1", [RunCompleted(1)])


@pytest.mark.parametrize(
    ("scene", "types"),
    [
        (use_in_a_fork, [RunStarted, RunProgressed, RunProgressed, RunCompleted]),
        (outlive_the_parents_store, [RunStarted, *[RunProgressed] * 3, RunCompleted]),
        (fork_while_a_thread_writes, [RunStarted, RunProgressed, RunCompleted]),
        (fork_within_a_transaction, [RunStarted, RunProgressed, RunCompleted]),
    ],
)
def test_a_fork_loses_nothing(place: str, scene: Any, types: list[type]) -> None:
    call(scene, place)
    with open_store(place) as store:
        assert [type(recorded.event) for recorded in store.read()] == types


def test_a_fork_beside_threads_that_read_and_follow_leaves_both_processes_whole(
    db: RfDb,
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
        for chunk in range(1, 21):
            assert ended_well(forked(partial(db.set_run_progress, run_id, chunk, 0)))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert db.get_run(run_id)["current_chunk"] == 20
    assert db.verify() == []


def test_a_subscription_that_nobody_closed_does_not_hinder_a_fork(db: RfDb) -> None:
    db.create_experiment("digits")
    next(db.subscribe())
    assert ended_well(forked(lambda: db.create_experiment("of the child")))
    assert db.get_experiment(2)["experiment_name"] == "of the child"

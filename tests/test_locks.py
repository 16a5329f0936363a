"""Locks that the system drops with their process: who is alive, and of whom nothing is known."""

import os
import threading
import time
from pathlib import Path

import pytest
from children import Parent, WarmChild

from refold.eventstore.liveness import locks as module
from refold.eventstore.liveness.locks import UNKNOWN, Locks, Seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db-alive"


@pytest.fixture
def locks(path: Path) -> Locks:
    like = path.with_name("store.db")
    like.touch(0o640)
    return Locks(path, like)


def hold(parent: Parent, path: Path, position: int) -> None:
    locks = Locks(path, path)
    assert locks.hold(position)
    parent.tell(os.getpid())
    parent.hear()


def test_who_holds_a_lock_is_seen_until_it_is_killed(locks: Locks, path: Path) -> None:
    path.touch()
    with WarmChild(hold, path, 7) as child:
        process = child.hear()
        assert locks.look([7]) == {7: Seen("held", process)}
        child.kill()
        assert locks.look([7]) == {7: Seen("free", process)}


def test_one_sees_ones_own(locks: Locks) -> None:
    assert locks.look([3]) == {3: UNKNOWN}
    assert locks.hold(3)
    assert locks.hold(2**31)
    own = Seen("held", os.getpid())
    assert locks.look([3, 2**31, 4]) == {3: own, 2**31: own, 4: UNKNOWN}
    locks.release(3)
    assert locks.look([3]) == {3: Seen("free", os.getpid())}


def test_the_file_has_the_rights_of_the_store(locks: Locks, path: Path) -> None:
    before = os.umask(0o077)
    try:
        locks.hold(3)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def work_with_a_child(parent: Parent, path: Path) -> None:
    """Hold a lock, and have a child, as a DataLoader has, that outlives this process."""
    locks = Locks(path, path)
    locks.hold(7)
    child = os.fork()
    if child == 0:
        threading.Event().wait(60)
        os._exit(0)
    parent.tell(child)
    parent.hear()


def test_a_living_child_does_not_keep_a_dead_process_alive(locks: Locks, path: Path) -> None:
    path.touch()
    with WarmChild(work_with_a_child, path) as worker:
        child = worker.hear()
        try:
            # The child of a fork closes its descriptor when it begins to run.
            while any(os.path.samefile(path, f"/proc/{child}/fd/{n}") for n in open_in(child)):
                time.sleep(0)
            worker.kill()
            assert locks.look([7])[7].state == "free"
            os.kill(child, 0)  # it is alive
        finally:
            os.kill(child, 9)


def open_in(process: int) -> list[str]:
    fds = f"/proc/{process}/fd"
    return [n for n in os.listdir(fds) if os.path.exists(f"{fds}/{n}")]


def test_a_hundred_forks_are_no_deaths(locks: Locks) -> None:
    locks.hold(7)
    looking = Locks(locks.path, locks.path)
    for _ in range(100):
        child = os.fork()
        if child == 0:
            os._exit(0)  # which closes all that it has inherited
        assert looking.look([7])[7].state == "held"
        os.waitpid(child, 0)
        assert looking.look([7])[7].state == "held"


def test_the_child_of_a_fork_holds_what_it_takes_on_itself(locks: Locks) -> None:
    locks.hold(7)
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        locks.hold(8)
        os.write(tell, b"x")
        threading.Event().wait(60)
        os._exit(0)
    os.read(ready, 1)
    assert locks.look([7, 8]) == {7: Seen("held", os.getpid()), 8: Seen("held", child)}
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert locks.look([7, 8]) == {7: Seen("held", os.getpid()), 8: Seen("free", child)}


def test_to_remove_the_file_is_no_death(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKED_EVERY", 0.0)
    locks.hold(7)
    locks.path.unlink()
    assert locks.look([7]) == {7: UNKNOWN}
    Locks(locks.path, locks.path.with_name("store.db")).hold(8)  # another process makes it anew
    assert locks.look([7]) == {7: UNKNOWN}
    locks.hold(9)  # with the next one, its holder shows all again
    assert locks.look([7, 9]) == dict.fromkeys((7, 9), Seen("held", os.getpid()))


def test_without_such_locks_nothing_is_known(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IS_SUPPORTED", False)
    assert not locks.hold(7)
    assert locks.look([7]) == {7: UNKNOWN}


def test_where_no_file_can_be_written_the_work_goes_on(tmp_path: Path) -> None:
    locks = Locks(tmp_path / "not there" / "store.db-alive", tmp_path)
    assert not locks.hold(7)
    assert locks.look([7]) == {7: UNKNOWN}


def test_a_folder_that_others_can_write_to_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "refold"
    locks = Locks(folder / "alive")
    assert locks.hold(7)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert locks.look([7])[7].state == "held"
    folder.chmod(0o777)
    assert locks.look([7]) == {7: UNKNOWN}
    assert not Locks(folder / "alive").hold(7)

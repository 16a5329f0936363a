"""How long the faces as of a moment live, and the file behind them: interrupted, closed, forked."""

import gc
import os
import resource
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from children import Parent, call
from random_logs import OWN, BirdSeen
from tables import tables
from test_forks import ended_well, forked

from refold import RfDb, StoreClosed, StoreFailed, StoreFull
from refold.eventstore import Id, paging
from refold.eventstore.event import Event
from refold.eventstore.events import RunMetricsRecorded
from refold.projections import Row, View
from refold.projections.past import versions

Place = Callable[[], str]


# --- when a fold of the past is interrupted ----------------------------------------------------


class Interrupted(BaseException):
    pass


def test_an_interrupted_fold_leaves_open_faces_right(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, a full disk, a projection that raises: whoever looks next sees all."""
    with RfDb(place, projections=OWN) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.append(BirdSeen(1, "oak"))
        past = db.as_of(3)
        assert past.get_experiment(1)["experiment_name"] == "digits"
        handlers = OWN[0].handlers
        whole = handlers["BirdSeen"]

        def interrupt(*_: object) -> None:
            raise Interrupted

        with monkeypatch.context() as patch:
            patch.setitem(handlers, "BirdSeen", type(whole)(interrupt, whole.key, begins=True))
            with pytest.raises(Interrupted):
                db.as_of(3).db.execute("SELECT * FROM birds")
        assert past.get_run(run_id)["run_name"] == "run_1"
        assert tables(past) == tables(db.as_of(3)) == tables(db)
        assert past.verify() == []


def test_a_temporary_folder_that_somebody_sweeps(
    db: RfDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systems remove old temporary files by themselves."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    db.create_experiment("a")
    assert len(tables(db.as_of(1))["experiments"]) == 1
    [folder] = tmp_path.glob("refold-*")
    shutil.rmtree(folder)
    assert len(tables(db.as_of(1))["experiments"]) == 1
    db.create_experiment("b")
    assert len(tables(db.as_of(2))["experiments"]) == 2
    assert len(tables(db.as_of(1))["experiments"]) == 1


def test_no_temporary_folder(db: RfDb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    db.create_experiment("a")
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        with pytest.raises(StoreFailed, match=r"nowhere.*TMPDIR"):
            db.as_of(1).get_experiment(1)
    assert db.as_of(1).get_experiment(1)["experiment_name"] == "a"


def fold_without_room(_: Parent, place: str) -> None:
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.append(*[RunMetricsRecorded(run_id, {"loss": "x" * 500}) for _ in range(1_000)])
        past = db.as_of(1_000)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
        for _ in range(2):
            with pytest.raises((StoreFull, StoreFailed), match=r"versions.db: "):
                past.get_run(run_id)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert past.get_run(run_id)["position"] == 1_000
        assert db.as_of(db.store.head()).verify() == []


def test_no_room_for_the_temporary_file(place: str) -> None:
    call(fold_without_room, place)


# --- the end -----------------------------------------------------------------------------------


def test_a_closed_face_answers_no_more_and_its_store_stays_open(db: RfDb) -> None:
    db.create_experiment("digits")
    with db.as_of(1) as past:
        assert past.get_experiment(1)["experiment_name"] == "digits"
    past.close()
    with pytest.raises(StoreClosed):
        past.get_experiment(1)
    assert db.get_experiment(1) == db.as_of(1).get_experiment(1)
    unused = db.as_of(1)
    unused.close()
    with pytest.raises(StoreClosed):
        unused.db.execute("SELECT 1")


def test_a_closed_store_has_no_past(place: str) -> None:
    db = RfDb(place)
    db.create_experiment("digits")
    past = db.as_of(1)
    assert past.get_experiment(1)["experiment_name"] == "digits"
    db.close()
    for look in (
        lambda: db.as_of(1),
        lambda: db.position_at(1),
        lambda: db.diff(0, 1),
        lambda: db.history("experiment", 1),
        lambda: past.get_experiment(1),
        lambda: past.db.execute("SELECT 1"),
        lambda: list(past.store.read()),
        lambda: past.history("experiment", 1),
    ):
        with pytest.raises(StoreClosed):
            look()
    past.close()
    db.close()


def used(place: str) -> RfDb:
    """A face that has looked back."""
    db = RfDb(place)
    db.create_experiment("digits")
    assert db.as_of(1).get_experiment(1)["experiment_name"] == "digits"
    return db


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Tell which temporary files there are; in other processes too."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield lambda: sorted(path.name for path in folder.glob("refold-*"))
    tempfile.tempdir = None


def test_a_close_ends_a_fold_of_another_thread(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folding, closing = threading.Event(), threading.Event()
    fold_page = versions.VersionWriter.fold_page
    pages: list[int] = []

    def fold_page_slowly(writer: versions.VersionWriter, page: Any) -> None:
        pages.append(1)
        folding.set()
        assert closing.wait(60)
        fold_page(writer, page)

    monkeypatch.setattr(paging, "PAGE", 1)
    monkeypatch.setattr(versions.VersionWriter, "fold_page", fold_page_slowly)
    with ThreadPoolExecutor(2) as pool, RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        for chunk in range(20):
            db.set_run_progress(run_id, chunk, 1)
        looking = pool.submit(db.as_of(10).get_all_runs)
        assert folding.wait(60)
        ended = pool.submit(db.close)
        while not db._versions._closed:
            threading.Event().wait(0.001)
        closing.set()
        with pytest.raises(StoreClosed):
            looking.result()
        ended.result()
    assert len(pages) == 1


def test_the_temporary_file_goes_with_the_face(
    place: str, temporary: Callable[[], list[str]]
) -> None:
    db = used(place)
    assert len(temporary()) == 1
    gc.disable()  # nobody should have to wait for it
    try:
        db.close()
        assert temporary() == []
    finally:
        gc.enable()
    db = used(place)
    assert len(temporary()) == 1
    del db
    gc.collect()
    assert temporary() == []


def leave_open(_: Parent, place: str) -> list[str]:
    globals()["kept"] = used(place)
    return sorted(path.name for path in Path(tempfile.gettempdir()).glob("refold-*"))


def test_the_temporary_file_goes_with_the_process(
    place: str, temporary: Callable[[], list[str]]
) -> None:
    assert len(call(leave_open, place)) == 1
    assert temporary() == []


# --- forks -------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def alone(work: Callable[[], object]) -> Callable[[], object]:
    """Have a forked child end, rather than hang."""

    def in_time() -> None:
        signal.alarm(60)
        work()

    return in_time


def look_in_a_fork(_: Parent, place: str) -> None:
    signal.alarm(200)  # a hang is told, not waited for
    versions.FORK_PATIENCE = 0.5  # the thread that keeps reading outlasts it
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.set_run_progress(run_id, 1, 0)
        past, unused = db.as_of(2), db.as_of(3)
        assert past.get_run(run_id)["current_chunk"] == 0
        read_end, write_end = os.pipe()

        def work() -> None:
            assert past.get_run(run_id)["current_chunk"] == 0
            assert unused.get_run(run_id)["current_chunk"] == 1
            assert past.verify() == []
            db.set_run_progress(run_id, 2, 0)
            assert db.as_of(4).get_run(run_id)["current_chunk"] == 2
            assert len(db.history("run", run_id)) == 3
            past.close()
            db.close()
            gc.collect()
            os.write(write_end, b"!")

        child = forked(alone(work))
        os.read(read_end, 1)
        assert past.get_run(run_id)["current_chunk"] == 0
        db.set_run_progress(run_id, 3, 0)
        assert ended_well(child)
        assert db.as_of(5).get_run(run_id)["current_chunk"] == 3
        assert unused.get_run(run_id)["current_chunk"] == 1
        assert past.verify() == unused.verify() == []

        # A thread that is reading does not exist in the child, where its lock must not stay.
        reads, read = threading.Event(), threading.Event()

        def keep_reading() -> None:
            with past.views.reading():
                reads.set()
                read.wait()

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(keep_reading)
            reads.wait()
            children = [forked(alone(past.close)), forked(alone(lambda: past.get_run(run_id)))]
            ended = [ended_well(child) for child in children]
            read.set()
            reading.result()
        assert ended == [True, True]
        db.set_run_progress(run_id, 4, 0)
        assert db.as_of(6).get_run(run_id)["current_chunk"] == 4
        assert past.get_run(run_id)["current_chunk"] == 0


class FeedGiven(Event, frozen=True):
    feed_id: Id

    @property
    def stream(self) -> str:
        return "feed"


class Feed(Row, frozen=True, kw_only=False):
    feed_id: int


def fork_beside_threads_that_fold(_: Parent, places: list[str]) -> None:
    signal.alarm(200)
    paging.PAGE = 1  # so that folding reads again and again
    versions.FORK_PATIENCE = 1_000  # nobody waits in vain
    everybody = threading.Barrier(len(places) + 1)
    forks = threading.Event()
    live = threading.local()

    def fed(event: FeedGiven) -> Feed:
        if event.feed_id == 0 and getattr(live, "looks_back", False):
            everybody.wait()
            forks.wait()
        return Feed(event.feed_id)

    feeds = View("feeds", Feed, version=1)
    feeds.created_by(FeedGiven, fed)
    faces = [RfDb(place, projections=[feeds]) for place in places]
    for face in faces:
        face.append(*map(FeedGiven, range(100)))

    def look(face: RfDb) -> int:
        live.looks_back = True
        return len(face.as_of(100).db.execute("SELECT * FROM feeds"))

    with ThreadPoolExecutor(len(faces)) as pool:
        looking = [pool.submit(look, face) for face in faces]
        everybody.wait()
        os.register_at_fork(before=forks.set)

        def work() -> None:
            assert [len(f.as_of(9).db.execute("SELECT * FROM feeds")) for f in faces] == [9] * 6

        assert ended_well(forked(alone(work)))
        assert [looked.result() for looked in looking] == [100] * len(faces)
    for face in faces:
        face.close()


@forks
def test_parent_and_child_look_back_after_a_fork(place: str) -> None:
    call(look_in_a_fork, place)


@forks
def test_a_fork_beside_threads_that_fold_the_past(new_place: Place) -> None:
    call(fork_beside_threads_that_fold, [new_place() for _ in range(6)])

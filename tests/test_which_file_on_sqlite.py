"""A store stays with the file that it was opened with, whatever its path does."""

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from children import Child, Parent
from command_line import refold

from refold import AsyncRfDb, RfDb, StoreBusy, StoreFailed


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The path of a store, in a folder of its own."""
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder / "rapidfire.db"


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rapidfire.db", "sqlite:///rapidfire.db", Path("rapidfire.db")])
def test_going_to_another_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | Path
) -> None:
    """A colleague's store of the same name is there, and threads open connections anew."""
    (tmp_path / "colleague").mkdir()
    with RfDb(tmp_path / "colleague" / "rapidfire.db") as colleague:
        colleague.create_experiment("colleague's")
    monkeypatch.chdir(place.parent)
    with RfDb(name) as db:
        db.create_experiment("mine")
        monkeypatch.chdir(tmp_path / "colleague")
        db.create_run(1)
        seen: list[int] = []
        with db.store.snapshot():
            thread = threading.Thread(target=lambda: seen.append(db.store.head()))
            thread.start()
            thread.join()
        with db.store.subscribe(after=0) as news:
            assert len(list(news.wait(timeout=0))) == 2
        assert seen == [2]
        assert db.backup(tmp_path / "copy.db") == 2
    with RfDb(tmp_path / "colleague" / "rapidfire.db") as colleague:
        assert colleague.store.head() == 1


def test_an_async_face_goes_to_another_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens its store at the first call only."""
    monkeypatch.chdir(place.parent)
    db = AsyncRfDb("rapidfire.db")
    monkeypatch.chdir(tmp_path)

    async def work() -> None:
        await db.create_experiment("mine")
        await db.close()

    asyncio.run(work())
    assert place.exists()
    assert not (tmp_path / "rapidfire.db").exists()


def elsewhere_in_a_fork(parent: Parent, place: str, folder: str) -> None:
    """Fork, go elsewhere, and write in both processes."""
    os.chdir(os.path.dirname(place))
    db = RfDb(os.path.basename(place))
    db.create_experiment("before")
    child = os.fork()
    if not child:
        os.chdir(folder)
        db.create_run(1)
        os._exit(0)
    parent.tell(os.waitpid(child, 0)[1])
    db.create_run(1)
    db.close()


def test_a_fork_that_goes_to_another_folder(place: Path, tmp_path: Path) -> None:
    with RfDb(tmp_path / "rapidfire.db") as colleague:
        colleague.create_experiment("colleague's")
    with Child(elsewhere_in_a_fork, str(place), str(tmp_path)) as child:
        assert child.hear() == 0
        child.last_words()
    with RfDb(place) as db:
        assert db.store.head() == 3
    with RfDb(tmp_path / "rapidfire.db") as colleague:
        assert colleague.store.head() == 1


def test_a_link_that_is_turned_to_another_store(place: Path, tmp_path: Path) -> None:
    """The write-ahead log is beside the file, not beside the link."""
    link, other = tmp_path / "current.db", tmp_path / "other.db"
    with RfDb(other) as db:
        db.create_experiment("other")
    with RfDb(place) as db:
        db.create_experiment("mine")
    link.symlink_to(place)
    with RfDb(link) as db:
        db.create_run(1)
        assert not Path(f"{link}-wal").exists()
        link.unlink()
        link.symlink_to(other)
        db.create_run(1)
        with db.store.snapshot():
            assert db.store.head() == 3
    with RfDb(link) as db:
        assert db.store.head() == 1


def test_a_link_in_a_folder_that_cannot_be_written(place: Path, tmp_path: Path) -> None:
    """It is the folder of the file that counts."""
    with RfDb(place) as db:
        db.create_experiment("mine")
    links = tmp_path / "links"
    links.mkdir()
    (links / "link.db").symlink_to(place)
    links.chmod(0o555)
    with RfDb(links / "link.db") as db:
        assert db.create_run(1) == 1


# --- what happens to the file -----------------------------------------------------------------


def removed(place: Path) -> None:
    for path in place.parent.glob(f"{place.name}*"):
        path.unlink()


def removed_alone(place: Path) -> None:
    place.unlink()


def renamed(place: Path) -> None:
    place.rename(place.with_suffix(".old"))


def moved_away_with_all(place: Path) -> None:
    place.parent.rename(place.parent.with_name("moved"))


def replaced(place: Path) -> None:
    with RfDb(place.with_name("new.db")) as db:
        db.create_experiment("another")
    os.replace(place.with_name("new.db"), place)


def replaced_by_its_copy(place: Path) -> None:
    shutil.copyfile(place, place.with_suffix(".copy"))
    os.replace(place.with_suffix(".copy"), place)


def begun_anew(place: Path) -> None:
    removed(place)
    with RfDb(place) as db:
        db.create_experiment("new")


def log_removed(place: Path) -> None:
    os.unlink(f"{place}-wal")


def log_replaced(place: Path) -> None:
    log = Path(f"{place}-wal")
    shutil.copyfile(log, f"{log}.copy")
    os.replace(f"{log}.copy", log)


OF_THE_FILE = [removed, removed_alone, renamed, moved_away_with_all, replaced]
OF_THE_FILE += [replaced_by_its_copy, begun_anew]


@pytest.mark.parametrize("fate", [*OF_THE_FILE, log_removed, log_replaced])
def test_nothing_is_acknowledged_that_is_lost(place: Path, fate: Callable[[Path], None]) -> None:
    db = RfDb(place)
    run_id = db.create_run(db.create_experiment("mine"))
    fate(place)
    for _ in range(3):  # not only at once
        with pytest.raises(StoreFailed, match=f"{place} .*open the path anew"):
            db.set_run_progress(run_id, 1, 0)
        with pytest.raises(StoreFailed, match="while this store was open"), db.batch():
            db.set_run_progress(run_id, 1, 0)
    db.close()


@pytest.mark.parametrize("fate", OF_THE_FILE)
def test_nothing_is_read_of_two_files(place: Path, fate: Callable[[Path], None]) -> None:
    db = RfDb(place)
    run_id = db.create_run(db.create_experiment("mine"))
    news = db.store.subscribe()
    fate(place)
    for look in (
        lambda: db.get_run(run_id),
        lambda: db.store.head(),
        lambda: db.db.execute("SELECT 1"),
        lambda: list(db.store.read()),
        lambda: news.wait(timeout=60),
        lambda: db.store.subscribe().wait(timeout=60),
        lambda: db.backup(place.parent.parent / "backup.db"),
    ):
        with pytest.raises(StoreFailed, match="while this store was open"):
            look()
    db.close()


def test_a_file_that_goes_within_a_batch(place: Path) -> None:
    db = RfDb(place)
    with pytest.raises(StoreFailed, match="may not have been kept"), db.batch():  # noqa: PT012
        db.create_experiment("mine")
        removed(place)
    db.close()
    with RfDb(place) as new:
        assert new.store.head() == 0


def test_a_file_that_is_put_back_goes_on(place: Path) -> None:
    with RfDb(place) as db:
        db.create_experiment("mine")
        place.rename(place.with_suffix(".old"))
        with pytest.raises(StoreFailed, match="is no longer there"):
            db.create_run(1)
        place.with_suffix(".old").rename(place)
        assert db.create_run(1) == 1


def test_a_folder_that_is_renamed_while_nothing_is_open(place: Path) -> None:
    with RfDb(place) as db:
        db.create_experiment("mine")
    with RfDb(shutil.move(place.parent, place.parent.with_name("new")) / place.name) as db:
        assert db.store.head() == 1


# --- names ------------------------------------------------------------------------------------


def test_a_second_name_of_the_file_is_pointed_out(place: Path) -> None:
    with RfDb(place) as db:
        db.create_experiment("mine")
    os.link(place, place.with_name("backup.db"))
    with pytest.warns(match=r"2 names of the same file \(hard links\)"), RfDb(place) as db:
        assert db.create_run(1) == 1
    done = refold("doctor", "--store", str(place))
    assert done.code == 0
    assert "one of 2 names of the same file" in done.out
    assert "refold backup" in done.out


# --- the mode of the journal ------------------------------------------------------------------


def test_a_copy_that_has_lost_its_mode_gets_it_back(place: Path, tmp_path: Path) -> None:
    with RfDb(place) as db:
        db.create_experiment("mine")
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(place)) as raw:
        raw.execute("VACUUM INTO ?", (str(copy),))
    with RfDb(copy) as db:
        assert db.db.execute("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
        assert db.create_run(1) == 1


def test_a_dump_that_is_read_in_again_is_a_store(place: Path, tmp_path: Path) -> None:
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("mine"))
    with closing(sqlite3.connect(place)) as raw:
        text = "\n".join(raw.iterdump())
    with closing(sqlite3.connect(tmp_path / "read.db")) as raw:
        raw.executescript(text)
    with RfDb(tmp_path / "read.db") as db:
        assert db.verify(log=True) == []
        db.set_run_progress(run_id, 1, 0)
        assert db.verify(log=True) == []


def test_a_copy_in_another_mode_that_somebody_reads(place: Path) -> None:
    """It cannot be brought to the mode WAL meanwhile; whoever opens it waits for `timeout`."""
    with RfDb(place) as db:
        db.create_experiment("mine")
    with closing(sqlite3.connect(place, isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode = DELETE")
        raw.execute("BEGIN")
        raw.execute("SELECT count(*) FROM events").fetchall()
        with pytest.raises(StoreBusy):
            RfDb(place, timeout=0.1)
        raw.execute("COMMIT")
    with RfDb(place) as db:
        assert db.create_run(1) == 1

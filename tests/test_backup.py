"""Backups: made while others write, put back, and told apart from what was there."""

import asyncio
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from children import Child, Parent, WarmChild
from postgres import drop_schema, new_schema, programs

from refold import AsyncRfDb, RfDb
from refold.eventstore import open_store
from refold.eventstore.errors import InvalidCommand, NotAStore, StoreFailed, WriteRefused

PAGE = Path(__file__).parents[1] / "docs" / "backup.md"


def steps(kind: str) -> list[str]:
    """The blocks of the page, for one engine."""
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def follow(kind: str, folder: Path, **environment: str) -> str:
    """Do what the page says, in one shell, and return what is printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(steps(kind))],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fill(db: RfDb, until: int = 9) -> int:
    """Some events; return the id of the run."""
    run_id = db.create_run(db.create_experiment("digits"))
    for chunk in range(1, until + 1):
        db.set_run_progress(run_id, chunk, 0)
    return run_id


def test_the_page_on_files(tmp_path: Path) -> None:
    with Child(filled_and_killed, str(tmp_path / "rapidfire.db")) as child:
        assert child.last_words() == []
    assert (tmp_path / "rapidfire.db-wal").exists()
    said = follow("sh", tmp_path)
    assert "monday.db holds the log up to position 302" in said
    assert "no problem was found" in said
    with RfDb(tmp_path / "rapidfire.db") as db:
        assert db.store.head() == 302


def test_the_page_on_servers(postgres_url: str, tmp_path: Path) -> None:
    place = new_schema(postgres_url, "digits")
    try:
        with RfDb(place) as db:
            fill(db)
        database = re.sub(r"[?&]schema=\w+", "", place)
        said = follow(
            "sh server",
            tmp_path,
            DATABASE=database,
            REFOLD_STORE=place,
            PATH=f"{programs()}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        )
        assert "no problem was found" in said
        with RfDb(place) as db, RfDb(tmp_path / "tuesday.db") as copy:
            assert list(copy.store.read()) == list(db.store.read())
    finally:
        drop_schema(place)
        drop_schema(place.replace("digits", "digits_broken"))


def filled_and_killed(_: Parent, place: str) -> None:
    """Leave a write-ahead log behind."""
    db = RfDb(place)
    fill(db, 300)
    os.kill(os.getpid(), 9)


# --- while others write -----------------------------------------------------------------------


def test_a_backup_while_others_write_is_of_one_moment(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    with RfDb(place) as db:
        run_id = fill(db)
        written, enough = [0], threading.Event()

        def write() -> None:
            while not enough.is_set():
                with db.batch():
                    for chunk in range(7):
                        db.set_run_progress(run_id, chunk, written[0])
                written[0] += 1

        writer = threading.Thread(target=write)
        writer.start()
        heads = []
        try:
            for n in range(12):
                before = db.store.committed_head()
                heads.append(db.backup(tmp_path / f"{n}.db"))
                assert heads[-1] >= before
        finally:
            enough.set()
            writer.join()
        assert len(set(heads)) > 1, "it was not written meanwhile"
    for n, head in enumerate(heads):
        with RfDb(tmp_path / f"{n}.db") as backup:
            assert backup.store.head() == head
            assert (head - 11) % 7 == 0, "half of a batch"
            assert backup.verify(log=True) == []
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"store.db", *(f"{n}.db" for n in range(12))}


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    with RfDb(tmp_path / "store.db") as db:
        fill(db)
        (tmp_path / "precious").write_text("precious")
        for taken in ("precious", "store.db"):
            with pytest.raises(InvalidCommand, match="is there already"):
                db.backup(tmp_path / taken)
        with pytest.raises(NotAStore, match="is a folder"):
            db.backup(tmp_path)
        with pytest.raises(NotAStore, match="no folder"):
            db.backup(tmp_path / "nowhere" / "x.db")
    assert (tmp_path / "precious").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"store.db", "precious"}


def test_where_no_backup_can_be_made(tmp_path: Path, postgres_url: str) -> None:
    with RfDb(tmp_path / "store.db") as db:
        fill(db)
        with pytest.raises(InvalidCommand, match="in the middle of a batch"), db.batch():
            db.backup(tmp_path / "b.db")
        with pytest.raises(WriteRefused, match="as of position 3"):
            db.as_of(3).backup(tmp_path / "b.db")
    place = new_schema(postgres_url)
    try:
        with RfDb(place) as db, pytest.raises(InvalidCommand, match=r"pg_dump.*copy_store"):
            db.backup(tmp_path / "b.db")
    finally:
        drop_schema(place)
    assert {path.name for path in tmp_path.iterdir()} == {"store.db"}


def backed_up_where_files_stay_small(_: Parent, place: str, to: str) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    with RfDb(place) as db, pytest.raises(StoreFailed) as caught:
        db.backup(to)
    return str(caught.value)


def test_a_backup_for_which_there_is_no_room(tmp_path: Path) -> None:
    place, to = tmp_path / "store.db", tmp_path / "backup.db"
    with RfDb(place) as db:
        fill(db)
    with Child(backed_up_where_files_stay_small, str(place), str(to)) as child:
        assert str(to) in child.result()
    assert {path.name for path in tmp_path.iterdir()} == {"store.db"}


def test_a_backup_by_an_async_face(tmp_path: Path) -> None:
    async def made() -> int:
        async with AsyncRfDb(tmp_path / "store.db") as db:
            await db.create_experiment("digits")
            return await db.backup(tmp_path / "backup.db")

    assert asyncio.run(made()) == 1


def backed_up_for_ever(parent: Parent, place: str, folder: str) -> None:
    db = RfDb(place)
    parent.tell("begun")
    for n in range(10**6):
        db.backup(os.path.join(folder, f"{n}.db"))
        parent.tell(n)


def test_a_killed_backup_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    with RfDb(place) as db:
        fill(db, 200)
        for n in range(6):
            folder = tmp_path / str(n)
            folder.mkdir()
            with Child(backed_up_for_ever, str(place), str(folder)) as child:
                child.hear()
                for _ in range(n):
                    child.hear()
                child.kill()
            for path in folder.glob("[0-9]*.db"):
                with RfDb(path) as backup:
                    assert backup.store.head() == 202


# --- put back under the log of a killed process -----------------------------------------------


def by_refold(place: Path, to: Path) -> None:
    with RfDb(place) as db:
        db.backup(to)


def by_sqlite(place: Path, to: Path) -> None:
    with closing(sqlite3.connect(place)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def by_vacuum(place: Path, to: Path) -> None:
    with closing(sqlite3.connect(place)) as source:
        source.execute("VACUUM INTO ?", (str(to),))


def by_copy(place: Path, to: Path) -> None:
    shutil.copyfile(place, to)


def in_place(backup: Path, place: Path) -> None:
    shutil.copyfile(backup, place)


def moved(backup: Path, place: Path) -> None:
    os.replace(shutil.copyfile(backup, f"{backup}.copy"), place)


def works_on(parent: Parent, place: str, commands: int, large: bool) -> None:
    db = RfDb(place)
    for n in range(commands):
        db.set_run_progress(1, n, 1)
        if large:
            db.create_run(1, config_leaf={"text": "x" * 40_000, "n": n})
    parent.tell("ready")
    parent.hear()
    for n in range(commands):
        db.set_run_progress(1, n, 2)
    os.kill(os.getpid(), 9)


@pytest.mark.parametrize("put_back", [in_place, moved])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("make", "during"),
    [
        *((make, during) for make in (by_refold, by_sqlite, by_vacuum) for during in (False, True)),
        (by_copy, False),
    ],
)
def test_a_backup_put_back_under_a_foreign_log_is_used_as_it_is(
    tmp_path: Path,
    make: Callable[[Path, Path], None],
    during: bool,
    large: bool,
    put_back: Callable[[Path, Path], None],
) -> None:
    place, backup = tmp_path / "store.db", tmp_path / "backup.db"
    with RfDb(place) as db:
        fill(db)
    if not during:
        make(place, backup)
    with Child(works_on, str(place), 150, large) as child:
        child.hear()
        if during:
            make(place, backup)
        child.tell("go on")
        child.last_words()
    with RfDb(shutil.copyfile(backup, tmp_path / "beside.db")) as db:
        held = db.store.head()
    put_back(backup, place)
    with pytest.warns(match="was set aside as"):
        db = RfDb(place)
    with db:
        assert db.store.head() == held
        assert db.verify(log=True) == []
        db.set_run_progress(1, 1, 1)
    [aside] = tmp_path.glob("store.db-wal.foreign-*")
    assert aside.stat().st_size
    with RfDb(place) as db:  # and nothing is wrong with it from then on
        assert db.store.head() == held + 1


def test_a_killed_store_that_was_copied_with_its_log_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    with Child(filled_and_killed, str(place)) as child:
        assert child.last_words() == []
    other = tmp_path / "other"
    shutil.copytree(tmp_path, other)
    with RfDb(other / "store.db") as db:
        assert db.store.head() == 302


def killed_somewhere(parent: Parent, place: str, commands: int, ends: bool) -> None:
    for n in range(commands):
        db = RfDb(place)
        run_id = db.create_run(1)
        parent.tell(db.store.head())
        with db.batch():
            for chunk in range(400 if n % 3 == 0 else 3):
                db.set_run_progress(run_id, chunk, 7)
        parent.tell(db.store.head())
        if ends:
            db.close()


@pytest.mark.soak
def test_no_log_is_taken_for_a_foreign_one(
    tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    """SIGKILL at 1,000 moments, with checkpoints between, and every acknowledged event is there."""
    place, kills = tmp_path / "store.db", 1000
    with RfDb(place) as db:
        db.create_experiment("digits")
    acknowledged = 1
    for n in range(kills):
        with WarmChild(killed_somewhere, str(place), 50, n % 2 == 0) as child:
            with suppress(EOFError):
                for _ in range(1 + n % 7):
                    acknowledged = child.hear()
            child.kill()
            acknowledged = max([acknowledged, *child.last_words()])
        with open_store(place) as store:
            assert store.head() >= acknowledged
        if n % 3 == 0:
            with closing(sqlite3.connect(place)) as raw:
                raw.execute("PRAGMA wal_checkpoint(PASSIVE)")
    assert not list(tmp_path.glob("*foreign*"))
    record_property("counts", f"{kills} killed, lost 0, logs taken for foreign ones 0")

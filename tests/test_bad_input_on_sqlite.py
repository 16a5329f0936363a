"""Places where no store can be, or where it cannot be written: files, folders, disks."""

import hashlib
import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from children import Parent, call
from ids import told
from raw_sqlite import raw

from refold import (
    DBException,
    NotAStore,
    RFDatabase,
    RfDb,
    StoreBusy,
    StoreDamaged,
    StoreFailed,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
)


def check_refused(place, kind, *fragments):
    for face in (RfDb, RFDatabase):
        with pytest.raises(kind) as caught:
            face(place)
        assert caught.type is kind
        missing = [part for part in fragments if part not in str(caught.value)]
        assert not missing, f"{missing} is not in {str(caught.value)!r}"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def digits(path):
    """The path of a store with a run in it."""
    with RfDb(path) as db:
        db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    return path


def check_intact(path, head=2):
    with RfDb(path) as db:
        assert db.store.head() == head
        assert db.get_run(1)["config_leaf"] == {"lr": 0.1}
        assert db.verify() == []


# --- no place for a store -------------------------------------------------------------------


def test_a_folder(tmp_path):
    check_refused(tmp_path, NotAStore, str(tmp_path), "is a folder", "pass the path of a file")
    check_refused("", NotAStore, "is a folder")


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "nowhere" / "store.db"
    check_refused(path, NotAStore, str(path), "no folder", "create it first")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("text")
    path = tmp_path / "file" / "store.db"
    check_refused(path, NotAStore, str(path))


def test_memory():
    check_refused(":memory:", NotAStore, "cannot be shared", "path of a temporary file")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:secret@host/db",
        "https://example.org/store.db",
        "file:///store.db",
        "://",
        "x://[",
        "sqlite://",
        "sqlite:///",
    ],
)
def test_urls_of_no_store(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_refused(url, NotAStore, "pass")
    with pytest.raises(NotAStore) as caught:
        RfDb(url)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "~nobody-of-this-name/store.db"], ids=ascii)
def test_paths_that_cannot_be(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_refused(path, NotAStore)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 5, b"store.db", ["store.db"], object()], ids=told)
def test_paths_of_a_wrong_type(path):
    check_refused(path, NotAStore, "path")


# --- files of something else ----------------------------------------------------------------

TABLES_OF_RAPIDFIRE = """
CREATE TABLE experiments (
    experiment_id INTEGER PRIMARY KEY AUTOINCREMENT, experiment_name TEXT, status TEXT
);
CREATE TABLE runs (run_id INTEGER PRIMARY KEY AUTOINCREMENT, status TEXT, config_leaf BLOB);
CREATE TABLE worker_task (task_id INTEGER PRIMARY KEY AUTOINCREMENT, status TEXT);
INSERT INTO experiments (experiment_name, status) VALUES ('precious', 'RUNNING');
"""


def fingerprint(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def check_left_alone(path, *fragments):
    before = fingerprint(path)
    check_refused(path, NotAStore, str(path), *fragments)
    assert fingerprint(path) == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


NO_DATABASES = {
    "text": b"some text\n" * 100,
    "bytes": bytes(range(256)) * 64,
    "half a header": b"SQLite format 3\0",
}


@pytest.mark.parametrize("content", NO_DATABASES.values(), ids=NO_DATABASES)
def test_a_file_that_is_no_database(path, content):
    path.write_bytes(content)
    check_left_alone(path, "not a database", "pass another path")


def test_a_database_of_rapidfire(tmp_path, monkeypatch):
    path = tmp_path / "rapidfire.db"
    with raw(path) as connection:
        connection.executescript(TABLES_OF_RAPIDFIRE)
    check_left_alone(path, "something else", "experiments", "runs", "pass another path")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotAStore, match=r"rapidfire\.db is a database of something else"):
        RfDb()
    with raw(path) as connection:
        assert connection.execute("SELECT * FROM experiments").fetchall() == [
            (1, "precious", "RUNNING")
        ]


def test_a_database_that_another_program_has_claimed(path):
    with raw(path) as connection:
        connection.execute("PRAGMA application_id = 7")
    check_left_alone(path, "something else", "pass another path")


def test_an_empty_file_becomes_a_store(path):
    path.touch()
    with RfDb(path) as db:
        db.create_experiment("digits")
    with RfDb(path) as db:
        assert db.store.head() == 1


def test_a_store_of_a_newer_release(digits):
    with raw(digits) as connection:
        connection.execute("PRAGMA user_version = 99")
    check_refused(digits, StoreTooNew, str(digits), "log format 99", "upgrade refold")
    with raw(digits) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)
        connection.execute("PRAGMA user_version = 1")
    check_intact(digits)


def test_views_of_a_newer_release(digits):
    with raw(digits) as connection:
        connection.execute("UPDATE projections SET version = 99 WHERE name = 'runs'")
    check_refused(digits, StoreTooNew, str(digits), "runs", "99", "pgrade")


def test_a_damaged_store(digits):
    content = bytearray(digits.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    digits.write_bytes(content)
    check_refused(digits, StoreDamaged, str(digits), "keep a copy")
    assert digits.read_bytes() == content


# --- a lock that is not given back ----------------------------------------------------------


def test_a_lock_of_another_program(digits):
    other = sqlite3.connect(digits, isolation_level=None)
    with closing(other), RfDb(digits, timeout=0) as db:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="try again") as caught:
            db.create_experiment("second")
        assert str(digits) in str(caught.value)
        assert len(db.get_all_runs()) == 1
        other.execute("ROLLBACK")
        db.create_experiment("second")
    check_intact(digits, 3)


# --- what may not be written ----------------------------------------------------------------

NOBODY = 65534


@pytest.fixture
def public():
    """A folder that everybody can enter; pytest's own are for their owner."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for found in (folder, *folder.rglob("*")):
        found.chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(_: Parent, place: str) -> dict[str, object]:
    """Read and write a store without the rights of root, and tell what came of it."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    told: dict[str, object] = {}
    try:
        with RfDb(place) as db:
            told["runs"] = len(db.get_all_runs())
            told["head"] = db.store.head()
            told["differences"] = len(db.verify())
            try:
                told["wrote"] = db.create_experiment("second")
            except DBException as error:
                told["error"] = error
            told["head again"] = db.store.head()
    except DBException as error:
        told["error"] = error
    return told


@pytest.fixture
def shared(public):
    path = public / "store.db"
    with RfDb(path) as db:
        db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    return path


@pytest.mark.parametrize("rights", [0o555, 0o777], ids=["folder too", "file alone"])
def test_a_file_that_can_only_be_read(shared, rights):
    shared.chmod(0o444)
    shared.parent.chmod(rights)
    told = call(as_nobody, str(shared))
    error = told.pop("error")
    assert told == {"runs": 1, "head": 2, "differences": 0, "head again": 2}
    assert type(error) is StoreReadOnly
    assert str(shared) in str(error)
    assert "make the file and its folder writable" in str(error)
    shared.parent.chmod(0o755)
    shared.chmod(0o644)
    check_intact(shared)


def test_a_folder_that_can_only_be_read_beside_a_writer(shared):
    shared.chmod(0o644)
    with RfDb(shared) as db:
        db.create_experiment("while it is open")
        shared.parent.chmod(0o555)
        told = call(as_nobody, str(shared))
        shared.parent.chmod(0o755)
        # Whoever may not write the shared memory of WAL cannot read either, and is told so.
        assert isinstance(told["error"], DBException)
        assert str(shared) in str(told["error"])
        assert told.get("head", 3) == 3
        assert db.store.head() == 3
    check_intact(shared, 3)


def test_a_folder_where_nothing_can_be_created(public):
    public.chmod(0o555)
    path = public / "store.db"
    told = call(as_nobody, str(path))
    assert isinstance(told["error"], NotAStore | StoreReadOnly)
    assert str(path) in str(told["error"])
    assert "folder" in str(told["error"])
    assert list(public.iterdir()) == []


def test_a_file_that_may_not_be_read(shared):
    shared.chmod(0o000)
    told = call(as_nobody, str(shared))
    assert list(told) == ["error"]
    assert isinstance(told["error"], DBException)
    assert str(shared) in str(told["error"])
    shared.chmod(0o644)
    check_intact(shared)


# --- a full disk ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not permitted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    """Leave no room on a disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(1024))
            except OSError:
                return filler


def write_until_refused(db):
    """Write until the disk has no more room; return how many writes were acknowledged."""
    for written in range(100_000):
        try:
            db.set_run_progress(1, written + 1, 0)
        except DBException as error:
            return written, error
    raise AssertionError("the disk is never full")


def test_a_full_disk(small_disk):
    path = small_disk / "store.db"
    with RfDb(path) as db:
        db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
        filler = fill(small_disk)
        written, error = write_until_refused(db)
        assert type(error) is StoreFull
        assert str(path) in str(error)
        assert "make room and try again" in str(error)

        # All that was acknowledged is there, and nothing else; reading goes on.
        assert db.store.head() == 2 + written
        assert db.get_run(1)["current_chunk"] == written
        assert db.verify() == []
        for refused in (
            lambda: db.create_run(1, config_leaf="x" * 100_000),
            lambda: db.put_payload("x" * 100_000),
            lambda: db.rebuild(),
            lambda: db.reset_all_tables(),
        ):
            with pytest.raises(DBException):
                refused()
        assert db.store.head() == 2 + written

        filler.unlink()
        db.set_run_progress(1, written + 1, 0)
        assert db.rebuild() == written + 3
        assert db.verify() == []
    check_intact(path, written + 3)


def test_a_store_that_is_begun_on_a_full_disk(small_disk):
    path = small_disk / "store.db"
    filler = fill(small_disk)
    with pytest.raises(DBException, match=str(path)):
        RfDb(path)
    filler.unlink()
    with RfDb(path) as db:
        db.create_experiment("digits")
        assert db.verify() == []


def beyond_the_limit(_: Parent, place: str) -> tuple[int, DBException]:
    """Write more than files may hold, then with the limit lifted again."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RfDb(place) as db:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        written, error = write_until_refused(db)
        assert db.store.head() == 2 + written
        assert db.verify() == []
        try:
            db.put_payload("x" * 300_000)
        except DBException:
            assert db.store.head() == 2 + written
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        db.set_run_progress(1, written + 1, 0)
        assert db.verify() == []
    return written, error


def test_a_limit_on_the_size_of_files(digits):
    written, error = call(beyond_the_limit, str(digits))
    assert isinstance(error, StoreFull | StoreFailed)
    assert str(digits) in str(error)
    check_intact(digits, written + 3)

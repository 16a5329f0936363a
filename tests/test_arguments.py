"""Arguments are checked by type on every engine, and refused by name before anything is done."""

import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clippings import clippings
from command_line import refold

from refold import (
    AccessDenied,
    DBException,
    InvalidArgument,
    InvalidCommand,
    InvalidEvent,
    InvalidPayload,
    InvalidView,
    NotAStore,
    RFDatabase,
    RfDb,
    copy_store,
)
from refold.asynchronous import AsyncRfDb
from refold.eventstore import Event, EventStore, Id, open_store
from refold.eventstore.arguments import NAME_LENGTH, excerpt
from refold.eventstore.errors import LONGEST
from refold.eventstore.events import RunStarted
from refold.projections import Row, View

# --- ids --------------------------------------------------------------------------------------

KINDS = [np.int64, np.int32, np.uint8]


@pytest.fixture
def reads(db: RfDb, evals: RFDatabase) -> dict[str, Callable[[Callable[[int], Any]], Any]]:
    """Every method that reads by an id, each with its ids made by a function."""
    experiment = db.create_experiment("digits")
    run = db.create_run(experiment)
    task = db.create_worker_task(run, 0, 0)
    db.set_worker_progress(0, "IDLE")
    other = evals.create_experiment("evals")
    context = evals.create_context("hash")
    pipeline = evals.create_pipeline(other, "p", "vllm")
    actor_task = evals.create_actor_task(other, pipeline, 0, 0)
    return {
        "get_experiment": lambda of: db.get_experiment(of(experiment)),
        "get_run": lambda of: db.get_run(of(run)),
        "get_worker_task": lambda of: db.get_worker_task(of(task)),
        "get_worker_tasks by run": lambda of: db.get_worker_tasks(run_id=of(run)),
        "get_worker_tasks by worker": lambda of: db.get_worker_tasks(worker_id=of(0)),
        "get_next_worker_task": lambda of: db.get_next_worker_task(of(0)),
        "get_worker_progress": lambda of: db.get_worker_progress(of(0)),
        "get_context": lambda of: evals.get_context(of(context)),
        "get_pipeline": lambda of: evals.get_pipeline(of(pipeline)),
        "get_all_pipelines": lambda of: evals.get_all_pipelines(of(other)),
        "get_actor_task": lambda of: evals.get_actor_task(of(actor_task)),
        "get_next_actor_task": lambda of: evals.get_next_actor_task(of(0)),
        "get_running_actor_tasks": lambda of: evals.get_running_actor_tasks(of(other)),
        "get_experiment_error": lambda of: evals.get_experiment_error(of(other)),
        "as_of": lambda of: db.as_of(of(3)).get_all_runs(),
        "history": lambda of: [str(one) for one in db.history("run", of(run))],
        "why": lambda of: str(db.why("run", of(run), "status")),
        "read": lambda of: list(db.store.read(of(1), limit=of(2), until=of(9))),
        "read_at": lambda of: list(db.store.read_at([of(1), of(2)])),
    }


def test_an_id_is_an_id(reads: dict[str, Callable[[Callable[[int], Any]], Any]]) -> None:
    for name, read in reads.items():
        expected = read(int)
        for kind in KINDS:
            assert read(kind) == expected, name


@pytest.mark.parametrize("wrong", ["1", 1.5, None, [1], b"1", True, 2**70, {}])
def test_what_is_no_id_is_refused(
    reads: dict[str, Callable[[Callable[[int], Any]], Any]], wrong: Any
) -> None:
    for name, read in reads.items():
        if wrong is None and name.startswith(("get_worker_tasks", "read")):
            continue
        if wrong == 2**70 and name == "read_at":
            continue  # there is no such event
        with pytest.raises(InvalidArgument):
            read(lambda _: wrong)


@pytest.mark.parametrize("version", ["0", -1, False, 1.5, [0], np.float64(0.5)])
def test_an_expected_version_of_a_wrong_type(store: EventStore, version: Any) -> None:
    with pytest.raises(InvalidCommand, match="expected_version"):
        store.append("run-1", [RunStarted(1)], expected_version=version)
    assert store.head() == 0
    store.append("run-1", [RunStarted(1)], expected_version=np.int64(0))  # type: ignore[arg-type]


# --- keywords ---------------------------------------------------------------------------------


def test_a_mistyped_keyword_is_told_with_the_right_one(db: RfDb) -> None:
    with pytest.raises(
        TypeError, match="unexpected keyword argument 'config'; did you mean 'config_leaf'"
    ):
        db.create_run(1, config={"lr": 0.1})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'actor'"):
        db.request_stop(1, acto="me")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'zzz'$"):
        db.append(RunStarted(1), zzz=1)  # type: ignore[call-arg]


# --- names ------------------------------------------------------------------------------------


class Seen(Event, frozen=True):
    run_id: Id


def test_names_by_which_things_are_looked_up_have_one_length(db: RfDb) -> None:
    experiment = db.create_experiment("digits")
    calls: dict[str, Callable[[str], object]] = {
        "command_id": lambda name: db.create_run(experiment, command_id=name),
        "command_id of append": lambda name: db.store.append("s", [Seen(1)], command_id=name),
        "stream": lambda name: db.append(Seen(1), stream=name),
    }
    for number, call in enumerate(calls.values()):
        call("\U0001f600" * (NAME_LENGTH - 1) + str(number))
        head = db.store.head()
        for wrong in ("x" * (NAME_LENGTH + 1), "a" * 5_000, "", "a\0", "\ud800"):
            with pytest.raises(InvalidArgument) as told:
                call(wrong)
            assert len(str(told.value)) < 400
        assert db.store.head() == head


class Held(Row, frozen=True):
    key: str


class Odd(Row, frozen=True):
    key: str
    größe: int


@pytest.mark.parametrize(
    "name", ["order", "SELECT", "größe", "v" * 64, "a b", "", "1a", 5, None, "x; DROP TABLE events"]
)
def test_names_of_views(name: Any) -> None:
    with pytest.raises(InvalidView):
        View(name, Held, version=1)


def test_other_arguments_of_views() -> None:
    View("v" * 63, Held, version=1)
    for call in (
        lambda: View("odd", Odd, version=1),
        lambda: View("held", int, version=1),  # type: ignore[type-var]
        lambda: View("held", Held, version=0),
        lambda: View("held", Held, version="1"),  # type: ignore[arg-type]
        lambda: View("held", Held, version=1, table="order"),
    ):
        with pytest.raises(InvalidView):
            call()


# --- whatever it is ---------------------------------------------------------------------------


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError


WHATEVER = [5, "x", "\ud800", b"\xff", None, 1.5, [], {}, object(), Unspeakable(), deep()]


@pytest.mark.parametrize("value", WHATEVER, ids=lambda value: type(value).__name__)
def test_nothing_but_a_db_exception_comes_out(db: RfDb, place: str, value: Any) -> None:
    db.create_run(db.create_experiment("digits"))
    calls: list[Callable[[], object]] = [
        lambda: db.store.append("s", value),
        lambda: db.store.append(value, [Seen(1)]),
        lambda: db.store.append("s", [Seen(1)], metadata=value),
        lambda: db.store.put_payload(value),
        lambda: db.store.get_payload(value),
        lambda: list(db.store.get_payloads(value)),
        lambda: list(db.store.read_at(value)),
        lambda: list(db.store.read(value)),
        lambda: list(db.store.read(stream=value)),
        lambda: list(db.store.read(types=value)),
        lambda: list(db.store.read(types=[value])),
        lambda: db.store.version(value),
        lambda: db.subscribe(value).wait(0),
        lambda: db.subscribe(types=value).wait(0),
        lambda: db.subscribe(types=[value]).wait(0),
        lambda: db.subscribe(stream=value).wait(0),
        lambda: db.changes_by(value),
        lambda: db.as_of(value),
        lambda: db.diff(value, 1),
        lambda: db.history(value, 1),
        lambda: db.history("run", value),
        lambda: db.why("run", 1, value),
        lambda: db.why("task", value, "status"),
        lambda: db.to_arrow(value),
        lambda: db.get_experiment(value),
        lambda: db.get_runs_by_status(value),
        lambda: db.get_payload(value),
        lambda: db.send(value),
        lambda: db.append(value),
        lambda: db.db.execute(value),
        lambda: db.db.execute("SELECT 1", value),
        lambda: db.db.execute("SELECT ?", (value,)),
        lambda: RfDb(place, projections=value).close(),
        lambda: RfDb(place, projections=[value]).close(),
        lambda: RfDb(place, signing_key=value).close(),
        lambda: RfDb(place, timeout=value).close(),
        lambda: RfDb(place, durability=value).close(),
        lambda: RfDb(place, actor=value).create_experiment("x"),
        lambda: db.create_experiment(value),
        lambda: db.create_run(1, command_id=value),
    ]
    for call in calls:
        try:
            call()
        except DBException as error:
            assert len(str(error)) <= LONGEST  # noqa: PT017


def test_a_place_that_can_be_none(tmp_path: Path) -> None:
    for place in ("y" * 5_000, "~nosuchuser/x", 5, None, "\ud800\0", b"x\0"):
        with pytest.raises(NotAStore):
            RfDb(place)  # type: ignore[arg-type]
    with pytest.raises(NotAStore):
        RfDb(tmp_path / ("y" * 300))


def test_a_folder_that_may_not_be_entered(tmp_path: Path) -> None:
    script = """
import os, sys
from refold import AccessDenied, RfDb, copy_store
os.setgid(65534); os.setuid(65534)
for call in (lambda: RfDb(sys.argv[1]), lambda: copy_store(sys.argv[1], "/tmp/refold-copy.db")):
    try:
        call()
    except AccessDenied as error:
        print(error)
"""
    closed = tmp_path / "closed"
    closed.mkdir()
    RfDb(closed / "store.db").close()
    closed.chmod(0o700)
    if Path("/").owner() != "root" or sys.platform == "win32":
        pytest.skip("needs a superuser")
    command = [sys.executable, "-c", script, str(closed / "store.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.count("it takes the right to look into its folder") == 2, done.stderr
    assert issubclass(AccessDenied, DBException)


def test_a_store_that_is_closed_in_its_own_batch(place: str) -> None:
    with RfDb(place) as db:
        try:
            with db.batch():
                db.close()
                db.create_experiment("digits")
        except DBException:
            pass
    with RfDb(place) as db:
        assert db.verify() == []


@pytest.mark.parametrize("time", [253402300800000000, -(10**18), "now", 1.5, None])
def test_a_clock_that_shows_no_time(place: str, time: Any) -> None:
    with RfDb(place, clock=lambda: time) as db, pytest.raises(InvalidCommand, match="clock"):
        db.create_experiment("digits")
    with RfDb(place) as db:
        assert db.create_experiment("digits") == 1


def test_times_beyond_9999_brick_no_store(place: str, target: str, tmp_path: Path) -> None:
    with RfDb(place) as db:
        db.create_experiment("digits")
    file = tmp_path / "log.jsonl"
    assert refold("export", str(file), "--store", place).code == 0
    lines = file.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if '"recorded_at"' in line)
    before, _, after = lines[at].partition('"recorded_at":')
    rest = after[after.index(",") :] if "," in after else "}"
    lines[at] = f'{before}"recorded_at":253402300800000000{rest}'
    file.write_text("\n".join(lines) + "\n")
    refold("import", str(file), "--store", target)
    with RfDb(target) as db:
        head = db.store.head()
        db.create_experiment("another")
        assert db.verify() == []
        assert db.store.head() == head + 1
        assert len(list(db.store.read())) == head + 1
    for words in ("status", "log", "experiments", "doctor"):
        assert refold(words, "--store", target).code in (0, 1)


@pytest.mark.parametrize("module", ["", "..", ".x", "no_such_module", "a b", "raises"])
def test_modules_that_cannot_be_imported(
    place: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RfDb(place).close()
    (tmp_path / "raises.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    done = refold("rebuild", "--yes", "--import", module, "--store", place)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "cannot be imported" in " ".join(done.err.split())


def test_what_should_not_happen_is_told_without_a_traceback(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RfDb(place).close()
    (tmp_path / "breaks.py").write_text(
        "from refold.face import Face\nFace.rebuild = lambda *_, **__: 1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    done = refold("rebuild", "--yes", "--import", "breaks", "--store", place)
    assert done.code == 3
    assert done.err.startswith("refold: ZeroDivisionError: 'division by zero'")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "place",
    [
        "postgresql+psycopg://u:SECRET@h/db",
        "POSTGRESQL://u:SECRET@h/db",
        " postgresql://u:SECRET@h/db",
        "postgresql:/u:SECRET@h/db",
        "postgres:u:SECRET@h/db",
        "sqlite://u:SECRET@h/db",
        "postgresql://u:SECRET@h:port/db",
        "postgresql://u:SECRET@h/db?nonsense=1",
        "mysql://u:SECRET@h/db",
    ],
)
def test_no_message_shows_a_password(place: str, tmp_path: Path) -> None:
    for call in (
        lambda: RfDb(place, timeout=0),
        lambda: open_store(place, timeout=0),
        lambda: copy_store(place, tmp_path / "copy.db"),
    ):
        with pytest.raises(DBException) as told:
            call()
        error: BaseException | None = told.value
        assert "SECRET" not in str(error)


def test_an_excerpt_is_short_whatever_the_value() -> None:
    for value in (*WHATEVER, "x" * 10_000, 10**1_000, {"a": list(range(9_999))}):
        assert len(excerpt(value)) < 500


def test_a_long_message_is_cut_in_its_middle() -> None:
    text = str(InvalidEvent(f"{'a' * 10_000}: do this"))
    assert len(text) <= LONGEST
    assert text.endswith(": do this")


# --- faces in other processes -----------------------------------------------------------------


def create(db: RfDb, name: str) -> tuple[int, str | None]:
    with db:
        run_id = db.create_run(1, run_name=name)
        [event] = db.store.read(run_id, limit=1)
        return run_id, event.metadata.actor


def test_a_face_that_is_sent_opens_its_own(place: str) -> None:
    with RfDb(place, actor="controller", signing_key="k") as db:
        db.create_experiment("digits")
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            run_id, actor = pool.submit(create, db, "by the worker").result(60)
        assert (db.get_run(run_id)["run_name"], actor) == ("by the worker", "controller")


def test_what_is_sent_is_the_same_face(place: str) -> None:
    with RfDb(place, signing_key="k", projections=[clippings]) as db:
        digest = db.put_payload({"lr": 0.1})
        db.create_experiment("digits")
        with pickle.loads(pickle.dumps(db)) as other:
            assert other.get_payload(digest) == {"lr": 0.1}
            assert other.views.views[-1] is clippings
        past = pickle.loads(pickle.dumps(db.as_of(1)))
        assert past.get_experiment(1)["status"] == "NEW"
        assert past.store.head() == 1
    asynchronous = pickle.loads(pickle.dumps(AsyncRfDb(place)))
    assert isinstance(asynchronous, AsyncRfDb)


def count_events(store: EventStore) -> int:
    with store:
        return store.head()


def test_a_store_that_is_sent_opens_its_own(place: str) -> None:
    with RfDb(place) as db:
        db.create_experiment("digits")
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            assert pool.submit(count_events, db.store).result(60) == 1
        with pytest.raises(InvalidPayload, match="a store is a connection"):
            db.put_payload(db.store)


def test_a_face_is_not_stored(db: RfDb) -> None:
    with pytest.raises(InvalidPayload, match="a face is a connection"):
        db.put_payload({"db": db})


def test_a_view_that_cannot_be_found_by_its_name(place: str) -> None:
    with (
        RfDb(place, projections=[View("held", Held, version=1)]) as db,
        pytest.raises(TypeError, match="view held: it is not a global"),
    ):
        pickle.dumps(db)

"""The fast lane for metrics: nothing that was logged is lost, nothing comes twice."""

import asyncio
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from children import Child, Parent
from hypothesis import given
from hypothesis import strategies as st
from raw import raw

import refold.metrics
from refold import (
    AsyncRfDb,
    InvalidCommand,
    NotFound,
    RfDb,
    StoreClosed,
    StoreWarning,
    WriteRefused,
    copy_store,
    fork,
)
from refold.eventstore.errors import StoreUnreachable
from refold.eventstore.events import MetricsLogged
from refold.eventstore.metrics import Lane, Points, lanes_in, pack, unpack
from refold.export.json_lines import read, write
from refold.metrics import MetricsLog


@pytest.fixture(autouse=True)
def lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the lanes of stores on a server."""
    monkeypatch.setenv("REFOLD_LANES", str(tmp_path / "lanes"))
    return tmp_path


@pytest.fixture
def run_id(db: RfDb) -> int:
    """A run of which nothing is known yet."""
    return db.create_run(db.create_experiment("digits"))


def left_over(lanes: Path) -> list[Path]:
    folders = [*lanes.glob("*-lanes"), *lanes.glob("lanes/*"), *lanes.glob("store/*-lanes")]
    return [file for folder in folders for file in lanes_in(folder)]


def points(db: RfDb, run_id: int, metric: str) -> list[tuple[Any, float]]:
    return [(point["step"], point["value"]) for point in db.metric_history(run_id, metric)]


def known(db: RfDb, run_id: int) -> list[dict[str, Any]]:
    return db.db.execute(
        "SELECT metric, count, last, last_step, last_word, first, first_step, min, min_step, max, "
        "max_step FROM run_metrics WHERE run_id = ? ORDER BY metric",
        (run_id,),
    )


def test_a_lane_and_single_points_make_the_same(db: RfDb, run_id: int, lanes: Path) -> None:
    other = db.create_run(1)
    losses = [0.5, math.nan, -math.inf, 0.25, 7, math.inf, 0.3]
    with db.metrics(run_id, actor="worker-0") as log:
        for step, loss in enumerate(losses):
            log(step, loss=loss)
            log(step, {"val/loss": -loss})
            db.log_metrics(other, {"loss": loss, "val/loss": -loss}, step=step)
        log(-(2**63), first=math.nan)
        db.log_metrics(other, {"first": math.nan}, step=-(2**63))
        log.flush()
        assert repr(points(db, run_id, "loss")) == repr([*enumerate(map(float, losses))])
    assert known(db, run_id) == known(db, other)
    assert repr(db.get_run(run_id)["metrics"]) == repr(db.get_run(other)["metrics"])
    [logged] = db.store.read(stream=f"run-{run_id}", types=[MetricsLogged])
    assert logged.metadata.actor == "worker-0"
    times = [point["time"] for point in db.metric_history(run_id, "loss")]
    assert times == sorted(times)
    assert points(db.as_of(db.store.head()), run_id, "val/loss")[0] == (0, -0.5)
    assert left_over(lanes) == []
    assert db.verify(log=True, payloads=True) == []


def test_the_points_go_wherever_the_log_goes(
    db: RfDb, run_id: int, target: str, new_target: Callable[[], str]
) -> None:
    with db.metrics(run_id) as log:
        for step in range(100):
            log(step, loss=1 / (step + 1))
    there = points(db, run_id, "loss")
    db.set_run_progress(run_id, 1, 0)
    with fork(db, at=db.store.head() - 1, to=target) as other:
        assert points(other, run_id, "loss") == there
    place = new_target()
    copy_store(db.store.engine.name if "://" not in db.store.engine.name else _url(db), place)
    with RfDb(place) as copy:
        assert points(copy, run_id, "loss") == there
    file = BytesIO()
    write(db.as_of(db.store.head()), file)
    file.seek(0)
    place = new_target()
    read(file, place)
    with RfDb(place) as imported:
        assert points(imported, run_id, "loss") == there


def _url(db: RfDb) -> str:
    return str(db._options["path_or_url"])  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("n", [7, 30_000])
def test_many_threads_lose_no_point(db: RfDb, run_id: int, n: int) -> None:
    with db.metrics(run_id) as log:
        threads = [
            threading.Thread(
                target=lambda name: [log(s, {name: s}) for s in range(n)], args=(name,)
            )
            for name in ("a", "b")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name in ("a", "b"):
        assert points(db, run_id, name) == [(step, float(step)) for step in range(n)]
    assert db.verify() == []


def test_points_that_are_missing_are_named(db: RfDb, run_id: int, place: str) -> None:
    with db.metrics(run_id) as log:
        log(0, loss=0.5)
    [logged] = db.store.read(types=[MetricsLogged])
    with raw(place) as connection:
        of_table = "" if db.store.engine.sql == "sqlite" else " ON payloads"
        connection.execute(f"DROP TRIGGER payloads_are_never_deleted{of_table}")
        connection.execute("DELETE FROM payloads")
    [fault] = db.verify(payloads=True)
    assert f"event {logged.position} names it" in str(fault)


# --- kills --------------------------------------------------------------------------------------


def log_for_ever(parent: Parent, place: str, run_id: int) -> None:
    db = RfDb(place)
    log = db.metrics(run_id)
    for step in count():
        log(step, loss=step / 7, accuracy=step)
        if step % 100 == 99:
            parent.tell(step)


@pytest.mark.parametrize("until", [99, 14_999])
def test_a_kill_loses_nothing(db: RfDb, run_id: int, place: str, until: int, lanes: Path) -> None:
    with Child(log_for_ever, place, run_id) as child:
        while child.hear() < until:
            pass
        child.kill()
        last = max([until, *child.last_words()])
    assert len(left_over(lanes)) == 1
    with RfDb(place) as opened:
        there = points(opened, run_id, "loss")
        assert len(there) > last
        assert there == [(step, step / 7) for step in range(len(there))]
        assert len(there) - len(points(opened, run_id, "accuracy")) in (0, 1)
        assert opened.verify(log=True, payloads=True) == []
    assert left_over(lanes) == []
    with RfDb(place) as again:
        assert points(again, run_id, "loss") == there


def log_and_die(_: Parent, place: str, run_id: int, where: str) -> None:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with RfDb(place) as db, db.metrics(run_id) as log:
        for step in range(50):
            log(step, loss=step)
        if where == "before the commit":
            refold.metrics.execute = die
        else:
            Lane.finish = die
        log.flush()


@pytest.mark.parametrize("where", ["before the commit", "after the commit"])
def test_a_kill_while_points_are_brought_in_doubles_none(
    db: RfDb, run_id: int, place: str, where: str
) -> None:
    with Child(log_and_die, place, run_id, where) as child, pytest.raises(EOFError):
        child.hear()
    with RfDb(place) as opened:
        assert points(opened, run_id, "loss") == [(step, float(step)) for step in range(50)]
        assert known(opened, run_id)[0]["count"] == 50
        assert len(list(opened.store.read(types=[MetricsLogged]))) == 1


def test_what_is_in_use_is_left_alone(db: RfDb, run_id: int, place: str, lanes: Path) -> None:
    with db.metrics(run_id) as log:
        log(1, loss=1)
        with RfDb(place):
            pass
        [lane] = left_over(lanes)
        lane.with_name("damaged.lane").write_bytes(lane.read_bytes()[:1000])
        lane.with_name("empty.lane").write_bytes(b"")
        with RfDb(place) as other:
            assert len(left_over(lanes)) == 3
            with pytest.raises(NotFound):
                other.metric_history(run_id, "loss")
    assert points(db, run_id, "loss") == [(1, 1.0)]


def test_a_lane_of_another_log_is_left_alone(new_place: Callable[[], str], lanes: Path) -> None:
    one, other = RfDb(new_place()), RfDb(new_place())
    for db in (one, other):
        db.create_run(db.create_experiment("digits"))
    log = other.metrics(1)
    log(0, loss=0.5)
    [lane] = left_over(lanes)
    assert Lane.take_over(lane, "0" * 32) is None
    log.close()
    one.close()
    other.close()


def test_who_cannot_sign_leaves_what_was_signed(
    place: str, unreachable: threading.Event, lanes: Path
) -> None:
    with RfDb(place, signing_key="a secret") as db:
        run_id = db.create_run(db.create_experiment("digits"))
        log = db.metrics(run_id)
        log(0, loss=0.5)
        with pytest.warns(StoreWarning):
            log.close()
    unreachable.set()
    with RfDb(place):
        assert len(left_over(lanes)) == 1
    with RfDb(place, signing_key="a secret") as db:
        assert points(db, run_id, "loss") == [(0, 0.5)]


def test_after_a_fork_both_go_on(db: RfDb, run_id: int, lanes: Path) -> None:
    with db.metrics(run_id) as log:
        log(0, loss=0)
        child = os.fork()
        if not child:
            try:
                log(1, loss=1)
                log.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        log(2, loss=2)
    assert sorted(points(db, run_id, "loss")) == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert left_over(lanes) == []


# --- a store that cannot take them --------------------------------------------------------------


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set: the store can be reached again."""
    reachable = threading.Event()
    execute = refold.metrics.execute

    def only_then(*arguments: Any) -> Any:
        if not reachable.is_set():
            raise StoreUnreachable("the server does not answer")
        return execute(*arguments)

    monkeypatch.setattr(refold.metrics, "execute", only_then)
    yield reachable
    reachable.set()


def test_what_has_no_room_is_counted(
    db: RfDb, run_id: int, unreachable: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MetricsLog.__init__, "__defaults__", (4096,))
    calls = 50_000
    with db.metrics(run_id) as log:
        for step in range(calls):
            log(step, loss=step, accuracy=step)
        with pytest.raises(StoreUnreachable):
            log.flush()
        unreachable.set()
    there = points(db, run_id, "loss")
    assert there == points(db, run_id, "accuracy")
    assert there == sorted(there)
    assert there[:1024] == [(step, float(step)) for step in range(1024)]
    assert there[-1][0] > 3000
    logged = [recorded.event for recorded in db.store.read(types=[MetricsLogged])]
    left_out = sum(event.left_out or 0 for event in logged)
    assert left_out + 2 * len(there) == 2 * calls
    with db.metrics(run_id) as log:
        log(calls, loss=0)
    assert len(points(db, run_id, "loss")) == len(there) + 1


def test_what_the_store_cannot_take_at_the_end_is_kept(
    db: RfDb, run_id: int, place: str, unreachable: threading.Event, lanes: Path
) -> None:
    log = db.metrics(run_id)
    log(0, loss=0.5)
    with pytest.warns(StoreWarning, match="brings them in: the server does not answer"):
        log.close()
    log.close()
    with RfDb(place):  # cannot either
        assert len(left_over(lanes)) == 1
    unreachable.set()
    with RfDb(place) as opened:
        assert points(opened, run_id, "loss") == [(0, 0.5)]


def test_a_run_that_a_reset_took_away(db: RfDb, run_id: int) -> None:
    with db.metrics(run_id) as log:
        log(0, loss=0.5)
        db.reset_all_tables()
    assert db.db.execute("SELECT * FROM run_metrics") == []
    assert db.verify() == []


# --- what is refused ----------------------------------------------------------------------------


def test_what_is_no_point(db: RfDb, run_id: int) -> None:
    values: list[Any] = ["low", None, [1], {}, object(), 10**400, 1j]
    with db.metrics(run_id) as log:
        log(0, loss=1, accuracy=1)
        for value in values:
            with pytest.raises(InvalidCommand, match=r"metric 'loss' is .*: log numbers"):
                log(1, accuracy=1, loss=value)
        for step in (None, "1", 1.5, 2**63):
            with pytest.raises(InvalidCommand, match="step is"):
                log(step, loss=1)  # pyright: ignore[reportArgumentType]
        for name in ("", "a\0b", "\ud800", "n" * 600, 7):
            with pytest.raises(InvalidCommand, match="metric"):
                log(1, {name: 1})  # pyright: ignore[reportArgumentType]
        log(2)
    assert points(db, run_id, "loss") == points(db, run_id, "accuracy") == [(0, 1.0)]
    with pytest.raises(StoreClosed, match="closed"):
        log(1, loss=1)
    log.close()


def test_where_no_lane_can_be(db: RfDb, run_id: int, lanes: Path) -> None:
    with pytest.raises(NotFound, match="no run 7"):
        db.metrics(7)
    with pytest.raises(WriteRefused):
        db.as_of(db.store.head()).metrics(run_id)
    with pytest.raises(InvalidCommand, match="command_id"):
        db.metrics(run_id, command_id="a")
    with pytest.raises(InvalidCommand):
        db.metrics(run_id, attempt="a")  # pyright: ignore[reportArgumentType]
    with db.batch(), pytest.raises(InvalidCommand, match="leave the batch first"):
        db.metrics(run_id)
    assert left_over(lanes) == []
    with db.metrics(run_id) as log:
        log(0, loss=1)
        with db.batch(), pytest.raises(InvalidCommand, match="leave it first"):
            log.flush()


def test_a_face_closes_its_lanes(place: str, lanes: Path) -> None:
    db = RfDb(place)
    run_id = db.create_run(db.create_experiment("digits"))
    log = db.metrics(run_id)
    log(3, loss=1)
    db.close()
    assert left_over(lanes) == []
    with pytest.raises(StoreClosed):
        log(4, loss=1)
    with RfDb(place) as opened:
        assert points(opened, run_id, "loss") == [(3, 1.0)]


def test_awaited(place: str) -> None:
    async def main() -> list[Any]:
        async with AsyncRfDb(place) as db:
            run_id = await db.create_run(await db.create_experiment("digits"))
            async with db.metrics(run_id, actor="worker-0") as log:
                log(0, loss=0.5)
            return await db.metric_history(run_id, "loss")

    [point] = asyncio.run(main())
    assert (point["step"], point["value"]) == (0, 0.5)


# --- attempts -----------------------------------------------------------------------------------


def test_where_attempts_logged_the_same_step_the_last_counts(db: RfDb, run_id: int) -> None:
    for attempt in (30, 20):
        with db.metrics(run_id, attempt=attempt) as log:
            for step in range(3):
                log(step + attempt // 10, loss=attempt)
    db.log_metrics(run_id, {"loss": 40}, step=3, attempt=40)
    assert sorted(points(db, run_id, "loss")) == [(2, 20), (3, 40), (4, 30), (5, 30)]
    every = db.metric_history(run_id, "loss", attempts="all")
    assert [(point["step"], point["attempt"]) for point in every] == [
        *((step, 30) for step in (3, 4, 5)),
        *((step, 20) for step in (2, 3, 4)),
        (3, 40),
    ]
    with pytest.raises(InvalidCommand, match="attempts is 'first'"):
        db.metric_history(run_id, "loss", attempts="first")  # pyright: ignore[reportArgumentType]


# --- packed -------------------------------------------------------------------------------------

INTEGERS = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(
    st.tuples(INTEGERS | st.integers(0, 300), INTEGERS, st.floats() | st.floats(width=32)),
    min_size=1,
)


@pytest.mark.property
@given(ROWS)
def test_points_are_unpacked_as_they_were(rows: list[tuple[int, int, float]]) -> None:
    steps, times, values = (list(column) for column in zip(*rows, strict=True))
    found = unpack(pack({"loss": Points(steps, times, values)}), "loss")
    assert repr(found) == repr(Points(steps, times, values))


@pytest.mark.parametrize(("of", "most"), [(lambda n: 1 / (n + 1), 10), (lambda n: n / 8, 7)])
def test_how_large_points_are(
    db: RfDb, run_id: int, of: Callable[[int], float], most: float
) -> None:
    with db.metrics(run_id) as log:
        for step in range(10_000):
            log(step, loss=of(step))
    rows = db.db.execute("SELECT length(content) AS size FROM payloads")
    rows += db.db.execute(
        "SELECT length(data) + length(metadata) AS size FROM events WHERE type = 'MetricsLogged'"
    )
    assert sum(row["size"] for row in rows) <= most * 10_000

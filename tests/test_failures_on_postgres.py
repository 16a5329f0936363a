"""Servers killed, lines cut, answers lost: a command happens once, and errors are DBExceptions."""

import asyncio
import os
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count, islice
from typing import Any

import psycopg
import pytest
from children import Child, Parent, WarmChild
from postgres import PostgresServer
from proxy import Held, Proxy
from psycopg import sql

from refold import (
    AsyncRfDb,
    ConnectionLost,
    DBException,
    OutcomeUnknown,
    RFDatabase,
    RfDb,
    StoreBusy,
    StoreUnreachable,
)
from refold.eventstore import Event, EventStore, Id, Recorded, open_store
from refold.projections import Row, View
from refold.ui.news import News

COMMIT = r"\bCOMMIT\b"


class Marked(Event, frozen=True):
    of: Id
    n: int

    @property
    def stream(self) -> str:
        return f"notes-{self.of}"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that a test may kill, if it starts it again."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def postgres_url(server: PostgresServer) -> str:
    """Have the fixtures of all tests use that one."""
    return server.url()


@contextmanager
def down(server: PostgresServer) -> Iterator[None]:
    """Have the server killed, and started again after the block."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(server.listen, server.port) as proxy:
        yield proxy


@pytest.fixture
def far(db: RfDb, place: str, proxy: Proxy) -> Iterator[RfDb]:
    """The store of `db`, by way of the proxy; it has a run and something to do."""
    db.create_experiment("digits")
    db.create_run(1, config_leaf={"lr": 0.1})
    db.create_worker_task(1, 0, 0)
    with RfDb(proxy.url(place)) as far:
        yield far


def notes(count: int) -> list[Marked]:
    return [Marked(1, n) for n in range(count)]


def positions(events: Iterator[Recorded] | list[Recorded]) -> list[int]:
    return [recorded.position for recorded in events]


def happened(db: RfDb, after: int) -> dict[str, int]:
    return dict(Counter(recorded.type for recorded in db.store.read(after)))


# --- a line that is cut in the middle of COMMIT ----------------------------------------------


def never_arrives(proxy: Proxy, held: Held) -> None:
    held.cut()


def arrives_late(proxy: Proxy, held: Held) -> None:
    """The client is cut off and asks what became of it, before it has come to anything."""
    _asked_in_vain(proxy, held)
    held.go_on()


def gets_lost_late(proxy: Proxy, held: Held) -> None:
    _asked_in_vain(proxy, held)
    held.drop()


def _asked_in_vain(proxy: Proxy, held: Held) -> None:
    asked, again = proxy.hold("pg_xact_status"), proxy.hold("pg_xact_status")
    held.cut_client()
    for each in (asked, again):
        each.wait()
        each.go_on()


def answer_gets_lost(proxy: Proxy, held: Held) -> None:
    held.cut()


CUTS = [
    pytest.param(Proxy.hold, COMMIT, never_arrives, id="never arrives"),
    pytest.param(Proxy.hold, COMMIT, gets_lost_late, id="gets lost late"),
    pytest.param(Proxy.hold, COMMIT, arrives_late, id="arrives late"),
    pytest.param(Proxy.hold_answer, "^COMMIT$", answer_gets_lost, id="answer gets lost"),
]
HAPPENED = {arrives_late, answer_gets_lost}


COMMANDS: dict[str, tuple[Callable[[RfDb], Any], dict[str, int]]] = {
    "command": (lambda db: db.set_run_progress(1, 1, 0), {"RunProgressed": 1}),
    "new id": (lambda db: db.create_run(1, config_leaf={}), {"RunCreated": 1}),
    "command id": (lambda db: db.request_stop(1, command_id="stop"), {"StopRequested": 1}),
    "alone": (lambda db: db.reset_experiment_states(), {"ExperimentStatesReset": 1}),
    "append": (lambda db: db.append(*notes(3)), {"Marked": 3}),
    "append with id": (lambda db: db.append(*notes(3), command_id="notes"), {"Marked": 3}),
    "bulk": (lambda db: db.append(*notes(2_000)), {"Marked": 2_000}),
}


@pytest.mark.parametrize(("hold", "pattern", "cut"), CUTS)
def test_a_command_whose_commit_is_cut_happens_once(
    db: RfDb,
    far: RfDb,
    proxy: Proxy,
    hold: Callable[[Proxy, str], Held],
    pattern: str,
    cut: Callable[[Proxy, Held], None],
) -> None:
    with ThreadPoolExecutor(1) as pool:
        for name, (call, events) in COMMANDS.items():
            head = db.store.head()
            held = hold(proxy, pattern)
            called = pool.submit(call, far)
            held.wait()
            cut(proxy, held)
            result = called.result()
            assert happened(db, head) == events, name
            if isinstance(result, list):
                assert result == list(db.store.read(head))
    assert db.verify() == []


def batch(db: RfDb) -> list[int]:
    with db.batch():
        db.set_run_progress(1, 1, 0)
        return [db.create_run(1, config_leaf={"n": n}) for n in range(2)]


@pytest.mark.parametrize(("hold", "pattern", "cut"), CUTS)
def test_a_batch_whose_commit_is_cut_happens_or_raises(
    db: RfDb,
    far: RfDb,
    proxy: Proxy,
    hold: Callable[[Proxy, str], Held],
    pattern: str,
    cut: Callable[[Proxy, Held], None],
) -> None:
    head = db.store.head()
    with ThreadPoolExecutor(1) as pool:
        held = hold(proxy, pattern)
        called = pool.submit(batch, far)
        held.wait()
        cut(proxy, held)
        if cut in HAPPENED:
            assert called.result() == [2, 3]
            assert happened(db, head) == {"RunProgressed": 1, "RunCreated": 2}
        else:
            with pytest.raises(ConnectionLost, match="try again"):
                called.result()
            assert db.store.head() == head
    assert db.verify() == []
    assert batch(far) == ([4, 5] if cut in HAPPENED else [2, 3])


@pytest.mark.parametrize(
    ("hold", "pattern"), [(Proxy.hold, COMMIT), (Proxy.hold_answer, "^COMMIT$")]
)
def test_a_command_whose_server_is_killed_in_its_commit_happens_once(
    server: PostgresServer,
    db: RfDb,
    far: RfDb,
    proxy: Proxy,
    hold: Callable[[Proxy, str], Held],
    pattern: str,
) -> None:
    head = db.store.head()
    with ThreadPoolExecutor(1) as pool:
        held = hold(proxy, pattern)
        called = pool.submit(far.create_run, 1, config_leaf={})
        held.wait()
        with down(server):
            held.cut()
        assert called.result() == 2
    assert happened(db, head) == {"RunCreated": 1}
    assert db.verify() == []


@pytest.mark.parametrize("statement", ["BEGIN", "runs_folded", "streams", "events"])
def test_a_line_that_is_cut_before_the_commit(
    db: RfDb, far: RfDb, proxy: Proxy, statement: str
) -> None:
    head = db.store.head()
    with ThreadPoolExecutor(1) as pool:
        held = proxy.hold(rf"\b{statement}\b")
        called = pool.submit(far.update_run_metrics, 1, {"loss": 0.5})
        held.cut()
        called.result()
    assert happened(db, head) == {"RunMetricsRecorded": 1}
    assert db.verify() == []


# --- when nobody can be asked ----------------------------------------------------------------


@pytest.fixture
def impatient(far: RfDb, place: str, proxy: Proxy) -> Iterator[RfDb]:
    """The same by way of the proxy, for at most a second."""
    with RfDb(proxy.url(place), timeout=1) as impatient:
        yield impatient


def check_told(error: DBException, server: PostgresServer, *fragments: str) -> None:
    """The text names the store and says what to do, without the password."""
    text = str(error)
    missing = [part for part in ("postgresql://refold@", *fragments) if part not in text]
    assert not missing, f"{missing} is not in {text!r}"
    assert server.password not in text


@pytest.mark.parametrize("call", [lambda db: db.create_run(1, config_leaf={}), batch])
@pytest.mark.parametrize(
    ("hold", "pattern", "events"), [(Proxy.hold, COMMIT, 0), (Proxy.hold_answer, "^COMMIT$", 1)]
)
def test_an_outcome_that_nobody_knows(
    server: PostgresServer,
    db: RfDb,
    impatient: RfDb,
    proxy: Proxy,
    hold: Callable[[Proxy, str], Held],
    pattern: str,
    events: int,
    call: Callable[[RfDb], Any],
) -> None:
    head = db.store.head()
    with ThreadPoolExecutor(1) as pool:
        held = hold(proxy, pattern)
        called = pool.submit(call, impatient)
        held.wait()
        with down(server):
            held.cut()
            with pytest.raises(OutcomeUnknown) as caught:
                called.result()
        check_told(caught.value, server, "look whether event", "command id")
    assert (db.store.head() > head) == bool(events)
    assert db.verify() == []
    assert impatient.set_run_progress(1, 7, 0) is None
    assert db.get_run(1)["current_chunk"] == 7


@pytest.fixture
def account(postgres_url: str) -> Iterator[Callable[[str], None]]:
    """An account `worker` of the server; yields a function that alters it."""
    with psycopg.connect(postgres_url, autocommit=True) as admin:

        def alter(change: str) -> None:
            admin.execute(sql.SQL("ALTER ROLE worker {}").format(sql.SQL(change)))

        admin.execute("CREATE ROLE worker LOGIN PASSWORD 'work' IN ROLE refold")
        admin.execute("GRANT ALL ON DATABASE postgres TO worker")
        yield alter
        admin.execute("REASSIGN OWNED BY worker TO refold")
        admin.execute("DROP OWNED BY worker")
        admin.execute("DROP ROLE worker")


@pytest.mark.parametrize("change", ["NOLOGIN", "CONNECTION LIMIT 0", "PASSWORD 'another'"])
def test_an_outcome_that_nobody_may_ask_for(
    server: PostgresServer,
    place: str,
    proxy: Proxy,
    account: Callable[[str], None],
    change: str,
) -> None:
    """Whoever is refused now may have been served before: nothing says that it did not happen."""
    url = server.url(user="worker", password="work") + "?" + place.partition("?")[2]
    with ThreadPoolExecutor(1) as pool, RfDb(proxy.url(url), timeout=1) as db:
        held = proxy.hold_answer("^COMMIT$")
        called = pool.submit(db.create_experiment, "digits")
        held.wait()
        account(change)
        held.cut()
        proxy.cut()
        with pytest.raises(OutcomeUnknown, match="look whether event"):
            called.result()


# --- a server that stays down ----------------------------------------------------------------


def read_all(db: RfDb) -> list[Recorded]:
    return list(db.store.read())


def snapshot(db: RfDb) -> int:
    with db.store.snapshot():
        return read_all(db)[-1].position - db.store.head()


def subscribe(db: RfDb) -> list[int]:
    with db.subscribe() as events:
        return positions(islice(events, 3))


CALLS: dict[str, Callable[[RfDb], Any]] = {
    "command": lambda db: db.set_run_progress(1, random.randrange(2**32), 0),
    "append": lambda db: db.append(Marked(1, 1)),
    "batch": batch,
    "get": lambda db: db.get_run(1),
    "query": lambda db: db.db.execute("SELECT * FROM runs"),
    "head": lambda db: db.store.head(),
    "read": read_all,
    "stream": lambda db: list(db.store.read(stream="run-1", backwards=True)),
    "payload": lambda db: db.get_payload(db.put_payload({"weights": b"1"})),
    "snapshot": snapshot,
    "verify": lambda db: db.verify(),
    "rebuild": lambda db: db.rebuild(),
    "subscribe": subscribe,
}


@pytest.mark.usefixtures("far")  # which has made what the calls are about
def test_a_server_that_stays_down_and_comes_back(
    server: PostgresServer, place: str, proxy: Proxy
) -> None:
    with RfDb(proxy.url(place), timeout=0.3) as impatient:  # every call waits it out
        stays_down_and_comes_back(server, impatient)


def stays_down_and_comes_back(server: PostgresServer, impatient: RfDb) -> None:
    with down(server):
        for name in ("command", "batch", "get", "query", "snapshot", "subscribe"):
            with pytest.raises(DBException) as caught:
                CALLS[name](impatient)
            assert caught.type is StoreUnreachable, name
            check_told(caught.value, server, "check the host and the port")
    for call in CALLS.values():
        call(impatient)
    assert impatient.verify() == []


def test_a_server_is_not_there_yet_when_a_store_is_opened(
    server: PostgresServer, place: str
) -> None:
    with down(server), pytest.raises(StoreUnreachable) as caught:
        RfDb(place, timeout=1)
    check_told(caught.value, server, "check the host and the port")
    with RfDb(place) as db:
        assert db.create_experiment("digits") == 1


def test_opening_waits_for_a_server_that_comes_back(server: PostgresServer, place: str) -> None:
    with ThreadPoolExecutor(1) as pool, down(server):
        opening = pool.submit(RfDb, place)
    with opening.result() as db:
        assert db.create_experiment("digits") == 1


def test_opening_waits_for_a_server_that_is_starting() -> None:
    standby = PostgresServer(settings={"hot_standby": "off"})
    try:
        standby.follow("host=127.0.0.1 port=1")  # a primary that is not there
        standby.start(ready=False)  # "the database system is not accepting connections"
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(RfDb, standby.url())
            with pytest.raises(StoreUnreachable, match="not accepting connections"):
                RfDb(standby.url(), timeout=0)
            standby.promote()
            with opening.result() as db:
                assert db.create_experiment("digits") == 1
    finally:
        standby.close()


def test_the_timeout_covers_connecting_and_what_follows_on_it(place: str, proxy: Proxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # it takes connections and says nothing
        port = mute.getsockname()[1]
        with pytest.raises(StoreUnreachable):
            RfDb(f"postgresql://refold@127.0.0.1:{port}/postgres?connect_timeout=0", timeout=0.5)
    held = proxy.hold("pg_backend_pid")
    with pytest.raises(StoreUnreachable, match="takes connections and says nothing"):
        RfDb(proxy.url(place), timeout=0.5)
    held.drop()


# --- between two calls -----------------------------------------------------------------------


def restart(server: PostgresServer) -> None:
    server.restart()


def terminate(server: PostgresServer) -> None:
    """Have an administrator end all sessions of clients."""
    with psycopg.connect(server.url()) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("interrupt", [restart, terminate])
def test_between_two_calls(
    server: PostgresServer,
    far: RfDb,
    interrupt: Callable[[PostgresServer], None],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for call in CALLS.values():
        with ExitStack() as stack:  # so many idle connections then
            for _ in range(3):
                stack.enter_context(far.store.engine.read())
        interrupt(server)
        call(far)
    assert far.verify() == []
    assert "".join(capfd.readouterr()) == ""
    assert server.password not in caplog.text


@pytest.mark.parametrize("interrupt", [restart, terminate])
def test_between_two_calls_that_are_awaited(
    server: PostgresServer, place: str, interrupt: Callable[[PostgresServer], None]
) -> None:
    async def call() -> None:
        async with AsyncRfDb(place) as db:
            await db.create_experiment("digits")
            for n in range(1, 4):
                await asyncio.to_thread(interrupt, server)
                assert await db.create_run(1, config_leaf={}) == 2 * n - 1
                await asyncio.to_thread(interrupt, server)
                async with db.batch():
                    assert await db.create_run(1, config_leaf={}) == 2 * n
                await asyncio.to_thread(interrupt, server)
                assert (await db.get_run(2 * n))["run_id"] == 2 * n

    asyncio.run(call())


def until_no_session_is_left(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        while admin.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'refold'"
        ).fetchall():
            threading.Event().wait(0.01)


def test_sessions_that_the_server_ends_for_being_idle(postgres_url: str, place: str) -> None:
    with RfDb(f"{place}&options=-c%20idle_session_timeout%3D50ms") as db:
        db.create_experiment("digits")
        db.create_run(1, config_leaf={})
        with db.subscribe(after=None) as events:
            assert events.wait(0.0) == []
            until_no_session_is_left(postgres_url)
            db.set_run_progress(1, 1, 0)
            assert next(events).position == 3
            until_no_session_is_left(postgres_url)
            assert db.get_run(1)["current_chunk"] == 1
            until_no_session_is_left(postgres_url)
            assert batch(db) == [2, 3]


def test_a_batch_that_the_server_ends_for_being_idle(postgres_url: str, place: str) -> None:
    def slow() -> None:
        with db.batch():
            db.create_experiment("in vain")
            assert len(db.get_all_runs()) == 0
            until_no_session_is_left(postgres_url)

    RfDb(place).close()
    idle = "-c%20idle_session_timeout%3D250ms%20-c%20idle_in_transaction_session_timeout%3D250ms"
    with RfDb(f"{place}&options={idle}") as db:
        with pytest.raises(ConnectionLost, match="keep batches short"):
            slow()
        assert db.store.head() == 0
        assert db.create_experiment("digits") == 1


# --- within a block --------------------------------------------------------------------------


@pytest.mark.parametrize("caught", [False, True], ids=["raised", "caught inside"])
def test_a_batch_that_is_interrupted_leaves_nothing(
    server: PostgresServer, far: RfDb, db: RfDb, caught: bool
) -> None:
    head = db.store.head()

    def interrupted() -> None:
        with far.batch():
            far.set_run_progress(1, 1, 0)
            assert far.get_run(1)["current_chunk"] == 1
            terminate(server)
            with suppress(DBException) if caught else ExitStack():
                far.get_run(1)

    with pytest.raises(DBException):
        interrupted()
    assert db.store.head() == head
    assert batch(far) == [2, 3]
    assert db.verify() == []


TROUBLES: dict[str, Callable[[RfDb], object]] = {
    "a query with an error": lambda db: db.db.execute("SELECT 1/0"),
    "a query of nothing": lambda db: db.db.execute("SELECT * FROM nothing"),
    "a query with wrong parameters": lambda db: db.db.execute("SELECT ?::int", ("x",)),
    "a query that writes": lambda db: db.db.execute("DELETE FROM runs"),
    "a key of a wrong type": lambda db: db.get_run("x"),  # type: ignore[arg-type]
    "a key out of range": lambda db: db.get_run(2**63),
    "a stream of a wrong type": lambda db: db.store.version(object()),  # type: ignore[arg-type]
    "a command that is refused": lambda db: db.set_run_status(1, "COMPLETED"),
    "a run that is not there": lambda db: db.set_run_progress(99, 1, 0),
    "a payload that is not there": lambda db: db.get_payload("x"),
    "a digest that is no text": lambda db: db.store.get_payload("\0"),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_an_error_caught_in_a_batch_costs_all_of_it_or_nothing(
    far: RfDb, db: RfDb, trouble: Callable[[RfDb], object]
) -> None:
    """PostgreSQL takes a COMMIT after an error for a ROLLBACK, and says so in passing."""
    head = db.store.head()
    kept = {"RunProgressed": 2}

    def troubled() -> None:
        with far.batch():
            far.set_run_progress(1, 1, 0)
            assert far.get_run(1)["current_chunk"] == 1
            with pytest.raises(DBException):
                trouble(far)
            far.set_run_progress(1, 2, 0)

    try:
        troubled()
    except DBException:
        kept = {}
    assert happened(db, head) == kept
    assert db.verify() == []


def test_an_error_of_the_server_caught_in_a_batch_costs_all_of_it(
    impatient: RfDb, db: RfDb, place: str
) -> None:
    head = db.store.head()

    def troubled() -> None:
        with impatient.batch():
            impatient.set_run_progress(1, 1, 0)
            assert impatient.get_run(1)["current_chunk"] == 1
            with suppress(StoreBusy):  # somebody else has locked the table
                impatient.get_worker_tasks()

    url, _, schema = place.rpartition("?schema=")
    with psycopg.connect(url) as admin:
        table = sql.Identifier(schema, "worker_task")
        admin.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
        with pytest.raises(DBException, match="begin anew"):
            troubled()
    assert db.store.head() == head
    assert db.verify() == []


def test_a_snapshot_that_is_interrupted(server: PostgresServer, far: RfDb) -> None:
    def interrupted() -> None:
        with far.store.snapshot():
            far.get_run(1)
            terminate(server)
            far.get_run(1)

    with pytest.raises(ConnectionLost, match="try again"):
        interrupted()
    assert snapshot(far) == 0


class Sum(Row, frozen=True, kw_only=False):
    of: int
    sum: int


def sums(version: int, added: Callable[[Marked], None] = lambda _: None) -> View[Any]:
    def add(row: Sum | None, event: Marked) -> Sum:
        added(event)
        return Sum(event.of, event.n + (0 if row is None else row.sum))

    view = View("sums", Sum, version=version)
    view.put_by(Marked, add, key=lambda event: event.of)
    return view


class Interruption:
    """Happens once, in the middle of a fold."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.armed = False

    def __call__(self, event: Marked) -> None:
        if self.armed and event.n == 50:
            self.armed = False
            terminate(self._server)


def test_a_rebuild_that_is_interrupted_changes_nothing(server: PostgresServer, place: str) -> None:
    interruption = Interruption(server)
    with RfDb(place, projections=[sums(1, interruption)]) as db:
        db.append(*notes(100))
        before = db.db.execute("SELECT * FROM sums")
        interruption.armed = True
        with pytest.raises(ConnectionLost, match="try again"):
            db.rebuild()
        assert not interruption.armed
        assert db.db.execute("SELECT * FROM sums") == before
        db.rebuild()
        assert db.db.execute("SELECT * FROM sums") == before
        assert db.verify() == []


def test_opening_that_is_interrupted_while_views_are_rebuilt(
    server: PostgresServer, place: str
) -> None:
    with RfDb(place, projections=[sums(1)]) as db:
        db.append(*notes(100))
        before = db.db.execute("SELECT * FROM sums")
    interruption = Interruption(server)
    interruption.armed = True
    with RfDb(place, projections=[sums(2, interruption)]) as db:
        assert not interruption.armed
        assert db.db.execute("SELECT * FROM sums") == before
        assert db.verify() == []


# --- subscriptions ---------------------------------------------------------------------------


def listeners(server: PostgresServer) -> None:
    """End the sessions that subscriptions wait on, and no others."""
    with psycopg.connect(server.url()) as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE query LIKE 'LISTEN%'"
        ).fetchall()
        assert ended


def kill(server: PostgresServer) -> None:
    server.kill()
    server.start()


INTERRUPTIONS = [restart, kill, terminate, listeners]


@pytest.mark.parametrize("interrupt", INTERRUPTIONS)
def test_a_subscription_that_is_interrupted_while_it_waits(
    server: PostgresServer, store: EventStore, interrupt: Callable[[PostgresServer], None]
) -> None:
    seen: list[int] = []
    with ThreadPoolExecutor(1) as pool, store.subscribe() as events:
        for _ in range(2):
            store.append(None, notes(2))
            seen += positions(islice(events, 2))
            following = pool.submit(lambda: positions(islice(events, 2)))
            interrupt(server)
            store.append(None, notes(2))
            seen += following.result()
        assert seen == positions(store.read())


@pytest.mark.parametrize("interrupt", INTERRUPTIONS)
def test_a_subscription_that_is_interrupted_while_nobody_waits(
    server: PostgresServer, store: EventStore, interrupt: Callable[[PostgresServer], None]
) -> None:
    seen: list[int] = []
    with store.subscribe() as events:
        store.append(None, notes(2))
        seen += positions(islice(events, 2))
        interrupt(server)
        store.append(None, notes(2))
        seen += positions(islice(events, 1))  # the other one is read ahead
        interrupt(server)
        seen += positions(islice(events, 1))
        assert events.wait(0.0) == []
        store.append(None, notes(2))
        seen += positions(islice(events, 2))
        assert seen == positions(store.read())


@pytest.mark.parametrize("interrupt", INTERRUPTIONS)
@pytest.mark.parametrize("waiting", [False, True], ids=["between", "waiting"])
def test_a_subscription_that_is_awaited_and_interrupted(
    server: PostgresServer,
    store: EventStore,
    interrupt: Callable[[PostgresServer], None],
    waiting: bool,
) -> None:
    async def follow() -> None:
        seen: list[int] = []
        async with store.subscribe() as events:
            for _ in range(2):
                store.append(None, notes(1))
                seen.append((await anext(events)).position)
                following = asyncio.ensure_future(anext(events)) if waiting else None
                await asyncio.sleep(0)  # let it begin to wait
                await asyncio.to_thread(interrupt, server)
                store.append(None, notes(1))
                seen.append((await (following or anext(events))).position)
        assert seen == positions(store.read())

    asyncio.run(follow())


def test_what_is_appended_while_a_subscription_is_cut_off(
    server: PostgresServer, store: EventStore, place: str, proxy: Proxy
) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        open_store(proxy.url(place)) as far,
        far.subscribe() as events,
    ):
        for moment in ("hold", "hold_answer"):
            [recorded] = store.append(None, notes(1))
            assert next(events) == recorded
            held = getattr(proxy, moment)("LISTEN")
            proxy.cut()
            following = pool.submit(lambda: positions(islice(events, 2)))
            held.wait()
            appended = positions(store.append(None, notes(2)))
            held.go_on()
            assert following.result() == appended


def test_a_subscription_that_cannot_begin_to_wait(far: RfDb, place: str, proxy: Proxy) -> None:
    with ThreadPoolExecutor(1) as pool, RfDb(proxy.url(place), timeout=0) as db:
        for _ in range(2):
            with db.subscribe(after=None) as events:
                held = proxy.hold("LISTEN")
                following = pool.submit(next, events)
                held.cut()
                with pytest.raises(DBException) as caught:
                    following.result()
                assert "postgresql://refold@" in str(caught.value)
        with db.subscribe() as events:
            assert next(events).position == 1


def test_a_subscription_goes_on_after_an_error(
    server: PostgresServer, impatient: RfDb, db: RfDb
) -> None:
    with impatient.subscribe(after=None) as events:
        [recorded] = db.append(Marked(1, 1))
        assert next(events) == recorded
        with down(server), pytest.raises(StoreUnreachable) as caught:
            next(events)
        check_told(caught.value, server, "check the host and the port")
        appended = db.append(*notes(3))
        assert list(islice(events, 3)) == appended

    async def follow() -> None:
        async with impatient.subscribe(after=appended[0].position) as events:
            assert await anext(events) == appended[1]
            assert await anext(events) == appended[2]
            with down(server), pytest.raises(StoreUnreachable):
                await anext(events)
            [recorded] = db.append(Marked(1, 1))
            assert await anext(events) == recorded

    asyncio.run(follow())


# --- Ctrl-C ----------------------------------------------------------------------------------


def interrupted(parent: Parent, place: str) -> list[str]:
    """Wait for what others hold, be interrupted there, and go on."""
    done: list[str] = []
    with RfDb(place) as db, db.subscribe(after=None) as events:
        waits: list[Callable[[], object]] = [
            lambda: db.set_run_progress(1, 1, 0),
            lambda: batch(db),
            lambda: next(events),
        ]
        for wait in waits:
            parent.hear()
            try:
                parent.tell(os.getpid())
                wait()
            except KeyboardInterrupt:
                done.append("interrupted")
            parent.tell("interrupted")
            parent.hear()
            db.update_run_metrics(1, {"n": len(done)})
            done.append(str(events.wait(30)[-1].event))
            parent.tell("gone on")
    return done


def test_a_wait_that_is_interrupted(far: RfDb, db: RfDb, place: str, postgres_url: str) -> None:
    url, _, schema = place.rpartition("?schema=")
    runs = sql.SQL("SELECT 1 FROM {} FOR UPDATE").format(sql.Identifier(schema, "runs_folded"))
    with (
        Child(interrupted, place) as child,
        psycopg.connect(url, autocommit=True) as admin,
        psycopg.connect(url) as holder,
    ):

        def waits(kind: str) -> bool:
            return bool(
                admin.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE application_name = 'refold' AND "
                    "(wait_event_type = 'Lock' OR %s = 'LISTEN' AND query LIKE 'LISTEN%%')",
                    (kind,),
                ).fetchall()
            )

        for kind in ("command", "batch", "LISTEN"):
            if kind != "LISTEN":
                holder.execute(runs)
            child.tell("wait")
            pid = child.hear()
            while not waits(kind):
                threading.Event().wait(0.01)
            os.kill(pid, signal.SIGINT)
            assert child.hear() == "interrupted"
            holder.rollback()
            child.tell("go on")
            assert child.hear() == "gone on"
        told = child.result()
    assert told[::2] == ["interrupted"] * 3
    metrics = [recorded.event for recorded in db.store.read(types=["RunMetricsRecorded"])]
    assert told[1::2] == [str(event) for event in metrics]
    assert happened(db, 3) == {"RunMetricsRecorded": 3}
    assert db.verify() == []


# --- killed under load -----------------------------------------------------------------------


def act(db: RfDb, evals: RFDatabase, run_id: int, n: int) -> tuple[str, int]:
    """Carry out the nth command of a writer; return what becomes of it and how many events."""
    about = {"correlation": f"{run_id} {n}"}
    match n % 6:
        case 0:
            db.set_run_progress(run_id, n + 1, 0, **about)
            return "RunProgressed", 1
        case 1:
            db.create_run(1, config_leaf={"n": n}, **about)
            return "RunCreated", 1
        case 2:
            db.append(*[Marked(run_id, n) for _ in range(150 if n % 4 else 2)], **about)
            return "Marked", 150 if n % 4 else 2
        case 3:
            db.request_stop(run_id, command_id=about["correlation"], **about)
            return "StopRequested", 1
        case 4:
            evals.create_context(f"{run_id} {n}", **about)
            return "ContextCreated", 1
        case _:
            db.update_run_metrics(run_id, {"n": n}, **about)
            return "RunMetricsRecorded", 1


def write(parent: Parent, place: str, commands: int) -> None:
    """Carry out commands; tell of each before and after, and of any error."""
    with RfDb(place, timeout=120) as db, RFDatabase(place, timeout=120) as evals:
        run_id = db.create_run(1, config_leaf={})
        parent.tell(run_id)
        parent.hear()
        for n in range(commands):
            try:
                done = act(db, evals, run_id, n)
            except DBException as error:
                parent.tell((n, repr(error)))
            else:
                parent.tell((n, done))


def back_again(server: PostgresServer) -> Callable[[], None]:
    """Return what kills a server and starts it again."""

    def kill() -> None:
        server.kill()
        server.start()

    return kill


def killed_under_load(
    kill: Callable[[], None],
    place: str,
    moments: random.Random,
    *,
    writers: int,
    commands: int,
    kills: int,
) -> None:
    """Have writers work while a server is killed and comes back: nothing gets lost, or comes twice.

    Args:
        kill: kills it, and has it come back.
        place: the store's.
        moments: chooses when.
        writers: how many.
        commands: of each.
        kills: how often.
    """
    acknowledged: dict[tuple[int, int], Any] = {}
    arrived = threading.Condition()

    def hear(child: Child, run_id: int) -> None:
        with suppress(EOFError):
            while True:
                told = child.hear()
                if told is None:
                    return
                with arrived:
                    acknowledged[run_id, told[0]] = told[1]
                    arrived.notify_all()

    with RfDb(place) as db:
        db.create_experiment("killed")
        with ExitStack() as stack, ThreadPoolExecutor(writers) as pool:
            children = [
                stack.enter_context(WarmChild(write, place, commands)) for _ in range(writers)
            ]
            run_ids = [child.hear() for child in children]
            hearing = [pool.submit(hear, *each) for each in zip(children, run_ids, strict=True)]
            for child in children:
                child.tell("go")
            for n in range(kills):
                enough = (n + moments.random()) * writers * commands / kills
                with arrived:
                    assert arrived.wait_for(lambda: len(acknowledged) >= enough, 60)  # noqa: B023
                kill()
            for each in hearing:
                each.result()
        assert len(acknowledged) == writers * commands
        assert [told for told in acknowledged.values() if isinstance(told, str)] == []
        found = Counter[tuple[str, str]]()
        for recorded in db.store.read():
            if recorded.metadata.correlation is not None:
                found[recorded.metadata.correlation, recorded.type] += 1
        assert found == {
            (f"{run_id} {n}", kind): events for (run_id, n), (kind, events) in acknowledged.items()
        }
        assert db.verify() == []


def test_a_server_is_killed_under_load(
    server: PostgresServer, place: str, moments: random.Random
) -> None:
    killed_under_load(back_again(server), place, moments, writers=3, commands=100, kills=3)


@pytest.mark.soak
def test_a_server_is_killed_a_hundred_times(
    server: PostgresServer, new_place: Callable[[], str], moments: random.Random
) -> None:
    for _ in range(4):
        place = new_place()
        killed_under_load(back_again(server), place, moments, writers=6, commands=1_500, kills=25)


def write_impatiently(parent: Parent, place: str) -> None:
    """Carry out commands for ever with hardly any patience; tell what came of each."""
    with RfDb(place, timeout=0.05) as db:
        for n in count():
            try:
                db.append(Marked(1, n))
            except OutcomeUnknown:
                parent.tell((n, None))
            except DBException:
                parent.tell((n, False))
            else:
                parent.tell((n, True))


def tell_the_truth(server: PostgresServer, place: str, kills: int) -> None:
    with RfDb(place) as db, WarmChild(write_impatiently, place) as child:
        told: list[tuple[int, bool | None]] = []
        for n in range(1, kills + 1):
            while sum(bool(kept) for _, kept in told) < 100 * n:
                told.append(child.hear())
            with down(server):
                while told[-1][1] is not False:
                    told.append(child.hear())
            while not told[-1][1]:
                told.append(child.hear())
        child.kill()
        told += child.last_words()
        kept = Counter(recorded.event.n for recorded in db.store.read())
        for n, promised in told:
            assert kept[n] in ((0, 1) if promised is None else (int(promised),))
        assert db.verify() == []


def test_the_impatient_are_told_the_truth(server: PostgresServer, place: str) -> None:
    """What raised did not happen, or the error says that nobody knows."""
    tell_the_truth(server, place, kills=1)


@pytest.mark.soak
def test_the_impatient_are_told_the_truth_a_hundred_times(
    server: PostgresServer, place: str
) -> None:
    tell_the_truth(server, place, kills=100)


def test_viewers_are_told_that_a_server_is_away_and_when_it_is_back(
    server: PostgresServer, far: RfDb, place: str
) -> None:
    async def watch(news: News) -> None:
        states = news.follow()
        assert (await anext(states)).trouble is None
        with down(server):
            while (state := await anext(states)).trouble is None:
                pass
        assert "check the host and the port" in state.trouble
        assert server.password not in state.trouble
        while (state := await anext(states)).trouble is not None:
            pass
        far.set_run_progress(1, 2, 0)
        head = far.store.head()
        while state.position < head:
            state = await anext(states)
        await states.aclose()

    with RfDb(place, timeout=0.3) as impatient, closing(News(impatient)) as news:
        asyncio.run(watch(news))

"""Writers side by side: whoever commits late is not skipped, and holds nobody else up."""

import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice, pairwise
from typing import Any

import psycopg
import pytest
from children import Child, Parent, WarmChild
from hypothesis import given
from hypothesis import strategies as st
from postgres import PostgresServer, new_schema
from tries import tries

from refold import DBException, RFDatabase, RfDb
from refold.eventstore import Event, EventStore, Recorded, open_store
from refold.eventstore.events import RunProgressed
from refold.eventstore.log.transaction import Transaction

WAIT = 20.0
"""Seconds after which a test gives up waiting for something that should come at once."""


class Written(Event, frozen=True):
    of: str
    n: int

    @property
    def stream(self) -> str:
        return f"notes-{self.of}"


class Writer:
    """A transaction beside others, whose steps a test takes one by one."""

    def __init__(self, store: EventStore, stream: str) -> None:
        self.stream = stream
        self.positions: list[int] = []
        self._block = ExitStack()
        writing = self._block.enter_context(store.engine.write(exclusive=False))
        self._transaction = Transaction(writing)

    def draw(self, count: int = 1) -> list[int]:
        """Append events: they are given their positions."""
        events = [Written(self.stream, n) for n in range(count)]
        drawn = [recorded.position for recorded in self._transaction.append(events)]
        self.positions += drawn
        return drawn

    def write(self) -> None:
        """Write out the events."""
        self._transaction.flush()
        self._transaction.writer.execute("SELECT 1")  # they have arrived when it is answered

    def commit(self) -> None:
        with self._block:
            self.write()

    def roll_back(self) -> None:
        class Regret(Exception):
            pass

        with suppress(Regret), self._block:
            raise Regret


@pytest.fixture
def writing(place: str) -> Iterator[EventStore]:
    """The store that writes: `store` only reads, for whoever has written waits for himself."""
    with open_store(place) as writing:
        yield writing


@pytest.fixture
def begin(writing: EventStore) -> Iterator[Callable[[str], Writer]]:
    """Begin a transaction of a writer; those left open are rolled back at the end."""
    writers: list[Writer] = []

    def begin(stream: str) -> Writer:
        writers.append(Writer(writing, stream))
        return writers[-1]

    yield begin
    for writer in writers:
        writer.roll_back()


Begin = Callable[[str], Writer]


def positions(events: Iterator[Recorded] | list[Recorded]) -> list[int]:
    return [recorded.position for recorded in events]


def note(store: EventStore, stream: str, count: int = 1) -> list[int]:
    """Append events in a transaction of their own."""
    return positions(store.append(None, [Written(stream, n) for n in range(count)]))


def waits(url: str) -> Callable[[], bool]:
    """Return what tells whether a session of the store waits for a lock."""

    def look() -> bool:
        with psycopg.connect(url) as connection:
            return connection.execute(
                "SELECT count(*) > 0 FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock' AND application_name = 'refold'"
            ).fetchone() == (True,)

    return look


def until(happens: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if happens():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it does not happen")


# --- one takes its position first and commits last -------------------------------------------


@pytest.mark.parametrize("written", [False, True], ids=["drawn", "written"])
def test_no_reader_skips_what_commits_late(
    store: EventStore, writing: EventStore, begin: Begin, written: bool
) -> None:
    before = note(writing, "before", 3)
    late = begin("late")
    [first] = late.draw()
    if written:
        late.write()
    [second, third] = note(writing, "early", 2)
    assert first < second

    assert store.head() == before[-1]
    assert positions(store.read()) == before
    assert positions(store.read(types=[Written], limit=10)) == before
    assert positions(store.read(backwards=True)) == before[::-1]
    late.commit()
    assert store.head() == third
    assert positions(store.read()) == [*before, first, second, third]
    assert positions(store.read(after=before[-1])) == [first, second, third]


@pytest.mark.parametrize("written", [False, True], ids=["drawn", "written"])
def test_no_subscriber_skips_what_commits_late(
    store: EventStore, writing: EventStore, begin: Begin, written: bool
) -> None:
    before = note(writing, "before", 3)
    with (
        ThreadPoolExecutor() as pool,
        store.subscribe() as waiting,
        store.subscribe(types=[Written]) as choosy,
        store.subscribe(after=None) as fresh,
    ):
        subscriptions = (waiting, choosy, fresh)
        assert positions(islice(waiting, 3)) == positions(islice(choosy, 3)) == before
        late = begin("late")
        [first] = late.draw()
        if written:
            late.write()
        followed = [pool.submit(lambda s: positions(islice(s, 3)), s) for s in subscriptions]
        [second, third] = note(writing, "early", 2)
        with store.subscribe(after=before[-1]) as another:
            assert another.wait(0.2) == []
            assert not any(future.done() for future in followed)
            late.commit()
            for future in (*followed, pool.submit(lambda: positions(islice(another, 3)))):
                assert future.result(WAIT) == [first, second, third]


def test_what_nobody_can_be_before_is_given_at_once(store: EventStore, begin: Begin) -> None:
    with store.subscribe() as events:
        early = begin("early")
        [first] = early.draw()
        late = begin("late")
        [second] = late.draw()
        third = begin("third")
        [last] = third.draw()
        assert first < second < last

        early.commit()
        assert positions(events.wait(WAIT)) == [first]
        third.commit()
        assert events.wait(0.2) == []
        late.commit()
        assert positions(islice(events, 2)) == [second, last]


@pytest.mark.parametrize("written", [False, True], ids=["drawn", "written"])
def test_who_draws_again_after_another_is_not_given_before_it(
    store: EventStore, begin: Begin, written: bool
) -> None:
    early = begin("early")
    [first] = early.draw()
    if written:
        early.write()
    late = begin("late")
    [second] = late.draw()
    [third] = early.draw()
    assert first < second < third
    early.commit()
    assert positions(store.read()) == [first]
    late.commit()
    assert positions(store.read()) == [first, second, third]


def test_who_waits_for_a_stream_has_not_drawn_yet(
    store: EventStore, writing: EventStore, place: str, postgres_url: str, begin: Begin
) -> None:
    holder = begin("same")
    [first] = holder.draw()
    with open_store(place) as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(note, other, "same", 2)
        until(waits(postgres_url))
        [second] = note(writing, "else")
        holder.commit()
        third, fourth = waiting.result(WAIT)
        assert first < second < third
        assert positions(store.read()) == [first, second, third, fourth]
    assert [recorded.version for recorded in store.read(stream="notes-same")] == [1, 2, 3]


def test_a_stream_is_followed_past_what_others_have_open(
    store: EventStore, writing: EventStore, begin: Begin
) -> None:
    begin("late").draw()
    with store.subscribe(stream="notes-early") as events:
        for expected in (note(writing, "early"), note(writing, "early", 2)):
            assert positions(islice(events, len(expected))) == expected


def test_ten_thousand_events_beside_one(
    store: EventStore, writing: EventStore, begin: Begin
) -> None:
    late = begin("late")
    first = late.draw()
    many = note(writing, "many", 10_000)
    assert store.head() == 0
    late.commit()
    assert positions(store.read()) == [*first, *many]


# --- gaps ------------------------------------------------------------------------------------


def test_a_gap_that_a_rollback_left_holds_nobody_up(
    store: EventStore, writing: EventStore, begin: Begin
) -> None:
    before = note(writing, "before")
    with ThreadPoolExecutor() as pool, store.subscribe() as events:
        assert next(events).position == before[0]
        late = begin("late")
        late.draw(3)
        late.write()
        after = note(writing, "early")
        assert events.wait(0.2) == []
        following = pool.submit(next, events)
        late.roll_back()
        assert following.result(WAIT).position == after[0]
        assert positions(store.read()) == [*before, *after]
        again = note(writing, "late")
        assert next(events).position == again[0] > after[0]


def draw_and_wait(parent: Parent, place: str, written: bool) -> None:
    with open_store(place) as store:
        writer = Writer(store, "killed")
        [position] = writer.draw()
        if written:
            writer.write()
        parent.tell(position)
        parent.hear()


@pytest.mark.parametrize("written", [False, True], ids=["drawn", "written"])
@pytest.mark.parametrize("between", [False, True], ids=["at the gap", "before the gap"])
def test_a_gap_that_a_killed_writer_left_holds_nobody_up(
    store: EventStore, writing: EventStore, place: str, written: bool, between: bool
) -> None:
    before = note(writing, "before", 2)
    with (
        ThreadPoolExecutor() as pool,
        store.subscribe(after=0 if between else None) as events,
        Child(draw_and_wait, place, written) as child,
    ):
        drawn = child.hear()
        [after] = note(writing, "early")
        assert before[-1] < drawn < after
        # Whether there is something before the gap to read or not.
        assert positions(events.wait(0.2)) == (before if between else [])
        # Other reads of the same store say nothing about this one's.
        assert store.version("notes-before") == 2
        following = pool.submit(events.wait, WAIT)
        child.kill()
        assert positions(following.result()) == [after]
        assert positions(store.read()) == [*before, after]


@pytest.fixture
def somebody_else(postgres_url: str) -> Iterator[None]:
    """A transaction that has nothing to do with the store, and takes hours."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        yield


def test_a_subscriber_does_not_wait_for_somebody_else(
    store: EventStore, writing: EventStore, begin: Begin, somebody_else: None
) -> None:
    with store.subscribe() as events:
        for _ in range(3):
            regretful = begin("gone")
            regretful.draw(3)
            regretful.roll_back()
            assert note(writing, "after") == positions(events.wait(WAIT))


def test_what_was_written_is_read_whatever_somebody_else_does(
    store: EventStore, begin: Begin, somebody_else: None
) -> None:
    regretful = begin("gone")
    regretful.draw(3)
    regretful.roll_back()
    written = note(store, "after")
    assert store.head() == written[-1]
    assert positions(store.read()) == written


@pytest.fixture
def old_server() -> Iterator[PostgresServer]:
    with PostgresServer(settings={"autovacuum": "off"}) as server:
        yield server


def advance(server: PostgresServer, transactions: int) -> None:
    """Have a server believe that it has done so many transactions."""
    for database in ("postgres", "template1", "template0"):
        with psycopg.connect(server.url(database=database), autocommit=True) as connection:
            connection.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
            connection.execute("VACUUM FREEZE")
            done = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert done is not None
    server.stop()
    then = (done[0] + transactions) % 2**32
    server._run("pg_resetwal", "-D", str(server.data), "-x", str(then))
    outcomes = server.data / "pg_xact" / f"{then // 2**20:04X}"
    outcomes.write_bytes(bytes(2**18))
    shutil.chown(outcomes, server.data.owner())
    server.start()


def test_a_log_is_whole_after_any_number_of_transactions(old_server: PostgresServer) -> None:
    """They are numbered with 32 bits, and compared modulo 2^32."""
    place = new_schema(old_server.url())
    with open_store(place) as store:
        written = note(store, "before", 2)
        regretful = Writer(store, "gone")
        regretful.draw()
        regretful.roll_back()
        written += note(store, "before", 2)
    for _ in range(5):
        advance(old_server, 1_000_000_000)
        with open_store(place) as store:
            assert positions(store.read()) == written
            assert store.head() == written[-1]


# --- any order of steps ----------------------------------------------------------------------


class Schedule:
    """Transactions that begin, draw, write and end in some order, and a reader of each moment.

    Args:
        stores: one that reads and two that write.
    """

    def __init__(self, stores: list[EventStore]) -> None:
        self.stores = stores
        self.begun = 0
        self.open: list[Writer] = []
        self.committed: set[int] = set()
        self.log: list[int] = []
        self.start = self.seen = stores[0].head()

    def begin(self) -> None:
        self.begun += 1
        store = self.stores[1 + self.begun % 2]
        self.open.append(Writer(store, f"{self.start} {self.begun}"))
        self.open[-1].draw()

    def draw(self, writer: Writer) -> None:
        writer.draw()

    def draw_many(self, writer: Writer) -> None:
        writer.draw(150)

    def write(self, writer: Writer) -> None:
        writer.write()

    def commit(self, writer: Writer) -> None:
        writer.commit()
        self.open.remove(writer)
        self.committed.update(writer.positions)

    def roll_back(self, writer: Writer) -> None:
        writer.roll_back()
        self.open.remove(writer)

    def read(self) -> None:
        read = positions(self.stores[0].read(after=self.seen))
        assert read == sorted(read)
        self.log += read
        self.seen = read[-1] if read else self.seen
        drawn = [position for writer in self.open for position in writer.positions]
        assert all(self.seen < position for position in drawn)
        assert self.log == sorted(p for p in self.committed if p <= self.seen)
        assert drawn or self.log == sorted(self.committed)

    def follow(self, steps: Iterable[tuple[Callable[["Schedule", Writer], None], int]]) -> None:
        for step, number in steps:
            if number >= len(self.open):
                self.begin()
            else:
                step(self, self.open[number])
            self.read()

    def end(self) -> None:
        for writer in self.open:
            writer.roll_back()
        self.open.clear()
        with self.stores[1].transaction():  # which is given the positions that nobody committed
            self.committed.update(note(self.stores[1], "alone"))
        self.read()
        with self.stores[0].subscribe(after=self.start) as events:
            assert positions(islice(events, len(self.committed))) == sorted(self.committed)


OFTEN = [Schedule.draw, Schedule.draw, Schedule.commit, Schedule.commit]
STEPS = st.sampled_from(
    [*OFTEN, Schedule.draw, Schedule.draw_many, Schedule.write, Schedule.roll_back]
)
SCHEDULES = st.lists(st.tuples(STEPS, st.integers(0, 3)), min_size=10, max_size=40)


@pytest.fixture
def stores(place: str) -> Iterator[list[EventStore]]:
    with ExitStack() as stack:
        yield [stack.enter_context(open_store(place)) for _ in range(3)]


def follow_schedule(stores: list[EventStore], steps: Any) -> None:
    schedule = Schedule(stores)
    try:
        schedule.follow(steps)
    finally:
        schedule.end()


@given(steps=SCHEDULES)
@tries(50)
def test_any_order_of_steps(stores: list[EventStore], steps: Any) -> None:
    follow_schedule(stores, steps)


@pytest.mark.soak
@given(steps=SCHEDULES)
@tries(3_000)
def test_any_order_of_many_steps(stores: list[EventStore], steps: Any) -> None:
    follow_schedule(stores, steps)


# --- many at once ----------------------------------------------------------------------------


class Regret(Exception):
    """Takes a transaction back."""


def act(db: RfDb, run_id: int, n: int, chance: random.Random) -> int:
    """Do something in a transaction of its own; return how many events of it are kept."""
    match chance.choice(("progress", "append", "append", "create", "batch", "regret", "regret")):
        case "progress":
            db.set_run_progress(run_id, n + 1, 0)
            return 1
        case "append":
            count = chance.choice((1, 2, 200))
            db.append(*[Written(f"{chance.randrange(4)}", n) for _ in range(count)])
            return count
        case "create":
            db.create_run(1, config_leaf={"n": n})
            return 1
        case "batch":
            with db.batch():
                db.update_run_metrics(run_id, {"n": n})
                db.append(Written(f"{run_id}", n))
            return 2
        case _:

            def regret(transaction: Transaction) -> None:
                transaction.append([RunProgressed(run_id, n, 1), Written(f"{run_id}", n)])
                if chance.random() < 0.5:
                    transaction.flush()
                raise Regret

            with suppress(Regret):
                db.store.perform(regret)
            return 0


def write(parent: Parent, place: str, threads: int, actions: int, seed: int) -> int:
    """Write in several threads, with a store each; return how many events are kept."""
    parent.tell("ready")
    parent.hear()

    def write_here(number: int) -> int:
        chance = random.Random(f"{seed} {number}")
        with RfDb(place) as db:
            run_id = db.create_run(1, config_leaf={"by": number})
            return 1 + sum(act(db, run_id, n, chance) for n in range(actions))

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(write_here, range(threads)))


def follow(place: str, ended: threading.Event, end: Future[int], seed: int) -> list[int]:
    """Subscribe again and again, from the last position on, until the end."""
    chance = random.Random(seed)
    seen: list[int] = []
    with open_store(place) as store:
        while not (ended.is_set() and seen and seen[-1] >= end.result()):
            with store.subscribe(after=seen[-1] if seen else 0) as events:
                for _ in range(chance.randint(1, 20)):
                    found = positions(events.wait(chance.choice((0.0, 0.01, 0.1))))
                    kept = found[: chance.randint(0, len(found))]
                    seen += kept
                    if len(kept) < len(found):
                        break  # what it forgets is given to the next
    return seen


def soak(place: str, processes: int, threads: int, actions: int, seed: int) -> None:
    with RfDb(place) as db:
        db.create_experiment("soak")
    ended, end = threading.Event(), Future[int]()
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        children = [
            stack.enter_context(WarmChild(write, place, threads, actions, seed + n))
            for n in range(processes)
        ]
        followers = [pool.submit(follow, place, ended, end, seed + n) for n in range(3)]
        for child in children:
            child.hear()
        for child in children:
            child.tell("go")
        try:
            kept = 1 + sum(child.result() for child in children)
        finally:
            with open_store(place) as store:
                end.set_result(store.head())
            ended.set()
        with RfDb(place) as db:
            log = positions(db.store.read())
            assert len(log) == kept
            assert all(earlier < later for earlier, later in pairwise(log))
            assert db.verify() == []
        for follower in followers:
            assert follower.result() == log


def test_many_writers_and_readers_at_once(place: str, seed: int) -> None:
    soak(place, processes=2, threads=3, actions=40, seed=seed)


@pytest.mark.soak
def test_very_many_writers_and_readers_at_once(new_place: Callable[[], str], seed: int) -> None:
    for n in range(5):
        soak(new_place(), processes=4, threads=3, actions=300, seed=seed + n)


# --- who waits for whom ----------------------------------------------------------------------


@contextmanager
def held_open(db: RfDb, run_id: int) -> Iterator[Callable[[], None]]:
    """Have another thread hold a transaction on a run open; yields what ends it."""
    inside, gate = threading.Event(), threading.Event()

    def hold(transaction: Transaction) -> None:
        transaction.append([RunProgressed(run_id, 5, 0)])
        transaction.flush()
        inside.set()
        assert gate.wait(60)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(db.store.perform, hold)

        def end() -> None:
            gate.set()
            held.result()

        try:
            assert inside.wait(WAIT)
            yield end
        finally:
            end()


@pytest.fixture
def two_runs(db: RfDb) -> tuple[int, int]:
    db.create_experiment("digits")
    one, two = (db.create_run(1, config_leaf={"n": n}) for n in range(2))
    return one, two


def test_writers_to_different_runs_go_on_side_by_side(db: RfDb, two_runs: tuple[int, int]) -> None:
    one, two = two_runs
    with held_open(db, one):
        db.set_run_progress(two, 1, 0)
        db.update_run_metrics(two, {"loss": 0.5})
        task_id = db.create_worker_task(two, 0, 0)
        db.set_worker_task_status(task_id, "IN_PROGRESS")
        assert db.request_stop(two) == 1
        assert db.create_run(1, config_leaf={}) == 3
        db.append(Written("else", 0))
        db.store.append("run-2", [RunProgressed(two, 2, 0)], expected_version=3)
        assert db.get_run(two)["current_chunk"] == 2
        assert db.get_run(one)["current_chunk"] == 0
    assert db.get_run(one)["current_chunk"] == 5
    assert db.verify() == []


def batch(db: RfDb) -> None:
    with db.batch():
        db.update_run_metrics(2, {"loss": 0.5})


@pytest.mark.parametrize(
    "waiting",
    [
        batch,
        RfDb.reset_experiment_states,
        RfDb.reset_all_tables,
        RfDb.rebuild,
        lambda db: db.set_run_progress(1, 9, 0),  # the same run
    ],
    ids=["batch", "reset states", "reset tables", "rebuild", "the same run"],
)
def test_what_touches_the_same_waits(
    db: RfDb, two_runs: tuple[int, int], postgres_url: str, waiting: Callable[[RfDb], object]
) -> None:
    one, _ = two_runs
    with ThreadPoolExecutor(1) as pool, held_open(db, one) as end:
        other = pool.submit(waiting, db)
        until(waits(postgres_url))
        assert not other.done()
        assert db.get_run(one)["current_chunk"] == 0  # readers never wait
        assert db.store.head() == 3
        end()
        other.result(WAIT)
    assert db.verify() == []


def test_whoever_waits_longer_than_the_timeout_is_told(place: str) -> None:
    with RfDb(place) as db, RfDb(place, timeout=0.1) as impatient:
        db.create_experiment("digits")
        db.create_run(1, config_leaf={})
        with held_open(db, 1):
            for call in (batch, RfDb.reset_experiment_states, RfDb.rebuild):
                with pytest.raises(DBException, match="larger timeout") as caught:
                    call(impatient)
                assert caught.typename == "StoreBusy"
        batch_of_one = impatient.reset_experiment_states()
        assert not any(batch_of_one.values())


# --- at the same time ------------------------------------------------------------------------

ROUNDS = 20


def send(parent: Parent, place: str) -> list[object]:
    """Send the same as another process, at the same moment."""
    results: list[object] = []
    with RfDb(place) as db, RFDatabase(place) as evals:
        sendings: list[Callable[[int], object]] = [
            lambda n: db.set_run_progress(1, n + 1, 0, command_id=f"progress {n}"),
            lambda n: db.create_run(1, config_leaf={}, command_id=f"create {n}"),
            lambda n: positions(db.append(Written("same", n), command_id=f"note {n}")),
            lambda n: evals.create_context(f"hash {n}"),
        ]
        for sending in sendings:
            for n in range(ROUNDS):
                parent.tell("ready")
                parent.hear()
                results.append(sending(n))
    return results


def test_the_same_sent_by_two_at_once_happens_once(db: RfDb, place: str) -> None:
    db.create_experiment("digits")
    db.create_run(1, config_leaf={})
    head = db.store.head()
    with WarmChild(send, place) as one, WarmChild(send, place) as other:
        for _ in range(4 * ROUNDS):
            assert (one.hear(), other.hear()) == ("ready", "ready")
            one.tell("go")
            other.tell("go")
        assert one.result() == other.result()
    assert Counter(recorded.type for recorded in db.store.read(head)) == {
        "RunProgressed": ROUNDS,
        "RunCreated": ROUNDS,
        "Written": ROUNDS,
        "ContextCreated": ROUNDS,
    }
    assert db.verify() == []


def create(parent: Parent, place: str, number: int) -> int:
    """Open the store at the same moment as others, for the first time ever."""
    parent.tell("ready")
    parent.hear()
    with RfDb(place) as db:
        return db.create_experiment(f"experiment {number}")


def test_ten_processes_create_the_store_at_once(place: str) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(WarmChild(create, place, n)) for n in range(10)]
        for child in children:
            assert child.hear() == "ready"
        for child in children:
            child.tell("go")
        assert sorted(child.result() for child in children) == list(range(1, 11))
    with RfDb(place) as db:
        assert db.verify() == []
        assert len(list(db.store.read())) == 10
        names = {row["experiment_name"] for row in db.db.execute("SELECT * FROM experiments")}
        assert names == {f"experiment {n}" for n in range(10)}


def test_stores_in_one_database_do_not_meet(new_place: Callable[[], str], begin: Begin) -> None:
    """Neither do their locks, nor their news."""
    with open_store(new_place()) as one, open_store(new_place()) as other:
        with one.transaction():
            note(one, "one")
            assert note(other, "other") == [1]
            with other.transaction():
                assert note(other, "other") == [2]
        assert positions(one.read()) == [1]
        assert positions(other.read()) == [1, 2]

"""The log: append, read, transactions; threads, processes and forks."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from children import Parent, WarmChild, call
from hypothesis import given
from hypothesis import strategies as st
from ids import told
from tries import tries

from refold.eventstore import (
    CommandIdReused,
    Event,
    EventStore,
    InvalidCommand,
    InvalidEvent,
    Metadata,
    NotFound,
    Recorded,
    StoreClosed,
    StoreFailed,
    WrongExpectedVersion,
    open_store,
)
from refold.eventstore.events import RunCompleted, RunProgressed, RunStarted
from refold.eventstore.paging import PAGE

STREAMS = ["run-1", "run-2", "worker-0", "é"]
TYPES = [RunStarted, RunProgressed, RunCompleted]


def positions(events: Any) -> list[int]:
    return [recorded.position for recorded in events]


def progressed(count: int) -> list[RunProgressed]:
    return [RunProgressed(1, n, 0) for n in range(count)]


# --- append ----------------------------------------------------------------------------------


def test_a_new_store_is_empty(store: EventStore) -> None:
    assert store.head() == 0
    assert store.version("run-1") == 0
    assert list(store.read()) == []
    assert list(store.read(stream="run-1")) == []


def test_append_returns_what_read_gives(store: EventStore) -> None:
    appended = store.append("run-1", [RunStarted(1), RunProgressed(1, 1, 0)])
    appended += store.append("run-2", [RunStarted(2)])
    assert list(store.read()) == appended
    assert [(r.position, r.stream, r.version, r.type) for r in appended] == [
        (1, "run-1", 1, "RunStarted"),
        (2, "run-1", 2, "RunProgressed"),
        (3, "run-2", 1, "RunStarted"),
    ]
    assert store.head() == 3


def test_appending_nothing_appends_nothing(store: EventStore) -> None:
    assert store.append("run-1", []) == []
    assert store.head() == 0


def test_the_log_is_there_when_opened_again(place: str) -> None:
    with open_store(place) as store:
        appended = store.append("run-1", [RunStarted(1)])
    with open_store(place) as store:
        assert list(store.read()) == appended
        [second] = store.append("run-1", [RunCompleted(1)])
        assert (second.position, second.version) == (2, 2)


def test_a_closed_store_says_so(store: EventStore) -> None:
    store.close()
    store.close()
    for use in (store.head, lambda: list(store.read()), lambda: store.append("a", [RunStarted(1)])):
        with pytest.raises(StoreClosed, match="open it again"):
            use()


def test_events_know_their_streams(store: EventStore) -> None:
    appended = store.append(None, [RunStarted(1), RunStarted(2), RunCompleted(1)])
    assert [(r.stream, r.version) for r in appended] == [("run-1", 1), ("run-2", 1), ("run-1", 2)]
    assert list(store.read()) == appended


def test_metadata_is_kept(store: EventStore) -> None:
    metadata = Metadata(command_id="é-1", actor="worker-0", correlation="request 7", cause=1)
    store.append("run-1", [RunStarted(1)])
    store.append("run-1", [RunCompleted(1)], metadata=metadata)
    store.append("run-1", [RunCompleted(1)], metadata={"actor": "worker-0"}, command_id="é-2")
    assert [r.metadata for r in store.read()] == [
        Metadata(),
        metadata,
        Metadata(actor="worker-0", command_id="é-2"),
    ]


@pytest.mark.parametrize(
    "metadata",
    [Metadata(actor="\0"), Metadata(actor=5), Metadata(cause=-1), Metadata(correlation="\ud800")],
)
def test_metadata_that_cannot_be_kept_is_refused(store: EventStore, metadata: Metadata) -> None:
    with pytest.raises(InvalidEvent):
        store.append("run-1", [RunStarted(1)], metadata=metadata)
    assert store.head() == 0


def test_recorded_at_never_runs_back(place: str) -> None:
    clock = iter([5, 7, 3, 3, 0, 9])
    with open_store(place, clock=lambda: next(clock)) as store:
        for _ in range(3):
            store.append("run-1", [RunStarted(1)])
    with open_store(place, clock=lambda: next(clock)) as store:
        for _ in range(3):
            store.append("run-1", [RunStarted(1)])
        assert [r.recorded_at for r in store.read()] == [5, 7, 7, 7, 7, 9]


def test_recorded_at_is_now_in_utc(store: EventStore) -> None:
    [first] = store.append("run-1", [RunStarted(1)])
    [second] = store.append("run-1", [RunStarted(1)])
    assert first.time.utcoffset() is not None
    assert first.time <= second.time


def first_of_a_subscription(store: EventStore) -> Recorded:
    with store.subscribe() as events:
        return next(events)


def close_while_threads_use_it(_: Parent, place: str) -> None:
    def use(store: EventStore, do: Callable[[EventStore], object]) -> None:
        with suppress(StoreClosed):
            while True:
                do(store)

    uses: list[Callable[[EventStore], object]] = [
        lambda store: list(store.read(limit=5)),
        lambda store: store.head(),
        lambda store: store.append("run-1", [RunStarted(1)]),
        first_of_a_subscription,
        lambda store: store.engine.query("SELECT count(*) FROM events", ()),
    ]
    with ThreadPoolExecutor(len(uses)) as pool:
        for n in range(30):
            store = open_store(place)
            used = [pool.submit(use, store, do) for do in uses]
            store.append("run-1", progressed(n))
            store.close()
            for ended in used:
                ended.result()


def test_closing_a_store_that_threads_use_only_refuses_them(place: str, engine: str) -> None:
    call(close_while_threads_use_it, place)
    with open_store(place) as store:
        log = list(store.read())
        assert [recorded.version for recorded in log] == list(range(1, len(log) + 1))
        if engine == "sqlite":
            assert positions(log) == list(range(1, store.head() + 1))


def test_the_last_events_of_a_type_are_near(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append("run-1", [RunProgressed(1, n % 9, 0) for n in range(3_000)])
    store.append("run-2", [RunStarted(2)])
    store.append("run-1", [RunStarted(1), *(RunProgressed(1, n, 1) for n in range(30))])
    store.append("run-1", [RunCompleted(1)])
    with store.reading() as connection:
        kind = type(connection)
    execute, rows = kind.execute, list[int]()

    def noting(self: Any, *arguments: Any) -> Any:
        found = execute(self, *arguments)
        rows.append(len(found))
        return found

    monkeypatch.setattr(kind, "execute", noting)
    for types, limit, until, last in (
        ([RunCompleted], 1, None, [3_033]),
        ([RunStarted], 1, None, [3_002]),
        ([RunStarted, RunCompleted], 2, None, [3_033, 3_002]),
        (None, 3, 3_004, [3_004, 3_003, 3_002]),
        (None, 2, None, [3_033, 3_032]),
    ):
        rows.clear()
        read = store.read(stream="run-1", types=types, limit=limit, until=until, backwards=True)
        assert positions(list(read)) == last
        assert sum(rows) < 200
    assert positions(list(store.read(3_000, stream="run-1", types=[RunStarted]))) == [3_002]
    assert list(store.read(3_002, stream="run-1", types=[RunStarted], backwards=True)) == []


# --- versions and commands -------------------------------------------------------------------


def test_the_expected_version_is_checked(store: EventStore) -> None:
    store.append("run-1", [RunStarted(1)], expected_version=0)
    store.append("run-1", [RunProgressed(1, 1, 0), RunCompleted(1)], expected_version=1)
    for expected in (0, 2, 4):
        with pytest.raises(WrongExpectedVersion, match="'run-1' is at version 3") as caught:
            store.append("run-1", [RunStarted(1)], expected_version=expected)
        error = caught.value
        assert (error.stream, error.expected, error.actual) == ("run-1", expected, 3)
    assert store.head() == 3


def test_a_refused_append_leaves_the_transaction_as_it_was(store: EventStore) -> None:
    with store.transaction():
        store.append("run-1", [RunStarted(1)])
        with pytest.raises(WrongExpectedVersion):
            store.append("run-1", [RunCompleted(1)], expected_version=0)
        with pytest.raises(InvalidEvent):
            store.append("run-1", [RunCompleted(-1)])
        store.append("run-1", [RunCompleted(1)], expected_version=1)
    assert [(r.position, r.version) for r in store.read()] == [(1, 1), (2, 2)]


def win_versions(parent: Parent, place: str, versions: int) -> list[int]:
    """Try to be the one that brings a stream to each version; return those that were won."""
    won: list[int] = []
    with open_store(place) as store:
        parent.tell("ready")
        parent.hear()
        while (version := store.version("run-1")) < versions:
            try:
                store.append("run-1", [RunProgressed(1, version, 0)], expected_version=version)
            except WrongExpectedVersion:
                continue
            won.append(version)
    return won


def test_of_two_processes_exactly_one_wins_each_version(place: str) -> None:
    with WarmChild(win_versions, place, 300) as one, WarmChild(win_versions, place, 300) as other:
        for child in (one, other):
            assert child.hear() == "ready"
        for child in (one, other):
            child.tell("go")
        won = one.result() + other.result()
    assert sorted(won) == list(range(300))
    with open_store(place) as store:
        assert [r.event for r in store.read(stream="run-1")] == progressed(300)


def test_of_many_threads_exactly_one_wins_each_version(store: EventStore) -> None:
    start = threading.Barrier(4)

    def win(_: int) -> list[int]:
        won: list[int] = []
        start.wait()
        for version in range(100):
            try:
                store.append("run-1", [RunProgressed(1, version, 0)], expected_version=version)
            except WrongExpectedVersion:
                continue
            won.append(version)
        return won

    with ThreadPoolExecutor(4) as pool:
        won = [version for versions in pool.map(win, range(4)) for version in versions]
    assert sorted(won) == list(range(100))
    assert [r.event for r in store.read(stream="run-1")] == progressed(100)


def test_a_command_id_is_applied_once(store: EventStore) -> None:
    first = store.append("run-1", progressed(3), command_id="a")
    store.append("run-1", [RunStarted(1)])
    again = store.append("run-1", progressed(3), command_id="a")
    assert again == first
    assert {recorded.metadata.command_id for recorded in again} == {"a"}
    assert store.head() == 4


def test_a_command_id_of_an_empty_append_is_applied_once(store: EventStore) -> None:
    assert store.append("run-1", [], command_id="a") == []
    assert store.append("run-1", [], command_id="a") == []
    with pytest.raises(CommandIdReused, match="other arguments of append"):
        store.append("run-1", [RunStarted(1)], command_id="a")
    assert store.head() == 0


def test_a_command_id_is_known_after_opening_again(place: str) -> None:
    with open_store(place) as store:
        first = store.append("run-1", [RunStarted(1)], command_id="a")
    with open_store(place) as store:
        assert store.append("run-1", [RunStarted(1)], command_id="a") == first
        assert store.head() == 1


def test_a_command_id_is_applied_once_within_a_transaction(store: EventStore) -> None:
    with store.transaction():
        first = store.append("run-1", progressed(2), command_id="a")
        assert store.append("run-1", progressed(2), command_id="a") == first
    assert store.head() == 2


def test_a_command_that_was_rolled_back_is_not_known(store: EventStore) -> None:
    with suppress(KeyError), store.transaction():
        store.append("run-1", [RunStarted(1)], command_id="a")
        raise KeyError
    [recorded] = store.append("run-1", [RunStarted(1)], command_id="a")
    assert recorded.position == 1


def test_a_command_id_belongs_to_one_kind_of_command(store: EventStore) -> None:
    with store.transaction() as transaction:
        transaction.remember("a", "RequestStop", [])
    with pytest.raises(CommandIdReused, match="'a' was sent before with RequestStop"):
        store.append("run-1", [RunStarted(1)], command_id="a")
    assert store.head() == 0


# --- read ------------------------------------------------------------------------------------


@pytest.mark.property
def test_read_gives_what_a_list_would(new_place: Any, engine: str) -> None:
    @tries(60, engine)
    @given(
        batches=st.lists(
            st.tuples(st.sampled_from(STREAMS), st.lists(st.sampled_from(TYPES), max_size=4)),
            max_size=12,
        ),
        data=st.data(),
    )
    def check(batches: Any, data: st.DataObject) -> None:
        log: list[Recorded] = []
        with open_store(new_place()) as store:
            for stream, types in batches:
                events = [RunProgressed(1, 0, 0) if t is RunProgressed else t(1) for t in types]
                log += store.append(stream, events)
            for stream in STREAMS:
                versions = [recorded.version for recorded in log if recorded.stream == stream]
                assert versions == list(range(1, len(versions) + 1))
                assert store.version(stream) == len(versions)
            assert positions(log) == list(range(1, len(log) + 1))
            assert store.head() == len(log)
            for _ in range(10):
                check_read(store, log, data)

    check()


def check_read(store: EventStore, log: list[Recorded], data: st.DataObject) -> None:
    after = data.draw(st.integers(0, len(log) + 2), "after")
    stream = data.draw(st.none() | st.sampled_from(STREAMS), "stream")
    types = data.draw(st.none() | st.lists(st.sampled_from(TYPES)), "types")
    limit = data.draw(st.none() | st.integers(0, len(log) + 1), "limit")
    backwards = data.draw(st.booleans(), "backwards")
    expected = [
        recorded
        for recorded in (reversed(log) if backwards else log)
        if recorded.position > after
        and (stream is None or recorded.stream == stream)
        and (types is None or type(recorded.event) in types)
    ][:limit]
    read = store.read(after, stream=stream, types=types, limit=limit, backwards=backwards)
    assert list(read) == expected


def test_read_turns_pages(store: EventStore) -> None:
    total = 2 * PAGE + 1
    store.append("run-1", progressed(total - 1))
    store.append("run-2", [RunCompleted(2)])
    all_of_them = list(range(1, total + 1))
    assert positions(store.read()) == all_of_them
    assert positions(store.read(backwards=True)) == all_of_them[::-1]
    assert positions(store.read(stream="run-1")) == all_of_them[:-1]
    assert positions(store.read(stream="run-1", backwards=True)) == all_of_them[-2::-1]
    assert positions(store.read(types=[RunProgressed])) == all_of_them[:-1]
    assert positions(store.read(types=["RunCompleted"])) == [total]
    for limit in (PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, total):
        assert positions(store.read(limit=limit)) == all_of_them[:limit]
        assert positions(store.read(after=1, limit=limit)) == all_of_them[1 : limit + 1]
        assert positions(store.read(backwards=True, limit=limit)) == all_of_them[: -limit - 1 : -1]
    assert positions(store.read(after=PAGE)) == all_of_them[PAGE:]
    assert positions(store.read(after=PAGE, backwards=True)) == all_of_them[: PAGE - 1 : -1]


def test_a_read_ends_where_the_log_ended_when_it_began(store: EventStore) -> None:
    store.append("run-1", progressed(PAGE + 5))
    events = store.read()
    next(events)
    store.append("run-1", progressed(PAGE))
    assert sum(1 for _ in events) == PAGE + 4


@pytest.mark.parametrize("number", [-1, "5", 0.5, 2**63], ids=told)
@pytest.mark.parametrize("bound", ["after", "limit", "until"])
def test_bounds_that_cannot_be_are_refused(store: EventStore, bound: str, number: Any) -> None:
    with pytest.raises(InvalidCommand, match=f"{bound} is .*: pass a number from 0, of 64 bits"):
        list(store.read(**{bound: number}))


def test_a_snapshot_sees_one_moment(store: EventStore, place: str) -> None:
    store.append("run-1", [RunStarted(1)])
    with open_store(place) as other:
        with store.snapshot():
            assert store.head() == 1
            other.append("run-1", [RunCompleted(1)])
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(store.head).result() == 2
            assert store.head() == 1
            assert positions(store.read()) == [1]
            assert store.version("run-1") == 1
            with store.snapshot():
                assert store.head() == 1
        assert store.head() == 2


# --- payloads --------------------------------------------------------------------------------


def test_a_payload_is_stored_once(store: EventStore) -> None:
    digest = store.put_payload(b"weights")
    assert store.put_payload(b"weights") == digest
    assert store.put_payload(b"other weights") != digest
    assert store.get_payload(digest) == b"weights"
    with store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM payloads") == [(2,)]


def test_an_unknown_digest_is_refused(store: EventStore) -> None:
    with pytest.raises(NotFound, match="no payload has the digest"):
        store.get_payload("0" * 64)


def test_a_payload_is_rolled_back_with_its_transaction(store: EventStore) -> None:
    digest = ""
    with suppress(KeyError), store.transaction():
        digest = store.put_payload(b"weights")
        assert store.get_payload(digest) == b"weights"
        raise KeyError
    with pytest.raises(NotFound):
        store.get_payload(digest)


# --- transactions ----------------------------------------------------------------------------


def test_a_transaction_is_joined_and_seen_by_its_thread_alone(store: EventStore) -> None:
    with ThreadPoolExecutor(1) as pool, store.transaction():
        store.append("run-1", [RunStarted(1)])
        with store.transaction():
            store.append("run-1", [RunCompleted(1)])
        assert positions(store.read()) == [1, 2]
        assert store.version("run-1") == store.head() == 2
        assert pool.submit(store.head).result() == 0
        assert pool.submit(store.version, "run-1").result() == 0
    assert store.head() == 2


def test_an_error_takes_the_whole_transaction_back(store: EventStore) -> None:
    store.append("run-1", [RunStarted(1)])
    with suppress(KeyError), store.transaction():
        store.append("run-1", progressed(10))
        assert store.head() == 11
        with store.transaction():
            store.append("run-2", [RunStarted(2)])
        raise KeyError
    assert positions(store.read()) == [1]
    assert store.version("run-2") == 0
    [recorded] = store.append("run-1", [RunCompleted(1)])
    assert (recorded.position, recorded.version) == (2, 2)


def fail_within(store: EventStore, *appended: Event) -> None:
    with store.transaction():
        store.append("run-2", appended)
        raise KeyError


def test_a_block_that_fails_takes_those_around_it_back(store: EventStore) -> None:
    def catch_and_go_on() -> None:
        with store.transaction():
            store.append("run-1", [RunStarted(1)])
            with suppress(KeyError):
                fail_within(store, RunStarted(2))
            store.append("run-1", [RunCompleted(1)])

    with pytest.raises(StoreFailed, match="begin anew"):
        catch_and_go_on()
    assert store.head() == 0
    store.append("run-1", [RunStarted(1)], expected_version=0)


def test_a_block_that_fails_before_it_appends_can_be_caught(store: EventStore) -> None:
    with store.transaction():
        store.append("run-1", [RunStarted(1)])
        with suppress(KeyError):
            fail_within(store)
        store.append("run-1", [RunCompleted(1)])
    assert positions(store.read()) == [1, 2]


def test_an_invalid_event_takes_those_beside_it_back(store: EventStore) -> None:
    with pytest.raises(InvalidEvent):
        store.append("run-1", [*progressed(10), RunStarted(-1)])
    assert store.head() == 0


def test_threads_take_turns_to_write(store: EventStore) -> None:
    def write(stream: int) -> None:
        for n in range(50):
            with store.transaction():
                store.append(f"run-{stream}", [RunProgressed(stream, n, 0)])
                store.append(f"run-{stream}", [RunProgressed(stream, n, 1)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    events = list(store.read())
    assert positions(events) == list(range(1, 401))
    for first, second in zip(events[::2], events[1::2], strict=True):
        assert (second.stream, second.version) == (first.stream, first.version + 1)
    for stream in range(4):
        progress = [r.event for r in store.read(stream=f"run-{stream}")]
        assert progress == [RunProgressed(stream, n, e) for n in range(50) for e in (0, 1)]


def append_progress(_: Parent, place: str, stream: str, count: int) -> None:
    with open_store(place) as store:
        for event in progressed(count):
            store.append(stream, [event])


def test_a_reader_never_meets_an_earlier_position_later(
    store: EventStore, place: str, engine: str
) -> None:
    count = 500
    with (
        WarmChild(append_progress, place, "a", count) as one,
        WarmChild(append_progress, place, "b", count) as other,
    ):
        seen: list[int] = []
        written = False
        while not written:
            written = one.has_ended() and other.has_ended()  # then this is the last look
            news = positions(store.read(after=seen[-1] if seen else 0))
            assert all(earlier < later for earlier, later in pairwise(seen[-1:] + news))
            seen += news
        one.result()
        other.result()
    assert len(seen) == 2 * count
    assert seen == positions(store.read())
    if engine == "sqlite":
        assert seen == list(range(1, 2 * count + 1))

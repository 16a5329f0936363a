"""Subscriptions: everything that happened, then everything that happens, once and in order."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any

import pytest
from children import Child, Parent, WarmChild, call

from refold.eventstore import EventStore, Recorded, StoreClosed, open_store, upcaster
from refold.eventstore.event import Event
from refold.eventstore.events import RunCompleted, RunProgressed, RunStarted
from refold.eventstore.paging import PAGE


def progressed(count: int) -> list[RunProgressed]:
    return [RunProgressed(1, n, 0) for n in range(count)]


def positions(events: Iterable[Recorded]) -> list[int]:
    return [recorded.position for recorded in events]


async def take(events: AsyncIterator[Recorded], count: int) -> list[Recorded]:
    return [await anext(events) for _ in range(count)]


# --- catching up and following ---------------------------------------------------------------


def test_it_catches_up_then_follows(store: EventStore) -> None:
    log = store.append("run-1", progressed(3))
    with store.subscribe() as events:
        assert list(islice(events, 3)) == log
        for n in range(3):
            [recorded] = store.append("run-1", [RunProgressed(1, n, 1)])
            assert next(events) == recorded
            assert events.position == recorded.position


def test_it_catches_up_then_follows_when_awaited(store: EventStore) -> None:
    async def follow() -> None:
        log = store.append("run-1", progressed(3))
        async with store.subscribe() as events:
            assert await take(events, 3) == log
            for n in range(3):
                waiting = asyncio.create_task(take(events, 1))
                await asyncio.sleep(0)  # let it begin to wait
                assert await waiting_is_free_to_others()
                appended = store.append("run-1", [RunProgressed(1, n, 1)])
                assert await waiting == appended
            assert events.position == 6

    async def waiting_is_free_to_others() -> bool:
        return await asyncio.to_thread(store.head) >= 3

    asyncio.run(follow())


def test_it_begins_after_a_position(store: EventStore) -> None:
    log = store.append("run-1", progressed(5))
    with store.subscribe(after=3) as events:
        assert list(islice(events, 2)) == log[3:]


def test_it_begins_now(store: EventStore) -> None:
    store.append("run-1", progressed(5))
    with store.subscribe(after=None) as events:
        [recorded] = store.append("run-1", [RunStarted(1)])
        assert next(events) == recorded


def test_it_may_begin_before_there_is_anything(store: EventStore) -> None:
    with ThreadPoolExecutor(1) as pool, store.subscribe() as events:
        first = pool.submit(next, events)
        [recorded] = store.append("run-1", [RunStarted(1)])
        assert first.result() == recorded


def test_it_turns_pages(store: EventStore) -> None:
    total = 3 * PAGE + 1
    store.append("run-1", progressed(total))
    with store.subscribe() as events:
        assert positions(islice(events, total)) == list(range(1, total + 1))
        store.append("run-1", progressed(2 * PAGE))
        assert positions(islice(events, 2 * PAGE))[-1] == store.head()

    async def follow() -> list[Recorded]:
        async with store.subscribe() as events:
            return await take(events, total)

    assert positions(asyncio.run(follow())) == list(range(1, total + 1))


def test_only_a_stream_is_followed(store: EventStore) -> None:
    store.append("run-1", progressed(2))
    store.append("run-2", [RunStarted(2)])
    with store.subscribe(stream="run-2") as events:
        assert next(events).event == RunStarted(2)
        store.append("run-1", progressed(2))
        store.append("run-2", [RunCompleted(2)])
        assert next(events).event == RunCompleted(2)


def test_only_types_are_followed(store: EventStore) -> None:
    store.append("run-1", [RunStarted(1), *progressed(3), RunCompleted(1)])
    with store.subscribe(types=(t for t in (RunStarted, "RunCompleted"))) as events:
        assert [r.event for r in islice(events, 2)] == [RunStarted(1), RunCompleted(1)]
        store.append("run-2", progressed(3))
        store.append("run-2", [RunStarted(2)])
        store.append("run-2", progressed(3))
        store.append("run-2", [RunCompleted(2)])
        assert [r.event for r in islice(events, 2)] == [RunStarted(2), RunCompleted(2)]


def test_what_is_rolled_back_is_never_seen(store: EventStore) -> None:
    with ThreadPoolExecutor(1) as pool, store.subscribe() as events:
        first = pool.submit(next, events)
        with pytest.raises(KeyError):
            append_in_vain(store)
        [recorded] = store.append("run-1", [RunStarted(1)])
        assert first.result() == recorded


def test_what_its_own_thread_has_not_committed_has_not_happened(store: EventStore) -> None:
    committed = store.append("run-1", progressed(2))
    with store.subscribe() as events:
        with suppress(KeyError), store.transaction():
            store.append("run-1", progressed(3))
            assert list(islice(events, 2)) == committed
            raise KeyError
        [recorded] = store.append("run-1", [RunStarted(1)])
        assert next(events) == recorded


def append_in_vain(store: EventStore) -> None:
    with store.transaction():
        store.append("run-1", progressed(3))
        store.head()  # writes them out
        raise KeyError


# --- other processes -------------------------------------------------------------------------


def append_when_told(parent: Parent, place: str, count: int) -> None:
    with open_store(place) as store:
        parent.tell("ready")
        for event in progressed(count):
            parent.hear()
            store.append("run-1", [event])


def test_events_of_another_process_arrive(store: EventStore, place: str) -> None:
    with Child(append_when_told, place, 10) as child, store.subscribe() as events:
        child.hear()
        for n in range(10):
            child.tell("append")
            assert next(events).event == RunProgressed(1, n, 0)
        child.result()


def test_events_of_another_process_arrive_when_awaited(store: EventStore, place: str) -> None:
    async def follow(child: Child) -> None:
        async with store.subscribe() as events:
            for n in range(10):
                child.tell("append")
                assert (await anext(events)).event == RunProgressed(1, n, 0)

    with Child(append_when_told, place, 10) as child:
        child.hear()
        asyncio.run(follow(child))
        child.result()


def follow_to(parent: Parent, place: str, last: int) -> list[int]:
    with open_store(place) as store, store.subscribe() as events:
        parent.tell("ready")
        return positions(islice(events, last))


def append_many(parent: Parent, place: str, count: int) -> None:
    with open_store(place) as store:
        parent.tell("ready")
        parent.hear()
        for event in progressed(count):
            store.append("run-1", [event])


def test_nothing_is_skipped_or_doubled(store: EventStore, place: str, engine: str) -> None:
    each, threads = 300, 3
    last = each * (threads + 1)

    def append(n: int) -> None:
        for event in progressed(each):
            with store.transaction():
                store.append(f"run-{n}", [event])

    async def follow() -> list[Recorded]:
        async with store.subscribe() as events:
            return await take(events, last)

    def follow_here() -> list[int]:
        with store.subscribe() as events:
            return positions(islice(events, last))

    with (
        WarmChild(append_many, place, each) as writer,
        WarmChild(follow_to, place, last) as reader,
        ThreadPoolExecutor() as pool,
    ):
        assert (writer.hear(), reader.hear()) == ("ready", "ready")
        awaited, here = pool.submit(asyncio.run, follow()), pool.submit(follow_here)
        writer.tell("go")
        list(pool.map(append, range(threads)))
        followed = [reader.result(), here.result(), positions(awaited.result())]
        everything = positions(store.read())
        assert len(everything) == last
        assert followed == [everything] * 3
        if engine == "sqlite":
            assert everything == list(range(1, last + 1))


# --- the end ---------------------------------------------------------------------------------


def test_closing_it_from_another_thread_ends_a_wait(store: EventStore) -> None:
    store.append("run-1", [RunStarted(1)])
    caught_up = threading.Event()

    def follow(events: Iterator[Recorded]) -> list[Recorded]:
        seen = [next(events)]
        caught_up.set()
        return [*seen, *events]

    with ThreadPoolExecutor(1) as pool:
        events = store.subscribe()
        followed = pool.submit(follow, events)
        caught_up.wait()
        events.close()
        assert positions(followed.result()) == [1]
        events.close()
        assert list(events) == []


def test_closing_it_from_another_task_ends_a_wait(store: EventStore) -> None:
    async def follow() -> None:
        events = store.subscribe()
        waiting = asyncio.create_task(anext(events, None))
        await asyncio.sleep(0)  # let it begin to wait
        events.close()
        assert await waiting is None
        assert [recorded async for recorded in events] == []

    asyncio.run(follow())


def test_nothing_comes_after_it_was_closed(store: EventStore) -> None:
    store.append("run-1", progressed(10))
    events = store.subscribe()
    next(events)
    events.close()
    assert list(events) == []


def test_closing_it_while_it_gives_ends_it_in_order(
    store: EventStore, threads_alternate_often: None
) -> None:
    store.append("run-1", progressed(2_000))

    def follow(events: Iterator[Recorded], flowing: threading.Event) -> list[int]:
        seen: list[int] = []
        for recorded in events:
            seen.append(recorded.position)
            flowing.set()
        return seen

    with ThreadPoolExecutor(1) as pool:
        for _ in range(40):
            events, flowing = store.subscribe(), threading.Event()
            followed = pool.submit(follow, events, flowing)
            flowing.wait()
            events.close()
            seen = followed.result()
            assert seen == list(range(1, len(seen) + 1))


@pytest.fixture
def threads_alternate_often() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_closing_the_store_ends_it_with_an_error(store: EventStore) -> None:
    store.append("run-1", [RunStarted(1)])
    events = store.subscribe()
    next(events)
    store.close()
    with pytest.raises(StoreClosed, match="open it again"):
        next(events)


# --- cancelling ------------------------------------------------------------------------------


def test_a_wait_that_is_cancelled_loses_nothing(store: EventStore) -> None:
    async def follow() -> None:
        async with store.subscribe() as events:
            waiting = asyncio.create_task(anext(events))
            await asyncio.sleep(0)  # let it begin to wait
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            log = store.append("run-1", progressed(3))
            assert await take(events, 3) == log

    asyncio.run(follow())


class Probed(Event, frozen=True):
    """Stored under schema version 1, so that reading it goes through the upcaster below."""

    schema_version = 2
    n: int


class Gate:
    """Where reading old events comes to a halt, if a test wants it."""

    opened = threading.Event()
    reached = threading.Event()


@upcaster("Probed", 1)
def halt(data: dict[str, Any]) -> dict[str, Any]:
    Gate.reached.set()
    Gate.opened.wait()
    return data


def write_probes(_: Parent, place: str) -> None:
    Probed.schema_version = 1
    with open_store(place) as store:
        store.append("probe", [Probed(n) for n in range(3)])


@pytest.mark.parametrize("more", [[], [RunStarted(1)]], ids=["no news", "news"])
def test_a_read_that_is_cancelled_loses_and_doubles_nothing(
    store: EventStore, place: str, more: list[Event]
) -> None:
    call(write_probes, place)
    Gate.opened.clear()
    Gate.reached.clear()

    async def follow() -> None:
        async with store.subscribe() as events:
            reading = asyncio.create_task(anext(events))
            await asyncio.to_thread(Gate.reached.wait)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            store.append("run-1", more)
            again = asyncio.create_task(take(events, 3 + len(more)))
            await asyncio.sleep(0)  # let it begin, beside the read that nobody waits for
            Gate.opened.set()
            assert positions(await again) == list(range(1, 4 + len(more)))

    asyncio.run(follow())

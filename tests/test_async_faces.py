"""The async faces: the sync ones, awaited; and `asynchronous.pyi`, which is made from them."""

import ast
import asyncio
import inspect
import threading
from contextlib import contextmanager
from functools import wraps

import pytest
from children import Child, Parent

from refold import (
    AsyncRFDatabase,
    AsyncRfDb,
    IllegalTransition,
    NotAStore,
    NotFound,
    RFDatabase,
    RfDb,
    RunStatus,
    StoreClosed,
    StoreFailed,
    WriteRefused,
)
from refold.asynchronous import AsyncFace
from refold.eventstore.events import ExperimentCreated
from tools.async_stub import STUB, stub

PAIRS = [(AsyncRfDb, RfDb), (AsyncRFDatabase, RFDatabase)]

BLOCKS = {"batch", "metrics", "watching"}
"""What stands behind `async with`."""


def awaited(test):
    """Run an async test on an event loop of its own."""

    @wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


def names(db):
    return [row["experiment_name"] for row in db.db.execute("SELECT * FROM experiments")]


# --- the stub -------------------------------------------------------------------------------


def test_the_stub_is_up_to_date():
    assert STUB.read_text("utf-8") == stub(), "run `make generate` (tools/async_stub.py)"


def test_the_stub_tells_every_public_method_of_the_faces():
    told = {
        node.name: {n.name: n for n in node.body if hasattr(n, "name")}
        for node in ast.parse(stub()).body
        if isinstance(node, ast.ClassDef)
    }
    for async_face, _ in PAIRS:
        methods = told["AsyncFace"] | told[async_face.__name__]
        public = {name for name in dir(async_face) if not name.startswith("_")}
        assert public - {"face_type"} == {name for name in methods if not name.startswith("_")}
        for name in public - {"face_type", *BLOCKS}:
            assert isinstance(methods[name], ast.AsyncFunctionDef), name


# --- derived --------------------------------------------------------------------------------


@pytest.mark.parametrize(("async_face", "sync_face"), PAIRS)
def test_every_public_method_of_the_sync_face_is_awaited(async_face, sync_face):
    methods = inspect.getmembers(sync_face, inspect.isfunction)
    for name, method in methods:
        if name.startswith("_") or name in BLOCKS:
            continue
        derived = getattr(async_face, name)
        assert inspect.iscoroutinefunction(derived), name
        assert inspect.signature(derived).parameters == inspect.signature(method).parameters, name
        if name not in vars(AsyncFace):
            assert derived.__doc__ == method.__doc__


@awaited
async def test_training_as_with_the_sync_face(new_place):
    place = new_place()
    async with AsyncRfDb(place, actor="controller") as db:
        exp_id = await db.create_experiment("digits", status="RUNNING")
        run_id = await db.create_run(exp_id, config_leaf={"lr": 0.1}, num_chunks=8)
        await db.create_worker_task(run_id, worker_id=0, chunk_id=0)
        await db.set_run_status(run_id, RunStatus.ONGOING)
        task = await db.claim_next_worker_task(0)
        assert task["status"] == "IN_PROGRESS"
        await db.update_run_metrics(run_id, {"loss": 0.5})
        await db.request_stop(run_id, command_id="stop-1")
        await db.request_stop(run_id, command_id="stop-1")
        run, requests = await db.get_run(run_id), await db.get_ic_ops_request()
        assert run["config_leaf"] == {"lr": 0.1}
        assert len(requests) == 1
        with pytest.raises(NotFound, match="there is no run 99"):
            await db.set_run_status(99, "ONGOING")
        with pytest.raises(IllegalTransition, match="run 1 is ONGOING"):
            await db.set_run_status(run_id, "NEW")
        assert await db.verify() == []
        assert await db.rebuild() == 7
    with RfDb(place) as sync:
        assert sync.get_run(run_id) == run
        assert sync.get_ic_ops_request() == requests
        assert {recorded.metadata.actor for recorded in sync.store.read()} == {"controller"}


@awaited
async def test_inference_as_with_the_sync_face(place):
    async with AsyncRFDatabase(place) as db:
        exp_id = await db.create_experiment(experiment_name="qwen", num_shards=5, num_actors=4)
        context_id = await db.create_context("a1b2")
        assert await db.create_context("a1b2") == context_id
        pipeline_id = await db.create_pipeline(exp_id, "baseline", "vllm", context_id=context_id)
        await db.set_pipeline_progress(pipeline_id, 0, 1, 100)
        pipelines = await db.get_all_pipelines(exp_id)
    with RFDatabase(place) as sync:
        assert sync.get_all_pipelines(exp_id) == pipelines


@awaited
async def test_the_past(place):
    async with AsyncRfDb(place) as db:
        run_id = await db.create_run(await db.create_experiment("digits"))
        await db.set_run_progress(run_id, 3, 0)
        async with await db.as_of(2) as past:
            assert isinstance(past, AsyncRfDb)
            assert (await past.get_run(run_id))["current_chunk"] == 0
            assert await past.execute("SELECT current_chunk FROM runs") == [{"current_chunk": 0}]
            with pytest.raises(WriteRefused):
                await past.set_run_progress(run_id, 4, 0)
        [_, touched] = await db.history("run", run_id)
        assert touched.change.columns == {"current_chunk": (0, 3)}
        assert (await db.get_run(run_id))["current_chunk"] == 3


@awaited
async def test_execute(place):
    async with AsyncRfDb(place) as db:
        await db.create_experiment("digits")
        query = "SELECT experiment_name FROM experiments WHERE experiment_id = ?"
        assert await db.execute(query, (1,)) == [{"experiment_name": "digits"}]
        with pytest.raises(WriteRefused):
            await db.execute("DELETE FROM events")
        async with db.batch():
            await db.create_experiment("second")
            assert len(await db.execute("SELECT * FROM experiments")) == 2


@awaited
async def test_all_calls_run_on_one_thread_off_the_event_loop(place):
    threads = set()

    def clock():
        threads.add(threading.get_ident())
        return 0

    async with AsyncRfDb(place, clock=clock) as db:
        await asyncio.gather(*(db.create_experiment(str(n)) for n in range(20)))
        async with db.batch():
            await db.create_experiment("in a batch")
        assert len(threads) == 1
        assert threading.get_ident() not in threads


@awaited
async def test_the_event_loop_goes_on_while_a_call_waits(place):
    with RfDb(place) as other:
        async with AsyncRfDb(place) as db, AsyncRfDb(place) as reader:
            with other.batch():
                other.create_experiment("first")
                waiting = asyncio.create_task(db.create_experiment("second"))
                for _ in range(10):
                    assert await reader.execute("SELECT * FROM experiments") == []
                assert not waiting.done()
            assert await waiting == 2


@awaited
async def test_many_tasks_at_once(place):
    async with AsyncRfDb(place) as db:
        exp_id = await db.create_experiment("digits")
        ids = await asyncio.gather(*(db.create_run(exp_id) for _ in range(100)))
        assert sorted(ids) == list(range(1, 101))
        assert len(await db.get_all_runs()) == 100


# --- batches --------------------------------------------------------------------------------


@awaited
async def test_a_batch_is_one_transaction(place):
    with RfDb(place) as other:
        async with AsyncRfDb(place) as db:
            async with db.batch():
                exp_id = await db.create_experiment("digits")
                await db.create_run(exp_id)
                assert len(await db.get_all_runs()) == 1
                assert other.store.head() == 0
            assert other.store.head() == 2


@awaited
async def test_an_error_takes_all_of_a_batch_back(place):
    async def fail(db):
        async with db.batch():
            await db.create_experiment("gone")
            await db.set_run_status(99, "ONGOING")

    async with AsyncRfDb(place) as db:
        with pytest.raises(NotFound):
            await fail(db)
        assert await db.execute("SELECT * FROM events") == []
        assert await db.create_experiment("the id was not used") == 1


@awaited
async def test_a_refused_command_that_is_caught_leaves_the_batch_whole(place):
    async with AsyncRfDb(place) as db:
        async with db.batch():
            await db.create_experiment("digits")
            with pytest.raises(NotFound):
                await db.set_run_status(99, "ONGOING")
        assert len(await db.execute("SELECT * FROM events")) == 1


@awaited
async def test_a_batch_within_a_batch_joins_it(place):
    async def fail(db):
        async with db.batch():
            async with db.batch():
                await db.create_experiment("inner")
            raise ZeroDivisionError

    async with AsyncRfDb(place) as db:
        with pytest.raises(ZeroDivisionError):
            await fail(db)
        assert await db.execute("SELECT * FROM events") == []


@awaited
async def test_an_error_that_leaves_an_inner_batch_takes_the_outer_one_back(place):
    async def inner(db):
        async with db.batch():
            await db.create_experiment("inner")
            raise ZeroDivisionError

    async def outer(db):
        async with db.batch():
            await db.create_experiment("outer")
            with pytest.raises(ZeroDivisionError):
                await inner(db)

    async with AsyncRfDb(place) as db:
        with pytest.raises(StoreFailed, match="rolled back"):
            await outer(db)
        assert await db.execute("SELECT * FROM events") == []
        assert await db.create_experiment("next") == 1


@awaited
async def test_another_task_waits_for_the_end_of_a_batch(place):
    async with AsyncRfDb(place) as db:
        turn, begun = asyncio.Event(), asyncio.Event()

        async def intrude():
            await turn.wait()
            begun.set()
            return await db.create_experiment("intruder")

        # Started before the batch: what a batch starts itself is part of it.
        intruder = asyncio.create_task(intrude())

        async def batch():
            async with db.batch():
                await db.create_experiment("first")
                turn.set()
                await begun.wait()
                for n in range(20):
                    await db.create_experiment(str(n))
                assert not intruder.done()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await batch()
        assert await intruder == 1
        assert await db.execute("SELECT experiment_name FROM experiments") == [
            {"experiment_name": "intruder"}
        ]


@awaited
async def test_tasks_that_a_batch_starts_are_part_of_it(place):
    async with AsyncRfDb(place) as db:
        exp_id = await db.create_experiment("digits")
        async with db.batch():
            await asyncio.gather(*(db.create_run(exp_id) for _ in range(5)))
            with RfDb(place) as other:
                assert other.get_all_runs() == []
        assert len(await db.get_all_runs()) == 5


@awaited
async def test_a_task_that_outlives_its_batch_is_on_its_own(place):
    async with AsyncRfDb(place) as db:
        turn = asyncio.Event()

        async def late():
            await turn.wait()
            return await db.create_experiment("late")

        async with db.batch():
            straggler = asyncio.create_task(late())
        async with db.batch():
            await db.create_experiment("first")
            turn.set()
            await asyncio.sleep(0)
            assert not straggler.done()
        assert await straggler == 2


@awaited
async def test_batches_of_two_faces_may_be_nested(new_place):
    first, second = new_place(), new_place()
    async with AsyncRfDb(first) as a, AsyncRfDb(second) as b, asyncio.timeout(30):
        async with a.batch():
            async with b.batch():
                await b.create_experiment("b")
                await a.create_experiment("a")
            await a.create_experiment("a again")
        assert len(await a.execute("SELECT * FROM experiments")) == 2
        assert len(await b.execute("SELECT * FROM experiments")) == 1


@awaited
async def test_cancellation_takes_all_of_a_batch_back(place):
    async with AsyncRfDb(place) as db:
        begun = asyncio.Event()

        async def batch():
            async with db.batch():
                await db.create_experiment("gone")
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(batch())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await db.execute("SELECT * FROM events") == []
        assert await db.create_experiment("next") == 1
        with RfDb(place, timeout=0) as other:
            assert names(other) == ["next"]
            other.create_experiment("the lock is free")


class Announcing(RfDb):
    """A face that tells when it begins a batch."""

    begins = threading.Event()

    @contextmanager
    def batch(self):
        self.begins.set()
        with super().batch():
            yield


class AsyncAnnouncing(AsyncFace, face=Announcing):
    """Likewise, awaited."""


@awaited
async def test_cancellation_while_a_batch_waits_to_begin(place):
    Announcing.begins.clear()
    with RfDb(place) as other:
        async with AsyncAnnouncing(place) as db:

            async def batch():
                async with db.batch():
                    raise AssertionError("it must not begin")

            with other.batch():
                task = asyncio.create_task(batch())
                await asyncio.to_thread(Announcing.begins.wait)
                task.cancel()
            # The error is kept, and with it the frames of the batch, as a log would do.
            with pytest.raises(asyncio.CancelledError) as kept:
                await task
            assert await db.create_experiment("next") == 1
            assert names(other) == ["next"], "what was acknowledged is not committed"
            with RfDb(place, timeout=0) as third:
                third.create_experiment("the lock is free")
            del kept


@awaited
async def test_a_command_of_a_cancelled_task_happens_or_not_but_never_half(place):
    async with AsyncRfDb(place) as db:
        for turns in range(5):
            task = asyncio.create_task(db.create_experiment(str(turns)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await db.verify() == []
        await db.create_experiment("last")
        rows = await db.execute("SELECT * FROM experiments ORDER BY experiment_id")
        assert rows[-1]["experiment_name"] == "last"
        assert [row["experiment_id"] for row in rows] == list(range(1, len(rows) + 1))


# --- subscriptions --------------------------------------------------------------------------


def write_from_another_process(parent: Parent, place: str) -> None:
    with RfDb(place) as db:
        while name := parent.hear():
            db.create_experiment(name)


@awaited
async def test_a_subscription_gives_events_of_this_and_of_another_process(place):
    async with AsyncRfDb(place) as db:
        await db.create_experiment("0")
        async with await db.subscribe() as subscription:
            with Child(write_from_another_process, place) as child:
                heard = []
                async for recorded in subscription:
                    heard.append(recorded.event.experiment_name)
                    if len(heard) == 6:
                        child.tell("")
                        break
                    if len(heard) % 2:
                        child.tell(str(len(heard)))
                    else:
                        await db.create_experiment(str(len(heard)))
        assert heard == ["0", "1", "2", "3", "4", "5"]


@awaited
async def test_a_subscription_can_be_filtered_and_begin_anywhere(place):
    async with AsyncRfDb(place) as db:
        exp_id = await db.create_experiment("digits")
        await db.create_run(exp_id)
        await db.create_experiment("second")
        subscription = await db.subscribe(1, types=[ExperimentCreated])
        assert (await anext(subscription)).event.experiment_name == "second"
        subscription.close()
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)


@awaited
async def test_the_event_loop_goes_on_while_a_subscription_waits(place):
    async with AsyncRfDb(place) as db, await db.subscribe() as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        for _ in range(10):
            await db.get_all_runs()
        assert not waiting.done()
        await db.create_experiment("digits")
        assert (await waiting).position == 1


# --- opening and closing --------------------------------------------------------------------


@awaited
async def test_closing_twice_does_nothing(place):
    db = AsyncRfDb(place)
    await db.create_experiment("digits")
    await asyncio.gather(db.close(), db.close())
    await db.close()
    never_used = AsyncRfDb(place)
    await never_used.close()
    await never_used.close()


@pytest.mark.parametrize("used", [True, False])
@awaited
async def test_a_closed_face_says_so(place, used):
    db = AsyncRfDb(place)
    if used:
        await db.create_experiment("digits")
    await db.close()

    async def batch():
        async with db.batch():
            pass

    for use in (
        lambda: db.create_experiment("digits"),
        db.get_all_runs,
        lambda: db.execute("SELECT 1"),
        db.subscribe,
        batch,
    ):
        with pytest.raises(StoreClosed, match="closed"):
            await use()


@awaited
async def test_a_place_that_is_no_store(tmp_path):
    db = AsyncRfDb(tmp_path)
    with pytest.raises(NotAStore, match="is a folder"):
        await db.get_all_runs()
    with pytest.raises(NotAStore, match="is a folder"):
        async with AsyncRfDb(tmp_path):
            pass
    await db.close()


@awaited
async def test_leaving_the_block_closes(place):
    async with AsyncRfDb(place) as db:
        await db.create_experiment("digits")
    with pytest.raises(StoreClosed, match="closed"):
        await db.get_all_runs()


def test_a_face_outlives_an_event_loop(place):
    db = AsyncRfDb(place)
    assert asyncio.run(db.create_experiment("first")) == 1
    assert asyncio.run(db.create_experiment("second")) == 2
    asyncio.run(db.close())

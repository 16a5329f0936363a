"""An exception out of a signal handler, at any moment: nothing is half done or stays held."""

import os
import random
import signal
import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from children import Parent, call
from test_forks import ended_well, forked
from tries import LONGER

import refold
from refold import RfDb
from refold.eventstore.errors import TransactionFailed

HERE = Path(refold.__file__).resolve().parent.parent
ROOMS = tuple(f"{HERE / room}/" for room in ("refold", "eventstore", "projections", "commands"))


class Interrupt(BaseException):
    """What a signal handler raises, such as a KeyboardInterrupt."""


@cache
def is_ours(code: CodeType) -> bool:
    return os.path.realpath(code.co_filename).startswith(ROOMS)


@cache
def is_of_a_pipeline(code: CodeType) -> bool:
    """Tell whether it is psycopg's code that sends statements together."""
    return "psycopg" in code.co_filename and "pipeline" in code.co_qualname.lower()


class Interrupter:
    """Raises at the nth instruction that is carried out in refold's own code, or in other."""

    def __init__(self, within: Callable[[CodeType], bool] = is_ours) -> None:
        self.left = 0
        self._within = within

    def _enter(self, frame: FrameType, _: str, __: object) -> Any:
        if not self._within(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, _: FrameType, event: str, __: object) -> Any:
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise Interrupt
        return self._step

    def interrupts(self, n: int, work: Callable[[], object]) -> bool:
        """Do it, interrupt its nth instruction, and return whether there is one."""
        self.left = n
        before = sys.gettrace()  # that of a measurement of coverage
        try:
            sys.settrace(self._enter)
            work()
        finally:
            sys.settrace(before)
        return self.left <= 0


class Scene:
    """A face that is interrupted, and another one that works on the same store."""

    def __init__(self, place: str) -> None:
        self.db = RfDb(place, timeout=5)
        # It does not wait: whatever the interrupted one has begun must be over. A server, however,
        # may take some milliseconds to see that a connection is closed.
        self.on_server = "://" in place
        self.other = RfDb(place, timeout=5 if self.on_server else 0)
        self.run_id = self.db.create_run(self.db.create_experiment("interrupted"))
        self.checked_id = self.db.create_run(1)
        self.n = 0
        self.kept: deque[BaseException] = deque(maxlen=5)
        """As a notebook keeps the last traceback."""

    def progress(self) -> None:
        self.db.set_run_progress(self.run_id, self.n, 0)

    def create(self) -> None:
        self.db.create_run(1, config_leaf={"n": self.n})

    def read(self) -> None:
        self.db.get_all_runs()

    def query(self) -> None:
        self.db.db.execute("SELECT * FROM runs")

    def snapshot(self) -> None:
        with self.db.store.snapshot():
            self.db.get_run(self.run_id)

    def batch(self) -> None:
        with self.db.batch():
            self.progress()
            self.db.update_run_metrics(self.run_id, {"n": self.n})

    def batch_within_a_batch(self) -> None:
        interrupt = None
        try:
            with self.db.batch():
                self.db.set_run_progress(self.checked_id, self.n, 3)
                try:
                    with self.db.batch():
                        self.progress()
                        self.db.update_run_metrics(self.run_id, {"n": self.n})
                except Interrupt as error:
                    interrupt = error
        except TransactionFailed:
            assert interrupt is not None
        if interrupt is not None:
            raise interrupt

    def subscription(self) -> None:
        with self.db.subscribe(after=self.db.store.head() - 1) as events:
            events.wait(0)

    def check(self) -> None:
        """Look whether all is well, from both faces."""
        db, other = self.db, self.other
        run = other.get_run(self.run_id)
        if run["metrics"]:
            assert run["metrics"]["n"] == run["current_chunk"], "a half of a batch"
        other.set_run_progress(self.checked_id, self.n, 0)
        assert db.get_run(self.checked_id)["current_chunk"] == self.n, "an old moment"
        engine: Any = db.store.engine
        if self.on_server:
            assert all(raw.info.transaction_status == 0 for raw in engine._pool._idle)
        else:
            assert not any(reader.raw.in_transaction for reader in engine._readers._idle)
        db.set_run_progress(self.checked_id, self.n, 1)
        assert other.get_run(self.checked_id)["current_epoch"] == 1, "not committed"
        if os.path.exists("/proc/self/fd"):
            assert len(os.listdir("/proc/self/fd")) < 100

    def check_fork(self) -> None:
        """Look whether a child can use the store."""
        assert ended_well(forked(partial(self.db.set_run_progress, self.checked_id, self.n, 2)))

    def close(self) -> None:
        assert self.db.verify() == []
        self.check_fork()
        self.db.close()
        self.other.close()


@pytest.fixture
def scene(place: str) -> Iterator[Scene]:
    scene = Scene(place)
    yield scene
    scene.close()


WORKS = [
    Scene.progress,
    Scene.create,
    Scene.read,
    Scene.query,
    Scene.snapshot,
    Scene.batch,
    Scene.batch_within_a_batch,
    Scene.subscription,
]

STEPS = {"sqlite": 1, "postgres": 11} if LONGER > 1 else {"sqlite": 13, "postgres": 199}
"""Every so manieth moment is tried; in `make soak` on SQLite each."""


# One within a `__del__` is printed and ignored by Python, which then closes what is left.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.loop
@pytest.mark.parametrize("work", WORKS)
def test_an_interrupt_at_every_moment(
    scene: Scene, work: Callable[[Scene], None], engine: str
) -> None:
    interrupt_all(scene, work, Interrupter(), STEPS[engine])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_while_psycopg_sends_statements_together(scene: Scene, engine: str) -> None:
    if engine != "postgres":
        pytest.skip("psycopg talks to a server")
    interrupt_all(scene, Scene.batch, Interrupter(is_of_a_pipeline), 7)


def interrupt_all(
    scene: Scene, work: Callable[[Scene], None], interrupter: Interrupter, step: int
) -> None:
    """Interrupt each nth moment of some work, and look each time whether all is well."""
    if work in (Scene.batch, Scene.batch_within_a_batch):
        scene.batch()
    # The loop begins with the coldest caches: every other time somebody else has written.
    for n in count(1 + scene.checked_id % step, step):
        scene.n = n
        try:
            if not interrupter.interrupts(n, partial(work, scene)):
                break
        except (Interrupt, KeyboardInterrupt) as error:  # SQLite swallows one in its callbacks
            scene.kept.append(error)
        scene.check()
        if n % 100 < step:
            scene.check_fork()


def interrupt_at_random(_: Parent, place: str, seed: int, most: int) -> dict[str, int]:
    """Interrupt a face by a timer so often; return how often something was wrong afterwards."""
    scene, moments, armed = Scene(place), random.Random(seed), False

    def handler(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Interrupt

    signal.signal(signal.SIGALRM, handler)
    works = [work for work in WORKS if work is not Scene.progress]  # alone it is half of a batch
    counts = Counter(interrupts=0, wrong=0, forks=0)
    scene.batch()
    while counts["interrupts"] < most:
        scene.n += 1
        work = moments.choice(works)
        try:
            armed = True
            longest = 2e-2 if scene.on_server else 4e-4
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, longest))
            work(scene)
            armed = False
        except (Interrupt, KeyboardInterrupt) as error:
            scene.kept.append(error)
            counts["interrupts"] += 1
        armed = False
        try:
            scene.check()
            if counts["interrupts"] % 1_000 == 0:
                scene.check_fork()
                counts["forks"] += 1
        except AssertionError:
            traceback.print_exc()
            counts["wrong"] += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    scene.close()
    return dict(counts)


def test_interrupts_within_the_engine(place: str, seed: int) -> None:
    """Those of before come in our own code; these in the engine's, too."""
    assert call(interrupt_at_random, place, seed, 60)["wrong"] == 0


@pytest.mark.soak
def test_interrupts_by_the_thousand(
    place: str, engine: str, seed: int, record_property: Callable[[str, Any], None]
) -> None:
    counts = call(interrupt_at_random, place, seed, 100_000 if engine == "sqlite" else 3_000)
    record_property("counts", f"{counts}")
    assert counts["wrong"] == 0

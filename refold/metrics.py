"""Metrics of runs: the fast lane into the log, and their points read back."""

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from struct import error as StructError
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self
from zlib import crc32

from msgspec import UNSET
from msgspec.structs import replace

from refold.commands.command import execute
from refold.commands.fit import LogPoints
from refold.eventstore import Metadata
from refold.eventstore.arguments import check_text, excerpt
from refold.eventstore.engines.log_end import store_row
from refold.eventstore.errors import DBException, InvalidCommand, StoreClosed, StoreWarning
from refold.eventstore.events import MetricsLogged, RunMetricsRecorded
from refold.eventstore.forks import watch_forks
from refold.eventstore.log.readable import ReadableLog
from refold.eventstore.log.recorded import Recorded
from refold.eventstore.metrics import (
    RECORD,
    RECORDS,
    START,
    About,
    Lane,
    body_of,
    checksum_of,
    lanes_in,
    pack,
    summary,
    unpack,
)
from refold.eventstore.payloads import PayloadCodec
from refold.projections.fit import metric_key, points_of
from refold.projections.views import Views

FOLDER = "REFOLD_LANES"
"""The environment variable with the folder for the lanes of stores on a server."""

BLOCK = 10_000
"""Points that are brought into the log together."""

SECONDS = 5.0
"""After which fewer are."""

SYNC = 1.0
"""Seconds after which what was logged is on the disk."""


class MetricsLog:
    """Takes points of a run's metrics in a microsecond or two; see `RfDb.metrics`.

    Any thread may call it. After a fork the child logs into a lane of its own.
    """

    def __init__(
        self,
        views: Views,
        payloads: PayloadCodec,
        run_id: int,
        attempt: int | None,
        metadata: Metadata,
        records: int = RECORDS,
    ) -> None:
        self._views, self._payloads = views, payloads
        self._about = About("", "", run_id, attempt, metadata, payloads.key is not None, records)
        self._records = records
        self._numbers: dict[str, int] = {}
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        """Make a lane, and begin to bring in what comes into it."""
        store = self._views.store
        with store.reading() as connection:
            log = store_row(connection).id
        self._about = replace(self._about, store=log, lane=token_hex(8))
        self._lane = Lane.create(folder_of(store, log), self._about)
        for name in self._numbers:
            self._lane.add_name(name)
        self._map = self._lane.map
        self._next = self._synced = self._calls = 0
        self._wake_at = self._look_at = 0
        """Up to this record nobody is to be woken, and there is no need to look at all."""
        self._wanted = 0
        """Up to this record somebody waits for all to be brought in."""
        self._failure: DBException | None = None
        self._closing = self._ended = False
        self._thread: threading.Thread | None = threading.Thread(
            target=self._bring_in_always, name=f"metrics-{self._about.run_id}", daemon=True
        )
        self._thread.start()

    # --- logging ------------------------------------------------------------------------------

    def __call__(
        self, step: int, metrics: Mapping[str, float] | None = None, /, **named: float
    ) -> None:
        """Log a point of some metrics.

        Args:
            step: of the training, or of whatever is counted.
            metrics: the values by their names, for names that are no words of Python.
            named: likewise, those that are.

        Raises:
            InvalidCommand: the step or a value is no number; nothing was logged.
            StoreClosed: it was closed.
        """
        if metrics:
            named = {**metrics, **named}
        now = time.time_ns() // 1_000_000
        # Each step of what follows counts: it is what a training loop waits for.
        numbers, where, records = self._numbers, self._map, self._records
        with self._lock:
            at = self._next
            if at + len(named) > self._look_at:
                if not self._has_room(len(named)):
                    return
                at, where = self._next, self._map
            try:
                for name, value in named.items():
                    body = body_of(numbers[name], step, now, value)
                    lap, slot = divmod(at, records)
                    place = START + slot * RECORD
                    where[place : place + RECORD] = checksum_of(crc32(body, lap)) + body
                    at += 1
            except Exception:  # noqa: BLE001 - whatever a value raises, it is told with care
                where[self._next % records * RECORD + START] ^= 1  # half a call is none
                self._name(step, named)
                self(step, **named)
            else:
                self._next = at

    def _name(self, step: Any, metrics: Mapping[str, Any]) -> None:
        """Note the new names.

        Raises:
            InvalidCommand: there is none, but something wrong.
        """
        run = f"run {self._about.run_id}"
        try:
            body_of(0, step, 0, 0.0)
        except StructError as error:
            raise InvalidCommand(
                f"{run}: step is {excerpt(step)}: pass a whole number of 64 bits ({error})"
            ) from None
        for name, value in metrics.items():
            try:
                if not (isinstance(name, str) and name):
                    raise ValueError("a name is text, and not empty")
                check_text("name of a metric", metric_key(self._about.run_id, name))
                body_of(0, 0, 0, value)
            except Exception as error:  # noqa: BLE001
                raise InvalidCommand(
                    f"{run}: metric {excerpt(name)} is {excerpt(value)}: log numbers ({error})"
                ) from None
        for name in metrics:
            if name not in self._numbers:
                self._numbers[name] = self._lane.add_name(name)

    def _has_room(self, points: int) -> bool:
        """Wake who brings in, if there is enough; return whether there is room for points."""
        if self._closing:
            raise StoreClosed(
                f"the metrics of run {self._about.run_id} were closed: open them anew, db.metrics()"
            )
        if self._thread is None:  # in the child of a fork
            self._begin()
        done, end = self._lane.state.done, self._next + points
        if end > self._wake_at:
            self._wake_at = sys.maxsize
            self._wake.set()
        limit = done + self._records // 2
        self._look_at = min(self._wake_at, limit)
        if end <= limit:
            return True
        room = done + self._records - self._next
        # When half is taken, every second call is kept; when three quarters are, every fourth; …
        share = 1 << (self._records // max(room, 1)).bit_length() - 1
        self._calls += 1
        if room >= points + self._records // 1024 and self._calls % share == 0:
            return True
        self._lane.leave_out(points)
        return False

    # --- bringing in --------------------------------------------------------------------------

    def flush(self) -> None:
        """Have all that was logged so far brought in, and wait for it.

        Raises:
            InvalidCommand: this is within a batch of this thread, for whose end others wait.
            DBException: the store cannot take it now; it stays in the lane.
        """
        if self._views.store.current() is not None:
            raise InvalidCommand("flush() within a batch would wait for ever: leave it first")
        with self._changed:
            self._failure = None
            wanted = self._wanted = self._next
            self._wake.set()
            self._changed.wait_for(
                lambda: self._ended or self._failure or self._lane.state.done >= wanted
            )
            if self._failure is not None:
                raise self._failure

    def _bring_in_always(self) -> None:
        last = time.monotonic()
        while not self._ended:
            self._wake.wait(SYNC)
            self._wake.clear()
            closing = self._closing  # from here on nothing more comes
            if self._next != self._synced:
                self._synced = self._next
                self._lane.sync()
            due = closing or time.monotonic() - last >= SECONDS
            if due:
                last = time.monotonic()
            try:
                while self._bring_in(everything=due):
                    pass
                with self._lock:
                    self._wake_at = self._lane.state.done + BLOCK
                    self._look_at = 0
            except DBException as failure:  # nobody wakes it: it tries again with the next look
                self._failure = failure
            with self._changed:
                self._ended = closing
                self._changed.notify_all()
        self._leave()

    def _bring_in(self, *, everything: bool) -> bool:
        lane, end = self._lane, self._next
        if not everything and end - lane.state.done < BLOCK and lane.state.done >= self._wanted:
            return False
        return bring_in(self._views, self._payloads, lane, end)

    def _leave(self) -> None:
        if self._failure is None:
            self._lane.remove()
        else:
            self._lane.close()

    def close(self) -> None:
        """Bring in what is left; closing twice does nothing.

        What the store cannot take now stays in the lane, and a `StoreWarning` says so: whoever
        opens the store next on this machine brings it in. Within a batch it is brought in once the
        batch has ended.
        """
        with self._lock:
            closed, self._closing, self._look_at = self._closing, True, 0
            self._failure = None if not closed else self._failure
        if closed or self._thread is None:
            return
        self._wake.set()
        if self._views.store.current() is None:
            self._thread.join()
            if self._failure is not None:
                warnings.warn(
                    StoreWarning(
                        f"metrics of run {self._about.run_id} stay in {self._lane.path}, and "
                        f"whoever opens the store next on this machine brings them in: "
                        f"{self._failure}"
                    ),
                    stacklevel=2,
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- forks --------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Have no thread in the middle of a record."""
        self._lock.acquire()

    def after_fork(self, *, child: bool) -> None:
        """Go on; the child, whose lane is the parent's, begins one of its own when it logs."""
        if not child:
            self._lock.release()
            return
        self._lock, self._changed = threading.RLock(), threading.Condition()
        self._wake = threading.Event()
        if self._thread is not None:
            self._lane.close()
        self._look_at, self._thread = 0, None


def bring_in(views: Views, payloads: PayloadCodec, lane: Lane, end: int) -> bool:
    """Bring the next block of a lane into the log, once; return whether there was any.

    Args:
        views: of the store.
        payloads: encodes the points.
        lane: which.
        end: up to which record it is whole.
    """
    block = lane.begin(min(end, lane.state.done + BLOCK))
    if block is None:
        return False
    about = lane.about
    command = LogPoints(
        about.run_id,
        {name: summary(points) for name, points in block.points.items()},
        payloads.encode(pack(block.points)) if block.points else None,
        UNSET if about.attempt is None else about.attempt,
        block.left_out,
    )
    execute(views, command, replace(about.metadata, command_id=block.command_id))
    lane.finish()
    return True


# --- lanes of processes that have gone ----------------------------------------------------------


def folder_of(store: ReadableLog, log: str) -> Path:
    """Return the folder of a store's lanes on this machine; it may not be there.

    Args:
        store: whose; those of a file lie beside it.
        log: its id.
    """
    if store.engine.sql == "sqlite":
        return Path(f"{os.path.realpath(store.engine.name)}-lanes")
    return _of_servers() / log


def _of_servers() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get(FOLDER) or Path(state, "refold", "lanes"))


def bring_in_left_over(views: Views, payloads: PayloadCodec) -> None:
    """Bring in what is in the lanes of processes that have gone, if this one may write."""
    store = views.store
    if store.engine.sql != "sqlite" and not _of_servers().is_dir():
        return  # so that opening costs no statement
    if store.engine.sql == "sqlite" and not folder_of(store, "").is_dir():
        return
    with store.reading() as connection:
        log = store_row(connection).id
    for path in lanes_in(folder_of(store, log)):
        lane = Lane.take_over(path, log)
        if lane is None:
            continue
        if lane.about.signed and payloads.key is None:
            lane.close()
            continue
        try:
            end = lane.end()
            while bring_in(views, payloads, lane, end):
                pass
        except DBException:  # the next one will
            lane.close()
        else:
            lane.remove()


# --- reading ------------------------------------------------------------------------------------


class Point(NamedTuple):
    """A point of a metric."""

    step: int | None
    value: float
    time: int
    """Microseconds since 1970-01-01 UTC."""
    position: int
    attempt: int | None


class Source(Protocol):
    """A face, as far as its points are read."""

    payloads: PayloadCodec

    @property
    def store(self) -> ReadableLog:
        """The log."""
        ...


Attempts = Literal["last", "all"]


def points(face: Source, run_id: int, metric: str, attempts: Attempts = "last") -> list[Point]:
    """Return the points of a metric of a run, in the order in which they came into the log.

    Args:
        face: of a store, or of one as of a moment.
        run_id: of the run.
        metric: its name.
        attempts: where several attempts logged the same step, those of the last; or of all.
    """
    events = face.store.read(stream=f"run-{run_id}", types=[MetricsLogged, RunMetricsRecorded])
    found = [point for recorded in events for point in points_in(face, recorded, metric)]
    return found if attempts == "all" else of_last_attempts(found)


def points_in(face: Source, recorded: Recorded, metric: str) -> Iterator[Point]:
    """Iterate over the points of a metric that an event brought in.

    Args:
        face: of a store, or of one as of a moment.
        recorded: the event.
        metric: its name.
    """
    event, position = recorded.event, recorded.position
    measured = points_of(event).get(metric)
    if measured is None:
        return
    attempt = event.attempt if isinstance(event, MetricsLogged) else UNSET
    by = None if attempt is UNSET else attempt
    if isinstance(event, MetricsLogged) and event.points is not UNSET:
        held = face.payloads.decode(face.store.get_payload(event.points))
        for step, milliseconds, value in zip(*unpack(held, metric), strict=True):
            yield Point(step, value, milliseconds * 1000, position, by)
    else:
        value = measured.last if measured.last is not None else float(measured.word or "nan")
        yield Point(measured.step, value, recorded.recorded_at, position, by)


def of_last_attempts(found: Sequence[Point]) -> list[Point]:
    """Return points without those of a step that a later attempt logged, too."""
    last: dict[int | None, int] = {}
    for point in found:
        last[point.step] = max(last.get(point.step, -1), _number(point.attempt))
    return [
        point for point in found if point.step is None or _number(point.attempt) == last[point.step]
    ]


def _number(attempt: int | None) -> int:
    return -1 if attempt is None else attempt

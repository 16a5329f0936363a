"""Asking for what is to be done next, beside a bare SELECT of the same columns with an index."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

from msgspec import Struct

from benchmarks.measure import latencies
from benchmarks.peers.bare_connection import BareConnection, connect, dicts
from benchmarks.places import ENGINES, Engine, Places
from benchmarks.results import Curve, Figure, Section, at_most
from refold import RFDatabase, RfDb
from refold.eventstore import Event, open_store
from refold.eventstore.events import (
    ActorTaskCompleted,
    ActorTaskScheduled,
    InteractiveControlCompleted,
    StopRequested,
    TaskCompleted,
    TaskScheduled,
)
from refold.eventstore.paging import chunks

LENGTHS = [1_000, 10_000, 100_000]
WORKERS = 8
OPEN = 80
PENDING = 10


class Faces(Struct):
    fit: RfDb
    evals: RFDatabase


class Poll(Struct, frozen=True):
    """A method that is polled with, and what the bare engine asks instead."""

    work: str
    ask: Callable[[Faces], object]
    view: str
    index: str
    where: str

    def copy_view(self, bare: BareConnection) -> None:
        """Lay out a table with the same rows and an index, in the same place."""
        bare.execute(f"CREATE TABLE bare_{self.view} AS SELECT * FROM {self.view}")
        bare.execute(f"CREATE INDEX bare_{self.view}_index ON bare_{self.view} {self.index}")

    def ask_bare(self, bare: BareConnection) -> list[dict[str, Any]]:
        return dicts(bare.execute(f"SELECT * FROM bare_{self.view} WHERE {self.where}"))


POLLS = [
    Poll(
        "the next task of a worker",
        lambda faces: faces.fit.get_next_worker_task(1),
        "worker_task",
        "(worker_id, task_id) WHERE status = 'SCHEDULED'",
        "status = 'SCHEDULED' AND worker_id = 1 ORDER BY task_id LIMIT 1",
    ),
    Poll(
        "the next task of an actor",
        lambda faces: faces.evals.get_next_actor_task(1),
        "actor_tasks",
        "(actor_id, task_id) WHERE status = 'scheduled'",
        "status = 'scheduled' AND actor_id = 1 ORDER BY task_id LIMIT 1",
    ),
    Poll(
        f"the {PENDING} pending requests",
        lambda faces: faces.fit.get_ic_ops_request(),
        "interactive_control",
        "(ic_id) WHERE status = 'PENDING'",
        "status = 'PENDING' ORDER BY ic_id",
    ),
]


def measure(places: Places) -> list[Section]:
    """Measure polls with few and with many tasks and requests, on both engines."""
    return [_section(places, engine) for engine in ENGINES]


def _section(places: Places, engine: Engine) -> Section:
    section = Section(
        f"Polling on {ENGINES[engine]}",
        __doc__ or "",
        notes=[
            f"All but the last {OPEN} tasks, of {WORKERS} workers in turn, are completed, and all "
            f"but the last {PENDING} requests.",
            "Bare engine: a table with the view's rows, in the same file or schema, and a partial "
            "index for just this question; the rows become dicts.",
        ],
    )
    with ExitStack() as stack:
        open_: dict[int, tuple[Faces, BareConnection]] = {}
        for length in LENGTHS:
            place = places.store(engine)
            fill(place, length)
            fit = stack.enter_context(RfDb(place))
            faces = Faces(fit, stack.enter_context(RFDatabase(place)))
            bare = stack.enter_context(closing(connect(place)))
            for poll in POLLS:
                poll.copy_view(bare)
            # What a server does by itself within a minute.
            bare.execute("ANALYZE")
            open_[length] = faces, bare
        for poll in POLLS:
            _measure(section, poll, open_)
    return section


def _measure(section: Section, poll: Poll, open_: dict[int, tuple[Faces, BareConnection]]) -> None:
    contenders: dict[str, Callable[[int], object]] = {}
    for length, (faces, bare) in open_.items():
        contenders[f"refold, of {length:,}"] = lambda _, faces=faces: poll.ask(faces)
        contenders[f"bare engine, of {length:,}"] = lambda _, bare=bare: poll.ask_bare(bare)
        asked, expected = poll.ask(faces), poll.ask_bare(bare)
        assert asked == (expected if isinstance(asked, list) else expected[0])
    found = [*latencies(poll.work, contenders, calls=100).values()]
    ours, bare_engine = found[::2], found[1::2]
    section.figures.extend(found)
    section.ratios.extend(
        [at_most(1.5, ours[-1], bare_engine[-1], "7a"), at_most(1.2, ours[-1], ours[0], "7b")]
    )
    section.curves.append(
        Curve(
            f"{section.title}: {poll.work}",
            "tasks or requests",
            "us, p50",
            {"refold": _line(ours), "bare engine": _line(bare_engine)},
            logarithmic=True,
        )
    )


def _line(found: Sequence[Figure]) -> list[tuple[float, float]]:
    return [(n, each.percentiles["p50"]) for n, each in zip(LENGTHS, found, strict=True)]


def fill(place: str, length: int) -> None:
    """Append so many tasks of workers, tasks of actors and requests."""
    with open_store(place) as store:
        events = _events(length)
        for page in chunks(events, 2_000):
            store.append(None, page)


def _events(length: int) -> Iterator[Event]:
    for number in range(1, length + 1):
        worker, chunk = number % WORKERS, number % 64
        yield TaskScheduled(number, 1, worker, chunk, 0)
        yield ActorTaskScheduled(number, 1, 1, worker, chunk)
        yield StopRequested(number, 1)
        if number <= length - OPEN:
            yield TaskCompleted(number)
            yield ActorTaskCompleted(number)
        if number <= length - PENDING:
            yield InteractiveControlCompleted(number)

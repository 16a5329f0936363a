"""Writers side by side on PostgreSQL: processes with a connection each, each on a run of its own.

Beside one of them alone, all of them behind one global lock, the bare transaction, and message-db.
"""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.measure import figures
from benchmarks.peers.bare_postgres import BarePostgres
from benchmarks.peers.message_db import MessageDb
from benchmarks.places import Places
from benchmarks.results import Figure, Section, at_least, ratio
from refold import RfDb
from refold.eventstore import open_store
from refold.eventstore.events import RunProgressed

WRITERS = 8
SECONDS = 0.5  # that each writes at a time
ROUNDS = 5

NOTES = [
    "Behind one lock: each command in a batch, which has the whole store for itself. message-db "
    "takes a lock for each category of streams, the word before the dash: `run-1` and `run-2` wait "
    "for each other. So it is measured a second time with a category for each writer.",
]

spawn = multiprocessing.get_context("spawn")


class Where(NamedTuple):
    """Where each contender keeps what it stores."""

    store: str
    log: str
    """A store without views, for appends."""
    server: str
    schema: str
    message_db: str | None


def writers(places: Places, message_db: str | None) -> Section:
    """Measure how many commands and appends are committed in a second."""
    where = Where(
        places.store("postgres"),
        places.store("postgres"),
        places.server,
        places.schema(),
        message_db,
    )
    with (
        RfDb(where.store) as db,
        open_store(where.log),
        closing(BarePostgres(where.server, where.schema)) as bare,
    ):
        experiment = db.create_experiment("benchmark")
        for _ in range(WRITERS):
            db.create_run(experiment)
        bare.create_tables(runs=WRITERS)
    modes = ["command", "command behind one lock", "bare transaction", "append"]
    if message_db is not None:
        modes += ["message-db", "message-db, own category"]
    with ExitStack() as afterwards:
        pipes = [_begin(afterwards, where, run_id) for run_id in range(1, WRITERS + 1)]
        for pipe in pipes:
            pipe.recv()  # it is ready
        contenders: dict[str, Callable[[], float]] = {}
        for mode in modes:
            contenders[f"{mode}, {WRITERS}"] = partial(_rate, mode, pipes)
            if mode in ("command", "bare transaction", "append", "message-db"):
                contenders[f"{mode}, one"] = partial(_rate, mode, pipes[:1])
        found = figures("side by side", "/s", contenders, rounds=ROUNDS)

    def all_over(mode: str, base: str) -> tuple[Figure, Figure]:
        return found[f"{mode}, {WRITERS}"], found[base]

    ratios = [
        at_least(1.6, *all_over("command", "command, one"), "11c"),
        ratio(*all_over("command", f"command behind one lock, {WRITERS}")),
        ratio(*all_over("bare transaction", "bare transaction, one")),
        ratio(*all_over("command", f"bare transaction, {WRITERS}")),
        ratio(*all_over("append", "append, one")),
    ]
    if message_db is not None:
        ratios += [
            ratio(found["append, one"], found["message-db, one"]),
            ratio(*all_over("append", f"message-db, {WRITERS}")),
            ratio(*all_over("append", f"message-db, own category, {WRITERS}")),
        ]
    return Section(
        "Writers side by side on PostgreSQL", __doc__ or "", [*found.values()], ratios, notes=NOTES
    )


def _begin(afterwards: ExitStack, where: Where, run_id: int) -> Connection:
    """Start a process; return the pipe on which it is told what to write."""
    pipe, far_end = spawn.Pipe()
    process = spawn.Process(target=_write, args=(far_end, where, run_id), daemon=True)
    process.start()
    far_end.close()
    afterwards.callback(process.join)
    afterwards.callback(pipe.close)
    return pipe  # pyright: ignore[reportReturnType]  (on Windows it has another type)


def _rate(mode: str, pipes: list[Connection]) -> float:
    for pipe in pipes:
        pipe.send(mode)
    return sum(pipe.recv() for pipe in pipes) / SECONDS


def _write(pipe: Connection, where: Where, run_id: int) -> None:
    """Write for a while each time one is asked to; say how often that was done."""
    with ExitStack() as afterwards:
        db = afterwards.enter_context(RfDb(where.store))
        store = afterwards.enter_context(open_store(where.log))
        bare = afterwards.enter_context(closing(BarePostgres(where.server, where.schema)))

        def locked(number: int) -> None:
            with db.batch():
                db.set_run_progress(run_id, number, 0)

        modes: dict[str, Callable[[int], object]] = {
            "command": lambda number: db.set_run_progress(run_id, number, 0),
            "command behind one lock": locked,
            "bare transaction": lambda number: bare.set_run_progress(run_id, number, 0),
            "append": lambda number: store.append(None, [RunProgressed(run_id, number, 0)]),
        }
        if where.message_db is not None:
            peer = afterwards.enter_context(closing(MessageDb(where.message_db)))
            own = f"run{run_id}-{run_id}"
            modes["message-db"] = lambda number: peer.write(RunProgressed(run_id, number, 0))
            modes["message-db, own category"] = lambda number: peer.write(
                RunProgressed(run_id, number, 0), own
            )
        number = 0
        pipe.send("ready")
        while True:
            try:
                work = modes[pipe.recv()]
            except EOFError:
                return
            first, until = number, time.perf_counter() + SECONDS
            while time.perf_counter() < until:
                number += 1
                work(number)
            pipe.send(number - first)

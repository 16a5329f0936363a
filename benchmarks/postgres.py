"""What the store costs on PostgreSQL: ratios to the bare server, to one connection, to one lock.

    python -m benchmarks.postgres

It starts a server of its own, or takes the one whose URL is in REFOLD_STORE. Everything is measured
in alternation, in several rounds; medians, with the smallest and the largest round.
"""

import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg

from eventstore import EventStore, open_store
from eventstore.events import RunProgressed
from refold import RfDb

ROUNDS = 9
COMMANDS = 200  # of each kind in a round
WRITERS = 8
SECONDS = 2.0  # that writers write in a round
EVENTS = 100_000

BARE_TABLES = """
    CREATE TABLE bare_events (
        position bigserial PRIMARY KEY, stream text NOT NULL, version bigint NOT NULL,
        previous bigint, type text NOT NULL, schema_version bigint NOT NULL, data text NOT NULL,
        metadata text NOT NULL, recorded_at bigint NOT NULL);
    CREATE TABLE bare_runs AS SELECT * FROM runs_folded;
    ALTER TABLE bare_runs ADD PRIMARY KEY (run_id)"""

spawn = multiprocessing.get_context("spawn")


@contextmanager
def server() -> Iterator[str]:
    """Give the URL of a server: the one that was named, or one that is started for this."""
    if given := os.environ.get("REFOLD_STORE"):
        yield given
        return
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    from postgres import PostgresServer  # pyright: ignore

    with PostgresServer() as own:
        yield own.url()


def main() -> None:
    with server() as url:
        place = f"{url}{'&' if '?' in url else '?'}schema=refold_benchmark"
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("DROP SCHEMA IF EXISTS refold_benchmark CASCADE")
            print("server", admin.execute("SHOW server_version").fetchone())
            for setting in ("fsync", "synchronous_commit", "shared_buffers"):
                print(setting, admin.execute(f"SHOW {setting}".encode()).fetchone())
        with RfDb(place) as db:
            experiment = db.create_experiment("benchmark")
            for _ in range(WRITERS):
                db.create_run(experiment, config_leaf={"learning_rate": 0.1})
        one_command(place)
        side_by_side(place)
        delivery(place)
        bulk(place)
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("DROP SCHEMA refold_benchmark CASCADE")


def told(name: str, values: list[float], unit: str) -> None:
    middle, low, high = statistics.median(values), min(values), max(values)
    print(f"  {name:<58} {middle:8.2f} {unit:<4} ({low:.2f} to {high:.2f})", flush=True)


# --- one command ------------------------------------------------------------------------------


def one_command(place: str) -> None:
    """A command against the bare transaction: begin, select for update, insert, update, commit."""
    print("one command at a time")
    with closing(bare_connection(place)) as bare:
        bare.execute(BARE_TABLES.encode())
    times: dict[str, list[float]] = {"command": [], "transaction": [], "update": []}
    for turn in range(ROUNDS):
        # New connections each time: it matters on which cores the server's processes come to lie.
        for name, median in one_round(place, turn).items():
            times[name].append(median * 1e3)
    for name, each in times.items():
        told(f"{name}, median", each, "ms")
    for base, what in (
        ("transaction", "command / bare transaction"),
        ("update", "command / one autocommitted UPDATE, which keeps no history"),
    ):
        told(
            what,
            [ours / bare for ours, bare in zip(times["command"], times[base], strict=True)],
            "x",
        )


def one_round(place: str, turn: int) -> dict[str, float]:
    """Return the median of each kind, in seconds."""
    with RfDb(place) as db, closing(bare_connection(place)) as bare:

        def command(number: int) -> None:
            db.set_run_progress(1, number, 0)

        def transaction(number: int) -> None:
            with bare.transaction():
                bare.execute(b"SELECT * FROM bare_runs WHERE run_id = 1 FOR UPDATE").fetchone()
                bare.execute(
                    b"INSERT INTO bare_events (stream, version, previous, type, schema_version, "
                    b"data, metadata, recorded_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                    ("run-1", number, number, "RunProgressed", 1, "{}" * 30, "{}", number),
                )
                bare.execute(
                    b"UPDATE bare_runs SET current_chunk = %s, position = %s WHERE run_id = 1",
                    (number, number),
                )

        def update(number: int) -> None:
            bare.execute(b"UPDATE bare_runs SET current_chunk = %s WHERE run_id = 1", (number,))

        took: dict[str, list[float]] = {"command": [], "transaction": [], "update": []}
        for number in range(COMMANDS):
            for work in (command, transaction, update):
                began = time.perf_counter()
                work(1 + turn * COMMANDS + number)
                took[work.__name__].append(time.perf_counter() - began)
        return {name: statistics.median(each) for name, each in took.items()}


def bare_connection(place: str) -> "psycopg.Connection[tuple[Any, ...]]":
    url, _, _ = place.partition("schema=")
    raw = psycopg.connect(url.rstrip("?&"), autocommit=True)
    raw.execute("SET search_path = refold_benchmark")
    return raw


# --- writers side by side ---------------------------------------------------------------------


def write(pipe: Connection, place: str, run_id: int) -> None:
    """Write for a while each time one is asked to; say how many commands were carried out."""
    with RfDb(place) as db:
        number = 0
        pipe.send("ready")
        while (mode := pipe.recv()) != "end":
            done, until = 0, time.perf_counter() + SECONDS
            while time.perf_counter() < until:
                number += 1
                if mode == "locked":
                    with db.batch():  # the whole store's lock
                        db.set_run_progress(run_id, number, 1)
                else:
                    db.set_run_progress(run_id, number, 1)
                done += 1
            pipe.send(done)


def side_by_side(place: str) -> None:
    """Commands on different runs: with one connection, with several, and behind one lock."""
    print(f"commands on different runs, {SECONDS:g} s each")
    pipes: list[Connection] = []
    children: list[Any] = []
    for index in range(WRITERS):
        pipe, far_end = spawn.Pipe()
        child = spawn.Process(target=write, args=(far_end, place, index + 1))
        child.start()
        pipes.append(pipe)
        children.append(child)
    for pipe in pipes:
        pipe.recv()

    def rate(mode: str, writers: list[Connection]) -> float:
        for pipe in writers:
            pipe.send(mode)
        return sum(pipe.recv() for pipe in writers) / SECONDS

    rates: dict[str, list[float]] = {"one": [], "all": [], "locked": []}
    for _ in range(ROUNDS):
        rates["one"].append(rate("free", pipes[:1]))
        rates["all"].append(rate("free", pipes))
        rates["locked"].append(rate("locked", pipes))
    for pipe, child in zip(pipes, children, strict=True):
        pipe.send("end")
        child.join()
    told("one connection", rates["one"], "/s")
    told(f"{WRITERS} connections", rates["all"], "/s")
    told(f"{WRITERS} connections, each command behind one global lock", rates["locked"], "/s")
    for base in ("one", "locked"):
        ratios = [many / few for many, few in zip(rates["all"], rates[base], strict=True)]
        told(f"{WRITERS} connections / {base}", ratios, "x")


# --- delivery ---------------------------------------------------------------------------------


def delivery(place: str) -> None:
    """How long it takes from the return of a command to the event in another connection."""
    print("from commit to delivery, another store in the same process")
    took: list[float] = []
    with RfDb(place) as db, open_store(place) as other, other.subscribe(after=None) as events:
        arrived: list[float] = []
        there = threading.Semaphore(0)

        def follow() -> None:
            for _ in events:
                arrived.append(time.perf_counter())
                there.release()

        follower = threading.Thread(target=follow)
        follower.start()
        for number in range(COMMANDS):
            db.set_run_progress(1, number, 2)
            committed = time.perf_counter()
            there.acquire()
            took.append((arrived[-1] - committed) * 1e3)
        events.close()
        follower.join()
    told("delay", took, "ms")


# --- bulk -------------------------------------------------------------------------------------


def bulk(place: str) -> None:
    """Appends in thousands, reading and rebuilding."""
    print(f"{EVENTS:,} events")
    with RfDb(place) as db, open_store(place) as store:

        def timed(name: str, work: Callable[[], object], count: int) -> None:
            began = time.perf_counter()
            work()
            told(name, [count / (time.perf_counter() - began) / 1e3], "k/s")

        timed("append in batches of 1,000, without views", lambda: append(store), EVENTS)
        timed("bring the views up to date", lambda: db.db.execute("SELECT 1"), EVENTS)
        timed("read", lambda: sum(1 for _ in store.read()), store.head())
        timed("rebuild", lambda: db.rebuild(progress=False), store.head())
        timed("verify", db.verify, store.head())


def append(store: EventStore) -> None:
    for start in range(0, EVENTS, 1_000):
        events = [RunProgressed(1 + n % WRITERS, n, 3) for n in range(start, start + 1_000)]
        store.append(None, events)


if __name__ == "__main__":
    main()

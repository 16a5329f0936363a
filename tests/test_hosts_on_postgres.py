"""Several hosts for real: the server, a controller and two workers, each on a host of its own."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from network import Host, Network, NoNetwork
from postgres import PostgresServer

from refold import RfDb, RunStatus, TaskStatus, WorkerTask
from refold.eventstore import Recorded, Subscription
from refold.eventstore.events import (
    ExperimentCompleted,
    RunCompleted,
    TaskCompleted,
    TaskStarted,
    WorkerProgressed,
)

Happened = dict[str, Any]

NEWS = [ExperimentCompleted, RunCompleted, TaskCompleted, TaskStarted, WorkerProgressed]

# On a host of its own, because a process that only tests must not define the examples' events.
VERIFY = """
from examples.checkpoints import checkpoints
from examples.place import place
from refold import RfDb
with RfDb(place(), projections=[checkpoints]) as db:
    print(*db.verify(), sep="\\n", end="")
"""

# How soon a client finds out that the server is gone, and a server that a client is: a third of the
# defaults or less, which `make soak` waits for.
SOON = {
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 3000,
    "connect_timeout": 2,
}
how_soon = pytest.mark.parametrize(
    "settings", [SOON, pytest.param({}, marks=pytest.mark.soak)], ids=["soon", "by default"]
)

# The example has no setting for how long its store tries to reach the server: 30 s by default.
IMPATIENT_WORKER = """
from functools import partial
from examples import place, worker
worker.RfDb = partial(worker.RfDb, timeout=5)
worker.main(place.place(), worker_id=1)
"""

STOPS_HALF_WAY = """
import json, sys
from refold.eventstore.engines.postgres import server
for default, value in json.loads(sys.argv[1]):
    assert default in server.SETTINGS
    server.SETTINGS = server.SETTINGS.replace(default, value)
from examples.place import place
from refold import ConnectionLost, RfDb
try:
    with RfDb(place(), actor="worker-1") as db, db.batch():
        db.set_worker_progress(1, "TRAIN_VAL")
        print(db.get_worker_progress(1)["task"], flush=True)
        input()
except ConnectionLost:
    print("lost")
"""


@pytest.fixture
def network() -> Iterator[Network]:
    """A network; its first host is the server's."""
    try:
        network = Network()
    except NoNetwork as reason:
        pytest.skip(f"several hosts need the right to make network namespaces: {reason}")
    with network:
        yield network


@pytest.fixture
def server(network: Network) -> Iterator[PostgresServer]:
    host = network.host("server")
    server = PostgresServer(listen=host.address, prefix=host.prefix)
    server.settings["unix_socket_directories"] = server.directory
    with (server.data / "pg_hba.conf").open("a") as access:
        access.write("local all all scram-sha-256\n")
    with server:
        yield server


@pytest.fixture
def operator(server: PostgresServer) -> Iterator[RfDb]:
    """Somebody at the console of the server's host: a Unix socket needs no network."""
    account = f"refold:{quote(server.password, '')}"
    socket = f"host={quote(str(server.directory), '')}&port={server.port}"
    with RfDb(f"postgresql://{account}@/postgres?{socket}", actor="operator") as db:
        yield db


def python(
    host: Host,
    server: PostgresServer,
    *arguments: str,
    settings: Mapping[str, int] | None = None,
    **options: Any,
) -> Any:
    """Start Python on a host; the settings are those of its connections to the server."""
    url = f"{server.url()}?{urlencode(settings or {})}"
    environment = {"REFOLD_STORE": url, "OMP_NUM_THREADS": "1"}
    return host.start(sys.executable, *arguments, environment=environment, **options)


def follow(news: Subscription, *processes: subprocess.Popen[str]) -> Iterator[Recorded]:
    """Yield what happens, for as long as no process fails."""
    while all(not process.poll() for process in processes):
        yield from news.wait(1)
    raise AssertionError("a process has failed: see the standard error")


def log(db: RfDb) -> list[Happened]:
    rows = db.db.execute("SELECT position, type, data, metadata FROM events ORDER BY position")
    return [
        {
            **json.loads(row["data"]),
            "position": row["position"],
            "type": row["type"],
            "actor": json.loads(row["metadata"])["actor"],
        }
        for row in rows
    ]


@how_soon
def test_a_host_is_cut_off_in_mid_task(
    network: Network, server: PostgresServer, operator: RfDb, settings: dict[str, int]
) -> None:
    hosts = [network.host(name) for name in ("controller", "worker-0", "worker-1")]
    with operator.subscribe(after=None, types=NEWS) as news:
        controller = python(hosts[0], server, "-m", "examples.controller")
        staying = python(hosts[1], server, "-m", "examples.worker", "0")
        words = ("-c", IMPATIENT_WORKER) if settings else ("-m", "examples.worker", "1")
        lost = python(hosts[2], server, *words, settings=settings, stderr=subprocess.PIPE)
        happening = follow(news, controller, staying, lost)

        until(happening, TaskCompleted, actor="worker-0")
        until(happening, TaskCompleted, actor="worker-1")
        assert hosts_that_talk_to(operator) >= {host.address for host in hosts}
        task = cut_off_in_task(hosts[2], operator, happening)
        delete_all_runs_but(operator, task["run_id"])
        until(happening, RunCompleted, run_id=task["run_id"])
        until(happening, ExperimentCompleted)

        said_by_the_lost = iter(lost.stderr)
        until_said(said_by_the_lost, "trying again")
        hosts[2].join()
        refusal = until_said(said_by_the_lost, "reported too late")
        assert f"worker task {task['task_id']} is FAILED" in refusal
        until(happening, WorkerProgressed, worker_id=1, task=WorkerTask.IDLE)
        assert [process.wait() for process in (controller, staying, lost)] == [0, 0, 0]

    events = log(operator)
    the_task_was_failed_by_the_operator(task["task_id"], events)
    nothing_of_the_late_report_was_kept(operator, task["task_id"], events)
    the_other_worker_completed_the_run(operator, task, events)
    all_chunks_were_trained_once(operator, events)
    assert operator.verify() == []
    verified = python(hosts[0], server, "-c", VERIFY)
    assert (verified.communicate()[0], verified.returncode) == ("", 0)


def until(
    happening: Iterator[Recorded], kind: type, actor: str | None = None, **fields: Any
) -> Recorded:
    return next(
        recorded
        for recorded in happening
        if isinstance(recorded.event, kind)
        and actor in (None, recorded.metadata.actor)
        and all(getattr(recorded.event, name) == value for name, value in fields.items())
    )


def until_said(lines: Iterator[str], words: str) -> str:
    said: list[str] = []
    for line in lines:
        said.append(line)
        if words in line:
            return line
    raise AssertionError(f"it ended and never said {words!r}: {said}")


def cut_off_in_task(host: Host, operator: RfDb, happening: Iterator[Recorded]) -> Happened:
    """Cut worker 1's host off in the middle of a task; return the task."""
    while True:
        until(happening, TaskStarted, actor="worker-1")
        host.cut_off()
        lost = give_up(operator, 1)
        if lost:
            return lost[0]
        host.join()  # it was faster and had just completed the task: once more


def give_up(operator: RfDb, worker_id: int) -> list[Happened]:
    """Do what an operator does about a worker that is out of reach; return its lost tasks."""
    with operator.batch():
        tasks = operator.get_worker_tasks(worker_id=worker_id, status=TaskStatus.IN_PROGRESS)
        for task in tasks:
            operator.set_worker_task_status(task["task_id"], TaskStatus.FAILED, "host cut off")
            operator.set_worker_progress(worker_id, WorkerTask.TRAIN_VAL, TaskStatus.FAILED)
    return tasks


def delete_all_runs_but(operator: RfDb, run_id: int) -> None:
    """So that one worker alone has done within seconds."""
    for run in operator.get_all_runs():
        if run["run_id"] != run_id:
            operator.request_delete(run["run_id"])


def hosts_that_talk_to(operator: RfDb) -> set[str]:
    found = operator.db.execute(
        "SELECT host(client_addr) AS host FROM pg_stat_activity WHERE client_addr IS NOT NULL"
    )
    return {row["host"] for row in found}


def the_task_was_failed_by_the_operator(task_id: int, events: list[Happened]) -> None:
    life = [
        (event["type"], event["actor"])
        for event in events
        if event["type"].startswith("Task") and event["task_id"] == task_id
    ]
    assert life == [
        ("TaskScheduled", "controller"),
        ("TaskStarted", "worker-1"),
        ("TaskFailed", "operator"),
    ]


def nothing_of_the_late_report_was_kept(
    operator: RfDb, task_id: int, events: list[Happened]
) -> None:
    [given_up] = [e for e in events if e["type"] == "TaskFailed" and e["task_id"] == task_id]
    after = [e for e in events if e["position"] > given_up["position"]]
    assert [
        (e["type"], e["task"])
        for e in after
        if e["actor"] == "worker-1" and e["type"] != "WorkerLeft"  # it had done
    ] == [("WorkerProgressed", "IDLE")]
    # Not even its model: every payload is one that an event names.
    payloads = operator.db.execute("SELECT digest FROM payloads")
    named = {digest for event in events for digest in re.findall(r"\b[0-9a-f]{64}\b", str(event))}
    assert {payload["digest"] for payload in payloads} == named


def the_other_worker_completed_the_run(
    operator: RfDb, task: Happened, events: list[Happened]
) -> None:
    assert operator.get_run(task["run_id"])["status"] == RunStatus.COMPLETED
    [again] = [
        e
        for e in events
        if e["type"] == "CheckpointSaved"
        and (e["run_id"], e["epoch"], e["chunk"])
        == (task["run_id"], task["epoch"], task["chunk_id"])
    ]
    assert again["actor"] == "worker-0"


def all_chunks_were_trained_once(operator: RfDb, events: list[Happened]) -> None:
    for run in operator.get_all_runs():
        trained = [
            (event["epoch"], event["chunk"])
            for event in events
            if event["type"] == "CheckpointSaved" and event["run_id"] == run["run_id"]
        ]
        assert len(trained) == run["current_epoch"] * run["num_chunks"] + run["current_chunk"]
        assert trained == [divmod(number, run["num_chunks"]) for number in range(len(trained))]


@how_soon
def test_a_host_that_is_cut_off_half_way_does_not_hold_up_the_others(
    network: Network, server: PostgresServer, operator: RfDb, settings: dict[str, int]
) -> None:
    host = network.host("worker-1")
    before = operator.create_experiment("before")
    # No URL says what the server is told, so here the words that tell it are changed.
    words = [("'15000'", "'3000'"), ("'5'", "'1'")] if settings else []
    half_way = python(host, server, "-c", STOPS_HALF_WAY, json.dumps(words))
    assert half_way.stdout.readline() == "TRAIN_VAL\n"
    host.cut_off()
    # It holds the lock on the store; had the server not let go of it, this would be StoreBusy.
    after = operator.create_experiment("after")
    host.join()
    assert half_way.communicate("\n")[0] == "lost\n"
    assert [event["experiment_id"] for event in log(operator)] == [before, after]
    assert operator.get_worker_progress(1) is None

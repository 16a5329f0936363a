"""The demo: a real experiment, real processes, real kills, and what the log says of them after."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
import pytest

from examples.follower import Follower
from refold import ActorTaskStatus, RFDatabase, RfDb
from refold.eventstore import Event
from refold.eventstore.events import (
    ActorTaskCompleted,
    ExperimentCreated,
    RunCreated,
    RunProgressed,
)

TOP = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "error"}

# The examples define event types; a process that only tests must not define them too, so that the
# documentation's examples can give theirs the same names.
VERIFY = """
from examples.checkpoints import checkpoints
from examples.place import place
from examples.scores import scores
from refold import RfDb
with RfDb(place(), projections=[checkpoints, scores]) as db:
    print(*db.verify(), sep="\\n", end="")
"""

Happened = dict[str, Any]


def start(place: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=TOP,
        env={**ENVIRONMENT, "REFOLD_STORE": place},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(place: str, *arguments: str) -> tuple[int, str, str]:
    with start(place, *arguments) as process:
        printed, told = process.communicate()
    return process.returncode, printed, told


def log(place: str) -> list[Happened]:
    with RfDb(place) as db:
        rows = db.db.execute("SELECT position, type, data, metadata FROM events ORDER BY position")
    return [
        {
            **json.loads(row["data"]),
            "position": row["position"],
            "type": row["type"],
            "metadata": json.loads(row["metadata"]),
        }
        for row in rows
    ]


def of_type(events: list[Happened], *types: str) -> list[Happened]:
    return [event for event in events if event["type"] in types]


def the_only(events: list[Happened], kind: str) -> Happened:
    [event] = of_type(events, kind)
    return event


def test_the_demo(place: str) -> None:
    with start(place, "-m", "examples.demo") as demo:
        assert demo.stdout is not None
        printed = ""
        while "begins" not in printed and (line := demo.stdout.readline()):
            printed += line
        commands = [process.cmdline() for process in psutil.Process(demo.pid).children()]
        rest, failed = demo.communicate()
        printed += rest
    assert (demo.returncode, failed) == (0, ""), printed + failed

    nobody_else_can_see_the_password(place, commands, printed)
    events = log(place)
    it_says_what_is_there(printed, place, events)
    the_commands_at_its_end_work(printed, place)
    the_views_equal_the_log(place)
    users_were_heard(events)
    the_clone_began_with_its_parents_weights(place, events)
    a_worker_was_killed_in_its_task(printed, events)
    the_controller_was_killed_and_recovered(printed, events)
    no_chunk_was_lost_or_trained_twice(place, events)
    it_learned(place)
    all_shards_were_evaluated_by_two_actors(place, events)


def nobody_else_can_see_the_password(place: str, commands: list[list[str]], said: str) -> None:
    modules = {argument for command in commands for argument in command if "examples." in argument}
    assert modules == {"examples.controller", "examples.worker"}
    assert not any(place in argument for command in commands for argument in command)
    password = urlsplit(place).password
    if password is not None:
        assert password not in said
        assert unquote(password) not in said


def it_says_what_is_there(printed: str, place: str, events: list[Happened]) -> None:
    with RfDb(place) as db:
        name = db.store.engine.name
    assert f"\nverify: views equal the log\nstore: {name}\n" in printed
    assert f"{len(events)} events" in printed
    assert "\x1b" not in printed
    for kind in {event["type"] for event in events}:
        assert re.search(rf"(?<!\d){len(of_type(events, kind))} {kind}\b", printed)


def the_commands_at_its_end_work(printed: str, place: str) -> None:
    before, _, end = printed.partition("\nLook into it:\n")
    assert re.search(r"\nOpen it in the browser:\n\S*refold ui --store \S+\n$", before)
    password = urlsplit(place).password
    assert ("PGPASSWORD" in printed) == (password is not None)
    env = {**ENVIRONMENT, "PGPASSWORD": unquote(password or "")}
    env.pop("REFOLD_STORE", None)
    for command, answer in zip(
        end.splitlines(),
        [
            r"^runs +1 KILLED, 4 COMPLETED$",
            r"^run 4: status is 'KILLED' .*\n +because of .* DeleteRequested .* by user\b",
            r"\bTaskStarted\b.*\n.*\bWorkerLost\b.*worker-1 was lost",
            r"^ +2 +1 +run_2 +STOPPED\b",
            r"^equal: the views are what the log makes of them",
        ],
        strict=True,
    ):
        done = subprocess.run(
            command, shell=True, cwd=TOP, env=env, capture_output=True, text=True, timeout=60
        )
        told = re.sub(r"^not looked at: .*\n", "", done.stderr)  # what verify leaves out
        assert (done.returncode, told) == (0, ""), command
        assert re.search(answer, done.stdout, re.MULTILINE), (command, done.stdout)
        assert "not known here" not in done.stdout


def the_views_equal_the_log(place: str) -> None:
    assert run(place, "-c", VERIFY) == (0, "", "")


def users_were_heard(events: list[Happened]) -> None:
    for asked, answered in (
        ("StopRequested", "RunStopped"),
        ("ResumeRequested", "RunResumed"),
        ("DeleteRequested", "RunKilled"),
        ("CloneModifyRequested", "WarmStarted"),
    ):
        request, answer = the_only(events, asked), the_only(events, answered)
        assert request["metadata"]["actor"] == "user"
        assert answer["metadata"] == {"actor": "controller", "cause": request["position"]}
    assert len(of_type(events, "InteractiveControlCompleted")) == 4


def the_clone_began_with_its_parents_weights(place: str, events: list[Happened]) -> None:
    with RfDb(place) as db:
        [clone] = [run for run in db.get_all_runs() if run["source"] == "CLONE_MODIFY"]
        parent = db.get_run(clone["parent_run_id"])
    assert clone["warm_start"]
    assert clone["config_leaf"]["learning_rate"] > parent["config_leaf"]["learning_rate"]
    started = the_only(events, "WarmStarted")
    assert (started["run_id"], started["parent_run_id"]) == (clone["run_id"], parent["run_id"])
    of_the_parent = [
        event
        for event in of_type(events, "CheckpointSaved")
        if event["run_id"] == parent["run_id"] and event["position"] < started["position"]
    ]
    assert started["digest"] == of_the_parent[-1]["digest"]


def a_worker_was_killed_in_its_task(printed: str, events: list[Happened]) -> None:
    killed = re.search(r"SIGKILL: worker-1 \(process \d+\) dies in task (\d+)", printed)
    assert killed is not None
    task_id = int(killed[1])
    life = [event for event in events if event.get("task_id") == task_id]
    life = of_type(life, "TaskScheduled", "TaskStarted", "TaskCompleted", "TaskFailed")
    assert [event["type"] for event in life] == ["TaskScheduled", "TaskStarted"]
    [lost] = [
        event for event in of_type(events, "WorkerLost") if task_id in event.get("failed_tasks", ())
    ]
    # The controller has seen it; the process in its place was not started before.
    assert lost["metadata"]["actor"] == "controller"
    assert (lost["name"], lost["known_by"]) == ("worker-1", "lock")


def the_controller_was_killed_and_recovered(printed: str, events: list[Happened]) -> None:
    assert re.search(r"SIGKILL: the controller \(process \d+\) dies", printed)
    [lost] = [event for event in of_type(events, "WorkerLost") if event["name"] == "controller"]
    assert "failed_tasks" not in lost  # the workers go on meanwhile
    assert the_only(events, "ResumeRequested")["position"] < lost["position"]
    # What a loss gave up was never reported as completed by a worker that was only slow.
    completed = {event["task_id"] for event in of_type(events, "TaskCompleted")}
    for event in of_type(events, "WorkerLost"):
        assert completed.isdisjoint(event.get("failed_tasks", ()))


def no_chunk_was_lost_or_trained_twice(place: str, events: list[Happened]) -> None:
    with RfDb(place) as db:
        runs = db.get_all_runs()
    assert sorted(run["status"] for run in runs) == ["COMPLETED"] * 4 + ["KILLED"]
    for run in runs:
        trained = [
            (event["epoch"], event["chunk"])
            for event in of_type(events, "CheckpointSaved")
            if event["run_id"] == run["run_id"]
        ]
        all_of_them = [
            (epoch, chunk)
            for epoch in range(run["config_leaf"]["epochs"])
            for chunk in range(run["num_chunks"])
        ]
        assert trained == all_of_them[: len(trained)]
        assert len(trained) == run["current_epoch"] * run["num_chunks"] + run["current_chunk"]
        assert run["ended_by"] == run["status"]
        if run["status"] == "COMPLETED":
            assert trained == all_of_them


def it_learned(place: str) -> None:
    with RfDb(place) as db:
        accuracy = [run["metrics"]["accuracy"] for run in db.get_all_runs()]
    assert max(accuracy) > 0.9


def all_shards_were_evaluated_by_two_actors(place: str, events: list[Happened]) -> None:
    with RfDb(place) as db:
        pipelines = db.db.execute("SELECT * FROM pipelines")
        tasks = db.db.execute("SELECT * FROM actor_tasks")
        contexts = db.db.execute("SELECT * FROM contexts")
    assert {context["status"] for context in contexts} == {"ready"}
    assert {pipeline["context_id"] for pipeline in pipelines} == {
        None,
        *(context["context_id"] for context in contexts),
    }
    for pipeline in pipelines:
        assert (pipeline["status"], pipeline["shards_completed"]) == ("completed", 4)
        shards = [
            event["shard_id"]
            for event in of_type(events, "ShardEvaluated")
            if event["pipeline_id"] == pipeline["pipeline_id"]
        ]
        assert sorted(shards) == [0, 1, 2, 3]
    assert {task["actor_id"] for task in tasks} == {0, 1}
    for task in tasks:
        assert task["status"] == "completed"
        assert task["started_at"] < task["completed_at"]


def test_a_silence_ends_with_a_line_that_tells_how_far_it_is(
    db: RfDb, evals: RFDatabase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("examples.follower.SILENCE", 0)

    def last_line_before(kind: type[Event]) -> str:
        capsys.readouterr()
        follower.until(kind)
        lines = capsys.readouterr().out.splitlines()
        return [line.partition(" s  ")[2] for line in lines][-1]

    with Follower(db) as follower:
        experiment_id = db.create_experiment("digits")
        assert last_line_before(ExperimentCreated) == "the processes import what they need"
        for _ in range(2):
            db.create_run(experiment_id, config_leaf={"epochs": 2}, num_chunks=4)
        assert last_line_before(RunCreated) == "0 of 16 chunks are trained"
        db.update_run_metrics(1, {"loss": 0.5})
        db.set_run_progress(1, current_chunk=1, current_epoch=1)
        line = "5 of 16 chunks are trained; losses: run 1 0.500"
        assert last_line_before(RunProgressed) == line
        for run_id in (1, 2):
            db.set_run_progress(run_id, current_chunk=0, current_epoch=2)
        line = "all chunks are trained, no shard is read yet"
        assert last_line_before(RunProgressed) == line
        experiment_id = evals.create_experiment("digits", num_shards=2, num_actors=1)
        pipeline_id = evals.create_pipeline(experiment_id, "alone", "mlp", model_config_json={})
        for shard_id in range(2):
            evals.create_actor_task(experiment_id, pipeline_id, 0, shard_id)
        evals.claim_next_actor_task(0)
        evals.set_actor_task_status(1, ActorTaskStatus.COMPLETED)
        assert last_line_before(ActorTaskCompleted) == "1 of 2 shards are read"


def test_a_store_that_is_there_is_left_alone(place: str) -> None:
    with RfDb(place) as db:
        db.create_experiment("mine")
    code, _, told = run(place, "-m", "examples.demo")
    assert code != 0
    assert "is there already" in told
    password = urlsplit(place).password
    assert password is None or password not in told
    with RfDb(place) as db:
        assert db.store.head() == 1

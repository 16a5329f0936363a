"""RapidFire AI as a whole on refold: processes, dispatchers over HTTP; models are stubbed."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from refold import RFDatabase, RfDb
from refold.commands.rapidfire import StartExperiment
from refold.commands.store import CreateExperiment
from refold.eventstore.events import (
    ExperimentDetailsRecorded,
    ExperimentStatesReset,
    TaskCompleted,
)
from refold.eventstore.statuses import ExperimentStatus
from refold.rapidfire import environment

if find_spec("rapidfireai") is None or find_spec("torch") is None:
    pytest.skip("rapidfireai is not installed: make rapidfire", allow_module_level=True)

if sys.version_info < (3, 12):
    pytest.skip("rapidfireai's own code needs Python 3.12", allow_module_level=True)

TRAINING = Path(__file__).parent / "rapidfire_training.py"
INFERENCE = Path(__file__).parent / "rapidfire_inference.py"


# --- training -----------------------------------------------------------------------------------


def train(place: str, folder: Path) -> dict[str, Any]:
    """Let RapidFire train and return what it tells at the end."""
    command = [sys.executable, str(TRAINING), place, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What it tells on its own database."""
    return train("own", tmp_path_factory.mktemp("own"))


def test_training_ends_as_on_its_own_database(
    place: str, tmp_path: Path, own: dict[str, Any]
) -> None:
    assert train(place, tmp_path / "home") == own
    with RfDb(place) as db:
        assert db.verify(log=True) == []
        words = {recorded.type for recorded in db.store.read()}
    assert {
        "RunStopped",
        "RunResumed",
        "RunKilled",
        "RunFailed",
        "RunCompleted",
        "TablesReset",
        "ExperimentStatesReset",
    } <= words


def test_killed_and_made_anew(place: str, tmp_path: Path) -> None:
    """SIGKILL to the controller and its workers, in the middle of training."""
    command = [sys.executable, str(TRAINING), place, str(tmp_path / "home")]
    with (
        RfDb(place) as db,
        (tmp_path / "output").open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True) as training,
    ):
        next(db.subscribe(types=[TaskCompleted]))
        os.killpg(training.pid, signal.SIGKILL)
        assert db.verify(log=True) == []
    done = subprocess.run([*command, "again"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["name"] == "digits"
    assert set(told["runs"]) <= {"Failed", "Deleted", "Completed", "Stopped"}
    assert set(told["tasks"]) <= {"Completed", "Failed"}
    with RfDb(place) as db:
        assert db.verify(log=True) == []
        *_, last = db.store.read(types=[ExperimentStatesReset])
        assert last.event.runs


def test_what_it_was_about(own: dict[str, Any]) -> None:
    """The story has its turns: a run that was stopped, one deleted, one that failed, a clone."""
    statuses = [run["status"] for run in own["runs"]]
    assert statuses == ["Completed", "Completed", "Deleted", "Failed", "Completed"]
    assert own["runs"][4]["warm_started_from"] == 1
    assert own["runs after the end"] == []
    assert own["names"] == ["digits", "digits_1"]


# --- inference ----------------------------------------------------------------------------------


def infer(place: str, folder: Path) -> dict[str, Any]:
    """Let RapidFire's inference run and return what it tells at the end."""
    command = [sys.executable, str(INFERENCE), place, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_inference_ends_as_on_its_own_database(place: str, tmp_path: Path) -> None:
    own, ours = infer("own", tmp_path / "own"), infer(place, tmp_path / "home")
    [deleted] = [row for row in own["pipelines"] if row["pipeline_id"] == 3]
    # On its own database 0.16.1 has a deleted pipeline fail when its shard ends. Here it stays so.
    assert deleted["status"] in ("deleted", "failed")
    deleted["status"] = "deleted"
    statuses = {row["pipeline_id"]: row["status"] for row in own["pipelines"]}
    assert statuses == {1: "completed", 2: "completed", 3: "deleted", 4: "failed"}
    assert ours == own
    with RFDatabase(place) as db:
        assert db.verify(log=True) == []
        moves = {recorded.type for recorded in db.store.read()}
    assert {"PipelineStopped", "PipelineResumed", "PipelineDeleted", "PipelineFailed"} <= moves


# --- dispatchers --------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def served(mode: str, place: str, folder: Path) -> Iterator[str]:
    """Run a dispatcher under gunicorn with RapidFire's own settings, and give its address."""
    spec = find_spec(f"rapidfireai.{mode}")
    assert spec is not None
    [package] = spec.submodule_search_locations or []
    port = free_port()
    settings = {
        **os.environ,
        **environment(place),
        "RF_HOME": str(folder),
        "RF_API_PORT": str(port),
        "RF_MLFLOW_ENABLED": "false",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", f"{package}/dispatcher/gunicorn.conf.py"]
    with (
        (folder / "gunicorn.log").open("w") as log,
        subprocess.Popen(command, env=settings, stdout=log, stderr=log, cwd=folder) as server,
    ):
        try:
            address = f"http://127.0.0.1:{port}/dispatcher"
            while True:
                try:
                    answer(f"{address}/health-check")
                    break
                except URLError:
                    assert server.poll() is None, (folder / "gunicorn.log").read_text()
            yield address
        finally:
            server.terminate()


def answer(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as found:
        assert found.status == 200
        return json.load(found)


def ask_a_lot(requests: list[tuple[str, Any]]) -> list[Any]:
    """Let eight clients ask; every request must be answered."""
    with ThreadPoolExecutor(8) as clients:
        return list(clients.map(lambda request: answer(*request), requests))


def test_the_dispatcher_of_training_answers_everybody(place: str, tmp_path: Path) -> None:
    with RfDb(place) as db:
        experiment = CreateExperiment("fit", "digits", ExperimentStatus.RUNNING)
        details = ExperimentDetailsRecorded(0, current_task="Idle")
        experiment_id = db.send(StartExperiment(experiment, details))
        for n in range(20):
            db.create_run(experiment_id, config_leaf={"lr": n}, status="ONGOING")
    with served("fit", place, tmp_path) as address:
        asked = [
            (f"{address}/get-all-runs", None),
            (f"{address}/get-run", {"run_id": 3}),
            (f"{address}/stop-run", {"run_id": 3}),
            (f"{address}/get-all-experiment-names", None),
        ]
        answers = ask_a_lot(asked * 75)
    assert len(answers) == 300
    assert len(answers[0]) == 20
    with RfDb(place) as db:
        assert len(db.get_ic_ops_request()) == 75
        assert db.verify() == []


def test_the_dispatcher_of_inference_answers_everybody(place: str, tmp_path: Path) -> None:
    with RFDatabase(place) as db:
        experiment_id = db.create_experiment("rag")
        for n in range(20):
            db.create_pipeline(experiment_id, f"p{n}", "vllm", status="ongoing")
    with served("evals", place, tmp_path) as address:
        asked = [
            (f"{address}/get-all-runs", None),
            (f"{address}/stop-pipeline", {"pipeline_id": 3}),
            (f"{address}/list-all-pipeline-ids", None),
        ]
        answers = ask_a_lot(asked * 100)
    assert len(answers) == 300
    with RFDatabase(place) as db:
        assert len(db.get_ic_ops_request()) == 100
        assert db.verify() == []

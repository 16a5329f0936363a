"""`refold stop`, `resume`, `delete`, `clone`: asked of a run, after the user has been asked."""

import json
from getpass import getuser
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, here, record, refold
from terminal import Terminal

from refold import RfDb
from refold.eventstore import Transaction


@pytest.fixture
def recorded(place: str) -> str:
    """The place of the fixed log."""
    record(place)
    return place


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The fixed log in a file: for what is the same on every engine."""
    place = str(tmp_path / "store.db")
    record(place)
    return place


def requests(place: str) -> list[dict[str, Any]]:
    """Return the requests that came after those of the fixed log."""
    with RfDb(place, allow_dill=True) as db:
        return [request for request in db.get_ic_ops_request() if request["ic_id"] > 3]


OPERATIONS = {"stop": "STOP", "resume": "RESUME", "delete": "DELETE", "clone": "CLONE_MODIFY"}


@pytest.mark.parametrize("word", OPERATIONS)
def test_a_request_is_made(recorded: str, word: str) -> None:
    done = here(word, 2, "--yes", "--actor", "ada", "--store", recorded)
    assert done == Done(
        f"request 4: {word} run 2 is PENDING\n",
        "the controller decides what becomes of it: refold show request 4\n",
        0,
    )
    [request] = requests(recorded)
    assert (request["run_id"], request["operation"]) == (2, OPERATIONS[word])
    assert request["config_leaf"] is None
    assert request["warm_start"] is False
    with RfDb(recorded) as db:
        [event] = db.store.read(backwards=True, limit=1)
    assert event.metadata.actor == "ada"


def test_the_json_is_the_row(recorded: str) -> None:
    done = here("stop", 1, "--yes", "--json", "--store", recorded)
    assert (done.err, done.code) == ("", 0)
    row = json.loads(done.out)
    [request] = requests(recorded)
    assert {**row, "created_at": "", "updated_at": ""} == {
        **request,
        "created_at": "",
        "updated_at": "",
    }
    with RfDb(recorded) as db:
        [event] = db.store.read(backwards=True, limit=1)
    assert event.metadata.actor == getuser()


@pytest.mark.parametrize("words", ["stop 2", "resume 2", "delete 2", "clone 2"])
def test_nothing_is_changed_if_nobody_can_be_asked(file: str, words: str) -> None:
    done = here(*words.split(), "--store", file)
    assert (done.out, done.code) == ("", 2)
    assert "run 2 (run_2, STOPPED)" in " ".join(done.err.split())
    assert "pass --yes" in done.err
    assert requests(file) == []


def test_nothing_is_changed_if_the_answer_is_piped(file: str) -> None:
    done = refold("delete", 1, "--store", file, stdin="y\n")
    assert (done.out, done.code) == ("", 2)
    assert requests(file) == []
    done = refold("delete", 1, "--yes", "--json", "--store", file)
    assert json.loads(done.out)["operation"] == "DELETE"
    assert (done.err, done.code) == ("", 0)
    assert len(requests(file)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("stop 99", "there is no run 99: refold runs lists those that there are"),
        ("clone 99 --set lr=1", "there is no run 99"),
        ("stop -- -1", "there is no run -1"),
        ("stop 3", "run 3 is KILLED"),
        ("delete 3", "run 3 is KILLED"),
        ("clone 3", "run 3 is KILLED"),
    ],
)
def test_what_cannot_be_is_refused(file: str, words: str, message: str) -> None:
    with RfDb(file) as db:
        db.set_run_status(3, "KILLED")
    command, *rest = words.split()
    done = here(command, "--yes", "--store", file, *rest)
    assert (done.out, done.code) == ("", 3)
    assert message in done.err
    assert requests(file) == []


# --- ids and names ---------------------------------------------------------------------------


def test_several_runs_by_ids_and_names(recorded: str) -> None:
    done = here("delete", "run", 2, "run_1", 2, "--yes", "--json", "--store", recorded)
    assert [row["run_id"] for row in json.loads(done.out)] == [2, 1]
    assert [request["run_id"] for request in requests(recorded)] == [2, 1]


def test_all_of_them_or_none(file: str) -> None:
    with RfDb(file) as db:
        db.set_run_status(3, "KILLED")
    done = here("stop", 1, 3, "--yes", "--store", file)
    assert (done.out, done.code) == ("", 3)
    assert "run 3 is KILLED" in done.err
    assert requests(file) == []


def test_an_id_or_a_name_is_taken_everywhere(recorded: str) -> None:
    with RfDb(recorded) as db:
        for name in ("baseline", "twice", "twice"):
            db.create_run(1, name)
        first = db.get_all_runs()[-3]["run_id"]
        experiment = db.get_experiment(1)["experiment_name"]
    store = ("--store", recorded)
    by_id, by_name = (here("show", "run", key, *store) for key in (first, "baseline"))
    assert by_id == by_name
    assert by_id.code == 0
    assert here("history", "run", "baseline", *store).out
    for command, option, key, name in (
        ("runs", "--experiment", 1, experiment),
        ("tasks", "--run", 1, "run_1"),
    ):
        assert here(command, option, key, *store) == here(command, option, name, *store)
    for words, told in (
        (("show", "run", "twice"), f"'twice' is the name of runs {first + 1}, {first + 2}"),
        (("stop", "base", "--yes"), "no run has the name 'base'"),
        (("runs", "--experiment", "x"), "no experiment has the name 'x'"),
        (("show", "task", "x"), "'x' is not the id of a task"),
        (("clone", 1, 2, "--yes"), "one run at a time"),
    ):
        done = here(*words, *store)
        assert done.code == 2
        assert told in " ".join(done.err.split())


# --- configurations --------------------------------------------------------------------------


def test_a_clone_is_of_a_changed_configuration(recorded: str) -> None:
    changes = ("--set", "learning_rate=0.5", "--set", "layers=[8, 4]")
    done = here("clone", 1, *changes, "--warm-start", "--yes", "--store", recorded)
    assert done.err.splitlines()[:2] == [
        "learning_rate: 0.1 -> 0.5",
        "layers: [64, 32] -> [8, 4]",
    ]
    [request] = requests(recorded)
    assert request["config_leaf"] == {"learning_rate": 0.5, "layers": (8, 4)}  # a tuple stays one
    assert request["warm_start"] is True


def test_names_within_names_are_separated_by_dots(db: RfDb, place: str) -> None:
    config = {"optimizer": {"name": "sgd", "lr": 0.1}, "a.b": 1, "tags": ("x",)}
    run_id = db.create_run(db.create_experiment("digits"), config_leaf=config)
    changes = ["optimizer.name=adam", "a.b=null", "tags=none", "optimizer.lr=1e-3"]
    words = [word for change in changes for word in ("--set", change)]
    assert here("clone", run_id, *words, "--yes", "--store", place).code == 0
    [request] = db.get_ic_ops_request()
    assert request["config_leaf"] == {
        "optimizer": {"name": "adam", "lr": 0.001},
        "a.b": None,
        "tags": "none",
    }
    assert db.get_run(run_id)["config_leaf"] == config


def test_a_whole_configuration_is_read_from_a_file(recorded: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"learning_rate": 2, "deep": {"er": 1}}')
    words = ("--config", path, "--set", "deep.er=true", "--yes")
    assert here("clone", 1, *words, "--store", recorded).code == 0
    [request] = requests(recorded)
    assert request["config_leaf"] == {"learning_rate": 2, "deep": {"er": True}}


def test_what_is_new_in_a_configuration(file: str) -> None:
    changes = ("--set", "model.head.size=3", "--set", "lr=0.5", "--set", "model.head.kind=mlp")
    done = here("clone", 1, *changes, "--yes", "--store", file)
    assert done.err.splitlines()[:3] == [
        "model.head.size: 3, which is new",
        "lr: 0.5, which is new",
        "model.head.kind: mlp, which is new",
    ]
    [request] = requests(file)
    assert request["config_leaf"]["model"] == {"head": {"size": 3, "kind": "mlp"}}
    assert request["config_leaf"]["learning_rate"] == 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set learning_rate.x=1", "the configuration has no 'learning_rate.x': pass the whole"),
        ("--set learning_rate", "'learning_rate' is no NAME=VALUE"),
        ("--set =1", "'=1' is no NAME=VALUE"),
        ("--config missing.json", "No such file"),
        ("--config list.json", "holds no JSON object"),
        ("--config text.json", "malformed"),
    ],
)
def test_a_configuration_that_is_none_is_refused(
    file: str, words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("lr: 1")
    done = here("clone", 1, *words.split(), "--yes", "--store", file)
    assert (done.out, done.code) == ("", 2)
    assert message in " ".join(done.err.split())
    assert requests(file) == []


def test_a_run_without_a_configuration_has_nothing_to_set(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    done = here("clone", run_id, "--set", "lr=1", "--yes", "--store", place)
    assert done.code == 2
    assert "--config FILE" in " ".join(done.err.split())


class Tree:
    """What only dill can carry."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree)

    __hash__ = None  # type: ignore[assignment]


def test_dill_is_decoded_only_if_allowed(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 1, "tree": Tree()})
    words = ("clone", run_id, "--set", "lr=2", "--yes", "--store", place)
    done = here(*words)
    assert done.code == 3
    assert "--allow-dill decodes it, --config FILE takes its place" in done.err
    assert db.get_ic_ops_request() == []
    assert here(*words, "--allow-dill").code == 0
    [request] = db.get_ic_ops_request()
    assert request["config_leaf"] == {"lr": 2, "tree": Tree()}


# --- asking ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)], ids=["yes", "no", "-"])
def test_the_user_is_asked(file: str, answer: str, code: int) -> None:
    with Terminal("stop", 1, "--store", file) as terminal:
        terminal.wait_for("Ask to stop run 1 (run_1, ONGOING)? [y/N]")
        assert requests(file) == []
        terminal.type(f"{answer}\n")
        assert terminal.end() == code
        assert ("nothing was changed" in terminal.sent) == bool(code)
    assert len(requests(file)) == 1 - code


def test_ctrl_c_at_the_question_changes_nothing(file: str) -> None:
    with Terminal("delete", 1, "--store", file) as terminal:
        terminal.wait_for("Ask to delete run 1 (run_1, ONGOING), for ever? [y/N]")
        terminal.type("\x03")
        assert terminal.end() == 130
        assert terminal.is_as_it_was()
    assert requests(file) == []


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


INTERRUPTIONS: dict[str, tuple[Any, str, str, int]] = {
    "in the middle": (Transaction, "append", "interrupted: nothing was changed\n", 0),
    "at the end": (None, "", "interrupted: but it had been done already\n", 1),
}


@pytest.mark.parametrize(
    ("within", "name", "told", "made"), INTERRUPTIONS.values(), ids=INTERRUPTIONS.keys()
)
def test_ctrl_c_leaves_all_or_nothing_and_says_which(
    recorded: str, within: Any, name: str, told: str, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if within is None:
            patch.setattr("refold.cli.control.print_json", interrupt)
        else:
            patch.setattr(within, name, interrupt)
        done = here("stop", 1, "--yes", "--json", "--store", recorded)
    assert done == Done("", told, 130)
    assert len(requests(recorded)) == made

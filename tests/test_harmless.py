"""Text that others have written plays on no terminal and in no spreadsheet."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from command_line import here
from terminal import ESCAPE, Terminal

from refold import RfDb
from refold.export.tables import write_csv

EVIL = "\x1b]0;title\x07\x9b2J\u202egnp.exe\u2066\U000e0001"
COMMANDS = [
    "status",
    "experiments",
    "runs",
    "tasks",
    "workers",
    "requests",
    "contexts",
    "pipelines",
    "actor-tasks",
    "show run 1",
    "show experiment 1",
    "show request 1",
    "show event 2",
    "log",
    "history run 1",
    "why run 1 status",
    "diff 2 5",
    "doctor",
    "verify",
]


@pytest.fixture
def evil(tmp_path: Path) -> str:
    place = str(tmp_path / "store.db")
    with RfDb(place, actor=EVIL) as db:
        run_id = db.create_run(db.create_experiment(EVIL), run_name=EVIL, config_leaf={EVIL: EVIL})
        db.create_worker_task(run_id, 0, 0)
        db.set_worker_task_status(1, "FAILED", EVIL)
        db.request_clone_modify(run_id, {EVIL: [EVIL]})
        db.update_run_metrics(run_id, {EVIL: 0.5})
        db.set_worker_progress(0, "IDLE")
        db.set_run_status(run_id, "ONGOING")
    return place


@pytest.mark.parametrize("words", COMMANDS)
def test_a_terminal_shows_colours_and_no_codes(evil: str, words: str) -> None:
    for more in ((), ("--json",)):
        with Terminal(*words.split(), *more, "--store", evil, TERM="xterm-256color") as terminal:
            assert terminal.end() == 0
        shown = ESCAPE.sub("", terminal.sent)
        # What others wrote stands there escaped; no colour of our own does.
        assert not re.search(r"\\x1b\[|\\u001b\[", shown)
        assert not [one for one in shown if not one.isprintable() and one not in "\r\n"]


def test_json_on_a_terminal_is_the_same_value(evil: str) -> None:
    with Terminal("show", "run", "1", "--json", "--store", evil, width=4_000) as terminal:
        assert terminal.end() == 0
    told = json.loads(ESCAPE.sub("", terminal.sent))
    assert told["run_name"] == EVIL
    assert told == json.loads(here("show", "run", "1", "--json", "--store", evil).out)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=a,"b"'])
def test_a_spreadsheet_sees_no_formula(tmp_path: Path, text: str) -> None:
    file = io.BytesIO()
    with RfDb(tmp_path / "store.db") as db:
        db.create_experiment(text)
        write_csv(db, "experiments", file)
    [row] = csv.DictReader(io.StringIO(file.getvalue().decode(), newline=""))
    assert row["experiment_name"] == f"'{text}"

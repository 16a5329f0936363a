"""The command line: JSON, exit codes, damaged stores, pipes, terminals, signals."""

import json
import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from clippings import GradientClipped, clippings
from command_line import Done, command, environment, here, record, refold
from raw import raw

from refold import RfDb
from refold.eventstore import open_store
from refold.eventstore.events import RunProgressed

LISTS = [
    "experiments",
    "runs",
    "tasks",
    "workers",
    "requests",
    "contexts",
    "pipelines",
    "actor-tasks",
]


@pytest.fixture
def recorded(place: str) -> str:
    """The place of the fixed log."""
    record(place)
    return place


def run(*commands: str, store: str) -> list[Done]:
    """Run commands on a store."""
    return [here(*one.split(), "--store", store) for one in commands]


# --- JSON ---------------------------------------------------------------------------------------


def test_json_is_what_the_store_holds(recorded: str) -> None:
    lists = [f"{name} --json" for name in LISTS]
    others = ["status --json", "show run 4 --json", "history run 2 --json", "diff 22 25 --json"]
    done = run(*lists, *others, "doctor --json", "log --json", store=recorded)
    assert [one.err for one in done] == [""] * len(done)
    assert [one.code for one in done] == [0] * (len(done) - 2) + [1, 0]  # see below
    *told, events = done
    parsed = [json.loads(one.out) for one in told]
    rows = dict(zip([*lists, *others, "doctor"], parsed, strict=True))
    with RfDb(recorded) as db:
        assert [row["task_id"] for row in rows["tasks --json"]] == [
            row["task_id"] for row in db.get_worker_tasks()
        ]
        assert rows["runs --json"][0]["config_leaf"] == {"learning_rate": 0.1, "layers": [64, 32]}
        assert rows["runs --json"][0]["metrics"] == db.get_run(1)["metrics"]
        log = [json.loads(line) for line in events.out.splitlines()]
        assert [(event["position"], event["stream"], event["type"]) for event in log] == [
            (event.position, event.stream, event.type) for event in db.store.read()
        ]
        [clipped] = [event for event in log if event["type"] == "GradientClipped"]
        assert clipped["data"] == {"run_id": 2, "norm": 12.5}
    status = rows["status --json"]
    assert [run["run_id"] for run in status["runs"]] == [1, 3, 4]
    assert status["position"] == len(log)
    assert status["last_event"] == log[-1]
    assert rows["show run 4 --json"]["tasks"] == {"FAILED": 1}
    touched = rows["history run 2 --json"]
    assert touched[-1]["change"]["columns"] == {"status": ["ONGOING", "STOPPED"]}
    assert touched[-1]["metadata"]["cause"] == 23
    assert {change["view"] for change in rows["diff 22 25 --json"]} == {
        "runs",
        "interactive_control",
    }
    levels = [finding["level"] for finding in rows["doctor"]]
    assert set(levels) == {"fact", "ok", "note", "problem"}
    assert levels.count("problem") == 1  # a worker's last word is years old


# --- the store ----------------------------------------------------------------------------------


def test_a_mistyped_place_makes_no_store(place: str) -> None:
    done = run("status", "runs", "log --follow", "doctor", store=place)
    assert [(one.out, one.code) for one in done] == [("", 3)] * 4
    assert all("there is no store" in one.err for one in done)
    if "://" in place:
        with raw(place) as connection:
            found = connection.execute("SELECT to_regclass('events')").fetchone()
        assert found == (None,)
    else:
        assert not Path(place).exists()


def test_the_store_is_named_before_the_command_or_by_the_environment(recorded: str) -> None:
    before = refold("-s", recorded, "runs", env={"REFOLD_STORE": "no-such.db"})
    assert before == here("runs", env={"REFOLD_STORE": recorded})
    assert before.code == 0
    assert before.out.startswith("RUN ")


def test_an_empty_store(place: str) -> None:
    RfDb(place).close()
    status, runs, rows, log = run("status", "runs", "runs --json", "log", store=place)
    assert "nothing has happened yet" in status.out
    assert runs == Done("", "there are no runs\n", 0)
    assert rows == Done("[]\n", "", 0)
    assert log == Done("", "", 0)


def test_a_store_of_a_newer_refold(recorded: str) -> None:
    with raw(recorded) as connection:
        if "://" in recorded:
            connection.execute("COMMENT ON TABLE events IS 'refold, log format 3'")
        else:
            connection.execute("PRAGMA user_version = 3")
    runs, doctor = run("runs", "doctor", store=recorded)
    assert (runs.out, runs.code) == ("", 3)
    assert "upgrade refold" in runs.err
    assert doctor.code == 1
    assert re.search(r"^problem .*log format 3", doctor.out, re.M)


def test_views_of_a_newer_refold_do_not_hide_the_log(recorded: str) -> None:
    with raw(recorded) as connection:
        connection.execute("UPDATE projections SET version = 99 WHERE name = 'runs'")
    runs, log, doctor = run("runs", "log --limit 1", "doctor", store=recorded)
    assert runs.code == 3
    assert "view runs is at version 99" in runs.err
    assert (log.out.count("\n"), log.code) == (1, 0)
    assert doctor.code == 1
    assert re.search(r"^problem +views +a newer refold made runs$", doctor.out, re.M)


def test_a_damaged_event_in_the_middle(recorded: str) -> None:
    with raw(recorded) as connection:
        table = " ON events" if "://" in recorded else ""
        connection.execute(f"DROP TRIGGER events_are_never_updated{table}")
        connection.execute("UPDATE events SET data = '{}' WHERE position = 12")
    log, behind, runs, before, later, doctor = run(
        "log",
        "log --since 13 --limit 1",
        "runs",
        "runs --at 11",
        "runs --at 12",
        "doctor",
        store=recorded,
    )
    assert log.out.count("\n") == 11
    assert log.code == 3
    assert "--since 13 shows what stands behind it" in log.err
    assert "refold: event 12 (RunMetricsRecorded, schema version 1) cannot be decoded" in log.err
    assert behind.code == runs.code == before.code == 0
    assert behind.out.split()[0] == "13"
    assert later.code == 3
    assert "event 12" in later.err
    assert doctor.code == 1
    assert re.search(
        r"^problem +log +trigger events_are_never_updated: it is missing", doctor.out, re.M
    )
    assert re.search(r"^problem +log +event 12: its digest is not that of", doctor.out, re.M)
    assert re.search(r"^problem +events +event 12 ", doctor.out, re.M)


def test_the_doctor_finds_what_is_missing(recorded: str) -> None:
    with raw(recorded) as connection:
        table = " ON events" if "://" in recorded else ""
        connection.execute(f"DROP TRIGGER events_are_never_deleted{table}")
        connection.execute("DELETE FROM events WHERE position = 13")
    done = here("doctor", "--store", recorded)
    assert done.code == 1
    assert "event 18" not in done.out
    assert re.search(r"^problem +log +stream run-1: .* has it end with version", done.out, re.M)
    if "://" not in recorded:
        assert re.search(r"^problem +log +event 13: it is missing$", done.out, re.M)


def test_the_doctor_compares_views_and_payloads(recorded: str) -> None:
    with raw(recorded) as connection:
        connection.execute("UPDATE runs_folded SET seed = 8 WHERE run_id = 1")
    fast, thorough = run("doctor", "doctor --verify", store=recorded)
    assert "seed" not in fast.out
    assert thorough.code == 1
    assert "runs 1: seed is 8, the log makes it 7" in thorough.out
    assert re.search(r"^ok +payloads +each is what its digest says$", thorough.out, re.M)


def test_views_that_were_left_behind(recorded: str) -> None:
    with open_store(recorded) as store:
        store.append("run-1", [RunProgressed(1, 3, 0)])
    doctor = here("doctor", "--store", recorded)
    status = here("status", "--store", recorded)
    again = here("status", "--store", recorded)
    assert re.search(r"^note +views +behind the log: .*runs by 1", doctor.out, re.M)
    assert re.search(r"^views +were behind, and have been caught up: .*runs by 1", status.out, re.M)
    assert "behind" not in again.out


# --- what others have written -------------------------------------------------------------------


def test_event_types_and_views_of_a_users_own(place: str) -> None:
    with RfDb(place, projections=[clippings]) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.append(GradientClipped(run_id, 2.5), actor="worker-0")
    shown, unknown, missing = run(
        "show clippings 1 --import clippings",
        "show clippings 1",
        "runs --at 2 --import no_such_module",
        store=place,
    )
    assert shown.code == 0
    assert re.search(r"^ +norm +2.5$", shown.out, re.M)
    assert unknown.code == 3
    assert "there is no entity 'clippings'" in unknown.err
    assert missing.code == 2


def test_looking_with_a_module_adds_no_view_to_the_store(recorded: str) -> None:
    done = here("history", "run", "2", "--import", "clippings", "--store", recorded)
    assert done.code == 0
    with raw(recorded) as connection:
        found = connection.execute("SELECT 1 FROM projections WHERE name = 'clippings'")
        assert found.fetchone() is None


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_configuration_that_runs_code_is_decoded_only_if_asked_for(
    place: str, tmp_path: Path
) -> None:
    sprung = tmp_path / "sprung"
    with RfDb(place) as db:
        db.create_run(db.create_experiment("digits"), config_leaf=Trap(str(sprung)))
    sprung.rmdir()  # whoever writes an object looks whether it can be read
    shown, listed = run("show run 1", "runs --json", store=place)
    assert shown.code == listed.code == 0
    assert "pickled with dill" in shown.out
    assert "pickled with dill" in listed.out
    assert not sprung.exists()
    assert here("show", "run", "1", "--allow-dill", "--store", place).code == 0
    assert sprung.exists()


def test_control_characters_do_not_reach_the_terminal(place: str) -> None:
    with RfDb(place, actor="\x1b]0;title\x07") as db:
        db.create_run(db.create_experiment("digits"), run_name="\x1b[31mred\n\x9b2J")
    for done in run("runs", "log", "show run 1", "history run 1", "status", store=place):
        assert done.code == 0
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.out)


# --- pipes, terminals, signals ------------------------------------------------------------------


def test_a_closed_pipe_is_quiet(place: str) -> None:
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.append(*(RunProgressed(run_id, n, 0) for n in range(5_000)))
    for words in (["log"], ["log", "--json"]):
        with subprocess.Popen(
            command(*words, "--store", place),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert b"ExperimentCreated" in process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == 141


def test_following_shows_what_happens_until_ctrl_c(recorded: str) -> None:
    words = ["log", "--follow", "--last", "1", "--actor", "evals", "--actor", "ada"]
    with subprocess.Popen(
        command(*words, "--store", recorded),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        before = process.stdout.readline()
        with RfDb(recorded) as db:
            db.request_stop(1, actor="grace")
            db.request_stop(4, actor="ada")
        news = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "ActorTaskScheduled" in before
        assert re.search(r"ada +StopRequested +run_id 4$", news)
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""
        assert process.wait(60) == 130


def on_a_terminal(*words: str, **env: str) -> str:
    """Run a command in a terminal of its own and return what it shows there."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        command(*words), stdin=slave, stdout=slave, stderr=slave, env=environment(**env)
    ) as process:
        os.close(slave)
        shown = b""
        while select.select([master], [], [], 60)[0]:
            try:
                part = os.read(master, 65_536)
            except OSError:  # so Linux tells that the other end is closed
                break
            if not part:
                break
            shown += part
        os.close(master)
        assert process.wait(60) == 0
    return shown.decode().replace("\r\n", "\n")


def letters(shown: str) -> list[str]:
    """Return what stands in a table, however its cells are wrapped."""
    return sorted("".join(re.sub(r"\x1b\[[0-9;]*m|─", "", shown).split()))


def test_a_terminal_shows_colours_and_rules(tmp_path: Path) -> None:
    place = str(tmp_path / "store.db")
    record(place)
    runs = on_a_terminal("runs", "--store", place)
    assert "\x1b[33mONGOING" in runs
    assert "─────" in runs
    assert re.search(r"\d+ d(?: \d+ h)? ago", runs)
    log = on_a_terminal("log", "--last", "1", "--store", place)
    assert "\x1b[" in log
    bare = on_a_terminal("runs", "--store", place, NO_COLOR="1")
    assert "\x1b[33m" not in bare
    assert "─────" in bare
    assert letters(on_a_terminal("runs", "--store", place, COLUMNS="50")) == letters(runs)
    piped = refold("runs", "--store", place)
    assert not re.search("[\x1b─]", piped.out)
    rows = on_a_terminal("runs", "--json", "--store", place)
    assert json.loads(rows)[0]["run_id"] == 1


def test_help_shows_examples_and_completion_works() -> None:
    general = here("--help")
    assert "refold why run 5 status" in general.out
    assert general.code == 0
    assert "Examples:\n      refold runs\n" in here("runs", "--help").out
    nothing = here()
    assert "Usage: refold" in nothing.out + nothing.err
    assert nothing.code == 2
    typo = here("runz")
    assert typo.code == 2
    assert "Did you mean 'runs'" in typo.err
    assert here("--version").out.startswith("refold ")
    assert here("-V") == here("--version")
    asked = {"_REFOLD_COMPLETE": "complete_bash", "COMP_WORDS": "refold pip", "COMP_CWORD": "1"}
    assert refold(env=asked).out.split() == ["pipelines"]

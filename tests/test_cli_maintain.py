"""`refold verify`, `rebuild`, `recover`, `fork`, `copy`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clippings import clippings
from command_line import Done, here, record, refold
from raw import raw
from tables import tables
from terminal import Terminal

from refold import RfDb, TaskStatus
from refold.eventstore import Transaction
from refold.projections import Views

Place = Callable[[], str]


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


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def spoil(place: str) -> None:
    """Alter rows of views, as no event would."""
    with raw(place) as connection:
        connection.execute("UPDATE runs_folded SET status = 'LOST', seed = NULL WHERE run_id = 2")
        connection.execute("DELETE FROM worker_task WHERE task_id = 1")


# --- views ------------------------------------------------------------------------------------


def test_views_that_equal_the_log_are_verified(recorded: str) -> None:
    equal = "equal: the views are what the log makes of them up to 54\n"
    left = ["the log: verify(log=True)", "payloads: verify(payloads=True)"]
    done = here("verify", "--store", recorded)
    said = "not looked at: the log: refold verify --log; payloads: refold verify --payloads\n"
    assert done == Done(equal, said, 0)
    done = here("verify", "--json", "--store", recorded)
    assert json.loads(done.out) == {"position": 54, "differences": [], "unchecked": left}
    done = here("verify", "--log", "--payloads", "--store", recorded)
    assert done == Done(equal, "", 0)


def test_views_that_differ_are_shown_and_rebuilt(recorded: str) -> None:
    spoil(recorded)
    done = here("verify", "--store", recorded)
    assert done == Done(
        "runs 2: status is 'LOST', the log makes it 'STOPPED'\n"
        "runs 2: seed is None, the log makes it 7\n"
        "worker_task 1: the row is missing\n",
        "refold rebuild folds the views anew\n",
        1,
    )
    done = here("verify", "--json", "--store", recorded)
    assert done.code == 1
    first, *_ = json.loads(done.out)["differences"]
    assert first == {
        "view": "runs",
        "key": 2,
        "column": "status",
        "expected": "STOPPED",
        "actual": "LOST",
    }
    refused = here("rebuild", "--store", recorded)
    assert refused.code == 2
    assert here("verify", "--store", recorded).code == 1
    done = here("rebuild", "--yes", "--store", recorded)
    assert done == Done("54 events folded into 21 views\n", "", 0)
    assert here("verify", "--store", recorded).code == 0


def test_views_of_ones_own_need_their_code(recorded: str) -> None:
    RfDb(recorded, projections=[clippings]).close()
    with raw(recorded) as connection:
        connection.execute("UPDATE clippings SET norm = 0")
    done = here("verify", "--store", recorded)
    assert done.code == 0
    assert done.err.startswith(
        "not verified, as their code is not known here: clippings (--import MODULE)\n"
    )
    done = here("verify", "--import", "clippings", "--store", recorded)
    assert done.code == 1
    assert "clippings 2: norm is 0.0, the log makes it 12.5" in done.out
    done = here("rebuild", "--yes", "--json", "--import", "clippings", "--store", recorded)
    told = json.loads(done.out)
    assert (told["events"], told["views"][-1]) == (54, "clippings")
    assert here("verify", "--import", "clippings", "--store", recorded).code == 0


def test_a_rebuild_that_is_interrupted_leaves_the_views(
    recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RfDb(recorded) as db:
        before = tables(db)
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "set_projection", interrupt)
        done = here("rebuild", "--yes", "--store", recorded)
    assert done == Done("", "interrupted: the views are as they were, or complete\n", 130)
    with RfDb(recorded) as db:
        assert tables(db) == before
        assert db.verify() == []


# --- recovery ---------------------------------------------------------------------------------

PLAN = """\
  tasks        5
  actor tasks  2
  workers      1
"""


def test_what_a_recovery_would_do_is_shown_first(recorded: str) -> None:
    with RfDb(recorded) as db:
        before = tables(db)
        done = here("recover", "--all", "--store", recorded)
        assert (done.out, done.code) == ("", 2)
        assert done.err.startswith(f"These would become FAILED in {db.store.engine.name}:\n{PLAN}")
        assert tables(db) == before
        assert db.store.head() == 54
        done = here("recover", "--all", "--yes", "--actor", "ada", "--store", recorded)
        assert done == Done(f"FAILED:\n{PLAN}", "", 0)
        assert db.get_worker_task(5)["status"] == "FAILED"
        [event] = db.store.read(after=54)
        assert (event.type, event.metadata.actor) == ("ExperimentStatesReset", "ada")
        done = here("recover", "--all", "--yes", "--store", recorded)
        assert done == Done("", "nothing is in progress: there is nothing to recover\n", 0)
        assert db.store.head() == 55


def test_runs_fail_if_asked_to(recorded: str) -> None:
    done = here("recover", "--fail-runs", "--yes", "--json", "--store", recorded)
    told = json.loads(done.out)
    assert (told["runs"], told["pipelines"], told["controller"]) == ([1, 3, 4], [1, 2], False)
    with RfDb(recorded) as db:
        assert db.get_run(1)["status"] == "FAILED"
    done = here("recover", "--fail-runs", "--yes", "--json", "--store", recorded)
    assert not any(json.loads(done.out).values())


def test_a_recovery_is_of_what_was_shown_or_not_at_all(file: str) -> None:
    with Terminal("recover", "--all", "--store", file) as terminal:
        terminal.wait_for("workers      1", "Declare them failed? [y/N]")
        with RfDb(file) as db:
            db.set_worker_task_status(5, TaskStatus.COMPLETED)  # it is alive
        terminal.type("y\n")
        assert terminal.end() == 3
        assert "meanwhile others are in progress: have a look again" in terminal.sent
    with Terminal("recover", "--all", "--store", file) as terminal:
        terminal.wait_for("[y/N]")
        terminal.type("y\n")
        assert terminal.end() == 0
        assert "FAILED:\r\n  actor tasks  2\r\n  workers      1\r\n" in terminal.sent
    with RfDb(file) as db:
        assert db.get_worker_task(5)["status"] == "COMPLETED"
        assert db.store.head() == 56


INTERRUPTIONS: dict[str, tuple[Any, str, int]] = {
    "in the middle": (Transaction, "interrupted: nothing was changed\n", 54),
    "at the end": (None, "interrupted: but it had been done already\n", 55),
}


@pytest.mark.parametrize(
    ("within", "told", "head"), INTERRUPTIONS.values(), ids=INTERRUPTIONS.keys()
)
def test_a_recovery_that_is_interrupted_says_whether_it_was_done(
    recorded: str, within: Any, told: str, head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if within is None:
            patch.setattr("refold.cli.maintain.print_json", interrupt)
        else:
            patch.setattr(within, "remember", interrupt)
        done = here("recover", "--all", "--yes", "--json", "--store", recorded)
    assert done == Done("", told, 130)
    with RfDb(recorded) as db:
        assert db.store.head() == head
        assert db.verify() == []


# --- other places -----------------------------------------------------------------------------


def name_of(place: str) -> str:
    """Return how a place is called in messages: without the password."""
    with RfDb(place) as db:
        return db.store.engine.name


@pytest.mark.parametrize(
    ("at", "position"), [("24", 24), ("2024-01-31T12:00:05Z", 22), ("now", 54)], ids=str
)
def test_a_fork_holds_the_log_up_to_a_moment(
    recorded: str, new_place: Place, at: str, position: int
) -> None:
    to = new_place()
    done = here("fork", to, "--at", at, "--yes", "--store", recorded)
    assert done == Done(f"{name_of(to)} holds the log up to position {position}\n", "", 0)
    again = here("fork", to, "--at", at, "--yes", "--json", "--store", recorded)
    assert json.loads(again.out) == {"store": name_of(to), "position": position}
    with RfDb(recorded) as db, RfDb(to) as other:
        assert tables(other) == tables(db.as_of(position))
    assert here("verify", "--store", to).code == 0


def test_a_fork_is_refused_where_something_else_is(recorded: str, new_place: Place) -> None:
    to = new_place()
    RfDb(to).create_experiment("other")
    done = here("fork", to, "--yes", "--store", recorded)
    assert (done.out, done.code) == ("", 3)
    assert "holds other events" in done.err
    done = here("fork", recorded, "--yes", "--store", recorded)
    assert (done.out, done.code) == ("", 3)
    assert "cannot be forked to itself" in done.err
    done = here("fork", to, "--at", "55", "--yes", "--store", recorded)
    assert (done.out, done.code) == ("", 3)
    assert "no position 55" in done.err


def test_nobody_is_told_a_password(file: str) -> None:
    to = "postgresql://ada:secret@host:1/database?schema=x&sslpassword=secret"
    for command in ("fork", "copy"):
        done = refold(command, to, "--store", file)
        assert done.code == 2
        assert "to host:1/database?" in " ".join(done.err.split())
        assert "secret" not in done.err + done.out


def test_nothing_is_made_if_the_user_does_not_agree(file: str, tmp_path: Path) -> None:
    to = tmp_path / "other.db"
    for command in ("fork", "copy"):
        assert refold(command, to, "--store", file, stdin="y\n").code == 2
        with Terminal(command, to, "--store", file) as terminal:
            terminal.wait_for("other.db?", "[y/N]")
            terminal.type("n\n")
            assert terminal.end() == 1
    assert not to.exists()


def test_a_fork_that_is_interrupted_leaves_an_empty_store(
    recorded: str, new_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = new_place()
    with monkeypatch.context() as patch:
        patch.setattr(Views, "rebuild", interrupt)
        done = here("fork", to, "--yes", "--store", recorded)
    assert (done.out, done.code) == ("", 130)
    assert "what is there is an empty store, or the whole fork: fork again" in done.err
    with RfDb(to) as other:
        assert other.store.head() == 0
    assert here("fork", to, "--yes", "--store", recorded).code == 0


def test_a_copy_goes_on_where_it_was_interrupted(
    recorded: str, new_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = new_place()
    with monkeypatch.context() as patch:
        patch.setattr("refold.eventstore.log.rows._append", interrupt)
        done = here("copy", to, "--yes", "--store", recorded)
    assert (done.out, done.code) == ("", 130)
    assert "holds the beginning of the log: copy again to go on" in done.err
    done = here("copy", to, "--yes", "--store", recorded)
    assert done.code == 0
    assert done.out.startswith("54 events copied to ")
    done = here("copy", to, "--yes", "--json", "--store", recorded)
    assert done == Done('{"events":0}\n', "", 0)
    with RfDb(recorded) as db, RfDb(to) as other:
        assert tables(other) == tables(db)


def test_a_copy_is_refused_where_something_else_is(recorded: str, new_place: Place) -> None:
    to = new_place()
    RfDb(to).create_experiment("other")
    for place, message in ((to, "holds other events"), (recorded, "are the same store")):
        done = here("copy", place, "--yes", "--store", recorded)
        assert (done.out, done.code) == ("", 3)
        assert message in done.err


@pytest.mark.parametrize("command", ["verify", "rebuild --yes", "recover --yes", "fork x --yes"])
def test_a_store_that_is_not_there_is_not_made(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = here(*command.split(), "--store", "missing.db")
    assert (done.out, done.code) == ("", 3)
    assert "there is no store" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_event_keeps_views_from_being_verified(recorded: str) -> None:
    with raw(recorded) as connection:
        of_the_table = " ON events" if "://" in recorded else ""
        connection.execute(f"DROP TRIGGER events_are_never_updated{of_the_table}")
        connection.execute("UPDATE events SET data = '{' WHERE position = 20")
    for command in ("verify", "rebuild --yes"):
        done = here(*command.split(), "--store", recorded)
        assert (done.out, done.code) == ("", 3)
        assert "event 20" in done.err

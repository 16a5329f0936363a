"""`refold step` in a real terminal: what is on its screen, and that the terminal is as it was."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
from command_line import record, refold
from raw import raw
from terminal import Terminal

from refold import RfDb

LAST_LINE = "n next  p back  e entity  x error  g go to  w why  ? help  q quit"


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


def step(place: str, *words: object, width: int = 100, height: int = 26, **env: str) -> Terminal:
    return Terminal("step", "--store", place, *words, width=width, height=height, **env)


def at(position: int, of: int = 54) -> tuple[str, str]:
    """What is shown in full when the walk is at a position."""
    return f"position {position} of {of}", LAST_LINE


def press(terminal: Terminal, keys: str, *shown: str) -> list[str]:
    """Press keys, wait until something is shown, and return what is between top and bottom."""
    terminal.type(keys)
    terminal.wait_for(*shown)
    return body(terminal)


def body(terminal: Terminal) -> list[str]:
    terminal.wait_for_last_line(LAST_LINE)
    _, _, *lines, _ = terminal.screen()
    while lines and not lines[-1]:
        lines.pop()
    return lines


def leave(terminal: Terminal, keys: str = "q", code: int = 0) -> None:
    terminal.type(keys)
    assert terminal.end() == code
    assert terminal.is_as_it_was()


# --- what is shown ---------------------------------------------------------------------------


def test_an_event_is_shown_with_what_it_changed_and_the_row(recorded: str) -> None:
    with step(recorded, "--at", 36) as terminal:
        terminal.wait_for(*at(36))
        name, where = terminal.screen()[0].rsplit("  ", 1)
        with RfDb(recorded) as db:
            assert db.store.engine.name.startswith(name.rstrip(" …"))
        assert where == "position 36 of 54"
        assert terminal.screen()[1] == "━" * 66 + "─" * 34
        assert body(terminal) == [
            "TaskFailed  in task-3",
            "2024-01-31T12:00:38.510000Z  by controller",
            "error worker-0 was killed, claim 33",
            "",
            "what it changed",
            "  task 3  status  IN_PROGRESS -> FAILED",
            "          error   null -> worker-0 was killed",
            "",
            "task 3 after it",
            "  task_id        3",
            "  run_id         1",
            "  worker_id      0",
            "  chunk_id       1",
            "  epoch          0",
            "  status         FAILED",
            "  error          worker-0 was killed",
            "  claim          33",
            "  attempts       1",
            "  offered_after  null",
        ]
        assert press(terminal, "n", *at(37))[:10] == [
            "ExperimentStatesReset  in store",
            "2024-01-31T12:00:39.010000Z  by controller",
            "worker_tasks [4], workers [0, 1], controller yes",
            "",
            "what it changed",
            "  task 4      status  IN_PROGRESS -> FAILED",
            "  controller  status  IN_PROGRESS -> FAILED",
            "  worker 0    status  IN_PROGRESS -> FAILED",
            "  worker 1    status  IN_PROGRESS -> FAILED",
            "",
        ]
        assert press(terminal, "g27\r", *at(27)) == [
            "RunCreated  in run-4",
            "2024-01-31T12:00:07.510000Z  by controller",
            "because of event 26: CloneModifyRequested in ic-2 by ada",
            "experiment_id 1, run_name run_4, status NEW, source CLONE_MODIFY, parent_run_id 1, "
            "warm_start yes, …",
            "",
            "what it changed",
            "  run 4  added",
            "",
            "run 4 after it",
            "  run_id         4",
            "  experiment_id  1",
            "  run_name       run_4",
            "  mlflow_run_id  null",
            "  status         NEW",
            "  source         CLONE_MODIFY",
            "  ended_by       null",
            "  parent_run_id  1",
            "  warm_start     yes",
            "  config_digest  7845e5f6…",
            "  seed           7",
            "  num_chunks     4",
            "…",
        ]
        assert press(terminal, "g22\r", *at(22)) == [
            "GradientClipped  in run-2",
            "2024-01-31T12:00:04.500000Z  by worker-1",
            "norm 12.5",
            "",
            "it changed nothing",
            "",
            "run 2 after it",
            *body(terminal)[7:],
        ]
        leave(terminal)


def test_colours_are_for_who_wants_them(file: str) -> None:
    with step(file, "--at", 36) as terminal:
        terminal.wait_for(*at(36))
        assert "\x1b[33mIN_PROGRESS\x1b[0m" in terminal.sent
        assert "\x1b[31mFAILED\x1b[0m" in terminal.sent
        leave(terminal)
    with step(file, "--at", 36, NO_COLOR="1") as terminal:
        terminal.wait_for(*at(36))
        assert "\x1b[31m" not in terminal.sent
        leave(terminal)


def test_why_is_told(recorded: str) -> None:
    with step(recorded, "--at", 24) as terminal:
        terminal.wait_for(*at(24))
        before = body(terminal)
        page = press(terminal, "w", "because of", LAST_LINE)
        with RfDb(recorded) as db:
            reason = db.as_of(24).why("run", 2, "status")
        assert " ".join(page).split() == str(reason).split()
        assert len(page) == 3  # the first is too long for one line
        assert press(terminal, "n", *at(24)) == before  # any key turns the page over
        assert press(terminal, "g22\rw", "the event changed nothing", LAST_LINE)
        leave(terminal, "nq")


def test_help_lists_the_keys(file: str) -> None:
    with step(file) as terminal:
        terminal.wait_for(*at(1))
        keys = press(terminal, "?", "to the next error", LAST_LINE)
        assert keys[0] == "n  space  →      one event forwards"
        assert len(keys) == 16
        press(terminal, "q", *at(1))  # which only turns the page over
        leave(terminal)


def test_an_empty_store_has_no_events(place: str) -> None:
    RfDb(place).close()
    with step(place) as terminal:
        terminal.wait_for(*at(0, of=0))
        assert body(terminal)[0] == "before the first event"
        for key, remark in {
            "n": "this is the last event",
            "p": "this is the beginning",
            "e": "this event is about no row",
            "x": "there is no event that tells of an error after this one",
            ">": "",
        }.items():
            assert press(terminal, key, remark, LAST_LINE)[-1] == (
                remark or "before the first event"
            )
        leave(terminal)


def test_what_the_log_holds_cannot_play_on_the_terminal(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("\x1b[2Jdig\nits"), run_name="\x1b]0;title\x07")
    task_id = db.create_worker_task(run_id, 0, 0)
    db.set_worker_task_status(task_id, "FAILED", "\x1b[31mred\x9b\r\n", actor="\x1b[H")
    with step(place) as terminal:
        terminal.wait_for(*at(1, of=4))
        for n in range(2, 5):
            press(terminal, "n", *at(n, of=4))
        assert "error \\x1b[31mred\\x9b\\r\\n" in body(terminal)
        assert "\x1b[2J" not in terminal.sent
        assert "\x1b]" not in terminal.sent
        assert "\x9b" not in terminal.sent
        leave(terminal)


# --- keys ------------------------------------------------------------------------------------


def test_keys_lead_where_they_say(file: str) -> None:
    with step(file) as terminal:
        terminal.wait_for(*at(1))
        ways: Iterable[tuple[str, int]] = [
            ("n", 2),
            (" ", 3),
            ("\x1b[C", 4),
            ("\x1bOC", 5),
            ("p", 4),
            ("\x1b[D", 3),
            ("j", 13),
            ("\x1b[B", 23),
            ("k", 13),
            ("\x1b[A", 3),
            ("J", 54),
            ("K", 0),
            ("\x1b[6~", 54),
            ("\x1b[5~", 0),
            (">", 54),
            ("<", 1),
            ("\x1b[F", 54),
            ("\x1b[H", 1),
            ("\x1b[4~", 54),
            ("\x1b[1~", 1),
            ("nnnpj", 13),
            ("z\x1b[15~é\x1a\t", 13),  # which mean nothing, Ctrl-Z among them
        ]
        for keys, position in ways:
            press(terminal, keys, *at(position))
        assert press(terminal, "J", *at(54))
        assert press(terminal, "n", "this is the last event", LAST_LINE)[-1] == (
            "this is the last event"
        )
        leave(terminal)


def test_keys_that_were_pressed_early_are_not_lost(file: str) -> None:
    with step(file) as terminal:
        press(terminal, "nnnnn", *at(6))
        leave(terminal)


def test_from_one_event_of_an_entity_to_the_next(recorded: str) -> None:
    with RfDb(recorded) as db:
        positions = [touched.recorded.position for touched in db.history("task", 4)]
    assert positions == [31, 35, 37]
    with step(recorded, "--at", 31) as terminal:
        terminal.wait_for(*at(31))
        press(terminal, "e", *at(35))
        press(terminal, "e", *at(37))  # an event of the store, which touches it too
        remark = "there is no event of task 4 after this one"
        assert press(terminal, "e", remark, LAST_LINE)[-1] == remark
        press(terminal, "E", *at(35))
        press(terminal, "E", *at(31))
        remark = "there is no event of task 4 before this one"
        assert press(terminal, "E", remark, LAST_LINE)[-1] == remark
        press(terminal, "g19\re", "position 19", *at(22))  # of run 2: no view has it
        leave(terminal)


def test_from_one_error_to_the_next(recorded: str) -> None:
    with RfDb(recorded) as db:
        db.append()
    with step(recorded) as terminal:
        terminal.wait_for(*at(1))
        press(terminal, "x", *at(36))
        press(terminal, "x", *at(37))
        remark = "there is no event that tells of an error after this one"
        assert press(terminal, "x", remark, LAST_LINE)[-1] == remark
        press(terminal, ">X", *at(54), *at(37))
        press(terminal, "X", *at(36))
        leave(terminal)


def test_a_moment_can_be_typed(file: str) -> None:
    with step(file) as terminal:
        terminal.wait_for(*at(1))
        assert press(terminal, "g3", "go to position or time: 3█", LAST_LINE)[-1] == (
            "go to position or time: 3█"
        )
        press(terminal, "6\r", *at(36))
        press(terminal, "g2024-01-31T12:00:05Z\n", *at(22))
        press(terminal, "gnow\r", *at(54))
        press(terminal, "g19\x7f\x7f7\r", *at(7))
        remark = "'never' is not a moment"
        assert press(terminal, "gnever\r", remark, LAST_LINE)[-2].startswith(remark)
        lines = press(terminal, "g55\r", "committed", LAST_LINE)[-3:]
        assert "there is no position 55" in " ".join(line.strip() for line in lines)
        press(terminal, "g12\x1b", "time: 12█", *at(7))  # Escape: not this time
        assert "go to" not in body(terminal)[-1]
        press(terminal, "n", *at(8))
        leave(terminal)


# --- logs that change, and damaged ones --------------------------------------------------------


def test_the_last_event_is_the_last_by_now(recorded: str) -> None:
    with step(recorded) as terminal:
        terminal.wait_for(*at(1))
        with RfDb(recorded) as db:
            db.set_run_status(1, "STOPPED", actor="eve")
        assert press(terminal, ">", *at(55, of=55))[:2] == [
            "RunStopped  in run-1",
            body(terminal)[1],
        ]
        assert body(terminal)[1].endswith("  by eve")
        leave(terminal)


def test_a_damaged_event_is_passed_by(recorded: str) -> None:
    with raw(recorded) as connection:
        of_the_table = " ON events" if "://" in recorded else ""
        connection.execute(f"DROP TRIGGER events_are_never_updated{of_the_table}")
        connection.execute("UPDATE events SET data = '{' WHERE position = 24")
    with step(recorded, "--at", 22) as terminal:
        terminal.wait_for(*at(22))
        press(terminal, "n", *at(23))
        remark = "event 24 (RunStopped, schema version 1) cannot be decoded"
        assert press(terminal, "n", remark, LAST_LINE)[-2].startswith(remark)
        assert terminal.screen()[0].endswith("position 23 of 54")
        lines = press(terminal, "g25\r", *at(25))
        assert lines[0] == "InteractiveControlCompleted  in ic-1"  # and requests are not of runs
        lines = press(terminal, "g38\r", *at(38))
        assert lines[0] == "RunStarted  in run-3"
        assert lines[3].startswith(remark)
        press(terminal, "ew", remark, LAST_LINE)
        leave(terminal, "nq")


# --- the terminal ------------------------------------------------------------------------------


def test_the_terminal_is_as_it_was(file: str) -> None:
    for keys, code in (("q", 0), ("\x04", 0), ("\x03", 130)):
        with step(file) as terminal:
            terminal.wait_for(*at(1))
            leave(terminal, keys, code)
    with step(file) as terminal:
        terminal.wait_for(*at(1))
        terminal.process.send_signal(signal.SIGTERM)
        leave(terminal, "", 128 + signal.SIGTERM)


def test_the_terminal_is_as_it_was_when_something_breaks(file: str) -> None:
    with step(file, "--at", 999) as terminal:
        assert terminal.end() == 3
        assert terminal.is_as_it_was()
        assert "no position 999" in terminal.sent
    with step(file) as terminal:
        terminal.wait_for(*at(1))
        os.truncate(file, 100)
        press(terminal, ">", "malformed", LAST_LINE)
        leave(terminal)


def test_it_fits_the_screen(file: str) -> None:
    with step(file, "--at", 37) as terminal:
        terminal.wait_for(*at(37))
        terminal.type("")
        terminal.resize(40, 11)
        terminal.wait_for(
            "position 37 of 54", "what it changed", "n next  p back  e entity  x error  g go…"
        )
        assert terminal.screen()[2:] == [
            "ExperimentStatesReset  in store",
            "2024-01-31T12:00:39.010000Z  by control…",
            "worker_tasks [4], workers [0, 1], contr…",
            "",
            "what it changed",
            "  task 4      status  IN_PROGRESS -> FA…",
            "…",
            "",
            "n next  p back  e entity  x error  g go…",
        ]
        for width, height in ((5, 3), (1, 1), (100, 26)):
            terminal.type("")
            terminal.resize(width, height)
            terminal.wait_for("p" if width == 5 else "…" if width == 1 else LAST_LINE)
        leave(terminal)


def test_it_needs_a_terminal(file: str) -> None:
    done = refold("step", "--store", file)
    assert (done.out, done.code) == ("", 2)
    assert "refold step needs a terminal" in done.err
    with step(file, TERM="dumb") as terminal:
        assert terminal.end() == 2
        assert "refold step needs a terminal" in terminal.sent

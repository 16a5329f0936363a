"""What the command line makes of words, and of values: without a process."""

import json
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec

import pytest
import typer
from command_line import START, record

from refold import RfDb
from refold.as_json import plain
from refold.cli import lists
from refold.cli.app import COMMANDS
from refold.cli.log import log
from refold.cli.options import entity, moment, position
from refold.cli.output import printable, shown, size, span
from refold.cli.past import diff, history, why
from refold.cli.rapidfire import rapidfire
from refold.cli.show import show
from refold.eventstore import times
from refold.eventstore.errors import DBException, InvalidMoment, MissingPackage, NotFound
from refold.eventstore.statuses import RunStatus, TaskStatus
from refold.projections import ALL

PLACES = [place for places in COMMANDS.values() for place in places.values()]


@pytest.fixture
def recorded(place: str) -> str:
    """The place of the fixed log."""
    record(place)
    return place


@pytest.mark.parametrize("place", PLACES)
def test_every_command_is_there_and_shows_examples(place: str) -> None:
    module, _, function = place.partition(":")
    command = getattr(import_module(module), function)
    assert "\nExamples:\n    refold " in command.__doc__.replace("\n    ", "\n")


# --- moments ------------------------------------------------------------------------------------


def test_moments() -> None:
    assert moment("120") == 120
    assert moment("now") is None
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for text in ("2026-01-31T12:00Z", "2026-01-31 13:00:00+01:00", "2026-01-31T12:00:00.000000Z"):
        assert moment(text) == noon
    iso = times.to_iso(times.from_datetime(noon))
    assert iso == "2026-01-31T12:00:00.000000Z"
    assert moment(iso) == noon


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", 90), ("5m", 300), ("-5m", 300), ("1.5h", 5400), ("2d", 172_800), ("1w ago", 604_800)],
)
def test_moments_ago(text: str, ago: int) -> None:
    before = datetime.now(UTC)
    when = moment(text)
    assert isinstance(when, datetime)
    assert before <= when + timedelta(seconds=ago) <= datetime.now(UTC)


@pytest.mark.parametrize("text", ["", "-1", "noon", "5y", "٣", "1e3", "2026-13-01T00:00Z", "m"])
def test_no_moments(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a moment"):
        moment(text)


@pytest.mark.parametrize(
    ("text", "zoned"),
    [
        ("2026-01-31T12:00", "2026-01-31T12:00Z"),
        ("2026-01-31 12:00:01", "2026-01-31 12:00:01Z"),
        ("2026-01-31", "2026-01-31T00:00Z"),
    ],
)
def test_a_time_without_zone_is_refused_and_the_advice_is_right(text: str, zoned: str) -> None:
    with pytest.raises(typer.BadParameter, match="has no zone") as caught:
        moment(text)
    assert f"{zoned} would be UTC" in caught.value.message
    assert isinstance(moment(zoned), datetime)


def test_positions(recorded: str) -> None:
    with RfDb(recorded) as db:
        assert position(db, "now") == position(db, "54") == position(db, "1s") == 54
        assert position(db, "2024-01-31T12:00:01Z") == 9
        for text in ("55", "2024-01-31T11:59Z", "2999-01-31T12:00Z"):
            with pytest.raises(InvalidMoment):
                position(db, text)


# --- entities -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "found", "rest"),
    [
        ("run 5", ("runs", 5), []),
        ("run-5", ("runs", 5), []),
        ("run-5 status", ("runs", 5), ["status"]),
        ("request 3 error", ("interactive_control", 3), ["error"]),
        ("ic-3", ("interactive_control", 3), []),
        ("actor_task-9", ("actor_tasks", 9), []),
        ("actor-task 9", ("actor_tasks", 9), []),
        ("controller", ("controller_progress", 1), []),
        ("controller 1 task", ("controller_progress", 1), ["task"]),
        ("controller task", ("controller_progress", 1), ["task"]),
        ("worker_task 2", ("worker_task", 2), []),
        ("ids run", ("ids", "run"), []),
    ],
)
def test_entities(words: str, found: tuple[str, object], rest: list[str]) -> None:
    one, behind = entity(words.split(), ALL)
    assert ((one.view.name, one.key), behind) == (found, rest)


@pytest.mark.parametrize("words", ["run", "run five", "run 5.5", "worker-"])
def test_an_id_that_is_missing_or_wrong(words: str) -> None:
    with pytest.raises((typer.BadParameter, NotFound)):
        entity(words.split(), ALL)


# --- values -------------------------------------------------------------------------------------


def test_values_in_text() -> None:
    assert shown({"loss": 0.123456, "best": {"epoch": 3}, "warm": True, "none": None}) == (
        "loss 0.1235, best {epoch 3}, warm yes, none null"
    )
    assert shown([1, "a"]) == "[1, a]"
    assert shown(None) == ""
    assert printable("a\x1b[0m\tb\nc\x00é") == "a\\x1b[0m\\tb\nc\\x00é"
    assert span(0) == "0 s"
    assert span(61_500_000) == "1 min 1 s"
    assert span((2 * 86_400 + 3 * 3_600 + 59) * times.SECOND) == "2 d 3 h"
    assert span((2 * 86_400 + 59 * 60) * times.SECOND) == "2 d"
    assert span((1_033 * 86_400 + 3_600) * times.SECOND) == "1033 d"
    assert [size(n) for n in (0, 999, 1_000, 12_345_678)] == ["0 B", "999 B", "1.0 kB", "12.3 MB"]


def test_values_in_json() -> None:
    value = {1: (1, 2), ("a",): {3}, "o": object, "f": float("nan")}
    told = plain(value)
    assert told["1"] == [1, 2]
    assert told["('a',)"] == [3]
    assert told["o"] == "<class 'object'>"
    assert plain("\ud800") == "\\ud800"
    assert times.to_iso(START) == "2024-01-31T12:00:00.000000Z"


# --- filters ------------------------------------------------------------------------------------


def ids(capsys: pytest.CaptureFixture[str], column: str) -> list[object]:
    """Return a column of the JSON that has just been printed."""
    return [row[column] for row in json.loads(capsys.readouterr().out)]


def test_lists_are_filtered(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    lists.runs(status=[RunStatus.STOPPED, RunStatus.ONGOING], store=recorded, json=True)
    assert ids(capsys, "run_id") == [1, 2, 3, 4]
    lists.runs(status=[RunStatus.ONGOING], limit=2, store=recorded, json=True)
    assert ids(capsys, "run_id") == [3, 4]
    lists.runs(experiment=2, store=recorded, json=True)
    assert ids(capsys, "run_id") == []
    lists.runs(at="8", status=[RunStatus.NEW], store=recorded, json=True)
    assert ids(capsys, "run_id") == [3]
    lists.tasks(worker=1, status=[TaskStatus.FAILED], store=recorded, json=True)
    assert ids(capsys, "task_id") == [4]
    lists.tasks(run=1, limit=1, store=recorded, json=True)
    assert ids(capsys, "task_id") == [3]
    lists.requests(run=3, store=recorded, json=True)
    assert ids(capsys, "ic_id") == [3]
    lists.pipelines(experiment=2, at="48", store=recorded, json=True)
    assert ids(capsys, "status") == ["new", "new"]
    lists.actor_tasks(actor=0, pipeline=1, limit=1, store=recorded, json=True)
    assert ids(capsys, "task_id") == [2]
    lists.workers(at="2024-01-31T12:00:02Z", store=recorded, json=True)
    assert ids(capsys, "who") == ["controller", "worker-0"]
    lists.experiments(at="42", store=recorded, json=True)
    assert ids(capsys, "experiment_id") == [1]
    lists.contexts(at="45", store=recorded, json=True)
    assert ids(capsys, "status") == ["building"]


def positions(capsys: pytest.CaptureFixture[str]) -> list[int]:
    """Return the positions of the lines that have just been printed."""
    return [int(line.split()[0]) for line in capsys.readouterr().out.splitlines()]


def test_the_log_is_filtered(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    log(store=recorded)
    assert positions(capsys) == list(range(1, 55))
    log(since="52", store=recorded)
    assert positions(capsys) == [52, 53, 54]
    log(since="2024-01-31T12:01:48.010000Z", store=recorded)
    assert positions(capsys) == [52, 53, 54]
    log(since="2020-01-01T00:00Z", until="2024-01-31T12:00:00Z", store=recorded)
    assert positions(capsys) == [1, 2, 3, 4, 5]
    log(since="53", until="2999-01-01T00:00Z", store=recorded)
    assert positions(capsys) == [53, 54]
    log(until="2020-01-01T00:00Z", store=recorded)
    assert positions(capsys) == []
    log(since="1s", store=recorded)
    assert positions(capsys) == []
    log(types=["TaskFailed", "GradientClipped"], store=recorded)
    assert positions(capsys) == [22, 36]
    log(actor=["ada"], limit=2, store=recorded)
    assert positions(capsys) == [23, 26]
    log(actor=["ada"], last=2, store=recorded)
    assert positions(capsys) == [26, 42]
    log(stream="ic-1", backwards=True, store=recorded)
    assert positions(capsys) == [25, 23]
    log(entity_="run 3", backwards=True, limit=1, store=recorded)
    assert positions(capsys) == [38]
    log(entity_="ic-2", last=1, store=recorded)
    assert positions(capsys) == [28]
    log(limit=0, store=recorded)
    assert positions(capsys) == []


def test_what_the_log_does_not_take(recorded: str) -> None:
    for wrong in (
        {"follow": True, "until": "3"},
        {"follow": True, "backwards": True},
        {"last": 3, "limit": 3},
        {"entity_": "run 1", "stream": "run-1"},
        {"entity_": "ids run"},
        {"entity_": "run 1 status"},
    ):
        with pytest.raises(typer.BadParameter):
            log(store=recorded, **wrong)  # pyright: ignore[reportArgumentType]


def test_one_column_at_most(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    history(["run", "2", "status"], store=recorded)
    assert positions(capsys) == [3, 8, 24]
    history(["run", "2"], at="20", store=recorded)
    assert positions(capsys) == [3, 8, 18, 19]
    why(["run", "2", "metrics"], store=recorded)
    assert "since event 18" in capsys.readouterr().out
    for command in (history, why):
        with pytest.raises(typer.BadParameter):
            command(["run", "2", "status", "metrics"], store=recorded)
        with pytest.raises(NotFound, match="have no column 'colour'"):
            command(["run", "2", "colour"], store=recorded)
    with pytest.raises(typer.BadParameter):
        show(["run", "2", "status"], store=recorded)
    for words in (["run", "9"], ["event", "99"], ["colour", "1"]):
        with pytest.raises(DBException):
            show(words, store=recorded)


def test_differences_both_ways(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    diff("22", "24", entity=["run"], store=recorded)
    assert capsys.readouterr().out == "~ run 2  status ONGOING -> STOPPED\n"
    diff("24", "22", entity=["run"], store=recorded)
    assert capsys.readouterr().out == "~ run 2  status STOPPED -> ONGOING\n"
    diff("24", "22", entity=["request"], store=recorded)
    assert capsys.readouterr().out == "- request 1  removed\n"
    diff("54", store=recorded)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "nothing differs between positions 54 and 54\n")


@pytest.mark.skipif(find_spec("rapidfireai") is not None, reason="rapidfireai is installed")
def test_rapidfire_needs_its_package() -> None:
    with pytest.raises(MissingPackage, match="rapidfireai is not installed"):
        rapidfire(["start"])

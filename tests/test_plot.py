"""Curves of metrics, as numbers, as text and as pictures."""

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from refold import InvalidCommand, NotFound, RfDb
from refold.eventstore.errors import MissingPackage
from refold.eventstore.times import SECOND
from refold.plot import Curve, Plot, plot

START = 1_706_702_400_000_000


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def train(db: RfDb, clock: Clock, seconds: float = 1.0) -> None:
    """Train two runs on six chunks in two epochs; the first is stopped after four."""
    experiment_id = db.create_experiment("digits")
    for n in (1, 2):
        db.create_run(experiment_id, num_chunks=3, seed=n)
        clock.now += SECOND
    for chunk in range(6):
        for run_id in (1, 2)[chunk > 3 :]:
            clock.now += round(seconds * SECOND)
            loss = 1 / (chunk + run_id)
            db.update_run_metrics(
                run_id, {"loss": loss, "eval": {"accuracy": 1 - loss}, "note": "x", "good": True}
            )
            epoch, done = divmod(chunk + 1, 3)
            db.set_run_progress(run_id, done, epoch)
    db.update_run_metrics(1, {"note": "stopped"})


@pytest.fixture
def trained(place: str) -> Iterator[RfDb]:
    clock = Clock()
    with RfDb(place, clock=clock) as db:
        train(db, clock)
    with RfDb(place) as db:
        yield db


LOSSES = [1, 1 / 2, 1 / 3, 1 / 4]


# --- curves ------------------------------------------------------------------------------------


def test_over_the_positions(trained: RfDb) -> None:
    [curve] = plot(trained, [1], "loss").curves
    assert curve == Curve(1, [4, 8, 12, 16], LOSSES)
    types = {r.position: r.type for r in trained.store.read()}
    assert {types[int(x)] for x in curve.x} == {"RunMetricsRecorded"}


def test_over_the_chunks(trained: RfDb) -> None:
    first, second = plot(trained, [1, 2], "loss", over="chunk").curves
    assert first == Curve(1, [0, 1, 2, 3], LOSSES)
    assert second.x == [0, 1, 2, 3, 4, 5]


def test_over_the_time(trained: RfDb) -> None:
    whole = plot(trained, [2, 1], "loss", over="time")
    assert whole.label == "time (s)"
    assert [curve.run_id for curve in whole.curves] == [2, 1]
    # From the creation of the first of them on.
    assert whole.curves[1].x == [3, 5, 7, 9]
    assert plot(trained, [2], "loss", over="time").curves[0].x[:2] == [3, 5]


@pytest.mark.parametrize(
    ("seconds", "label", "first"),
    [(10, "time (s)", 12), (60, "time (min)", 62 / 60), (3600, "time (h)", 3602 / 3600)],
)
def test_times_have_a_unit_that_fits(
    tmp_path: Path, seconds: float, label: str, first: float
) -> None:
    clock = Clock()
    with RfDb(tmp_path / "store.db", clock=clock) as db:
        train(db, clock, seconds)
        whole = plot(db, [1], "loss", over="time")
    assert whole.label == label
    assert whole.curves[0].x[0] == pytest.approx(first)


def test_metrics_within_groups_have_names_with_dots(trained: RfDb) -> None:
    [curve] = plot(trained, [1], "eval.accuracy").curves
    assert curve.y == [1 - loss for loss in LOSSES]


def test_over_the_steps_and_with_gaps(db: RfDb) -> None:
    experiment_id = db.create_experiment("digits")
    one, other = (db.create_run(experiment_id, num_chunks=3) for _ in range(2))
    values = [0.5, math.nan, 0.25, math.inf, 1.0, 2.0]
    with db.metrics(one) as log:
        for n, value in enumerate(values):
            log(10 * n, loss=value)
    for n, value in enumerate(values):
        db.log_metrics(other, {"loss": value}, step=10 * n)
    made = plot(db, [one, other], "loss")
    assert (made.label, made.over) == ("step", "step")
    for curve in made.curves:
        assert repr((curve.x, curve.y)) == repr(([0, 10, 20, 30, 40, 50], values))
        assert [(part.x, part.y) for part in curve.drawn] == [
            ([0], [0.5]),
            ([20], [0.25]),
            ([40, 50], [1.0, 2.0]),
        ]
    assert made.text(60, 12)
    assert made.picture("png")
    assert len(set(plot(db, [one], "loss", over="position").curves[0].x)) == 1
    assert plot(db, [one], "loss", over="chunk").curves[0].x == [0] * 6
    db.update_run_metrics(one, {"loss": math.nan})
    assert plot(db, [one], "loss").label == "position"
    with pytest.raises(InvalidCommand, match="without steps"):
        plot(db, [one], "loss", over="step")
    db.log_metrics(one, {"nothing": math.nan})
    with pytest.raises(NotFound, match="no value of nothing that can be drawn: take loss"):
        plot(db, [one], "nothing")


def test_as_of_a_moment(trained: RfDb) -> None:
    assert plot(trained.as_of(11), [1, 2], "loss").curves == [
        Curve(1, [4, 8], LOSSES[:2]),
        Curve(2, [6, 10], [1 / 2, 1 / 3]),
    ]


def test_runs_that_never_had_it_are_left_out(trained: RfDb) -> None:
    run_id = trained.create_run(1)
    assert [curve.run_id for curve in plot(trained, [run_id, 1, 1], "loss").curves] == [1]


@pytest.mark.parametrize("metric", ["lss", "note", "good", "eval", ""])
def test_a_metric_that_never_was_is_refused(trained: RfDb, metric: str) -> None:
    told = re.escape(f"run 1, 2 never had a metric {metric!r}: take eval.accuracy or loss")
    with pytest.raises(NotFound, match=told):
        plot(trained, [1, 2], metric)


def test_a_run_without_metrics_or_none_at_all_is_refused(trained: RfDb) -> None:
    run_id = trained.create_run(1)
    with pytest.raises(NotFound, match=f"run {run_id} never had a metric 'loss', nor any other"):
        plot(trained, [run_id], "loss")
    with pytest.raises(NotFound, match="there is no run 9"):
        plot(trained, [1, 9], "loss")
    with pytest.raises(NotFound, match="there is no run 1"):
        plot(trained.as_of(1), [1], "loss")


def test_what_cannot_be_an_axis_is_refused(trained: RfDb) -> None:
    with pytest.raises(InvalidCommand, match="pass one of step, position, time, chunk"):
        plot(trained, [1], "loss", over="epoch")  # type: ignore
    run_id = trained.create_run(1)
    trained.update_run_metrics(run_id, {"loss": 1})
    with pytest.raises(InvalidCommand, match=f"run {run_id} was created without num_chunks"):
        plot(trained, [1, run_id], "loss", over="chunk")


# --- as text -----------------------------------------------------------------------------------

ONE = Plot("loss", "position", [Curve(5, [0, 1, 2], [3.0, 2.0, 1.0])])
TWO = Plot("loss", "position", [*ONE.curves, Curve(7, [0, 2], [1.0, 2.5])])


def test_text_of_one_run() -> None:
    text = ONE.text(60, 12)
    lines = text.splitlines()
    assert len(lines) == 12
    assert {len(line) for line in lines} == {60}
    assert lines[0].strip() == "run 5: loss"
    assert lines[-1].strip() == "position"
    assert "3.0" in lines[2]
    assert "\x1b" not in text
    # From the upper left to the lower right.
    drawn = [
        (n, line.index(char)) for n, line in enumerate(lines) for char in line if "⠀" < char < "⣿"
    ]
    assert drawn
    assert drawn == sorted(drawn)
    assert [column for _, column in drawn] == sorted(column for _, column in drawn)


def test_text_of_several_runs_tells_them_apart_without_colours() -> None:
    text = TWO.text(60, 12)
    assert "• run 5" in text
    assert "× run 7" in text
    assert text.count("×") > 2
    assert "\x1b" not in text


def test_text_in_colour() -> None:
    text = TWO.text(60, 12, coloured=True)
    colours = re.findall(r"\x1b\[38;5;(\d+)m", text)
    assert len(set(colours)) == 2
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "run 5" in plain
    assert "run 7" in plain
    assert {len(line) for line in plain.splitlines()} == {60}


def test_text_as_wide_and_high_as_asked() -> None:
    for width, height in ((300, 60), (20, 8)):
        lines = TWO.text(width, height).splitlines()
        assert len(lines) == height
        assert {len(line) for line in lines} == {width}


@pytest.mark.parametrize(
    "y", [[3], [2, 2, 2], [-1e-9, 1e-9], [1e300, -1e300], [2**63 - 1, -(2**63)], [0, 0]]
)
def test_text_of_odd_numbers(y: list[float]) -> None:
    text = Plot("loss", "position", [Curve(1, [*range(1, len(y) + 1)], y)]).text(60, 12)
    assert any("⠀" < char < "⣿" for char in text)


# --- as a picture ------------------------------------------------------------------------------


def test_a_png(tmp_path: Path) -> None:
    path = tmp_path / "loss.PNG"
    TWO.save(path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(content[n : n + 4]) for n in (16, 20))
    assert (width, height) == (1200, 675)
    assert len(content) < 200_000
    assert TWO.picture("png") == content
    assert ONE.picture("png") != content


def test_an_svg(tmp_path: Path) -> None:
    path = tmp_path / "loss.svg"
    TWO.save(path)
    picture = ElementTree.parse(path)
    assert picture.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    text = path.read_text("utf-8")
    for told in ("run 5", "run 7", "loss", "position"):
        assert f"<!-- {told} -->" in text
    assert TWO.picture("svg").decode() == text


def test_a_pdf(tmp_path: Path) -> None:
    path = tmp_path / "loss.pdf"
    ONE.save(str(path))
    assert path.read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize("name", ["loss", "loss.gif", "loss.png.txt", ".svg"])
def test_another_end_of_the_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidCommand, match=r"ends with \.png, \.svg, \.pdf"):
        ONE.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plotext", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=r"plotext, .*: pip install 'refold\[plot\]'"):
        ONE.text()
    with pytest.raises(MissingPackage, match=r"matplotlib, .*: pip install 'refold\[plot\]'"):
        ONE.picture("png")

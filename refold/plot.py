"""How a metric of runs went, as curves: in the terminal, or as a picture."""

# Neither of the two that draw is typed throughout.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false

import os
from collections.abc import Iterable
from copy import deepcopy
from io import BytesIO
from itertools import groupby
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import InvalidCommand, NotFound, needed_for
from refold.eventstore.events import (
    MetricsLogged,
    RunCreated,
    RunMetricsRecorded,
    RunProgressed,
)
from refold.eventstore.words import give_words
from refold.export.metrics import numbers
from refold.face import Face
from refold.metrics import Point, of_last_attempts, points_in

Over = Literal["step", "position", "time", "chunk"]
Picture = Literal["png", "svg", "pdf"]

UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400}
"""Of times, each with its seconds."""

PLAIN_MARKERS = "•×+o*#"
"""What tells curves apart where colours cannot."""


class Curve(NamedTuple):
    """What a run's metric was, and where; NaN and infinities are gaps."""

    run_id: int
    x: list[float]
    y: list[float]

    @property
    def drawn(self) -> "list[Curve]":
        """The parts between the gaps."""
        parts: list[Curve] = []
        for is_drawn, group in groupby(
            zip(self.x, self.y, strict=True), lambda at: isfinite(at[1])
        ):
            if is_drawn:
                x, y = zip(*group, strict=True)
                parts.append(Curve(self.run_id, [*x], [*y]))
        return parts


class Plot:
    """Curves of one metric; `plot` makes one."""

    def __init__(
        self, metric: str, label: str, curves: list[Curve], over: Over = "position"
    ) -> None:
        self.metric = metric
        self.label = label
        """What the x axis shows, with its unit."""
        self.curves = curves
        self.over: Over = over

    @property
    def title(self) -> str:
        """What it shows, such as `run 5: loss`."""
        if len(self.curves) == 1:
            return f"run {self.curves[0].run_id}: {self.metric}"
        return self.metric

    def text(self, width: int = 80, height: int = 20, *, coloured: bool = False) -> str:
        """Return it as lines of text.

        Raises:
            MissingPackage: plotext is not installed.
        """
        with needed_for("a plot in the terminal", "plot"):
            import plotext
        terminal: Any = plotext.terminal
        figure: Any = plotext.figure  # there is one in the whole process
        terminal.limit(False, False)
        figure.clear()
        figure.plot_size(width, height)
        figure.theme("simple")
        figure.title(self.title)
        figure.label(self.label)
        several = len(self.curves) > 1
        for number, curve in enumerate(self.curves):
            plain = several and not coloured
            marker = PLAIN_MARKERS[number % len(PLAIN_MARKERS)] if plain else "braille"
            for part, (_, x, y) in enumerate(curve.drawn):
                line = figure.signal(x, y, marker=marker).lines()
                figure.draw(line.label(f"run {curve.run_id}") if several and not part else line)
        drawn = [curve.drawn for curve in self.curves]
        right = max(x for parts in drawn for part in parts for x in part.x)
        heights = [y for parts in drawn for part in parts for y in part.y]
        if sum(parts[-1].y[-1] - parts[0].y[0] for parts in drawn) > 0:  # there is room below
            figure.legend(x=right, y=min(heights), ha="right", va="bottom", relative=True)
        else:
            figure.legend(x=right, y=max(heights), ha="right", va="top", relative=True)
        text: str = figure.build().string(colorless=not coloured)
        figure.clear()
        terminal.limit()
        return text

    def picture(self, kind: Picture) -> bytes:
        """Return it as a picture; the same curves make the same bytes.

        Raises:
            MissingPackage: matplotlib is not installed.
        """
        with needed_for("a picture", "plot"):
            from matplotlib import rc_context
            from matplotlib.figure import Figure
        figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for curve in self.curves:
            y = [y if isfinite(y) else nan for y in curve.y]
            axes.plot(curve.x, y, marker=".", label=f"run {curve.run_id}")
        axes.set(title=self.title, xlabel=self.label, ylabel=self.metric)
        axes.grid(alpha=0.3)
        if len(self.curves) > 1:
            axes.legend()
        file = BytesIO()
        with rc_context({"svg.hashsalt": "refold"}):
            figure.savefig(file, format=kind, metadata=_UNDATED.get(kind))
        return file.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save it as a picture, as the end of the path says: PNG, SVG or PDF.

        Raises:
            InvalidCommand: the path has another end.
            MissingPackage: matplotlib is not installed.
        """
        Path(path).write_bytes(self.picture(picture_of(path)))


def picture_of(path: str | os.PathLike[str]) -> Picture:
    """Return the kind of picture that the end of a path says.

    Raises:
        InvalidCommand: it says none.
    """
    suffix = Path(path).suffix.lower()
    for kind in get_args(Picture):
        if suffix == f".{kind}":
            return kind
    raise InvalidCommand(f"{path}: pass a path that ends with .{', .'.join(get_args(Picture))}")


_UNDATED: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def plot(face: Face, run_ids: Iterable[int], metric: str, *, over: Over | None = None) -> Plot:
    """Return how a metric of runs went.

    Args:
        face: of a store, or of one as of a moment.
        run_ids: the runs; those that never had the metric are left out, if others did.
        metric: such as `loss`, or `validation.loss` of a group.
        over: what the x axis shows: the `step` of each point; the `position` of the event that
            brought it in; the `time` since the first run was created; or how many chunks the run
            had been trained on. None: the steps, or the positions if points have none.

    Raises:
        NotFound: there is no such run, or none of them ever had the metric.
        InvalidCommand: a run does not say how many chunks there are, or a point has no step.

    >>> from refold import RfDb
    >>> from refold.plot import plot
    >>> db = RfDb("example.db")
    >>> run_id = db.create_run(db.create_experiment("digits"), num_chunks=4)
    >>> for chunk, loss in enumerate([0.9, 0.4, 0.3]):
    ...     db.update_run_metrics(run_id, {"loss": loss})
    ...     db.set_run_progress(run_id, chunk + 1, 0)
    >>> plot(db, [run_id], "loss", over="chunk").curves
    [Curve(run_id=1, x=[0, 1, 2], y=[0.9, 0.4, 0.3])]
    """
    if over is not None and over not in get_args(Over):
        raise InvalidCommand(f"over is {excerpt(over)}: pass one of {', '.join(get_args(Over))}")
    runs = {run_id: _measurements(face, run_id, metric) for run_id in run_ids}
    stepless = [run_id for run_id, run in runs.items() if any(p.step is None for p in run.points)]
    if over is None:
        over = "position" if stepless else "step"
    if over == "chunk":
        _refuse_unknown_chunks(runs)
    if over == "step" and stepless:
        raise InvalidCommand(
            f"run {stepless[0]} has points of {metric} without steps, by update_run_metrics: plot "
            f"it over the position or the time"
        )
    began = min((run.created for run in runs.values()), default=0)
    curves: list[Curve] = []
    for run_id, run in runs.items():
        match over:
            case "step":
                x: list[float] = [point.step or 0 for point in run.points]
            case "time":
                x = [(point.time - began) / 1e6 for point in run.points]
            case "position":
                x = [point.position for point in run.points]
            case "chunk":
                x = [run.chunks[point.position] for point in run.points]
        curve = Curve(run_id, x, [point.value for point in run.points])
        if curve.drawn:
            curves.append(curve)
    if not curves:
        raise NotFound(_never(runs, metric))
    return Plot(metric, *_on_axis(curves, over), over)


class _Run(NamedTuple):
    """A run, and what was measured of it."""

    created: int
    num_chunks: int | None
    points: list[Point]
    chunks: dict[int, int]
    """How many chunks it had been trained on, as far as it had said so, by position."""
    names: set[str]
    """Of all its metrics."""


def _measurements(face: Face, run_id: int, metric: str) -> _Run:
    run: _Run | None = None
    chunk = 0
    for recorded in face.store.read(
        stream=f"run-{run_id}", types=[RunCreated, RunMetricsRecorded, MetricsLogged, RunProgressed]
    ):
        event = recorded.event
        if isinstance(event, RunCreated):
            run = _Run(recorded.recorded_at, event.num_chunks, [], {}, set())
        elif isinstance(event, RunProgressed):
            per_epoch = 0 if run is None else run.num_chunks or 0
            chunk = event.current_epoch * per_epoch + event.current_chunk
        elif run is not None:
            run.chunks[recorded.position] = chunk
            found = list(points_in(face, recorded, metric))
            if isinstance(event, RunMetricsRecorded):
                # Groups as well, of which only plots know.
                values = numbers(give_words(deepcopy(event.metrics), event.words))
                run.names.update(values)
                found = [
                    Point(None, values[name], recorded.recorded_at, recorded.position, None)
                    for name in {metric} & values.keys()
                ]
            elif isinstance(event, MetricsLogged):
                run.names.update(event.metrics)
            run.points.extend(found)
    if run is None:
        raise NotFound(f"there is no run {run_id}: get_all_runs() returns those that there are")
    return run._replace(points=of_last_attempts(run.points))


def _refuse_unknown_chunks(runs: dict[int, _Run]) -> None:
    for run_id, run in runs.items():
        if not run.num_chunks:
            raise InvalidCommand(
                f"run {run_id} was created without num_chunks: plot it over the position or the "
                f"time"
            )


def _never(runs: dict[int, _Run], metric: str) -> str:
    had = sorted({name for run in runs.values() for name in run.names} - {metric})
    missing = f"run {', '.join(map(str, runs))} never had a metric {excerpt(metric)}"
    if any(run.points for run in runs.values()):
        missing = f"run {', '.join(map(str, runs))} has no value of {metric} that can be drawn"
    return f"{missing}: take {' or '.join(had)}" if had else f"{missing}, nor any other yet"


def _on_axis(curves: list[Curve], over: Over) -> tuple[str, list[Curve]]:
    """Return the label of the x axis, and the curves in its unit."""
    if over == "chunk":
        return "chunks trained", curves
    if over in ("position", "step"):
        return over, curves
    longest = max(curve.x[-1] for curve in curves)
    unit = [name for name, seconds in UNITS.items() if name == "s" or longest > 2 * seconds][-1]
    scaled = [curve._replace(x=[x / UNITS[unit] for x in curve.x]) for curve in curves]
    return f"time ({unit})", scaled

"""How a metric of runs went, as curves: in the terminal, or as a picture."""

# Neither of the two that draw is typed throughout.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false

import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import InvalidCommand, NotFound, needed_for
from refold.eventstore.events import RunCreated, RunMetricsRecorded, RunProgressed
from refold.export.metrics import numbers
from refold.face import Face

Over = Literal["position", "time", "chunk"]
Picture = Literal["png", "svg", "pdf"]

UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400}
"""Of times, each with its seconds."""

PLAIN_MARKERS = "•×+o*#"
"""What tells curves apart where colours cannot."""


class Curve(NamedTuple):
    """What a run's metric was, and where."""

    run_id: int
    x: list[float]
    y: list[float]


class Plot:
    """Curves of one metric; `plot` makes one."""

    def __init__(self, metric: str, label: str, curves: list[Curve]) -> None:
        self.metric = metric
        self.label = label
        """What the x axis shows."""
        self.curves = curves

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
            line = figure.signal(curve.x, curve.y, marker=marker).lines()
            figure.draw(line.label(f"run {curve.run_id}") if several else line)
        right = max(x for curve in self.curves for x in curve.x)
        heights = [y for curve in self.curves for y in curve.y]
        if sum(curve.y[-1] - curve.y[0] for curve in self.curves) > 0:  # there is room below
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
            axes.plot(curve.x, curve.y, marker=".", label=f"run {curve.run_id}")
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


def plot(face: Face, run_ids: Iterable[int], metric: str, *, over: Over = "position") -> Plot:
    """Return how a metric of runs went, over the events that recorded it.

    Args:
        face: of a store, or of one as of a moment.
        run_ids: the runs; those that never had the metric are left out, if others did.
        metric: such as `loss`, or `validation.loss` of a group.
        over: what the x axis shows: the position of each event; the `time` since the first run was
            created; or how many chunks the run had been trained on.

    Raises:
        NotFound: there is no such run, or none of them ever had the metric.
        InvalidCommand: a run does not say how many chunks there are.

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
    if over not in get_args(Over):
        raise InvalidCommand(f"over is {excerpt(over)}: pass one of {', '.join(get_args(Over))}")
    runs = {run_id: _measurements(face, run_id) for run_id in run_ids}
    if over == "chunk":
        _refuse_unknown_chunks(runs)
    began = min((run.created for run in runs.values()), default=0)
    curves: list[Curve] = []
    for run_id, run in runs.items():
        chosen = [one for one in run.measured if metric in one.numbers]
        x: list[float] = [
            (one.time - began) / 1e6 if over == "time" else getattr(one, over) for one in chosen
        ]
        if x:
            curves.append(Curve(run_id, x, [one.numbers[metric] for one in chosen]))
    if not curves:
        raise NotFound(_never(runs, metric))
    return Plot(metric, *_on_axis(curves, over))


class _Measured(NamedTuple):
    """Metrics as they were recorded."""

    position: int
    time: int
    chunk: int
    """How many chunks the run had been trained on, as far as it had said so."""
    numbers: dict[str, float]


class _Run(NamedTuple):
    """A run, and what was measured of it."""

    created: int
    num_chunks: int | None
    measured: list[_Measured]


def _measurements(face: Face, run_id: int) -> _Run:
    run: _Run | None = None
    chunk = 0
    for recorded in face.store.read(
        stream=f"run-{run_id}", types=[RunCreated, RunMetricsRecorded, RunProgressed]
    ):
        event, time = recorded.event, recorded.recorded_at
        if isinstance(event, RunCreated):
            run = _Run(time, event.num_chunks, [])
        elif isinstance(event, RunProgressed):
            per_epoch = 0 if run is None else run.num_chunks or 0
            chunk = event.current_epoch * per_epoch + event.current_chunk
        elif isinstance(event, RunMetricsRecorded) and run is not None:
            found = numbers(event.metrics)
            run.measured.append(_Measured(recorded.position, time, chunk, found))
    if run is None:
        raise NotFound(f"there is no run {run_id}: get_all_runs() returns those that there are")
    return run


def _refuse_unknown_chunks(runs: dict[int, _Run]) -> None:
    for run_id, run in runs.items():
        if not run.num_chunks:
            raise InvalidCommand(
                f"run {run_id} was created without num_chunks: plot it over the position or the "
                f"time"
            )


def _never(runs: dict[int, _Run], metric: str) -> str:
    had = sorted({name for run in runs.values() for one in run.measured for name in one.numbers})
    missing = f"run {', '.join(map(str, runs))} never had a metric {excerpt(metric)}"
    return f"{missing}: take {' or '.join(had)}" if had else f"{missing}, nor any other yet"


def _on_axis(curves: list[Curve], over: Over) -> tuple[str, list[Curve]]:
    """Return the label of the x axis, and the curves in its unit."""
    if over == "chunk":
        return "chunks trained", curves
    if over == "position":
        return "position", curves
    longest = max(curve.x[-1] for curve in curves)
    unit = [name for name, seconds in UNITS.items() if name == "s" or longest > 2 * seconds][-1]
    scaled = [curve._replace(x=[x / UNITS[unit] for x in curve.x]) for curve in curves]
    return f"time ({unit})", scaled

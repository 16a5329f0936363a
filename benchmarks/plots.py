"""Plots as SVG whose colours are variables of CSS, so that they follow the page into the dark."""

# pyright: reportUnknownMemberType=false
# Of matplotlib's methods most take keywords that have no types.

import re
import zlib
from collections.abc import Sequence
from io import StringIO
from itertools import cycle
from math import ceil, floor, log10
from typing import Any, cast
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from benchmarks.numbers import number
from benchmarks.results import Curve, Figure

INK, MUTED, RULE = "#1f2328", "#6e7781", "#d8dee4"
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#aa4499"
LIGHT = {
    "ink": INK,
    "muted": MUTED,
    "rule": RULE,
    "blue": BLUE,
    "orange": ORANGE,
    "green": GREEN,
    "purple": PURPLE,
}
DARK = {
    "ink": "#e6edf3",
    "muted": "#9198a1",
    "rule": "#3d444d",
    "blue": "#56b4e9",
    "orange": "#f0883e",
    "green": "#3fc79a",
    "purple": "#dd8fc9",
}
"""Blue and orange, which everybody can tell apart, and two more that differ in lightness."""

WIDTH = 460
POINTS = 72

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "refold",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}

METADATA = ("Date", "Creator", "Format", "Type")
"""Which would tell one run from another."""

MARKERS = {"p50": "o", "p99": "D", "p99.9": "^"}


def bars(rows: Sequence[tuple[str, Figure]]) -> str:
    """Return a bar for each row, as long as the median, and a line as wide as its rounds."""
    with mpl.rc_context(cast("Any", STYLE)):
        canvas, axes = _horizontal([label for label, _ in rows])
        for place, (_, figure) in enumerate(rows):
            low, high = min(figure.rounds), max(figure.rounds)
            axes.barh(place, figure.median, 0.62, color=_colour(figure.contender))
            axes.plot([low, high], [place, place], color=INK, linewidth=1.6)
            for end in (low, high):
                axes.plot([end, end], [place - 0.14, place + 0.14], color=INK, linewidth=1.6)
            axes.annotate(
                number(figure.median),
                (max(high, figure.median), place),
                xytext=(7, 0),
                textcoords="offset points",
                verticalalignment="center",
            )
        axes.set_xlim(0, 1.2 * max(max(figure.rounds) for _, figure in rows))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return _svg(canvas)


def dots(rows: Sequence[tuple[str, Figure]]) -> str:
    """Return the percentiles of each row, on a logarithmic axis."""
    with mpl.rc_context(cast("Any", STYLE)):
        canvas, axes = _horizontal([label for label, _ in rows])
        for place, (_, figure) in enumerate(rows):
            colour = _colour(figure.contender)
            values = list(figure.percentiles.values())
            axes.plot(values, [place] * len(values), color=colour, linewidth=1.6, alpha=0.5)
            for name, value in figure.percentiles.items():
                axes.plot(value, place, MARKERS[name], color=colour, markersize=8)
        axes.set_xscale("log")
        _plain(axes.xaxis)
        for name, marker in MARKERS.items():
            axes.plot([], [], marker, color=MUTED, markersize=8, label=name)
        canvas.legend(loc="outside upper right", ncols=3, handletextpad=0.1, columnspacing=1.2)
        return _svg(canvas)


def lines(curve: Curve) -> str:
    """Return how something grows."""
    ours = cycle(("-", "--", ":"))
    others = cycle((ORANGE, GREEN, PURPLE, INK))
    markers = cycle("osD^vP")
    with mpl.rc_context(cast("Any", STYLE)):
        canvas = Canvas(figsize=(WIDTH / POINTS, 290 / POINTS), layout="constrained")
        axes = canvas.add_subplot()
        axes.grid(visible=True)
        for name, points in curve.lines.items():
            x, y = zip(*points, strict=True)
            role = _colour(name)
            axes.plot(
                x,
                y,
                color=next(others) if role == ORANGE else role,
                linestyle=next(ours) if role == BLUE else "-",
                linewidth=2,
                marker=next(markers),
                markersize=7,
                label=name,
            )
        for axis in (axes.xaxis, axes.yaxis):
            if not curve.logarithmic:
                axis.set_major_formatter(FuncFormatter(_tick))
        if curve.logarithmic:
            axes.set_xscale("log")
            axes.set_yscale("log")
            heights = [y for points in curve.lines.values() for _, y in points]
            axes.set_ylim(min(heights) / 2, max(heights) * 2)  # what hardly changes looks flat
            _plain(axes.xaxis)
            _plain(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(curve.x)
        axes.set_ylabel(curve.y)
        if len(curve.lines) > 1:
            canvas.legend(loc="outside upper left", ncols=2)
        return _svg(canvas)


def standing_alone(svg: str, title: str) -> str:
    """Return a plot as a file of its own, whose colours follow the reader's."""
    head = (
        f"<title>{escape(title)}</title>"
        f"<style>svg {{ {variables(LIGHT)} font-family: system-ui, sans-serif }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {variables(DARK)} }} }}</style>"
    )
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + head, svg, count=1) + "\n"


def variables(colours: dict[str, str]) -> str:
    """Return colours as CSS."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def _colour(contender: str) -> str:
    if contender.startswith("refold"):
        return BLUE
    return MUTED if contender.startswith("bare") else ORANGE


def _horizontal(labels: Sequence[str]) -> tuple[Canvas, Axes]:
    height = 56 + 30 * len(labels)
    canvas = Canvas(figsize=(WIDTH / POINTS, height / POINTS), layout="constrained")
    axes = canvas.add_subplot()
    axes.grid(visible=True, axis="x")
    axes.set_yticks(range(len(labels)), labels, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    return canvas, axes


def _plain(axis: Any) -> None:
    """Label a logarithmic axis by numbers, close enough for at least three of them."""
    low, high = sorted(axis.get_view_interval())
    decades = log10(high / low)
    steps = (1, 2, 5) if decades < 1.5 else (1, 3) if decades < 3 else (1,)
    axis.set_major_locator(FixedLocator(_numbers(low, high, steps, 2 if decades > 6 else 1)))
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_locator(NullLocator())


def _numbers(low: float, high: float, steps: Sequence[int], every: int) -> list[float]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    numbers = [step * 10.0**power for power in powers if power % every == 0 for step in steps]
    return [each for each in numbers if low <= each <= high]


def _tick(value: float, _: object = None) -> str:
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (size if letter == 'M' else 1e3):g} {letter}"
    return f"{value:,g}"


def _svg(canvas: Canvas) -> str:
    file = StringIO()
    canvas.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(METADATA))
    text = file.getvalue()
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="([\d.]+)pt"', r' \1="\2"', text, count=2)
    text = re.sub(r"font-family: [^;]*; ", "", text)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.DOTALL)
    for name, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{name})")
    return _own_ids(text)


def _own_ids(svg: str) -> str:
    """Keep the ids that something refers to, and make them differ from another plot's."""
    own = f"p{zlib.crc32(svg.encode()):08x}-"
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(
        r' id="([^"]+)"', lambda found: f' id="{own}{found[1]}"' if found[1] in used else "", svg
    )
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{own}", svg)

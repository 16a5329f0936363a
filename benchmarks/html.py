"""The results as a page that stands by itself."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from msgspec.structs import replace

from benchmarks.numbers import number, spread
from benchmarks.plots import DARK, LIGHT, bars, dots, lines, variables
from benchmarks.results import Figure, Ratio, Report, Section

UNITS = {"us": "µs"}


class Plot(NamedTuple):
    caption: str
    svg: Markup


def html(report: Report) -> str:
    """Return the whole page."""
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = cast("dict[str, Any]", page.filters)
    filters.update(number=number, spread=spread, text=_text, unit=_unit, plots=_plots)
    return page.get_template("page.html").render(
        report=report, targets=_targets(report), light=variables(LIGHT), dark=variables(DARK)
    )


def _targets(report: Report) -> list[Ratio]:
    found = [
        replace(ratio, work=f"{section.title}: {ratio.work}")
        for section in report.sections
        for ratio in section.ratios
        if ratio.target
    ]
    return sorted(found, key=lambda ratio: _in_order(ratio.target or ""))


def _in_order(target: str) -> list[tuple[int, str]]:
    """Return a key that puts 2 before 10, and both before words."""
    return [
        (int(part), "") if part.isdigit() else (1_000, part)
        for part in re.findall(r"\d+|\D+", target)
    ]


def _text(source: str) -> Markup:
    """Return paragraphs, with what stands between backticks as code."""
    paragraphs = (str(escape(each)) for each in re.split(r"\n\s*\n", source.strip()))
    marked = (re.sub(r"`+([^`]+)`+", r"<code>\1</code>", each) for each in paragraphs)
    return Markup("".join(f"<p>{each}</p>" for each in marked))


def _unit(name: str) -> str:
    return UNITS.get(name, name)


def _plots(section: Section) -> list[Plot]:
    drawn: list[Plot] = []
    for work, rows in _comparisons(section.figures):
        unit = _unit(rows[0][1].unit)
        drawn.append(Plot(f"{work}, {unit}: median, and range of the rounds", Markup(bars(rows))))
        if all(figure.percentiles for _, figure in rows):
            drawn.append(Plot(f"{work}, {unit}: of every call", Markup(dots(rows))))
    drawn += [Plot(curve.title, Markup(lines(curve))) for curve in section.curves]
    return drawn


def _comparisons(figures: Sequence[Figure]) -> list[tuple[str, list[tuple[str, Figure]]]]:
    """Return what belongs side by side, with labels: the contenders of one work.

    Works that have a single contender stand together, as far as they have the same unit.
    """
    works: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        works.setdefault((figure.work, figure.unit), []).append(figure)
    found: list[tuple[str, list[tuple[str, Figure]]]] = []
    single: dict[str, list[tuple[str, Figure]]] = {}
    for (work, unit), some in works.items():
        if len(some) > 1:
            found.append((work, [(figure.contender, figure) for figure in some]))
        else:
            single.setdefault(unit, []).append((work, some[0]))
    found += [(rows[0][1].contender, rows) for rows in single.values()]
    return found

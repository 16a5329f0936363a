"""The ratios as Markdown tables, for docs/performance.md."""

from collections.abc import Iterable

from benchmarks.numbers import number, spread
from benchmarks.results import Ratio, Report, Section


def markdown(report: Report) -> str:
    """Return two tables: what was aimed at and whether it was reached, and all other ratios."""
    ratios = [(section, ratio) for section in report.sections for ratio in section.ratios]
    targets = [
        [
            ratio.target,
            *_found(section, ratio),
            f"{ratio.better} {ratio.limit:g}",
            "reached" if ratio.reached else "**missed**",
        ]
        for section, ratio in ratios
        if ratio.target
    ]
    others = [_found(section, ratio) for section, ratio in ratios if not ratio.target]
    found = "section | work | of | median | rounds"
    numbers = "--- | --- | --- | ---: | ---:"
    return (
        _table(f"# | {found} | target | ", f"--- | {numbers} | --- | ---", targets)
        + "\n## Without a target\n\n"
        + _table(found, numbers, others)
    )


def _found(section: Section, ratio: Ratio) -> list[str]:
    median = f"{number(ratio.median)} x"
    return [section.title, ratio.work, ratio.over, median, spread(ratio.rounds)]


def _table(names: str, alignment: str, rows: Iterable[Iterable[str]]) -> str:
    lines = [names, alignment, *map(" | ".join, rows)]
    return "".join(f"| {line} |\n" for line in lines)

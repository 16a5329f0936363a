"""The targets as a Markdown table, for docs/performance.md."""

from benchmarks.numbers import number, spread
from benchmarks.results import Report

HEAD = """\
| # | | work | of | median | rounds | target | |
| --- | --- | --- | --- | ---: | ---: | --- | --- |
"""


def markdown(report: Report) -> str:
    """Return what was aimed at, and whether it was reached."""
    return HEAD + "".join(
        f"| {ratio.target} | {section.title} | {ratio.work} | {ratio.over} "
        f"| {number(ratio.median)} x | {spread(ratio.rounds)} | {ratio.better} {ratio.limit:g} "
        f"| {'reached' if ratio.reached else '**missed**'} |\n"
        for section in report.sections
        for ratio in section.ratios
        if ratio.target
    )

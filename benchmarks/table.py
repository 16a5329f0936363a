"""The results on a terminal."""

from rich.console import Console
from rich.table import Table

from benchmarks.numbers import number, spread
from benchmarks.results import Ratio, Report, Section

console = Console(highlight=False, width=120)


def print_section(section: Section) -> None:
    """Print all that was found about one kind of work."""
    console.print(f"\n[bold]{section.title}[/]")
    table = Table(box=None, pad_edge=False)
    for column in ("work", "contender"):
        table.add_column(column)
    for column in ("median", "rounds", "p50", "p99", "p99.9", ""):
        table.add_column(column, justify="right")
    for figure in section.figures:
        percentiles = [number(value) for value in figure.percentiles.values()] or [""] * 3
        table.add_row(
            figure.work,
            figure.contender,
            number(figure.median),
            spread(figure.rounds),
            *percentiles,
            figure.unit,
        )
    console.print(table)
    _print_ratios(section.ratios)
    for note in section.notes:
        console.print(f"  {note}")
    console.file.flush()  # whoever waits ten minutes wants to see it going on


def print_targets(report: Report) -> None:
    """Print what was aimed at, and whether it was reached."""
    for section in report.sections:
        aimed = [ratio for ratio in section.ratios if ratio.target]
        if aimed:
            console.print(f"\n[bold]Targets: {section.title}[/]")
            _print_ratios(aimed)
    console.print(f"\nmeasured in {report.seconds:.0f} s")


def _print_ratios(ratios: list[Ratio]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for ratio in ratios:
        limit = "" if ratio.limit is None else f"{ratio.better} {ratio.limit:g}"
        verdict = {None: "", True: "[green]reached[/]", False: "[red]missed[/]"}[ratio.reached]
        table.add_row(
            ratio.target or "",
            ratio.work,
            ratio.over,
            f"{number(ratio.median)} x",
            spread(ratio.rounds),
            limit,
            verdict,
        )
    console.print(table)

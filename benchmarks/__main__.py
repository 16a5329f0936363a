"""Measure refold beside the bare engines and its peers.

    python -m benchmarks [WORKLOAD …] [--json FILE] [--html FILE] [--markdown FILE]

Without names all workloads are measured, which takes less than a quarter of an hour.
"""

import argparse
import time
from importlib import import_module
from pathlib import Path

import msgspec

from benchmarks.environment import environment
from benchmarks.markdown import markdown
from benchmarks.places import Places
from benchmarks.results import Report, Section
from benchmarks.table import print_section, print_targets

WORKLOADS = [
    "one_command",
    "creating_runs",
    "appending",
    "batches_of_commands",
    "reading",
    "rebuilding",
    "polling",
    "processes",
    "payloads",
    "listing_runs",
    "metrics",
    "postgres",
    "opening",
    "size",
    "past",
    "importing",
]
"""Modules of `benchmarks.workloads`, in the order of the report."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--json", type=Path, help="write the results to a file")
    parser.add_argument("--html", type=Path, help="write a report with plots to a file")
    parser.add_argument("--markdown", type=Path, help="write the ratios to a file, as tables")
    asked = parser.parse_args()
    names: list[str] = asked.workloads or WORKLOADS
    if unknown := [name for name in names if name not in WORKLOADS]:
        parser.error(
            f"no workload is called {', '.join(unknown)}: there are {', '.join(WORKLOADS)}"
        )
    began = time.perf_counter()
    sections: list[Section] = []
    with Places() as places:
        about = environment(places)
        for name in names:
            found: list[Section] = import_module(f"benchmarks.workloads.{name}").measure(places)
            for section in found:
                print_section(section)
            sections += found
    report = Report(about, sections, time.perf_counter() - began)
    print_targets(report)
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    if asked.markdown:
        asked.markdown.write_text(markdown(report))
    if asked.html:
        from benchmarks.html import html  # no measured process should load matplotlib

        asked.html.write_text(html(report))


if __name__ == "__main__":
    main()

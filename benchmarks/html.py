"""The results as a page that stands by itself."""

from benchmarks.results import Report


def html(report: Report) -> str:
    raise NotImplementedError

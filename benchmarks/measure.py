"""Contenders side by side: each does a little, in turn, round after round.

A machine that is slower for a second is slower for all of them, so the ratios keep still where the
times do not.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping

from benchmarks.results import Figure

MICROSECONDS = 1e6


def latencies(
    work: str,
    contenders: Mapping[str, Callable[[int], object]],
    *,
    rounds: int = 9,
    calls: int = 200,
    unit: str = "us",
) -> dict[str, Figure]:
    """Call each contender in turn, and time each call.

    Args:
        work: what they do.
        contenders: by name; each is given the number of the call, which never comes again.
        rounds: the figure of a round is its median.
        calls: of each contender in a round; one round more goes before, and is not counted.
        unit: `us` or `ms`.
    """
    scale = {"us": 1e6, "ms": 1e3}[unit]
    medians: dict[str, list[float]] = {name: [] for name in contenders}
    all_: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        took: dict[str, list[float]] = {name: [] for name in contenders}
        gc.collect()
        for call in range(calls):
            for name, contender in contenders.items():
                began = time.perf_counter()
                contender(1 + turn * calls + call)
                took[name].append((time.perf_counter() - began) * scale)
        if turn:
            for name, each in took.items():
                medians[name].append(statistics.median(each))
                all_[name] += each
    return {
        name: Figure(name, work, unit, tuple(medians[name]), percentiles(all_[name]))
        for name in contenders
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p99 and p99.9."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{p:g}": ordered[round(last * p / 100)] for p in (50, 99, 99.9)}


def figures(
    work: str,
    unit: str,
    contenders: Mapping[str, Callable[[], float]],
    *,
    rounds: int = 7,
) -> dict[str, Figure]:
    """Let each contender measure itself in turn; a call returns its value of that round."""
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            gc.collect()
            values[name].append(contender())
    return {name: Figure(name, work, unit, tuple(each)) for name, each in values.items()}


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

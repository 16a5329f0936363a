"""A measurement in a process of its own, and the memory that it needed."""

import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def alone(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """Return what some work returns in a new process, and that one's peak of memory in MiB.

    A server forks it, whose own memory is small: a process that this one started itself would
    count this one's memory as its own.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as executor:
        return executor.submit(_with_memory, work, *args, **kwargs).result()


def _with_memory(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    result = work(*args, **kwargs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result, peak / (2**20 if sys.platform == "darwin" else 2**10)

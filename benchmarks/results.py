"""What a benchmark has found, as it is written to JSON."""

import statistics
from typing import Literal

from msgspec import Struct, field

Better = Literal["at most", "at least"]


class Figure(Struct, frozen=True):
    """What one contender took, or how many it did, in each round."""

    contender: str
    work: str
    unit: str
    """Of all values: `us`, `ms`, `s`, `/s`, `MB` …"""
    rounds: tuple[float, ...]
    percentiles: dict[str, float] = field(default_factory=dict[str, float])
    """Of all calls in all rounds, where latency is the question: p50, p99 and p99.9."""

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def per_second(self) -> "Figure":
        """A time as a rate: how many there are in a second, one after the other."""
        second = {"us": 1e6, "ms": 1e3, "s": 1}[self.unit]
        rounds = tuple(second / each for each in self.rounds)
        return Figure(self.contender, self.work, "/s", rounds)


class Ratio(Struct, frozen=True):
    """One contender's figure over another's, round by round, and what it should be."""

    work: str
    over: str
    rounds: tuple[float, ...]
    target: str | None = None
    """The target's number in docs/performance.md, such as `1` or `8b`."""
    better: Better | None = None
    limit: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        if self.limit is None:
            return None
        return self.median <= self.limit if self.better == "at most" else self.median >= self.limit


class Curve(Struct, frozen=True):
    """How something grows with something."""

    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]
    logarithmic: bool = False


class Section(Struct, frozen=True):
    """All that was found about one kind of work."""

    title: str
    about: str
    figures: list[Figure] = field(default_factory=list[Figure])
    ratios: list[Ratio] = field(default_factory=list[Ratio])
    curves: list[Curve] = field(default_factory=list[Curve])
    notes: list[str] = field(default_factory=list[str])


class Report(Struct, frozen=True):
    """A whole run."""

    environment: dict[str, str]
    sections: list[Section]
    seconds: float


def at_most(limit: float, ours: Figure, base: Figure, target: str) -> Ratio:
    """Return the ratio of two times or sizes, which should not be above a limit."""
    return _ratio(ours, base, target, "at most", limit)


def at_least(limit: float, ours: Figure, base: Figure, target: str) -> Ratio:
    """Return the ratio of two rates, which should not be below a limit."""
    return _ratio(ours, base, target, "at least", limit)


def within(limit: float, ours: Figure, target: str) -> Ratio:
    """Return the ratio of a time or size to what it should not exceed, in its own unit."""
    fixed = Figure(f"{limit:g} {ours.unit}", ours.work, ours.unit, (limit,) * len(ours.rounds))
    return _ratio(ours, fixed, target, "at most", 1)


def ratio(ours: Figure, base: Figure) -> Ratio:
    """Return a ratio that no target is set for."""
    return _ratio(ours, base, None, None, None)


def _ratio(
    ours: Figure, base: Figure, target: str | None, better: Better | None, limit: float | None
) -> Ratio:
    if ours.unit != base.unit:
        raise ValueError(f"{ours.unit} of {ours.contender} over {base.unit} of {base.contender}")
    rounds = tuple(one / other for one, other in zip(ours.rounds, base.rounds, strict=True))
    over = f"{ours.contender} / {base.contender}"
    return Ratio(ours.work, over, rounds, target, better, limit)

"""What was seen under a kind of load."""

from collections.abc import Callable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from benchmarks.measure import percentiles
from benchmarks.results import Figure, Ratio
from benchmarks.workloads.processes.roles import WORKERS, Done, Order

COMMANDS = slice(WORKERS + 1)
"""Of a round, what the workers and the controller did; then the others."""
DASHBOARD = slice(WORKERS + 1, WORKERS + 2)
FOLLOWER = slice(WORKERS + 2, None)


class Load(Struct):
    """A kind of load on a contender, round by round."""

    contender: str
    told: Callable[[Order], list[Done]]
    order: Order
    rounds: list[list[Done]] = field(default_factory=list[list[Done]])

    def throughput(self) -> Figure:
        """Return how many commands a second all processes carried out."""
        rates = [sum(map(_rate, done[COMMANDS])) for done in self.rounds]
        return Figure(self.contender, "commands", "/s", tuple(rates))

    def waits(self, work: str, some: slice, percentile: str) -> Figure:
        """Return the percentile of what some processes took, pooled."""
        pooled = [[took for each in done[some] for took in each.took] for done in self.rounds]
        rounds = tuple(percentiles(each)[percentile] for each in pooled)
        every = [took for each in pooled for took in each]
        return Figure(self.contender, f"{percentile} of {work}", "ms", rounds, percentiles(every))

    def fairness(self, target: str | None = None) -> Ratio:
        """Return what the slowest worker did of what the fastest did."""
        rates = [[*map(_rate, done[:WORKERS])] for done in self.rounds]
        rounds = tuple(min(each) / max(each) for each in rates)
        wanted = ("at least", 0.5) if target else (None, None)
        return Ratio("slowest worker / fastest", self.contender, rounds, target, *wanted)

    def failures(self, target: str | None = None) -> Ratio:
        """Return the share of errors, in all rounds together."""
        share = len(self.errors) / sum(
            len(each.took) for done in self.rounds for each in done[COMMANDS]
        )
        wanted = ("at most", 0) if target else (None, None)
        return Ratio("errors / commands", self.contender, (share,), target, *wanted)

    @property
    def errors(self) -> list[str]:
        return [error for done in self.rounds for each in done for error in each.errors]


def _rate(done: Done) -> float:
    return len(done.took) / done.seconds


def in_turn(loads: Sequence[Load], rounds: int) -> None:
    """Let each have its round in turn, after a short one that is not counted."""
    for load in loads:
        load.told(replace(load.order, seconds=0.3))
    for _ in range(rounds):
        for load in loads:
            load.rounds.append(load.told(load.order))

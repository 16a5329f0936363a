"""Opening and closing a store whose views are current, in a process that has opened one before."""

from collections.abc import Callable
from functools import partial

from benchmarks.logs import log
from benchmarks.measure import latencies
from benchmarks.peers.bare_connection import connect
from benchmarks.places import ENGINES, Engine, Places
from benchmarks.results import Curve, Section, at_most, ratio, within
from refold import RfDb

LENGTHS: dict[Engine, list[int]] = {
    "sqlite": [1_000, 10_000, 100_000, 1_000_000],
    "postgres": [10_000, 100_000],
}


def measure(places: Places) -> list[Section]:
    """Measure `RfDb(place)` and `close()` over logs of several lengths."""
    return [_section(places, engine) for engine in LENGTHS]


def _section(places: Places, engine: Engine) -> Section:
    lengths = LENGTHS[engine]
    stores = {events: log(places, engine, events) for events in lengths}
    opened: dict[int, RfDb] = {}

    def opening(events: int, _: int) -> None:
        opened[events] = RfDb(stores[events])

    def closing(events: int, _: int) -> None:
        opened.pop(events).close()

    def bare_engine(_: int) -> None:
        bare = connect(stores[lengths[-1]])
        bare.execute("SELECT max(position) FROM events").fetchone()
        bare.close()

    contenders: dict[str, Callable[[int], object]] = {}
    for events in lengths:
        contenders[f"opening, {events:,} events"] = partial(opening, events)
        contenders[f"closing, {events:,} events"] = partial(closing, events)
    contenders["bare engine: connect, SELECT, close"] = bare_engine
    calls = 50 if engine == "sqlite" else 10
    found = [
        *latencies("a store whose views are current", contenders, calls=calls, unit="ms").values()
    ]
    openings, closings, bare = found[:-1:2], found[1::2], found[-1]
    if engine == "sqlite":
        ratios = [within(20, openings[-1], "12a"), at_most(1.2, openings[-1], openings[0], "12b")]
    else:
        ratios = [ratio(openings[-1], openings[0])]
    ratios += [ratio(openings[-1], bare), ratio(closings[-1], bare)]
    return Section(
        f"Opening and closing on {ENGINES[engine]}",
        __doc__ or "",
        found,
        ratios,
        [
            Curve(
                f"Opening and closing on {ENGINES[engine]}",
                "events",
                "ms, p50",
                {
                    name: [
                        (n, each.percentiles["p50"]) for n, each in zip(lengths, line, strict=True)
                    ]
                    for name, line in {"opening": openings, "closing": closings}.items()
                },
                logarithmic=True,
            )
        ],
    )

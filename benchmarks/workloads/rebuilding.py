"""All views folded anew, beside a bare SELECT of the same log whose events are only decoded."""

import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from multiprocessing import get_context
from pathlib import Path

import msgspec

from benchmarks.logs import log
from benchmarks.measure import figures, seconds
from benchmarks.peers.bare_connection import BareConnection, connect
from benchmarks.places import ENGINES, Engine, Places
from benchmarks.results import Curve, Figure, Ratio, Section, at_least, ratio, within
from refold import RfDb
from refold.eventstore.event import event_type

SHORT, LONG = 10_000, 1_000_000
LENGTHS: dict[Engine, list[int]] = {"sqlite": [SHORT, 100_000, LONG], "postgres": [SHORT, 100_000]}
ROUNDS = 3
READ = "SELECT position, type, data FROM events ORDER BY position"


def measure(places: Places) -> list[Section]:
    """Measure `rebuild` over logs of several lengths, and its memory."""
    return [_section(places, engine) for engine in LENGTHS]


def _section(places: Places, engine: Engine) -> Section:
    lengths = LENGTHS[engine]
    stores = {events: _store(places, engine, events) for events in lengths}
    with ExitStack() as stack:
        contenders: dict[str, Callable[[], float]] = {}
        for events, place in stores.items():
            db = stack.enter_context(RfDb(place))
            bare = stack.enter_context(closing(connect(place)))
            contenders[f"refold, {events:,} events"] = _rebuilding(db, events)
            contenders[f"bare engine, {events:,} events"] = _reading(bare, events)
        found = figures("events folded anew", "/s", contenders, rounds=ROUNDS)
    all_ = list(found.values())
    ours, bare_engine = all_[::2], all_[1::2]
    ratios: list[Ratio] = []
    if engine == "sqlite":
        peak = _memory(stores[LONG])
        all_.append(peak)
        ratios += [
            at_least(0.4, ours[-1], bare_engine[-1], "6a"),
            within(500, peak, "6b"),
            at_least(0.8, ours[-1], ours[0], "6c"),
        ]
    else:
        ratios += [ratio(ours[-1], bare_engine[-1]), ratio(ours[-1], ours[0])]
    return Section(
        f"Rebuilding on {ENGINES[engine]}",
        __doc__ or "",
        all_,
        ratios,
        [
            Curve(
                f"Events folded anew on {ENGINES[engine]}",
                "events",
                "events/s",
                {
                    name: [(n, each.median) for n, each in zip(lengths, line, strict=True)]
                    for name, line in {"refold": ours, "bare engine": bare_engine}.items()
                },
                logarithmic=True,
            )
        ],
        [
            "A rebuild reads and decodes all events, folds them into ten views, and writes "
            "these, in one transaction.",
            "Bare engine: one SELECT, and msgspec into the types of the events, not kept.",
        ],
    )


def _store(places: Places, engine: Engine, events: int) -> str:
    place = log(places, engine, events)
    if engine == "sqlite":  # the log itself is lent to others, who measure its file
        place = shutil.copyfile(place, places.file())
    return place


def _rebuilding(db: RfDb, events: int) -> Callable[[], float]:
    return lambda: _rate(events, lambda: db.rebuild(progress=False))


def _reading(bare: BareConnection, events: int) -> Callable[[], float]:
    return lambda: _rate(events, lambda: _decode(bare))


def _rate(events: int, work: Callable[[], object]) -> float:
    times = max(1, 100_000 // events)
    return events * times / seconds(lambda: [work() for _ in range(times)])


def _decode(bare: BareConnection) -> None:
    decoders: dict[str, Callable[[str], object]] = {}
    for _, name, data in bare.execute(READ):
        decode = decoders.get(name)
        if decode is None:
            decode = decoders[name] = msgspec.json.Decoder(event_type(name)).decode
        decode(data)


# --- memory -----------------------------------------------------------------------------------


def _memory(place: str) -> Figure:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        peak = process.submit(_peak_of_a_rebuild, place).result()
    return Figure("refold", f"peak memory, {LONG:,} events, a process of its own", "MB", (peak,))


def _peak_of_a_rebuild(place: str) -> float:
    with RfDb(place) as db:
        db.rebuild(progress=False)
    try:
        told = Path("/proc/self/status").read_text()
    except OSError:  # macOS, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # On Linux ru_maxrss also counts what the parent had when it forked.
    status = dict(line.split(":", 1) for line in told.splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6

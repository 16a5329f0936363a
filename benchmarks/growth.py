"""Measure how refold on SQLite does as its log grows.

    python -m benchmarks.growth [EVENTS] > table.md

At each length all is measured again, each in a process of its own, so that its memory can be told.
Plots go to docs/images, the numbers to growth.json, and a table in Markdown to standard output.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.alone import alone
from benchmarks.logs import RUNS, WORKERS, fill
from benchmarks.measure import seconds
from benchmarks.numbers import number
from benchmarks.results import Curve
from refold import RfDb
from refold.eventstore.events import RunProgressed

LENGTHS = [10_000, 100_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000]
PAGE = 2_000
"""Events that are appended at a time, and commands that are timed together."""
IMAGES = Path("docs/images")


class Growth(Struct, frozen=True):
    """What was measured at one length of the log."""

    events: int
    file_mb: float
    commands_per_s: float
    appended_per_s: float
    opening_ms: float
    poll_us: float
    rebuild_s: float
    rebuild_mib: float
    first_as_of_s: float
    later_as_of_ms: float
    as_of_mib: float
    temporary_mb: float


COLUMNS: dict[str, Callable[[Growth], float]] = {
    "events": lambda at: at.events,
    "file, MB": lambda at: at.file_mb,
    "commands, /s": lambda at: at.commands_per_s,
    f"events, {PAGE:,} at a time, /s": lambda at: at.appended_per_s,
    "opening, ms": lambda at: at.opening_ms,
    "next task, µs": lambda at: at.poll_us,
    "rebuild, s": lambda at: at.rebuild_s,
    "its memory, MiB": lambda at: at.rebuild_mib,
    "first as_of, s": lambda at: at.first_as_of_s,
    "a later one, ms": lambda at: at.later_as_of_ms,
    "their memory, MiB": lambda at: at.as_of_mib,
    "their temporary file, MB": lambda at: at.temporary_mb,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("events", nargs="?", type=int, default=LENGTHS[-1])
    events: int = parser.parse_args().events
    found: list[Growth] = []
    with tempfile.TemporaryDirectory(prefix="refold-growth-") as folder:
        place = str(Path(folder) / "store.db")
        for length in [*(each for each in LENGTHS if each < events), events]:
            found.append(measure(place, length))
            print(found[-1], file=sys.stderr)
    Path("growth.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    from benchmarks.plots import lines, standing_alone  # no measured process should load this

    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, curve in curves(found).items():
        (IMAGES / f"growth-{name}.svg").write_text(standing_alone(lines(curve), curve.title))
    print(table(found))


def measure(place: str, events: int) -> Growth:
    """Let the log grow to a length, and measure there."""
    alone(fill, place, events)
    alone(fold, place)
    opening, _ = alone(open_again, place)
    poll, _ = alone(poll_next_task, place)
    commands, _ = alone(send_commands, place)
    appended, _ = alone(append_pages, place)
    rebuild, rebuild_mib = alone(rebuild_views, place)
    (first, later, temporary), as_of_mib = alone(look_back, place)
    return Growth(
        events,
        size_mb(Path(place).parent),
        commands,
        appended,
        opening,
        poll,
        rebuild,
        rebuild_mib,
        first,
        later,
        as_of_mib,
        temporary,
    )


# --- each in a process of its own -------------------------------------------------------------


def fold(place: str) -> None:
    """Let the views catch up with what was appended without them."""
    RfDb(place).close()


def open_again(place: str) -> float:
    """Return the milliseconds that opening takes, with views that are current."""

    def opened() -> None:
        RfDb(place).close()

    return 1e3 * statistics.median(seconds(opened) for _ in range(20))


def poll_next_task(place: str) -> float:
    """Return the microseconds in which a worker with one scheduled task finds it."""
    worker = WORKERS  # the log's workers have none left
    with RfDb(place) as db:
        if db.get_next_worker_task(worker) is None:
            db.create_worker_task(run_id=1, worker_id=worker, chunk_id=0)

        def poll() -> None:
            assert db.get_next_worker_task(worker)

        return 1e6 * statistics.median(seconds(poll) for _ in range(2_000))


def send_commands(place: str) -> float:
    """Return how many commands a second are carried out, each in its own transaction."""
    with RfDb(place) as db:

        def send() -> None:
            for step in range(PAGE):
                db.set_run_progress(1 + step % RUNS, step, 0)

        return PAGE / seconds(send)


def append_pages(place: str) -> float:
    """Return how many events a second are appended and folded."""
    with RfDb(place) as db:

        def append() -> None:
            for page in range(5):
                db.append(*(RunProgressed(1 + n % RUNS, page, n) for n in range(PAGE)))

        return 5 * PAGE / seconds(append)


def rebuild_views(place: str) -> float:
    """Return the seconds that it takes to fold the whole log into new views."""
    with RfDb(place) as db:
        return seconds(db.rebuild)


def look_back(place: str) -> tuple[float, float, float]:
    """Return the seconds of the first look back, the milliseconds of a later one, and MB."""
    with RfDb(place) as db:
        head = db.store.head()
        first = seconds(lambda: db.as_of(head // 2).get_run(1))
        moments = [1 + head * part // 21 for part in range(1, 21)]
        later = statistics.median(
            seconds(lambda at=at: db.as_of(max(at, RUNS + 1)).get_run(1)) for at in moments
        )
        return first, 1e3 * later, size_mb(db.views.versions.path().parent)


# --- what is made of it -----------------------------------------------------------------------


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def table(found: list[Growth]) -> str:
    rows = [
        list(COLUMNS),
        ["---:"] * len(COLUMNS),
        *([number(get(at)) for get in COLUMNS.values()] for at in found),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def curves(found: list[Growth]) -> dict[str, Curve]:
    def curve(y: str, parts: dict[str, Callable[[Growth], float]]) -> Curve:
        points = {
            name: [(float(at.events), get(at)) for at in found] for name, get in parts.items()
        }
        return Curve(f"{y}, by the length of the log", "events in the log", y, points, True)

    return {
        "appending": curve(
            "events appended per second",
            {
                "one command each": lambda at: at.commands_per_s,
                f"{PAGE:,} at a time": lambda at: at.appended_per_s,
            },
        ),
        "latency": curve(
            "median latency, ms",
            {
                "next task": lambda at: at.poll_us / 1e3,
                "opening": lambda at: at.opening_ms,
                "as_of, not the first": lambda at: at.later_as_of_ms,
            },
        ),
        "folding": curve(
            "time, s",
            {"rebuild": lambda at: at.rebuild_s, "first as_of": lambda at: at.first_as_of_s},
        ),
        "memory": curve(
            "peak of memory, MiB",
            {"rebuild": lambda at: at.rebuild_mib, "as_of": lambda at: at.as_of_mib},
        ),
        "size": curve(
            "size, MB",
            {
                "store": lambda at: at.file_mb,
                "temporary file of as_of": lambda at: at.temporary_mb,
            },
        ),
    }


if __name__ == "__main__":
    main()

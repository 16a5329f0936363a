"""What `refold doctor` looks at: the log, the views, what was left behind."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from refold.cli.open_face import lag
from refold.cli.output import printable, size, span
from refold.eventstore import EventStore, times
from refold.eventstore.engines.engine import Reader
from refold.eventstore.engines.log_end import projections_of, store_row
from refold.eventstore.errors import DamagedEvent, DBException, ProjectionFailed
from refold.eventstore.event import UnknownEvent
from refold.eventstore.log.reading import read_facts
from refold.eventstore.statuses import STAGES, Stage
from refold.projections import ALL, UnitOfWork, View, Views
from refold.projections.view import types_of
from refold.rows import Row

FEW = 10
"""How many things of one kind are named."""


class Finding(msgspec.Struct, frozen=True):
    """One thing about a store."""

    level: Literal["fact", "ok", "note", "problem"]
    """A note is something to know about; only a problem makes the answer a no."""
    about: str
    """In a word or two."""
    text: str
    advice: str | None = None
    """What to do next."""


Findings = Iterator[Finding]


def findings_of(about: str, check: Callable[[], Findings]) -> Findings:
    """Give what a check finds; that it fails is a finding too."""
    try:
        yield from check()
    except DBException as error:
        yield Finding("problem", about, str(error))


BACK_IN_TIME = f"""
    SELECT position FROM (
        SELECT position, recorded_at, lag(recorded_at) OVER (ORDER BY position) AS before
        FROM events) AS times
    WHERE recorded_at < before ORDER BY position LIMIT {FEW}"""


def check_order(connection: Reader, *, gapless: bool) -> Findings:
    """Say how many events there are, and look whether their times ascend."""
    [(count, begun, ended)] = connection.execute(
        "SELECT count(*), min(recorded_at), max(recorded_at) FROM events"
    )
    if not count:
        yield Finding("fact", "log", "nothing has happened yet")
        return
    first, last = (times.to_iso(times.within(one)) for one in (begun, ended))
    told = f"{count} events, from {first} to {last}"
    yield Finding("fact", "log", told)
    back = [position for (position,) in connection.execute(BACK_IN_TIME)]
    if back and gapless:  # on a server, of two commands at once the later may be a bit earlier
        at = ", ".join(map(str, back))
        yield _problem(f"times run back at {at}: --at TIME may be wrong there")


def _problem(text: str) -> Finding:
    return Finding("problem", "order", text, "somebody has altered the log: restore a backup")


ALLOWED_SKEW = 2 * times.SECOND
"""Microseconds by which two clocks may differ."""

FROM_THE_FUTURE = (
    "SELECT count(*), min(position), max(recorded_at) FROM events WHERE recorded_at > ?"
)

BEFORE = "SELECT recorded_at FROM events WHERE position < ? ORDER BY position DESC LIMIT 1"


def check_times(connection: Reader, now: int) -> Findings:
    """Look for events from the future.

    Args:
        connection: to the store.
        now: the time of the clock by which events are recorded.
    """
    [(count, first, latest)] = connection.execute(FROM_THE_FUTURE, (now + ALLOWED_SKEW,))
    if not count:
        return
    before = connection.execute(BEFORE, (first,))
    since = f"after {times.to_iso(times.within(before[0][0]))}" if before else "from the first on"
    yield Finding(
        "note",
        "clock",
        f"events from the future: {count}, from position {first} on ({since}), with times up to "
        f"{times.to_iso(times.within(latest))}; the clock is at {times.to_iso(now)}",
        f"set the clocks by NTP. Where one was ahead, all that follows bears its time until the "
        f"clock has caught up: what has happened from position {first} on cannot be told apart by "
        f"the time, so look back by positions (--at {first})",
    )


def check_log(store: EventStore, more: Sequence[View[Any]]) -> Findings:
    """Compare every event with its digest, and look for what is not refold's."""
    known = [name for view in (*ALL, *more) for name in view.objects]
    found = store.faults(known=known)
    tables = [fault for fault in found if fault.about.startswith("table ")]
    faults = [fault for fault in found if fault not in tables]
    for fault in faults[:FEW]:
        yield Finding(
            "problem",
            "log",
            printable(str(fault)),
            "somebody has altered the log, or the disk has: restore a backup",
        )
    if len(faults) > FEW:
        yield Finding("problem", "log", f"and {len(faults) - FEW} more", "refold verify --log")
    for table in tables[:FEW]:
        yield Finding("note", "log", printable(str(table)))
    if not faults:
        with store.reading() as connection:
            log = store_row(connection)
        signed = "" if log.keyed_after is None else f", signed after {log.keyed_after}"
        yield Finding("ok", "log", f"every event has its digest, and follows in its stream{signed}")
        if log.unchecked:
            yield Finding(
                "note",
                "log",
                f"events up to {log.unchecked} have no digest: a release wrote them that made none",
            )


def check_events(store: EventStore) -> Findings:
    """Read every event."""
    unknown: Counter[str] = Counter()
    damaged: list[str] = []
    after, end = 0, store.head()
    while after < end:
        try:
            for recorded in store.read(after, until=end, unknown=True):
                if isinstance(recorded.event, UnknownEvent):
                    unknown[recorded.type] += 1
            break
        except DamagedEvent as error:
            after = error.position
            damaged.append(str(error).removesuffix(". Everything before it can still be read"))
    for text in damaged[:FEW]:
        yield Finding(
            "problem",
            "events",
            printable(text),
            "somebody has altered it: restore a backup; refold log shows what stands before it, "
            "and with --since what stands behind",
        )
    if len(damaged) > FEW:
        yield Finding("problem", "events", f"and {len(damaged) - FEW} more cannot be decoded")
    if end and not damaged:
        yield Finding("ok", "events", "all of them can be read")
    if unknown:
        listed = ", ".join(f"{printable(name)} ({n})" for name, n in unknown.most_common())
        yield Finding(
            "note",
            "events",
            f"of types that are not known here: {listed}",
            "pass the module that defines them: --import MODULE",
        )


def check_payloads(store: EventStore, *, thorough: bool) -> Findings:
    """Count the payloads; look whether each is what its name says, if there is time."""
    with store.reading() as connection:
        [(count, total)] = connection.execute("SELECT count(*), sum(length(content)) FROM payloads")
        yield Finding("fact", "payloads", f"{count} of {size(int(total or 0))}")
    if not thorough:
        return
    wrong = store.payload_faults()
    for fault in wrong[:FEW]:
        yield Finding(
            "problem",
            "payloads",
            printable(str(fault)),
            "somebody has altered it: restore a backup",
        )
    if count and not wrong:
        yield Finding("ok", "payloads", "each is what its digest says")


def check_views(store: EventStore, more: Sequence[View[Any]]) -> Findings:
    """Look at what the store says of its views, without touching them."""
    with store.reading() as connection:
        known = projections_of(connection)
    here = {view.name: view.version for view in (*ALL, *more) if view in ALL or view.name in known}
    versions = ", ".join(f"{name} {version}" for name, (version, _) in sorted(known.items()))
    yield Finding("fact", "views", versions or "there are none yet")
    newer = [name for name, (version, _) in known.items() if version > here.get(name, version)]
    older = [name for name, version in here.items() if version > known.get(name, (0, None))[0]]
    behind = {name: by for name, by in lag(store).items() if name in here}
    for view in more:
        if view.name in behind and (failed := _failure_of(view, store)) is not None:
            del behind[view.name]
            yield Finding("problem", "views", printable(str(failed)), "the others go on")
    if newer:
        yield Finding(
            "problem", "views", f"a newer refold made {', '.join(newer)}", "upgrade this one"
        )
    if older:
        yield Finding(
            "note",
            "views",
            f"missing, or of an older release: {', '.join(older)}",
            "refold rebuild, or whoever opens the store next folds them anew",
        )
    if behind:
        listed = ", ".join(f"{name} by {by}" for name, by in behind.items())
        yield Finding(
            "note", "views", f"behind the log: {listed}", "whoever reads them next catches them up"
        )
    unknown = sorted(known.keys() - here.keys())
    if unknown:
        yield Finding(
            "note",
            "views",
            f"of somebody's own, not known here: {', '.join(unknown)}",
            "pass the module that defines them: --import MODULE",
        )
    if not (newer or older or behind):
        yield Finding("ok", "views", "up to date")


def _failure_of(view: View[Any], store: EventStore) -> ProjectionFailed | None:
    """Fold the log into a view, in memory, and return what it fails on."""
    unit = UnitOfWork((view,), own=(view,))
    for page in read_facts(store.reading, 0, store.head(), types_of((view,))):
        for fact in page:
            unit.take_in(*fact)
    return unit.failed.get(view)


def check_equality(store: EventStore, more: Sequence[View[Any]]) -> Findings:
    """Fold the whole log in memory, and compare."""
    with store.reading() as connection:
        known = projections_of(connection)
    differences = Views(store, [view for view in more if view.name in known]).verify()
    for difference in differences[:FEW]:
        yield Finding("problem", "verify", printable(str(difference)), "refold rebuild")
    if len(differences) > FEW:
        yield Finding("problem", "verify", f"and {len(differences) - FEW} more", "refold verify")
    if not differences:
        yield Finding("ok", "verify", "views equal the log")


QUIET = 10 * 60 * times.SECOND
"""Microseconds after which a store in which something should go on is suspiciously quiet."""

SILENT = 60 * 60 * times.SECOND
"""Microseconds after which somebody who should be at work is suspiciously silent."""


def check_members(members: Sequence[Row], now: int) -> Findings:
    """Look for who was lost, or is silent, while it has something to do.

    Args:
        members: who takes part, see `refold.who`.
        now: the time.
    """
    well = True
    for one in members:
        silence = now - times.from_text(one["heard"])
        doing = f", and has in progress: {one['on']}" if one["on"] else ""
        if one["lost_since"] is not None:
            lost = times.to_iso(one["lost_since"])
            yield Finding("note", "workers", printable(f"{one['who']} was lost at {lost}"))
        elif one["alive"] is False:
            well = False
            yield Finding(
                "problem",
                "workers",
                printable(f"{one['who']} is gone: its process has dropped its lock{doing}"),
                "refold recover takes back what it had, and nothing else",
            )
        elif one["on"] and silence > SILENT:
            well = False
            known = "its process is alive" if one["alive"] else "nothing tells whether it is alive"
            yield Finding(
                "problem",
                "workers",
                printable(f"{one['who']} has been silent for {span(silence)}{doing}; {known}"),
                f"does it hang? refold recover --lost {one['who']} takes back what it has",
            )
    if well and any(one["alive"] for one in members):
        yield Finding("ok", "workers", "whoever has something to do is alive")


LEFT = {
    "worker_task": "tasks",
    "actor_tasks": "tasks of actors",
    "contexts": "contexts",
    "worker_progress": "workers",
}
"""What a crash leaves under way, and `refold recover --all` gives up."""

UNDER_WAY = ", ".join(f"'{word}'" for word, stage in STAGES.items() if stage is Stage.UNDER_WAY)


def check_leftovers(store: EventStore) -> Findings:
    """Look for what is in progress in a store in which nothing happens any more."""
    last = next(store.read(limit=1, backwards=True, unknown=True), None)
    if last is None:
        return
    silence = times.now() - last.recorded_at
    if silence < QUIET:
        return
    with store.reading() as connection:
        known = projections_of(connection)
        counts = {
            word: connection.execute(
                f"SELECT count(*) FROM {table} WHERE upper(status) IN ({UNDER_WAY})"
            )
            for table, word in LEFT.items()
            if table in known
        }
        waiting: list[tuple[int, str, int]] = []
        if "interactive_control" in known:
            waiting = [
                (ic_id, operation, run_id)
                for ic_id, operation, run_id in connection.execute(
                    "SELECT ic_id, operation, run_id FROM interactive_control_folded "
                    "WHERE status = 'PENDING' ORDER BY ic_id"
                )
            ]
    left = ", ".join(f"{word} {found[0][0]}" for word, found in counts.items() if found[0][0])
    if left:
        yield Finding(
            "note",
            "in progress",
            f"nothing has happened for {span(silence)}, and these are in progress: {left}",
            "refold recover takes back what the dead had; refold recover --all gives up all of it",
        )
    if waiting:
        listed = ", ".join(f"{ic_id} ({operation} run {run})" for ic_id, operation, run in waiting)
        yield Finding(
            "note",
            "requests",
            f"nobody has heard, for {span(silence)}: {listed}",
            "is the controller running? It takes them up when it starts again",
        )
    if not left and not waiting:
        yield Finding("ok", "leftovers", "nothing was left in progress")

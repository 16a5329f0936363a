"""The log: whether it is whole, in order, protected and readable."""

import hashlib
from collections import Counter
from collections.abc import Iterable

from refold.cli.checkup.finding import FEW, Finding, Findings
from refold.cli.output import printable, size, time_of
from refold.eventstore import EventStore
from refold.eventstore.engine import Connection
from refold.eventstore.errors import DamagedEvent
from refold.eventstore.events import UnknownEvent

# Each stream is counted 1, 2, 3 … and each event knows the one before it.
BROKEN_CHAINS = f"""
    SELECT e.position FROM events e LEFT JOIN events p ON p.position = e.previous
    WHERE CASE WHEN e.version = 1 THEN p.position IS NOT NULL
          ELSE p.position IS NULL OR p.stream <> e.stream OR p.version <> e.version - 1 END
    ORDER BY e.position LIMIT {FEW}"""

WRONG_HEADS = f"""
    SELECT s.stream FROM streams s
    LEFT JOIN (SELECT stream, count(*) AS events, max(position) AS position
               FROM events GROUP BY stream) AS found ON found.stream = s.stream
    WHERE found.stream IS NULL OR found.events <> s.version OR found.position <> s.position
    ORDER BY s.stream LIMIT {FEW}"""

BACK_IN_TIME = f"""
    SELECT position FROM (
        SELECT position, recorded_at, lag(recorded_at) OVER (ORDER BY position) AS before
        FROM events) AS times
    WHERE recorded_at < before ORDER BY position LIMIT {FEW}"""


def check_order(connection: Connection, *, gapless: bool) -> Findings:
    """Look whether positions, versions, streams and times are as they should be."""
    [(count, first, last, begun, ended)] = connection.execute(
        "SELECT count(*), min(position), max(position), min(recorded_at), max(recorded_at) "
        "FROM events"
    )
    if not count:
        yield Finding("fact", "log", "nothing has happened yet")
        return
    yield Finding("fact", "log", f"{count} events, from {time_of(begun)} to {time_of(ended)}")
    problems: list[Finding] = []
    missing = last - count
    if missing and gapless:
        problems.append(_problem(f"{missing} positions up to {last} hold no event: some are lost"))
    for sql, what in (
        (BROKEN_CHAINS, "event {} does not follow on the one before it in its stream"),
        (WRONG_HEADS, "stream {} does not end where it should"),
    ):
        found = [str(one) for (one,) in connection.execute(sql)]
        problems += [_problem(what.format(printable(one))) for one in found]
    yield from problems
    if not problems:
        gaps = f"; {missing} positions were rolled back" if missing else ""
        yield Finding("ok", "order", f"positions {first} to {last}, streams without gaps{gaps}")
    back = [position for (position,) in connection.execute(BACK_IN_TIME)]
    if back and gapless:  # on a server, of two commands at once the later may be a bit earlier
        at = ", ".join(map(str, back))
        yield _problem(f"times run back at {at}: --at TIME may be wrong there")


def _problem(text: str) -> Finding:
    return Finding("problem", "order", text, "somebody has altered the log: restore a backup")


def check_protection(expected: Iterable[str], there: Iterable[str]) -> Findings:
    """Look whether the triggers are there that refuse to change what has happened."""
    missing = sorted(set(expected) - set(there))
    if missing:
        yield Finding(
            "problem",
            "protection",
            f"the log can be altered: there is no trigger {', '.join(missing)}",
            "create it as tables.sql does",
        )
    else:
        yield Finding("ok", "protection", "triggers refuse to alter the log")


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
        told = ", ".join(f"{printable(name)} ({n})" for name, n in unknown.most_common())
        yield Finding(
            "note",
            "events",
            f"of types that are not known here: {told}",
            "pass the module that defines them: --import MODULE",
        )


def check_payloads(store: EventStore, *, thorough: bool) -> Findings:
    """Count the payloads; look whether each is what its name says, if there is time."""
    with store.reading() as connection:
        [(count, total)] = connection.execute("SELECT count(*), sum(length(content)) FROM payloads")
        yield Finding("fact", "payloads", f"{count} of {size(int(total or 0))}")
        digests = [one for (one,) in connection.execute("SELECT digest FROM payloads")]
    if not thorough:
        return
    wrong = [
        digest
        for digest, content in store.get_payloads(digests)
        if hashlib.sha256(content).hexdigest() != digest
    ]
    for digest in wrong[:FEW]:
        yield Finding(
            "problem",
            "payloads",
            f"payload {digest} is not what its digest says",
            "somebody has altered it: restore a backup",
        )
    if count and not wrong:
        yield Finding("ok", "payloads", "each is what its digest says")

"""Writing a log as JSON Lines."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, BinaryIO

import msgspec

from refold.eventstore.codec import damaged
from refold.eventstore.errors import UnreadableEvent
from refold.eventstore.log.past import PastStore
from refold.eventstore.log.readable import ReadableLog
from refold.eventstore.log.rows import command_rows, digests_in, event_rows, payload_rows
from refold.eventstore.progress import ProgressBar
from refold.eventstore.sql import KEYS
from refold.export.columns import Source
from refold.export.json_lines.line import (
    FORMAT,
    CommandLine,
    End,
    EventLine,
    Line,
    Log,
    PayloadLine,
    refuse_unreadable,
    time_of,
)

_encode = msgspec.json.Encoder().encode


def write(
    log: Source | ReadableLog,
    file: BinaryIO,
    *,
    payloads: bool = True,
    progress: bool | None = None,
) -> int:
    """Write the log as JSON Lines: its events, the results of commands, the payloads.

    Events that come in meanwhile are left out. Of a log as of a moment, it is the payloads that its
    events name.

    Args:
        log: a store, or the face of one; also as of a moment.
        file: open for writing bytes; a few megabytes of the log are in memory at a time.
        payloads: if not, the events keep the digests, and the file is for reading only: no log can
            be made of it again.
        progress: show a progress bar; None: only on a terminal.

    Returns:
        how many events were written.

    Raises:
        DamagedEvent, UnknownEventType: an event cannot be decoded; what comes before it has been
            written. Types of a user's own need not be defined here.
    """
    store = log if isinstance(log, ReadableLog) else log.store
    until = store.head()

    def put(lines: Iterable[Line]) -> int:
        count = 0
        for line in lines:
            file.write(_encode(line) + b"\n")
            count += 1
        return count

    strays = set(store.strays())
    put([Log(FORMAT, until, payloads)])
    counts = [0, 0, 0]
    bar = ProgressBar("exporting events", until, progress)
    with closing(_Named()) as named, bar:
        for page in event_rows(store, until):
            counts[0] += put(_event(row, row[0] in strays) for row in page)
            if payloads and isinstance(store, PastStore):
                named.take_in(row[5] for row in page)
            bar.update(page[-1][0] - bar.n)
        for page in command_rows(store, until):
            counts[1] += put(map(_command, page))
        if payloads:
            there = named.payloads(store) if isinstance(store, PastStore) else payload_rows(store)
            counts[2] = put(PayloadLine(digest, content) for digest, content in there)
    put([End(*counts)])
    return counts[0]


def _event(row: tuple[Any, ...], stray: bool) -> EventLine:
    position, stream, version, type_name, schema_version, data, metadata, recorded_at = row
    try:
        refuse_unreadable(position, type_name, schema_version, data, metadata)
        if any("\n" in text or text != text.strip() for text in (data, metadata)):
            error = ValueError("it was altered, there are blanks or lines around it")
            raise damaged(type_name, schema_version, position, error)
    except UnreadableEvent as error:
        failure = type(error)(f"{error}. Export the log as of position {position - 1}")
        failure.position = position
        raise failure from error
    return EventLine(
        position,
        stream,
        version,
        type_name,
        schema_version,
        time_of(recorded_at),
        msgspec.Raw(metadata),
        msgspec.Raw(data),
        stray,
    )


def _command(row: tuple[Any, ...]) -> CommandLine:
    command_id, command, first, last, result = row
    return CommandLine(command_id, command, first, last, msgspec.Raw(result))


class _Named:
    """The digests that events name, on disk, as there may be as many as events."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")  # a temporary file
        self._db.execute("CREATE TABLE named (digest TEXT PRIMARY KEY) WITHOUT ROWID")

    def take_in(self, data: Iterable[str]) -> None:
        """Note what can be a digest in the data of events, whatever their types."""
        digests = ((digest,) for text in data for digest in digests_in(text))
        self._db.executemany("INSERT OR IGNORE INTO named VALUES (?)", digests)

    def payloads(self, store: ReadableLog) -> Iterator[tuple[str, bytes]]:
        """Iterate over the payloads that they name."""
        found = self._db.execute("SELECT digest FROM named ORDER BY digest")
        while some := found.fetchmany(KEYS):
            yield from store.get_payloads(digest for (digest,) in some)

    def close(self) -> None:
        """Remove them."""
        self._db.close()

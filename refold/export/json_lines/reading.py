"""Making a store of a log in JSON Lines."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, BinaryIO

import msgspec

from refold.eventstore import Transaction, open_store, times
from refold.eventstore.digests import key_id, log_key
from refold.eventstore.engines.log_end import LEVEL, EventRow, digest_of_row, store_row
from refold.eventstore.errors import InvalidFile, NotAStore, UnreadableEvent
from refold.eventstore.paging import PAGE, chunks, parcels
from refold.eventstore.progress import ProgressBar
from refold.eventstore.sql import marks
from refold.export.json_lines.writing import (
    FORMAT,
    CommandLine,
    End,
    EventLine,
    Log,
    PayloadLine,
    refuse_unreadable,
)
from refold.projections import View, Views

FIRST_LINE = 4096
"""Bytes that a first line has at most: another file's may be as long as the file."""

Numbered = tuple[int, EventLine | CommandLine | PayloadLine]

_decode = msgspec.json.Decoder(Log | EventLine | CommandLine | PayloadLine | End).decode


def read(
    file: BinaryIO,
    place: str | os.PathLike[str],
    *,
    projections: Iterable[View[Any]] = (),
    progress: bool | None = None,
) -> int:
    """Make a store of a log that `write` has written: an equal log, and its views.

    The store is there as a whole or not at all: whatever interrupts it leaves an empty one, for
    which the next attempt is as good as the first.

    Args:
        file: open for reading bytes; a few megabytes of it are in memory at a time.
        place: a path or URL where no store is yet, or an empty one.
        projections: views of your own, to be built there like the others.
        progress: show progress bars; None: only on a terminal.

    Returns:
        how many events there are.

    Raises:
        InvalidFile: it is not such a file, is not complete, or has a wrong line.
        NotAStore: the place holds something already; nothing was written.
    """
    log = _first_line(file)
    with open_store(place) as store, store.transaction() as transaction:
        _refuse_unless_empty(transaction, store.engine.name)
        reading = _Reading(transaction, log)
        with ProgressBar("importing events", log.until, progress) as bar:
            for lines in _parcels(reading.lines(file)):
                reading.take_in(lines)
                bar.update(reading.position - bar.n)
        reading.check_end(log)
        Views(store, projections).rebuild(progress=progress)
    return reading.events


def _first_line(file: BinaryIO) -> Log:
    text = file.readline(FIRST_LINE)
    try:
        log = _decode(text)
        if not isinstance(log, Log):
            raise ValueError(f"its kind is {log.__struct_config__.tag}")
    except (ValueError, RecursionError) as error:
        raise InvalidFile(
            f'line 1 is not {{"kind":"log", …}}, with which the JSON Lines of refold begin: pass a '
            f"file that `refold export` has written ({error})"
        ) from error
    if log.format > FORMAT:
        raise InvalidFile(
            f"line 1: the file has format {log.format}, this refold reads up to {FORMAT}: upgrade "
            f"refold"
        )
    if log.store is not None and log.store.level > LEVEL:
        raise InvalidFile(
            f"line 1: the log has events of level {log.store.level}, this refold knows them up to "
            f"level {LEVEL}: upgrade refold"
        )
    if not log.payloads:
        raise InvalidFile(
            "line 1: the payloads were left out of this file, and no log is whole without them: "
            "export it again with them"
        )
    return log


def _refuse_unless_empty(transaction: Transaction, name: str) -> None:
    for table in ("events", "commands", "payloads"):
        if transaction.writer.execute(f"SELECT 1 FROM {table} LIMIT 1"):
            raise NotAStore(f"{name} is not empty, it holds {table}: pass a place of its own")


def _parcels(lines: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    """Cut lines into parcels, each of one kind."""
    for _, alike in groupby(lines, key=lambda numbered: type(numbered[1])):
        yield from parcels(((numbered, _weight(numbered[1])) for numbered in alike), PAGE)


def _weight(line: EventLine | CommandLine | PayloadLine) -> int:
    if isinstance(line, EventLine):
        return len(memoryview(line.data))
    return len(line.content if isinstance(line, PayloadLine) else memoryview(line.result))


class _Reading:
    """Puts lines into a store, one kind at a time, and checks them against all before them."""

    def __init__(self, transaction: Transaction, log: Log) -> None:
        self._transaction = transaction
        if log.store is not None:
            there = store_row(transaction.writer)
            told = msgspec.structs.asdict(log.store)
            transaction.set_store(there._replace(**{**told, "gaps": log.store.gaps | there.gaps}))
        self._store = store_row(transaction.writer)
        key = log_key()
        self._key = key if key is not None and key_id(key) == self._store.key_id else None
        self.position = 0
        self.events = self._commands = self._payloads = 0
        self._farthest = (0, 0)
        """The last event that a command names, and the command's line."""
        self._end: End | None = None
        self._has_digests = log.store is not None

    def lines(self, file: BinaryIO) -> Iterator[Numbered]:
        """Iterate over the lines between the first and the last.

        Raises:
            InvalidFile: one is not what it should be, or there is no last.
        """
        number = 1
        for number, text in enumerate(file, 2):
            if self._end is not None:
                raise InvalidFile(f"line {number}: nothing can follow the last line")
            try:
                line = _decode(text)
            except (ValueError, RecursionError) as error:
                cut = "" if text.endswith(b"\n") else "the file ends in the middle of it: "
                raise InvalidFile(f"line {number}: {cut}{error}") from error
            if isinstance(line, End):
                self._end = line
            elif isinstance(line, Log):
                raise InvalidFile(
                    f"line {number}: another log begins: pass each in a file of its own"
                )
            else:
                yield number, line
        if self._end is None:
            raise InvalidFile(
                f'the file ends after line {number}, without the line {{"kind":"end", …}}: it was '
                f"cut off; fetch or export it again"
            )

    def take_in(self, lines: list[Numbered]) -> None:
        """Append what the lines hold."""
        events = [(number, line) for number, line in lines if isinstance(line, EventLine)]
        commands = [(number, line) for number, line in lines if isinstance(line, CommandLine)]
        payloads = [(number, line) for number, line in lines if isinstance(line, PayloadLine)]
        if events:
            self._append(events)
        if commands:
            self._remember(commands)
        if payloads:
            self._put(payloads)

    def check_end(self, log: Log) -> None:
        """See whether everything came.

        Raises:
            InvalidFile: lines are missing, or do not belong together.
        """
        came = End(self.events, self._commands, self._payloads)
        if self._end != came:
            raise InvalidFile(
                f"the last line counts {self._end}, and the file holds {came}: lines are missing "
                f"or repeated; fetch or export it again"
            )
        if self.position > log.until:
            raise InvalidFile(
                f"line 1 says that the log ends at {log.until}, and there is an event "
                f"{self.position}"
            )
        last, number = self._farthest
        if last > self.position:
            raise InvalidFile(f"line {number}: the command names event {last}, which is not here")

    # --- events ---------------------------------------------------------------------------

    def _append(self, lines: list[tuple[int, EventLine]]) -> None:
        heads = self._heads({line.stream for _, line in lines})
        rows: list[EventRow] = []
        for number, line in lines:
            version, previous, before = heads.get(line.stream, (0, 0, None))
            try:
                row = _row(line, previous or None)
            except (UnreadableEvent, UnicodeDecodeError) as error:
                raise InvalidFile(f"line {number}: {error}") from error
            if line.position <= self.position:
                raise InvalidFile(
                    f"line {number}: event {line.position} follows event {self.position}: "
                    f"positions ascend"
                )
            if line.version != version + 1:
                raise InvalidFile(
                    f"line {number}: version {line.version} of stream {line.stream!r} follows "
                    f"version {version}: they are 1, 2, 3 …"
                )
            row = self._chained(row, before, number)
            self.position = line.position
            heads[line.stream] = (line.version, line.position, row.digest)
            rows.append(row)
        strays = [line.position for _, line in lines if line.stray]
        self._transaction.append_rows(rows, strays)
        self._transaction.flush()
        self.events += len(rows)

    def _chained(self, row: EventRow, before: bytes | None, number: int) -> EventRow:
        """Return an event with its digest, as far as it has one and it can be checked.

        Raises:
            InvalidFile: it has another than it should have, or none.
        """
        store = self._store
        if row.position <= store.unchecked:
            return row
        signed = store.keyed_after is not None and row.position > store.keyed_after
        if signed and self._key is None and row.digest is not None:
            return row
        digest = digest_of_row(row, before, self._key if signed else None)
        if row.digest not in ((digest,) if self._has_digests else (digest, None)):
            raise InvalidFile(
                f"line {number}: the digest of event {row.position} is not that of what it holds, "
                f"and of the event before it in stream {row.stream!r}: the file was altered"
            )
        return row._replace(digest=digest)

    def _heads(self, streams: Iterable[str]) -> dict[str, tuple[int, int, bytes | None]]:
        """Return the version, last position and digest of streams, as far as there are any."""
        found = self._found("stream, version, position, digest", "streams", streams)
        return {stream: (version, last, digest) for stream, version, last, digest in found}

    def _found(self, columns: str, table: str, keys: Iterable[str]) -> list[tuple[Any, ...]]:
        key, wanted = columns.partition(",")[0], sorted(keys)
        rows: list[tuple[Any, ...]] = []
        for part in chunks(wanted):
            rows += self._transaction.writer.execute(
                f"SELECT {columns} FROM {table} WHERE {key} IN ({marks(part)})", part
            )
        return rows

    # --- commands and payloads ------------------------------------------------------------

    def _remember(self, lines: list[tuple[int, CommandLine]]) -> None:
        known = {
            command_id
            for (command_id,) in self._found(
                "command_id", "commands", [line.command_id for _, line in lines]
            )
        }
        rows: list[tuple[Any, ...]] = []
        for number, line in lines:
            first, last = line.first or 0, line.last or 0
            if line.command_id in known:
                raise InvalidFile(f"line {number}: command id {line.command_id!r} is here twice")
            if first > last or (line.first is None) != (line.last is None):
                raise InvalidFile(f"line {number}: the first event is {first}, the last {last}")
            known.add(line.command_id)
            self._farthest = max(self._farthest, (last, number))
            result = bytes(line.result).decode()
            rows.append((line.command_id, line.command, line.first, line.last, result))
        columns = ("command_id", "command", "first", "last", "result")
        self._transaction.writer.insert("commands", columns, rows)
        self._commands += len(rows)

    def _put(self, lines: list[tuple[int, PayloadLine]]) -> None:
        for number, line in lines:
            if hashlib.sha256(line.content).hexdigest() != line.digest:
                raise InvalidFile(
                    f"line {number}: the payload is not the one that its digest {line.digest} names"
                )
        rows = [(line.digest, line.content) for _, line in lines]
        self._transaction.writer.insert(
            "payloads", ("digest", "content"), rows, "ON CONFLICT (digest) DO NOTHING"
        )
        self._payloads += len(rows)


def _row(line: EventLine, previous: int | None) -> EventRow:
    """Return the row that a line makes, if its event can be read.

    Raises:
        UnreadableEvent, UnicodeDecodeError: it cannot.
    """
    row = EventRow(
        position=line.position,
        stream=line.stream,
        version=line.version,
        previous=previous,
        type=line.type,
        schema_version=line.schema_version,
        data=bytes(line.data).decode(),
        metadata=bytes(line.metadata).decode(),
        recorded_at=times.from_calendar(line.recorded_at),
        digest=None if line.digest is None else bytes.fromhex(line.digest),
    )
    refuse_unreadable(row)
    return row

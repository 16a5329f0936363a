"""Whether a log is what was appended: every event against its digest, and what else is there."""

import struct
from collections.abc import Collection, Iterator

import msgspec

from refold.eventstore.digests import KEY_VARIABLE, digest_of, key_id, log_key
from refold.eventstore.engines.engine import Reader, Values
from refold.eventstore.engines.log_end import STREAM_COLUMNS, EventRow, StoreRow, store_row
from refold.eventstore.errors import DBException
from refold.eventstore.paging import PAGE


class Fault(msgspec.Struct, frozen=True):
    """Something in a log that refold has not written so."""

    about: str
    """What it is about, such as `event 17`, `stream run-5`, `trigger backup`."""
    text: str
    position: int | None = None
    """The event's, if it is about one."""

    def __str__(self) -> str:
        return f"{self.about}: {self.text}"


Head = tuple[int, int, bytes | None]
"""Of a stream: the version, position and digest of its last event."""

NO_HEAD: Head = (0, 0, None)


def faults(
    connection: Reader, *, known: Collection[str] | None, until: int | None
) -> Iterator[Fault]:
    """Iterate over what was altered, is missing, was inserted or swapped, or is not refold's.

    An event is altered if its digest is not that of its columns and of the event before it in its
    stream. Without a key, somebody who rewrites a stream together with its digests is not seen.

    Args:
        connection: sees one moment.
        known: the names of the tables and SQL views of views; None: others are no faults.
        until: the position up to which events are looked at; None: all, and the streams' heads.
    """
    for about, text in connection.foreign(known):
        yield Fault(about, text)
    chains = _Chains(store_row(connection))
    yield from chains.begin()
    after = 0
    try:
        while page := connection.exact_events(after, PAGE):
            for row in page:
                if until is not None and isinstance(row[0], int) and row[0] > until:
                    return
                yield from chains.take_in(row)
            last = page[-1][0]
            if not isinstance(last, int) or last <= after:
                yield Fault("log", f"positions do not ascend behind {after}: the file is damaged")
                return
            after = last
        if until is None:
            yield from chains.compare(connection)
    except DBException as error:
        yield Fault("log", f"it cannot be read behind event {after}: {error}")


class _Chains:
    """Follows every stream from its first event on."""

    def __init__(self, log: StoreRow) -> None:
        self._log = log
        self._heads: dict[bytes, Head] = {}
        self._position = 0
        key = log_key()
        self._key = key if key is not None and key_id(key) == log.key_id else None

    def begin(self) -> Iterator[Fault]:
        """Say what cannot be looked at."""
        log = self._log
        if log.keyed_after is not None and self._key is None:
            yield Fault(
                "log",
                f"events after {log.keyed_after} are signed, and were not checked: set "
                f"{KEY_VARIABLE} to the key",
            )

    def take_in(self, row: Values) -> Iterator[Fault]:
        """Look at the next event."""
        event = EventRow._make(row)
        position, stream = event.position, event.stream
        if not (isinstance(position, int) and isinstance(stream, bytes)):
            yield Fault(f"event {position}", "it was altered: its position or stream is none")
            return
        log, expected = self._log, self._position + 1
        if position > expected and not log.gaps:
            span = f"{expected}" if position == expected + 1 else f"{expected} to {position - 1}"
            yield Fault(f"event {span}", "it is missing", expected)
        self._position = max(self._position, position)
        version, previous, before = self._heads.get(stream, NO_HEAD)
        name = stream.decode(errors="replace")
        wrong: list[str] = []
        if event.version != version + 1:
            wrong.append(
                f"it is version {event.version} of stream {name}, which was at {version}: events "
                f"are missing, or were inserted or swapped"
            )
        if (event.previous or 0) != previous:
            wrong.append(
                f"it says that event {event.previous} is the one before it in stream {name}, and "
                f"{previous or 'none'} is"
            )
        if position > log.unchecked and not self._is_whole(row, before):
            wrong.append("its digest is not that of what it holds: it was altered")
        if wrong:
            yield Fault(f"event {position}", "; ".join(wrong), position)
        number = event.version if isinstance(event.version, int) else version + 1
        self._heads[stream] = (number, position, event.digest)

    def _is_whole(self, row: Values, before: bytes | None) -> bool:
        position, stream, version, _, kind, schema, data, metadata, recorded_at, digest = row
        keyed_after = self._log.keyed_after
        signed = keyed_after is not None and position > keyed_after
        if signed and self._key is None:
            return isinstance(digest, bytes)
        key = self._key if signed else None
        try:
            columns = (stream, version, kind, schema, data, metadata, recorded_at)
            return digest == digest_of(before, position, *columns, key)
        except (struct.error, TypeError):  # a number or a text is none any more
            return False

    def compare(self, connection: Reader) -> Iterator[Fault]:
        """Look whether every stream ends where the table `streams` says."""
        heads = {stream.decode(errors="replace"): head for stream, head in self._heads.items()}
        for stream, *head in connection.execute(
            f"SELECT {', '.join(STREAM_COLUMNS)} FROM streams WHERE version <> 0"
        ):
            if (found := heads.pop(stream, NO_HEAD)) != tuple(head):
                version, position, _ = found
                text = f"the table streams has it end with version {head[0]} at {head[1]}"
                yield Fault(f"stream {stream}", f"{text}, the log with {version} at {position}")
        for stream in heads:
            yield Fault(f"stream {stream}", "the table streams does not know it")

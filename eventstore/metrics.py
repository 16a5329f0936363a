"""Points of metrics in bulk: packed into a payload, and the lane that holds them until then.

A lane is a file that one process maps and logs points into, as fast as memory. It is a ring of
records of 32 bytes, each with a checksum of its own; its room on the disk is reserved when it is
made. What a process has put there, the system keeps when the process is killed. Whoever holds the
lock of the file brings its points into the log, in blocks; the lock goes with its holder.
"""

import fcntl
import mmap
import os
import struct
import sys
import zlib
from array import array
from collections.abc import Mapping
from contextlib import suppress
from itertools import accumulate, pairwise
from math import isfinite, isnan
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from refold.eventstore.errors import InvalidPayload, StoreFailed
from refold.eventstore.event import Id, Metadata
from refold.eventstore.events import Measured

# --- points -------------------------------------------------------------------------------------


class Points(NamedTuple):
    """Points of one metric, in the order in which they were logged."""

    steps: list[int]
    times: list[int]
    """Milliseconds since 1970-01-01 UTC."""
    values: list[float]


def summary(points: Points) -> Measured:
    """Return what views know of points."""
    steps, _, values = points
    finite = [value for value in values if isfinite(value)]
    last = values[-1]
    told: dict[str, Any] = {"step": steps[-1], "count": len(values)}
    told |= {"last": last} if isfinite(last) else {"word": word_of(last)}
    if len(values) > 1:
        told["first_step"] = steps[0]
        if isfinite(values[0]):
            told["first"] = values[0]
        if finite:
            low, high = min(finite), max(finite)
            told |= {"min": low, "min_step": steps[values.index(low)]}
            told |= {"max": high, "max_step": steps[values.index(high)]}
    return msgspec.convert(told, Measured)


def word_of(value: float) -> str:
    """Return the word for what is no finite number."""
    return "nan" if isnan(value) else "inf" if value > 0 else "-inf"


class _Integers(msgspec.Struct, array_like=True, frozen=True):
    """Steps or times, of which each is mostly a little more than the one before."""

    first: int
    kind: str
    """Of the differences, as `array` names it: as short as they allow."""
    differences: bytes
    """Deflated."""


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    """Points of one metric as they lie in a payload."""

    steps: _Integers
    times: _Integers
    kind: str
    """`f` or `d`: 4 or 8 bytes for each value; the former only where it keeps all of them."""
    values: bytes


def pack(points: Mapping[str, Points]) -> dict[str, Any]:
    """Return points as plain data, to be made a payload of; `unpack` gives them back.

    Of each metric there is at least one.
    """
    return {
        name: msgspec.to_builtins(_packed(some), builtin_types=(bytes,))
        for name, some in points.items()
    }


def unpack(packed: Any, metric: str) -> Points:
    """Return the points of a metric; none if the payload holds none of it.

    Raises:
        InvalidPayload: the payload is none of `pack`.
    """
    try:
        if metric not in packed:
            return Points([], [], [])
        held = msgspec.convert(packed[metric], _Packed)
        values = _array(held.kind, held.values).tolist()
        return Points(_inflated(held.steps), _inflated(held.times), values)
    except (TypeError, ValueError, KeyError, zlib.error, msgspec.ValidationError) as error:
        raise InvalidPayload(f"the payload holds no points of metrics: {error}") from error


def _packed(points: Points) -> _Packed:
    short = array("f", _in_range(points.values))
    kind = "f" if all(map(_is_same, short, points.values)) else "d"
    values = short if kind == "f" else array("d", points.values)
    return _Packed(_deflated(points.steps), _deflated(points.times), kind, _bytes(values))


def _in_range(values: list[float]) -> list[float]:
    # Larger ones would raise instead of becoming infinite.
    return [
        value if -3e38 < value < 3e38 else 0.0 if isfinite(value) else value for value in values
    ]


def _is_same(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)


def _deflated(numbers: list[int]) -> _Integers:
    # Modulo 64 bits, so that no difference is too large.
    differences = [_signed(b - a) for a, b in pairwise(numbers)]
    widest = max((abs(difference) for difference in differences), default=0)
    kind = next(kind for kind, bits in _KINDS.items() if widest < 1 << bits or kind == "q")
    return _Integers(numbers[0], kind, zlib.compress(_bytes(array(kind, differences))))


def _inflated(held: _Integers) -> list[int]:
    differences = _array(held.kind, zlib.decompress(held.differences))
    return list(accumulate(differences, lambda a, b: _signed(a + b), initial=held.first))


def _signed(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


_KINDS = {"b": 7, "h": 15, "i": 31, "q": 63}
"""Kinds of integers, as `array` names them, with their bits."""


def _bytes(numbers: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def _array(kind: str, data: bytes) -> "array[Any]":
    numbers = array(kind, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


# --- the lane -----------------------------------------------------------------------------------

RECORD = 32
HEAD = 4096
NAMES = 1 << 16
START = HEAD + NAMES
"""Where the records begin: behind what the lane is about, and the names of its metrics."""

RECORDS = 1 << 21
"""How many points a lane holds: 64 MiB."""

SUFFIX = ".lane"

_MAGIC = b"refold lane 1\n"
_CHECKED = struct.Struct("<IH")
"""A checksum and a length, before a text."""
_STATE = struct.Struct("<IQQQQQ")
_STATES = (3584, 3840)
"""The state is written to these places by turns, so that one of them is always whole."""
_LEFT_OUT = 3072
_count = struct.Struct("=Q")

body_of = struct.Struct("=Hxxqqd").pack
"""Of a record: the number of the metric, the step, the time, and the value."""
checksum_of = struct.Struct("=I").pack


class About(msgspec.Struct, frozen=True):
    """What a lane is about."""

    store: str
    """The id of the log."""
    lane: str
    """An id of its own."""
    run_id: Id
    attempt: Id | None
    metadata: Metadata
    signed: bool
    """Whether payloads of its process are; who has no key cannot bring it in."""
    records: int


class State(msgspec.Struct, frozen=True, array_like=True):
    """How far a lane has been brought into the log."""

    turn: int = 0
    begun: int = 0
    """Up to this record it may have been; the block that ends here is brought in again."""
    done: int = 0
    """Up to this record it has been."""
    begun_left_out: int = 0
    """How many points had been left out by then, for want of room."""
    done_left_out: int = 0


class Block(NamedTuple):
    """A part of a lane, to be brought in by one command."""

    command_id: str
    points: dict[str, Points]
    left_out: int
    """How many points were left out since the block before."""


class Lane:
    """The file; one thread at a time logs into it, and one brings in."""

    def __init__(self, path: Path, file: int, about: About) -> None:
        self.path = path
        self.about = about
        self.file = file
        self.map = mmap.mmap(file, START + about.records * RECORD)
        self.state = self._last_state()
        self.names: list[str] = []
        self._names_end = HEAD
        self.left_out: int = _count.unpack_from(self.map, _LEFT_OUT)[0]
        """How many points have been left out, for want of room."""

    @classmethod
    def create(cls, folder: Path, about: About) -> "Lane":
        """Make one, locked.

        Raises:
            StoreFailed: there is no room for it, or no right to make it.
        """
        path = folder / f"{about.lane}{SUFFIX}"
        new = path.with_suffix(".new")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A page that the disk has no room for would end the process by SIGBUS.
                os.posix_fallocate(file, 0, START + about.records * RECORD)
                text = msgspec.json.encode(about)
                os.pwrite(file, _MAGIC + _CHECKED.pack(zlib.crc32(text), len(text)) + text, 0)
                os.rename(new, path)
                return cls(path, file, about)
            except BaseException:
                os.close(file)
                new.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreFailed(
                f"{path}: a lane for metrics needs {(START + about.records * RECORD) >> 20} MiB on "
                f"this disk, and they cannot be had: {error.strerror}; use log_metrics() instead"
            ) from error

    @classmethod
    def take_over(cls, path: Path, store: str) -> "Lane | None":
        """Lock and open one whose process has gone; None: it is in use, another log's, or none.

        Args:
            path: of the file.
            store: the id of the log.
        """
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            about = _about(file)
            if about is not None and about.store == store and os.fstat(file).st_nlink:
                lane = cls(path, file, about)
                lane.read_names()
                return lane
        except (OSError, ValueError):  # it is in use, or cut off
            pass
        os.close(file)
        return None

    # --- names --------------------------------------------------------------------------------

    def add_name(self, name: str) -> int:
        """Note the name of a metric and return its number.

        Raises:
            StoreFailed: there is no room for so many.
        """
        text = name.encode()
        entry = _CHECKED.pack(zlib.crc32(text), len(text)) + text
        if self._names_end + len(entry) > START:
            raise StoreFailed(
                f"run {self.about.run_id}: a lane holds the names of {NAMES >> 10} KiB of metrics; "
                f"{name!r} has no room: use log_metrics() for some of them"
            )
        self.map[self._names_end : self._names_end + len(entry)] = entry
        self._names_end += len(entry)
        self.names.append(name)
        return len(self.names) - 1

    def read_names(self) -> None:
        """Read the names that a process before has noted."""
        while (text := _text_at(self.map, self._names_end)) is not None and text:
            self._names_end += _CHECKED.size + len(text)
            self.names.append(text.decode())

    def leave_out(self, points: int) -> None:
        """Note that points are left out."""
        self.left_out += points
        _count.pack_into(self.map, _LEFT_OUT, self.left_out)

    # --- bringing in --------------------------------------------------------------------------

    def end(self) -> int:
        """Return the number of records that are whole, from the state on: those before a gap."""
        at = self.state.begun
        limit = self.state.done + self.about.records
        while at < limit and self._is_whole(at):
            at += 1
        return at

    def _is_whole(self, index: int) -> bool:
        lap, slot = divmod(index, self.about.records)
        place = START + slot * RECORD
        record = self.map[place : place + RECORD]
        number = int.from_bytes(record[4:6], sys.byteorder)
        return record[:4] == checksum_of(zlib.crc32(record[4:], lap)) and number < len(self.names)

    def begin(self, end: int) -> Block | None:
        """Note that the records up to an end will be brought in, and return them.

        A block that was begun before and is not known to be done comes again, the same.
        """
        state = self.state
        if state.begun == state.done and state.begun_left_out == state.done_left_out:
            if end == state.done and self.left_out == state.done_left_out:
                return None
            state = msgspec.structs.replace(state, begun=end, begun_left_out=self.left_out)
            self._write(state)
        left_out = state.begun_left_out - state.done_left_out
        command_id = f"lane-{self.about.lane}-{self.state.turn}"
        return Block(command_id, self._points(state.done, state.begun), left_out)

    def finish(self) -> None:
        """Note that the block that was begun is in the log."""
        state = self.state
        self._write(
            msgspec.structs.replace(state, done=state.begun, done_left_out=state.begun_left_out)
        )

    def _points(self, first: int, end: int) -> dict[str, Points]:
        found: dict[int, Points] = {}
        data = self._records(first, end)
        words = memoryview(data)
        numbers = words.cast("H")[2::16].tolist()
        steps, times = (words.cast("q")[n::4].tolist() for n in (1, 2))
        values = words.cast("d")[3::4].tolist()
        for number, step, time, value in zip(numbers, steps, times, values, strict=True):
            points = found.get(number)
            if points is None:
                points = found[number] = Points([], [], [])
            points.steps.append(step)
            points.times.append(time)
            points.values.append(value)
        return {self.names[number]: points for number, points in found.items()}

    def _records(self, first: int, end: int) -> bytes:
        records = self.about.records
        begin, stop = (START + (index % records) * RECORD for index in (first, end))
        if begin < stop or first == end:
            return self.map[begin:stop]
        return self.map[begin:] + self.map[START:stop]

    # --- the state ----------------------------------------------------------------------------

    def _write(self, state: State) -> None:
        state = msgspec.structs.replace(state, turn=state.turn + 1)
        numbers = msgspec.structs.astuple(state)
        checksum = zlib.crc32(_STATE.pack(0, *numbers))
        place = _STATES[state.turn % 2]
        self.map[place : place + _STATE.size] = _STATE.pack(checksum, *numbers)
        self.state = state

    def _last_state(self) -> State:
        found = [State()]
        for place in _STATES:
            checksum, *numbers = _STATE.unpack_from(self.map, place)
            if checksum == zlib.crc32(_STATE.pack(0, *numbers)) and any(numbers):
                found.append(State(*numbers))
        return max(found, key=lambda state: state.turn)

    def sync(self) -> None:
        """Have the system write it to the disk."""
        with suppress(OSError):
            os.fdatasync(self.file)

    def remove(self) -> None:
        """Remove the file: all of it is in the log."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # others have theirs in it
            self.path.parent.rmdir()
        self.close()

    def close(self) -> None:
        """Leave it to the next opener, who brings in what is left; closing twice does nothing."""
        self.map.close()
        file, self.file = self.file, -1
        if file >= 0:  # the number may be another file's by now
            os.close(file)


def _about(file: int) -> About | None:
    head = os.pread(file, HEAD, 0)
    text = _text_at(head, len(_MAGIC)) if head.startswith(_MAGIC) else None
    if text is None:
        return None
    about = msgspec.json.decode(text, type=About)
    whole = os.fstat(file).st_size >= START + about.records * RECORD
    return about if whole else None


def _text_at(data: "bytes | mmap.mmap", place: int) -> bytes | None:
    if place + _CHECKED.size > len(data):
        return None
    checksum, length = cast("tuple[int, int]", _CHECKED.unpack_from(data, place))
    text = data[place + _CHECKED.size : place + _CHECKED.size + length]
    return text if len(text) == length and zlib.crc32(text) == checksum else None


def lanes_in(folder: Path) -> list[Path]:
    """Return the files of lanes in a folder, which may not be there."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except OSError:
        return []

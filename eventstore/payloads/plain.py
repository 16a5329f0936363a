"""Plain data to JSON or MessagePack and back: what MessagePack lacks a type for is an extension."""

from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Any, cast
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from refold.eventstore.errors import InvalidPayload
from refold.eventstore.payloads.arrays import pack_scalar, unpack_scalar
from refold.eventstore.times import MICROSECOND

pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

# The codes are in payloads for ever: add to them, never change one. 1 to 15 are those of plain.py.
_TEXT = 16
_INTEGER = 17
_COMPLEX = 18
_DATETIME = 19
_DATE = 20
_TIME = 21
_TIMEDELTA = 22
_DECIMAL = 23
_UUID = 24
_PATH = 25


class NotPlain(Exception):
    """A value is not plain data: the payload must be written by other means."""


def _from_text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _from_integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _to_integer(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _from_datetime(value: datetime) -> bytes:
    local = value.replace(tzinfo=None).isoformat()
    return pack([local, value.fold, _from_zone(value.tzinfo)])


def _to_datetime(data: bytes) -> datetime:
    local, fold, zone = _unpack(data)
    return datetime.fromisoformat(local).replace(fold=fold, tzinfo=_to_zone(zone))


def _from_time(value: time) -> bytes:
    local = value.replace(tzinfo=None).isoformat()
    return pack([local, value.fold, _from_zone(value.tzinfo)])


def _to_time(data: bytes) -> time:
    local, fold, zone = _unpack(data)
    return time.fromisoformat(local).replace(fold=fold, tzinfo=_to_zone(zone))


def _from_zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        microseconds = offset // MICROSECOND
        return microseconds if name == timezone(offset).tzname(None) else [microseconds, name]
    from zoneinfo import ZoneInfo  # seldom needed, and slow to import

    if type(zone) is ZoneInfo and zone.key:
        with suppress(LookupError, ValueError, OSError):
            if ZoneInfo(zone.key) is zone:
                return zone.key
    raise NotPlain


def _to_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        from zoneinfo import ZoneInfo

        return ZoneInfo(zone)
    if isinstance(zone, int):
        return timezone(zone * MICROSECOND)
    microseconds, name = zone
    return timezone(microseconds * MICROSECOND, name)


def _from_timedelta(value: timedelta) -> bytes:
    return pack([value.days, value.seconds, value.microseconds])


_TYPES: dict[type, tuple[int, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    str: (_TEXT, _from_text, _to_text),
    int: (_INTEGER, _from_integer, _to_integer),
    complex: (
        _COMPLEX,
        lambda value: pack([value.real, value.imag]),
        lambda data: complex(*_unpack(data)),
    ),
    datetime: (_DATETIME, _from_datetime, _to_datetime),
    date: (
        _DATE,
        lambda value: value.isoformat().encode(),
        lambda data: date.fromisoformat(data.decode()),
    ),
    time: (_TIME, _from_time, _to_time),
    timedelta: (_TIMEDELTA, _from_timedelta, lambda data: timedelta(*_unpack(data))),
    Decimal: (_DECIMAL, lambda value: str(value).encode(), lambda data: Decimal(data.decode())),
    UUID: (_UUID, lambda value: value.bytes, lambda data: UUID(bytes=data)),
    type(Path()): (
        _PATH,
        lambda value: _from_text(value.as_posix()),
        lambda data: Path(_to_text(data)),
    ),
}

TO_EXTENSION = {kind: (code, to_bytes) for kind, (code, to_bytes, _) in _TYPES.items()}
"""Of each exact type, the extension code and the function to its bytes."""

FROM_EXTENSION = {code: from_bytes for code, _, from_bytes in _TYPES.values()}
"""Of each extension code, the function from its bytes."""


# The codes are in payloads for ever: add to them, never change one.
_TUPLE = 1
_SET = 2
_FROZENSET = 3
_MAP = 4
_BYTEARRAY = 5
_TENSOR = 6
_NUMPY_SCALAR = 7

_NATIVE = frozenset({NoneType, bool, int, float, str, bytes})
_NATIVE_WHATEVER_THEY_HOLD = _NATIVE - {int, str}

_MALFORMED = (
    msgspec.DecodeError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    OSError,
    SyntaxError,
    MemoryError,
    RecursionError,
)


def pack_plain(value: Any, add_tensor: Callable[[Any], int | None]) -> bytes:
    """Plain data as MessagePack; `add_tensor` takes what is a tensor and returns its number.

    Raises:
        NotPlain: something in it is not plain, is in it twice, or holds itself.
        RecursionError: it is nested too deeply.
    """
    for native in (_NATIVE, _NATIVE_WHATEVER_THEY_HOLD):
        try:
            return pack(_Lowering(native, add_tensor).lower(value))
        except (OverflowError, UnicodeEncodeError):
            continue  # a huge int or a lone surrogate: the second pass looks at each of them
    raise NotPlain


def unpack_plain(data: bytes | memoryview, tensor: Callable[[int], Any] | None = None) -> Any:
    """The data that `pack_plain` packed; `tensor` gives the tensor with a number.

    Raises:
        InvalidPayload: the bytes are not such data, or a newer refold wrote them.
    """
    raising = _WITHOUT_TENSORS if tensor is None else _Raising(tensor)
    try:
        return raising.unpack(data)
    except _MALFORMED as error:
        raise InvalidPayload(f"the payload cannot be decoded: {error}") from error


class _Lowering:
    """One walk over the data that turns it into what MessagePack has types for.

    What MessagePack keeps exactly is left as it is, a flat dict or list as a whole.
    """

    __slots__ = ("_add_tensor", "_native", "_seen")

    def __init__(self, native: frozenset[type], add_tensor: Callable[[Any], int | None]) -> None:
        self._native = native
        self._add_tensor = add_tensor
        self._seen: set[int] = set()

    def lower(self, value: object) -> Any:
        kind = type(value)
        if kind in self._native:
            return value
        if (container := _CONTAINERS.get(kind)) is not None:
            if id(value) in self._seen and not _may_come_back_twice(value):
                raise NotPlain
            self._seen.add(id(value))
            return container(self, value)
        if (extension := TO_EXTENSION.get(kind)) is not None:
            return _to_extension(value, *extension)
        if (number := self._add_tensor(value)) is not None:
            return Ext(_TENSOR, pack(number))
        if (scalar := pack_scalar(value)) is not None:
            return Ext(_NUMPY_SCALAR, scalar)
        raise NotPlain

    def from_dict(self, value: dict[Any, Any]) -> Any:
        native = self._native
        if native.issuperset(map(type, value)):
            lowered = value
            for key, each in value.items():
                if type(each) not in native and (low := self.lower(each)) is not each:
                    lowered = value.copy() if lowered is value else lowered
                    lowered[key] = low
            return lowered
        keys = [self.lower(key) for key in value]
        values = [self.lower(each) for each in value.values()]
        if _NATIVE.issuperset(map(type, keys)):
            return dict(zip(keys, values, strict=True))
        pairs = zip(keys, values, strict=True)
        return Ext(_MAP, pack([each for pair in pairs for each in pair]))

    def from_list(self, value: list[Any] | tuple[Any, ...]) -> Any:
        native = self._native
        if native.issuperset(map(type, value)):
            return value
        lower = self.lower
        return [each if type(each) in native else lower(each) for each in value]

    def from_tuple(self, value: tuple[Any, ...]) -> Ext:
        return Ext(_TUPLE, pack(self.from_list(value)))

    def from_set(self, value: set[Any]) -> Ext:
        return Ext(_SET, self._pack_sorted(value))

    def from_frozenset(self, value: frozenset[Any]) -> Ext:
        return Ext(_FROZENSET, self._pack_sorted(value))

    def from_bytearray(self, value: bytearray) -> Ext:
        return Ext(_BYTEARRAY, bytes(value))

    def _pack_sorted(self, value: set[Any] | frozenset[Any]) -> bytes:
        return pack(sorted([self.lower(each) for each in value], key=pack))


def _may_come_back_twice(value: Any) -> bool:
    # Two references to (0.9, 0.999) may become two tuples: only `is` can tell. But a tuple with
    # containers in it could share a list, or double in size at each level.
    return type(value) in (tuple, frozenset) and _NATIVE.issuperset(map(type, value))


_CONTAINERS: dict[type, Callable[[_Lowering, Any], Any]] = {
    dict: _Lowering.from_dict,
    list: _Lowering.from_list,
    tuple: _Lowering.from_tuple,
    set: _Lowering.from_set,
    frozenset: _Lowering.from_frozenset,
    bytearray: _Lowering.from_bytearray,
}


def _to_extension(value: Any, code: int, to_bytes: Callable[[Any], bytes]) -> Any:
    if type(value) is int or type(value) is str:
        try:
            pack(value)
        except (OverflowError, UnicodeEncodeError):
            return Ext(code, to_bytes(value))
        return value
    return Ext(code, to_bytes(value))


class _Raising:
    """Decodes MessagePack and raises its extensions to the objects that they stand for."""

    def __init__(self, tensor: Callable[[int], Any]) -> None:
        self._tensor = tensor
        self.unpack: Callable[[bytes | memoryview], Any] = msgspec.msgpack.Decoder(
            ext_hook=self._extension
        ).decode

    def _extension(self, code: int, data: memoryview) -> Any:
        if (from_bytes := FROM_EXTENSION.get(code)) is not None:
            return from_bytes(bytes(data))
        if code == _BYTEARRAY:
            return bytearray(data)
        if code == _TENSOR:
            return self._tensor(self.unpack(data))
        if code == _NUMPY_SCALAR:
            return unpack_scalar(bytes(data))
        if (from_items := _FROM_ITEMS.get(code)) is not None:
            return from_items(self.unpack(data))
        raise InvalidPayload(
            f"the payload holds extension type {code}, which a newer refold wrote: "
            f"update this one to read it"
        )


def _from_pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_FROM_ITEMS: dict[int, Callable[[list[Any]], Any]] = {
    _TUPLE: tuple,
    _SET: set,
    _FROZENSET: frozenset,
    _MAP: _from_pairs,
}


def _no_tensors(number: int) -> Any:
    raise InvalidPayload(f"the payload refers to tensor {number}, but holds no tensors")


_WITHOUT_TENSORS = _Raising(_no_tensors)


_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder().decode


def as_json(obj: Any) -> bytes | None:
    """Return the JSON text of what JSON gives back as it was, types included; else None.

    Text that SQL cannot keep (NUL) or UTF-8 not write (lone surrogates) is none either.
    """
    try:
        if not _is_json(obj):
            return None
        text = _to_json(obj)
    except (ValueError, OverflowError, RecursionError):
        return None
    return None if b"\\u0000" in text else text


def _is_json(obj: Any) -> bool:
    kind = cast("type[Any]", type(obj))
    if kind is dict:
        return all(type(key) is str and _is_json(value) for key, value in obj.items())
    if kind is list:
        return all(map(_is_json, obj))
    return kind in _JSON_TYPES or (kind is float and isfinite(obj))


_JSON_TYPES = frozenset({str, int, bool, NoneType})


def from_json(text: memoryview) -> Any:
    """Return what `as_json` made the text of.

    Raises:
        InvalidPayload: it is damaged.
    """
    try:
        return _from_json(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidPayload(f"the payload is damaged: {error}") from error

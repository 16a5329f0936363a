"""The single values that MessagePack has no type for, each as an extension of its own."""

from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

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

_MICROSECOND = timedelta(microseconds=1)


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
        microseconds = offset // _MICROSECOND
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
        return timezone(zone * _MICROSECOND)
    microseconds, name = zone
    return timezone(microseconds * _MICROSECOND, name)


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

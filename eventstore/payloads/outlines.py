"""The outline of an object: JSON text of what is plain in it, for people and SQL to read.

It stands before the exact bytes, which alone are decoded.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite, isinf
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any, cast
from uuid import UUID

import msgspec

MANY = 100_000
"""How many values an outline may hold: an object that has more gets none."""

DEEP = 100

_encode = msgspec.json.Encoder().encode


def outline(obj: Any) -> bytes | None:
    """Return the outline of an object, or None if it would be very long.

    Tuples and sets become lists, NaN and infinities the words `nan`, `inf` and `-inf`; times,
    decimals, paths and integers beyond 64 bits become text, members of an enum their values, and
    dataclasses groups. A class or function is its name; anything else the name of its type, as in
    `<torch.nn.modules.linear.Linear>`. Nothing of the object is called.

    >>> outline({"lr": 0.1, "layers": (64, 32), "optimizer": Decimal})
    b'{"lr":0.1,"layers":[64,32],"optimizer":"decimal.Decimal"}'
    """
    try:
        return _encode(_Outline().of(obj))
    except _TooLong:
        return None


class _TooLong(Exception):
    pass


class _Outline:
    def __init__(self) -> None:
        self._left = MANY
        self._within: set[int] = set()

    def of(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _TooLong
        kind = cast("type[Any]", type(value))
        if (leaf := _LEAVES.get(kind)) is not None:
            return leaf(value)
        if isinstance(value, type | FunctionType | BuiltinFunctionType):
            return _text(_name(value))
        if isinstance(value, Enum):
            return self.of(value._value_)
        if isinstance(value, str):
            return _text(str.__str__(value))
        if (inner := _group(value)) is not None:
            return self._nested(value, lambda: {_key(name): self.of(each) for name, each in inner})
        if (items := _items(value)) is not None:
            listed = self._nested(value, lambda: [self.of(each) for each in items])
            # A set has another order in each process, and the same payload should be the same.
            return sorted(listed, key=_encode) if isinstance(value, set | frozenset) else listed
        if kind in _TEXTS:
            return _text(str(value))
        scalar = _scalar(value)
        return f"<{_text(_name(kind))}>" if scalar is value else self.of(scalar)

    def _nested(self, value: Any, outlined: Callable[[], Any]) -> Any:
        if id(value) in self._within or len(self._within) == DEEP:
            return "…"
        self._within.add(id(value))
        try:
            return outlined()
        finally:
            self._within.remove(id(value))


_TEXTS = frozenset({date, datetime, time, timedelta, complex, Decimal, UUID, type(Path())})


def _group(value: Any) -> Iterable[tuple[Any, Any]] | None:
    if isinstance(value, dict):
        return _pairs(value)
    if is_dataclass(value) and not isinstance(value, type):
        # What instances hold, past any property or __getattr__.
        held = _held(value)
        return [(field.name, held[field.name]) for field in fields(value) if field.name in held]
    names: Any = getattr(cast("Any", type(value)), "_fields", None)
    if isinstance(value, tuple) and isinstance(names, tuple):  # it is a named one
        named = zip(cast("tuple[Any, ...]", names), _items(value) or (), strict=False)
        return [*named]
    return None


_pairs = cast("Callable[[Any], Iterable[tuple[Any, Any]]]", dict.items)


def _items(value: Any) -> Iterable[Any] | None:
    for kind in _LISTS:
        if isinstance(value, kind):
            return kind.__iter__(value)
    return None


_LISTS: tuple[type[Any], ...] = (list, tuple, set, frozenset)


def _held(value: Any) -> Mapping[str, Any]:
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:  # it has slots
        return {}


def _scalar(value: Any) -> Any:
    """Return a number of NumPy as one of Python, anything else as it is."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        plain = value.item()
        return plain if type(plain) in _LEAVES else value
    return value


def _key(key: Any) -> str:
    return _text(key) if isinstance(key, str) else _text(str(key)) if type(key) in _LEAVES else "…"


def _name(thing: Any) -> str:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "?")
    return f"{module}.{name}" if module not in (None, "builtins", "__main__") else str(name)


def _text(text: str) -> str:
    """Return text as UTF-8 and SQL can keep it."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _float(value: float) -> float | str:
    if isfinite(value):
        return value
    return ("inf" if value > 0 else "-inf") if isinf(value) else "nan"


_LEAVES: dict[type, Callable[[Any], Any]] = {
    NoneType: lambda value: value,
    bool: lambda value: value,
    int: lambda value: (
        value if -(2**63) <= value < 2**63 else f"<int of {value.bit_length()} bits>"
    ),
    float: _float,
    str: _text,
}

"""A configuration with another value under a dotted name, such as `model.layers`."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from msgspec import UNSET

from refold.eventstore.errors import InvalidCommand


class Replaced(NamedTuple):
    """A configuration in which one value is another."""

    config: Any
    before: Any
    """UNSET: the name is new."""
    after: Any


def replaced(config: Any, name: str, value: Any) -> Replaced:
    """Return a configuration in which a name stands for a value; nothing else is another object.

    A list that takes the place of a tuple becomes one, since JSON has no tuples. The name may be
    new.

    Raises:
        InvalidCommand: what should hold the name is not a dict.
    """
    return _replaced(config, name, name, value)


def _replaced(config: Any, name: str, rest: str, value: Any) -> Replaced:
    if not isinstance(config, Mapping):
        raise InvalidCommand(f"the configuration has no {name!r}")
    fields = cast("Mapping[Any, Any]", config)
    first, dot, further = rest.partition(".")
    if rest in fields:  # the dots are in the name itself
        first, dot = rest, ""
    before = fields.get(first, UNSET)
    if dot:
        inside: Any = {} if before is UNSET else before
        inner, before, value = _replaced(inside, name, further, value)
    else:
        if isinstance(before, tuple) and isinstance(value, list):
            value = tuple(cast("list[Any]", value))
        inner = value
    return Replaced({**fields, first: inner}, before, value)

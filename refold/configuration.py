"""A configuration with another value under a dotted name, such as `model.layers`."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from refold.eventstore.errors import InvalidCommand


class Replaced(NamedTuple):
    """A configuration in which one value is another."""

    config: Any
    before: Any
    after: Any


def replaced(config: Any, name: str, value: Any) -> Replaced:
    """Return a configuration in which a name stands for a value; nothing else is another object.

    A list that takes the place of a tuple becomes one, since JSON has no tuples.

    Raises:
        InvalidCommand: the configuration has no such name.
    """
    return _replaced(config, name, name, value)


def _replaced(config: Any, name: str, rest: str, value: Any) -> Replaced:
    if not isinstance(config, Mapping):
        raise InvalidCommand(f"the configuration has no {name!r}")
    fields = cast("Mapping[Any, Any]", config)
    first, dot, further = rest.partition(".")
    if rest in fields:  # the dots are in the name itself
        first, dot = rest, ""
    if first not in fields:
        known = ", ".join(map(str, fields))
        raise InvalidCommand(f"the configuration has no {name!r}: it has {known}")
    before = fields[first]
    if dot:
        inner, before, value = _replaced(before, name, further, value)
    else:
        if isinstance(before, tuple) and isinstance(value, list):
            value = tuple(cast("list[Any]", value))
        inner = value
    return Replaced({**fields, first: inner}, before, value)

"""Events stored under an older schema are brought up to today's when they are read."""

from collections.abc import Callable, Iterable
from typing import Any

from refold.eventstore.events.event import Event, decoders

Data = dict[str, Any]
Upcast = Callable[[Data], Data]

_upcasters: dict[tuple[str, int], tuple[str, Upcast]] = {}


def upcaster(
    type_name: str, version: int, *, becomes: str | None = None
) -> Callable[[Upcast], Upcast]:
    """Register how the data of a type at one schema version becomes that of the next.

    Args:
        type_name: the type as it stands in the log.
        version: the schema version that the function takes; it returns `version + 1`.
        becomes: the type's new name, if it was renamed with this step.

    >>> @upcaster("LossSeen", 1)                    # version 1 had the loss in percent
    ... def percent_to_share(data):
    ...     return {**data, "loss": data["loss"] / 100}
    """

    def register(upcast: Upcast) -> Upcast:
        _upcasters[type_name, version] = (becomes or type_name, upcast)
        decoders.clear()
        return upcast

    return register


def upcast(type_name: str, version: int, data: Data) -> tuple[str, int, Data]:
    """Apply all steps that are registered from a type and version on."""
    while step := _upcasters.get((type_name, version)):
        type_name, change = step
        data = change(data)
        version += 1
    return type_name, version, data


def stored_names(types: Iterable[type[Event] | str] | type[Event] | str) -> set[str]:
    """Return all names under which events of some types may stand in the log.

    A class stands for its subclasses too, and a type for those that upcasters turn into it.
    """
    names: set[str] = set()
    for given in [types] if isinstance(types, str | type) else types:
        if isinstance(given, str):
            names.add(given)
        else:
            names.add(given.__name__)
            names |= stored_names(given.__subclasses__())
    while older := {
        old for (old, _), (new, _) in _upcasters.items() if new in names and old not in names
    }:
        names |= older
    return names

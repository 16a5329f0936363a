"""What an event is: a frozen struct named in the past tense, whose older schemas are still read."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar

import msgspec

from refold.eventstore.errors import InvalidEvent
from refold.eventstore.statuses import Word

Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer that every engine can hold (64 bits)."""

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""The id of an entity."""

Name = Annotated[str, msgspec.Meta(min_length=1)]
"""A name, which is never empty."""

Digest = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
"""Names a payload: the SHA-256 of its bytes in hexadecimal."""


_types: "dict[str, type[Event]]" = {}

decoders: "dict[tuple[str, int], Callable[[str], Event]]" = {}
"""What the codec built for a type at a schema version; a new definition empties it."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something that happened. Subclass it to define an event; its name is its type in the log.

    When the fields of a type change, raise its `schema_version` and register an `upcaster` from
    the version before, so that events stored under the old one can be read for ever.

    >>> class CheckpointSaved(Event):
    ...     run_id: Id
    ...     digest: str
    >>> CheckpointSaved(run_id=5, digest="9f86…")
    CheckpointSaved(run_id=5, digest='9f86…')
    """

    schema_version: ClassVar[int] = 1
    leads_to: ClassVar[Word | None] = None
    """The status that its entity has from then on, if it changes that."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = _types.get(cls.__name__)
        # The same class defined again (a notebook cell run twice) takes the place of the first.
        if known is not None and (known.__module__, known.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise InvalidEvent(
                f"event type {cls.__name__} is defined twice, in {known.__module__} and in "
                f"{cls.__module__}: the log tells types apart by name, so rename one"
            )
        _types[cls.__name__] = cls
        decoders.clear()

    @property
    def stream(self) -> str:
        """The stream to which the event belongs by itself, such as `run-5`."""
        raise InvalidEvent(
            f"{type(self).__name__} names no stream: define its `stream` property, "
            f"or append it with `store.append(stream, [event])`"
        )


class UnknownEvent(Event, frozen=True):
    """An event of a type, or of a schema version, that is not defined here; see `read(unknown=)`.

    It is only ever read: to append such an event, import or define its class.
    """

    type: str
    version: int
    """The schema version."""
    data: dict[str, Any]

    @property
    def stream(self) -> str:
        """None: it cannot be appended."""
        raise InvalidEvent(f"type {self.type!r} is not known here: import or define its class")


def event_type(name: str) -> type[Event] | None:
    """Return the class that today stands for a type in the log, or None."""
    return _types.get(name)


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

"""What an event is: a frozen struct, named in the past tense."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import msgspec

from refold.eventstore.errors import InvalidEvent

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

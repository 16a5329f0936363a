"""What an event is: a frozen struct, named in the past tense; and its JSON text in the log."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Any, ClassVar, TypeVar, cast

import msgspec

from refold.eventstore.arguments import excerpt, plain_scalar
from refold.eventstore.errors import DamagedEvent, InvalidCommand, InvalidEvent, UnknownEventType
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
    store_level: ClassVar[int] = 2
    """The lowest that a release must know of, so as not to show what is not so.

    Raise it for an event that changes a view which earlier releases have as well: they refuse a log
    that holds one.
    """
    stream_of: ClassVar[str | None] = None
    """The stream that the event names, with the place of its first field: `run-{}`."""
    leads_to: ClassVar[Word | None] = None
    """The status that its entity has from then on, if it changes that."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        pattern = cls.__dict__.get("stream_of")
        if isinstance(pattern, str) and {"{", "}"} & {*pattern.replace("{}", "", 1)}:
            raise InvalidEvent(
                f"{cls.__name__}: stream_of is {excerpt(pattern)}; use text with one {{}} at most, "
                f"such as 'run-{{}}'"
            )
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
        # Not the instance's: a field of that name would be something else.
        pattern: object = type(self).stream_of
        if not isinstance(pattern, str):
            raise InvalidEvent(
                f"{type(self).__name__} names no stream: set its `stream_of`, such as "
                f"'run-{{}}', or append it with db.append(event, stream=…)"
            )
        if "{}" not in pattern:
            return pattern
        return pattern.replace("{}", str(getattr(self, self.__struct_fields__[0])))


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
        type_name: the type in the log.
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
    """Return all names that events of some types may have in the log.

    A class stands for its subclasses too, and a type for those that upcasters turn into it.

    Raises:
        InvalidCommand: one of them is not a type of event.
    """
    names: set[str] = set()
    try:
        chosen = [types] if isinstance(types, str | type) else [*types]
    except TypeError:
        chosen = [types]  # which is refused
    for given in chosen:
        if isinstance(given, str):
            names.add(given)
        elif not (isinstance(given, type) and issubclass(given, Event)):
            raise InvalidCommand(
                f"{excerpt(given)} is not a type of event: pass a class, or its name"
            )
        else:
            names.add(given.__name__)
            names |= stored_names(given.__subclasses__())
    while older := {
        old for (old, _), (new, _) in _upcasters.items() if new in names and old not in names
    }:
        names |= older
    return names


Decode = Callable[[str], Event]
E = TypeVar("E", bound=Event)

_NEGATIVE_ZERO = re.compile(r'("(?:[^"\\]|\\.)*")|-0\.0(?![0-9])')
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


_encoder = msgspec.json.Encoder(enc_hook=plain_scalar)

LARGEST_TEXT = 100_000_000
"""In bytes, of an event's JSON text: a row of a view, too, must fit into what an engine holds."""


def to_json(value: Any) -> str:
    """Encode a value as JSON text that every engine can store; -0.0 becomes 0.0.

    Raises:
        InvalidEvent: it holds a NUL character, a lone surrogate or a type that JSON lacks, or is
            too large.
    """
    try:
        content = _encoder.encode(value)
        text = content.decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidEvent(f"{type(value).__name__} cannot be written as JSON: {error}") from error
    if len(content) > LARGEST_TEXT:
        raise InvalidEvent(
            f"{type(value).__name__} is {len(content):,} bytes of JSON, and an event has "
            f"{LARGEST_TEXT:,} at most: put what is large into a payload, or store its path"
        )
    if "-0.0" in text:
        # SQLite has no negative zero, so a row that was folded from one would differ from the row
        # that is loaded.
        text = _NEGATIVE_ZERO.sub(lambda found: found[1] or "0.0", text)
    if "\\u0000" in text and _NUL.search(text):
        raise InvalidEvent(
            f"{type(value).__name__} holds a NUL character, which SQL text cannot keep: remove it"
        )
    return text


def encode(event: E) -> tuple[str, E]:
    """Return the event's JSON text and the event exactly as the log will give it back.

    Raises:
        InvalidEvent: the JSON would not give back an equal event (wrong types, NaN, infinity,
            integers beyond 64 bits, NUL, lone surrogates …).
    """
    name, version = type(event).__name__, event.schema_version
    if isinstance(event, UnknownEvent):
        raise InvalidEvent(f"type {event.type!r} is not known here: import or define its class")
    text = to_json(event)
    try:
        kept = (decoders.get((name, version)) or _decoder(name, version))(text)
    except msgspec.ValidationError as error:
        raise InvalidEvent(f"{name} is not valid: {error}") from error
    if kept != event:
        raise InvalidEvent(
            f"{excerpt(event)} would come back from the log as {excerpt(kept)}: JSON has no NaN, "
            f"infinity, tuples or keys other than strings. Say what it means instead, such as "
            f"{{'diverged': True}}, or store it as a payload"
        )
    return text, cast("E", kept)


def decode(type_name: str, version: int, text: str, position: int) -> Event:
    """Return an event of the log as today's type.

    Raises:
        UnknownEventType: no class of that name is defined, or only an older version of it.
        DamagedEvent: the text does not hold what its type needs.
    """
    try:
        return (decoders.get((type_name, version)) or _decoder(type_name, version))(text)
    except UnknownEventType as error:
        failure = UnknownEventType(f"event {position}: {error}")
        failure.position = position
        raise failure from None
    except (msgspec.DecodeError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise damaged(type_name, version, position, error) from error


def decode_unknown(type_name: str, version: int, text: str, position: int) -> UnknownEvent:
    """Return an event of the log whose type is not known here, undecoded.

    Raises:
        DamagedEvent: the text is no JSON object.
    """
    try:
        data = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise damaged(type_name, version, position, error) from error
    return UnknownEvent(type_name, version, data)


def damaged(type_name: str, version: int, position: int, error: Exception) -> DamagedEvent:
    """Return the error of an event in the log that is not what was appended."""
    failure = DamagedEvent(
        f"event {position} ({type_name}, schema version {version}) cannot be decoded: {error}. "
        f"Everything before it can still be read"
    )
    failure.position = position
    return failure


def _decoder(type_name: str, version: int) -> Decode:
    cls = event_type(type_name)
    if cls is not None and cls.schema_version == version:
        decode = msgspec.json.Decoder(cls).decode
    else:
        # The chain of upcasters alone decides what an older version becomes.
        decode = _upcasting_decoder(type_name, version)
    decoders[type_name, version] = decode
    return decode


def _upcasting_decoder(type_name: str, version: int) -> Decode:
    def decode(text: str) -> Event:
        name, reached, data = upcast(type_name, version, msgspec.json.decode(text))
        cls = event_type(name)
        if cls is None or cls.schema_version != reached:
            if cls is not None and cls.schema_version > reached:
                raise UnknownEventType(
                    f"type {name!r} is at schema version {cls.schema_version} here, and nothing "
                    f'leads to it from {reached}: register an @upcaster("{name}", {reached})'
                )
            raise UnknownEventType(
                f"type {type_name!r}, schema version {version}, is not known here: a newer refold "
                f"wrote it, or your own event types are not imported yet. Upgrade, or import them"
            )
        return msgspec.convert(data, cls)

    return decode


# --- metadata -----------------------------------------------------------------------------------


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is known about how an event came to be; all of it is optional."""

    command_id: Name | None = None
    """The id of the command that led to it, if it was sent with one."""
    actor: str | None = None
    """Who acted, such as `controller`, `worker-0` or `dispatcher`."""
    correlation: str | None = None
    """What it belongs to, such as the id of a web request."""
    cause: Id | None = None
    """The position of the event that led to it."""


NO_METADATA = Metadata()

_metadata_decoder = msgspec.json.Decoder(Metadata)


def encode_metadata(metadata: Metadata) -> str:
    """Return metadata as the JSON text of the log.

    Raises:
        InvalidEvent: a field is of a wrong type.
    """
    try:
        return _metadata_text(metadata)
    except (TypeError, msgspec.ValidationError) as error:
        raise InvalidEvent(f"metadata is not valid: {error}") from error


@lru_cache(maxsize=1024)
def _metadata_text(metadata: Metadata) -> str:
    text = to_json(metadata)
    _metadata_decoder.decode(text)
    return text


@lru_cache(maxsize=1024)
def decode_metadata(text: str) -> Metadata:
    """Return the metadata that a JSON text of the log holds."""
    return _metadata_decoder.decode(text)

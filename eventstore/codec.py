"""Events to the JSON text of the log, and back."""

import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from refold.eventstore.errors import DamagedEvent, InvalidEvent, UnknownEventType
from refold.eventstore.event import Event, UnknownEvent, decoders, event_type, upcast

Decode = Callable[[str], Event]
E = TypeVar("E", bound=Event)

_NEGATIVE_ZERO = re.compile(r'("(?:[^"\\]|\\.)*")|-0\.0(?![0-9])')
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def plain_scalar(value: Any) -> Any:
    """Return the plain number that a NumPy or torch one holds.

    Raises:
        TypeError: it is something else.
    """
    try:
        number = value.item()
    except (AttributeError, ValueError, RuntimeError, TypeError):
        number = None
    if isinstance(number, int | float):
        return number
    raise TypeError(f"a {type(value).__name__} has no place in JSON")


_encoder = msgspec.json.Encoder(enc_hook=plain_scalar)


def to_json(value: Any) -> str:
    """Encode a value as JSON text that every engine can store; -0.0 becomes 0.0.

    Raises:
        InvalidEvent: it holds a NUL character, a lone surrogate or a type that JSON lacks.
    """
    try:
        text = _encoder.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidEvent(f"{type(value).__name__} cannot be written as JSON: {error}") from error
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
            f"{event!r} would come back from the log as {kept!r}: JSON has no NaN, infinity, "
            f"tuples or keys other than strings. Say what it means instead, such as "
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
    """Return an event of the log whose type is not known here, as it stands there.

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

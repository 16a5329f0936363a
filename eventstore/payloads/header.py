"""The first bytes of a payload, which say of what kind it is."""

from typing import Any

from eventstore.errors import InvalidPayload

# No UTF-8 text, pickle, image or archive starts with one of these bytes, and so no base64 either.
PLAIN = b"\xf8"
TENSORS = b"\xf9"
DILL = b"\xfa"
SIGNED = b"\xfb"

VERSION = b"\x01"
"""The version of the format; it follows the first byte of every kind but `SIGNED`."""

MAC_SIZE = 32
"""The bytes of the HMAC-SHA256 between `SIGNED` and the payload that it signs."""

_KINDS = frozenset({PLAIN, TENSORS, DILL})
_SIGNED_PREFIX = len(SIGNED) + MAC_SIZE


def is_payload(data: object) -> bool:
    """Whether `data` begins like bytes that `encode_payload` made; the rest is not looked at.

    >>> is_payload(encode_payload({"lr": 0.1})), is_payload(b'{"lr": 0.1}')
    (True, False)
    """
    if not isinstance(data, bytes | bytearray):
        return False
    head = bytes(data[: _SIGNED_PREFIX + 2])
    if head[:1] == SIGNED:
        head = head[_SIGNED_PREFIX:]
    return head[:1] in _KINDS and head[1:2] == VERSION


def view_of(data: Any) -> memoryview:
    """The bytes of a payload, not copied.

    Raises:
        InvalidPayload: `data` is not bytes.
    """
    if isinstance(data, bytes | bytearray):
        return memoryview(data)
    hint = ": text from an older store is base64, decode that first" if type(data) is str else ""
    raise InvalidPayload(f"a payload is bytes, not {type(data).__name__}{hint}")


def kind_of(payload: memoryview) -> bytes:
    """`PLAIN`, `TENSORS`, `DILL` or `SIGNED`.

    Raises:
        InvalidPayload: the bytes begin like none of them.
    """
    kind = bytes(payload[:1])
    if kind == SIGNED:
        return kind
    if kind not in _KINDS:
        raise InvalidPayload(
            f"these {len(payload)} bytes are not a payload: encode_payload makes payloads"
        )
    if bytes(payload[1:2]) != VERSION:
        raise InvalidPayload(
            "a payload is cut off, or was written by a newer refold: update this one to read it"
        )
    return kind

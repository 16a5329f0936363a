"""The first bytes of a payload, which say of what kind it is."""

from typing import Any

from refold.eventstore.errors import InvalidPayload

# The kind and the version of its format. No UTF-8 text, pickle, image or archive starts with one
# of these bytes, and so no JSON or base64 does.
PLAIN = b"\xf8\x01"
TENSORS = b"\xf9\x01"
DILL = b"\xfa\x01"

SIGNED = b"\xfb"
MAC_SIZE = 32
"""The bytes of the HMAC-SHA256 between `SIGNED` and the payload that it signs."""

_KINDS = frozenset({PLAIN, TENSORS, DILL})
_FIRST_BYTES = frozenset(kind[:1] for kind in _KINDS)
_SIGNED_PREFIX = len(SIGNED) + MAC_SIZE


def is_payload(data: object) -> bool:
    """Whether `data` begins like bytes that `encode_payload` made; the rest is not looked at.

    >>> from refold.eventstore.payloads import encode_payload, is_payload
    >>> is_payload(encode_payload({"lr": 0.1})), is_payload(b'{"lr": 0.1}')
    (True, False)
    """
    if not isinstance(data, bytes | bytearray):
        return False
    start = _SIGNED_PREFIX if data[:1] == SIGNED else 0
    return bytes(data[start : start + 2]) in _KINDS


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
    head = bytes(payload[:2])
    if head in _KINDS:
        return head
    if head[:1] == SIGNED:
        return SIGNED
    if head[:1] in _FIRST_BYTES:
        raise InvalidPayload(
            "the payload is cut off, or a newer refold wrote it: update this one to read it"
        )
    raise InvalidPayload(f"these {len(payload)} bytes are no payload: encode_payload makes one")

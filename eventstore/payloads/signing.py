"""Signatures, which tell payloads of one's own from those that somebody else wrote."""

import hmac
import os
from collections.abc import Sequence

from refold.eventstore.errors import InvalidPayload, PayloadRefused
from refold.eventstore.payloads.header import MAC_SIZE, SIGNED

KEY_VARIABLE = "REFOLD_PAYLOAD_KEY"
"""The environment variable with the key, for callers that pass none."""


def signing_key(key: bytes | str | None) -> bytes | None:
    """The key as bytes: the one passed, or the one in the environment, or None.

    Raises:
        InvalidPayload: the key is empty, which would sign with what everybody knows.
    """
    if key is None:
        key = os.environ.get(KEY_VARIABLE)
        if key is None:
            return None
    if not isinstance(key, bytes | str):
        raise InvalidPayload(f"the payload key is a {type(key).__name__}: pass text or bytes")
    if not key:
        raise InvalidPayload(
            f"the payload key is empty: set {KEY_VARIABLE} to a secret, or unset it to not sign"
        )
    return key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")


def sign(parts: Sequence[bytes | memoryview], key: bytes) -> list[bytes | memoryview]:
    """The parts of a payload with their signature before them."""
    return [SIGNED, _mac(parts, key), *parts]


def verify(payload: memoryview, key: bytes | None) -> memoryview:
    """The payload inside a signed one, nothing of which has been decoded yet.

    Raises:
        PayloadRefused: there is no key to check with, or the signature is not by that key.
    """
    if key is None:
        raise PayloadRefused(
            f"the payload is signed: set {KEY_VARIABLE} to the key that it was written with"
        )
    start = len(SIGNED) + MAC_SIZE
    inner = payload[start:]
    if not hmac.compare_digest(payload[len(SIGNED) : start], _mac([inner], key)):
        raise PayloadRefused("the payload was altered, or signed with another key")
    return inner


def _mac(parts: Sequence[bytes | memoryview], key: bytes) -> bytes:
    mac = hmac.new(key, digestmod="sha256")
    for part in parts:
        mac.update(part)
    return mac.digest()

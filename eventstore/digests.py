"""The digest of an event: it chains each event to the one before it in its stream.

It is SHA-256, cut to 16 bytes, of

    digest of the stream's event before it, or 16 zero bytes
    position, version, recorded_at      8 bytes each, big endian
    schema_version                      4 bytes
    stream, type, data, metadata        each: its length in 4 bytes, then UTF-8

With a key it is the HMAC-SHA-256 of the same bytes, cut likewise.
"""

import hashlib
import hmac
import os
import struct

from refold.eventstore.errors import AccessDenied

KEY_VARIABLE = "REFOLD_LOG_KEY"
"""The environment variable with the key of the digests."""

SIZE = 16
NOTHING = bytes(SIZE)
"""What comes before the first event of a stream."""

_length = struct.Struct(">I").pack
_numbers = struct.Struct(">qqqII").pack


def log_key() -> bytes | None:
    """Return the key that the environment holds, or None."""
    key = os.environ.get(KEY_VARIABLE)
    return key.encode() if key else None


def key_id(key: bytes) -> str:
    """Return what tells a key from others and does not give it away."""
    return hmac.digest(key, b"refold: the key of a log", "sha256")[:8].hex()


def digest_of(
    before: bytes | None,
    position: int,
    stream: bytes,
    version: int,
    type_name: bytes,
    schema_version: int,
    data: bytes,
    metadata: bytes,
    recorded_at: int,
    key: bytes | None = None,
) -> bytes:
    """Return the digest of an event.

    Args:
        before: the digest of the event before it in its stream; None: there is none.
        position, version, schema_version, recorded_at: its columns.
        stream, type_name, data, metadata: its columns, in UTF-8.
        key: makes it an HMAC.

    Raises:
        struct.error: a number is not one, or is beyond its bytes.
    """
    chained = b"".join(
        (
            before or NOTHING,
            _numbers(position, version, recorded_at, schema_version, len(stream)),
            stream,
            _length(len(type_name)),
            type_name,
            _length(len(data)),
            data,
            _length(len(metadata)),
            metadata,
        )
    )
    if key is None:
        return hashlib.sha256(chained).digest()[:SIZE]
    return hmac.digest(key, chained, "sha256")[:SIZE]


class Signer:
    """The key of a store's digests, as far as this process has it.

    Args:
        name: the store's, for messages.
        wanted: what `key_id` says of the store's key; None: its digests need none.
        key: the one that this process has.
    """

    def __init__(self, name: str, wanted: str | None, key: bytes | None) -> None:
        self._name = name
        self._given = None if key is None else key_id(key)
        self._has = key
        self.need(wanted)

    def need(self, wanted: str | None) -> None:
        """Note what `key_id` says of the key that the store's digests are signed with."""
        self._wanted = wanted
        self._key = self._has if self._given == wanted else None

    @property
    def signs(self) -> bool:
        """Whether new events need a key."""
        return self._wanted is not None

    def key(self) -> bytes | None:
        """Return the key for new events; None: they need none.

        Raises:
            AccessDenied: they need another one than this process has.
        """
        if self._key is None and self._wanted is not None:
            has = "has none" if self._given is None else "has another one"
            raise AccessDenied(
                f"{self._name}: its events are signed with a key, and this process {has}: set "
                f"{KEY_VARIABLE} to the key before the store is opened"
            )
        return self._key

"""Any Python object to bytes and back, with types kept."""

from hashlib import sha256
from typing import Any, cast

import msgspec

from refold.eventstore.errors import InvalidPayload, PayloadRefused
from refold.eventstore.payloads.bundle import bundle, unbundle
from refold.eventstore.payloads.extension_types import NotPlain
from refold.eventstore.payloads.header import DILL, PLAIN, SIGNED, TENSORS, kind_of, view_of
from refold.eventstore.payloads.plain import pack_plain, unpack_plain
from refold.eventstore.payloads.signing import KEY_VARIABLE, sign, signing_key, verify
from refold.eventstore.payloads.tensors import Tensors


class PayloadCodec(msgspec.Struct, frozen=True):
    """Turns any Python object into bytes and back: `decode(encode(x)) == x`, types included.

    Plain data becomes MessagePack, tensors and NumPy arrays become their bare bytes; both are
    safe to decode whoever wrote them. Everything else is pickled with dill, and **unpickling
    runs code**: give a key, or forbid dill, where others can write to the store.

    Tensors come back on the CPU, writable, and without their gradients; a tensor that is a view
    comes back with memory of its own. Code of a script's classes and functions can be read by
    the same version of Python.

    Args:
        key: signs payloads, and refuses those that are not signed with it; by default what the
            environment variable `REFOLD_PAYLOAD_KEY` holds now; without it nothing is signed.
        allow_dill: whether `decode` accepts dill.

    Raises:
        InvalidPayload: the key is empty.

    >>> from refold.eventstore.payloads import PayloadCodec
    >>> codec = PayloadCodec(key="a secret")
    >>> codec.decode(codec.encode({"lr": 0.1, "betas": (0.9, 0.999)}))
    {'lr': 0.1, 'betas': (0.9, 0.999)}
    """

    key: bytes | str | None = None
    allow_dill: bool = True

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "key", signing_key(self.key))

    def __repr__(self) -> str:
        shown = "None" if self.key is None else "'…'"
        return f"PayloadCodec(key={shown}, allow_dill={self.allow_dill})"

    def encode(self, obj: Any) -> bytes:
        """The object as bytes.

        Raises:
            InvalidPayload: it holds what cannot be stored, such as a socket or a generator.
        """
        try:
            parts = _parts(obj)
        except msgspec.EncodeError as error:
            raise InvalidPayload(
                f"an object is too large to be stored ({error}): store it as a NumPy array"
            ) from error
        key = cast("bytes | None", self.key)
        return b"".join(parts if key is None else sign(parts, key))

    def decode(self, data: bytes) -> Any:
        """The object that `encode` made the bytes from.

        Raises:
            InvalidPayload: the bytes are not a payload, or are damaged.
            PayloadRefused: it is not signed with the key, or it is dill and dill is not allowed;
                nothing of it was decoded.
        """
        payload = view_of(data)
        kind = kind_of(payload)
        key = cast("bytes | None", self.key)
        if kind == SIGNED:
            payload = verify(payload, key)
            kind = kind_of(payload)
        elif key is not None:
            raise PayloadRefused(
                f"the payload is not signed, and the key ({KEY_VARIABLE}) demands it"
            )
        if kind == PLAIN:
            return unpack_plain(payload[len(PLAIN) :])
        if kind == TENSORS:
            tree, tensors = unbundle(payload)
            return unpack_plain(tree, tensors.get)
        if kind == DILL:
            return self._unpickle(payload)
        raise InvalidPayload("the payload is signed twice")

    def _unpickle(self, payload: memoryview) -> Any:
        if not self.allow_dill:
            raise PayloadRefused(
                "the payload is pickled with dill, which allow_dill=False refuses: unpickling runs "
                "code, so allow it only if you trust whoever wrote the payload"
            )
        from refold.eventstore.payloads import dill_objects

        tree, tensors = unbundle(payload)
        return dill_objects.load(tree, tensors.get)


def _parts(obj: Any) -> list[bytes | memoryview]:
    tensors = Tensors()
    try:
        tree = pack_plain(obj, tensors.add)
    except NotPlain:
        from refold.eventstore.payloads import dill_objects

        return bundle(DILL, dill_objects.dump(obj, tensors), tensors)
    except RecursionError as error:
        raise InvalidPayload("an object is nested too deeply to be stored") from error
    return bundle(TENSORS, tree, tensors) if tensors.layouts else [PLAIN, tree]


def encode_payload(obj: Any, *, key: bytes | str | None = None) -> bytes:
    """Any Python object as bytes: see `PayloadCodec`.

    Raises:
        InvalidPayload: it holds what cannot be stored, or the key is empty.

    >>> from refold.eventstore.payloads import encode_payload
    >>> encode_payload({"lr": 0.1}).hex()
    'f80181a26c72cb3fb999999999999a'
    """
    return PayloadCodec(key).encode(obj)


def decode_db_payload(
    data: bytes, *, key: bytes | str | None = None, allow_dill: bool = True
) -> Any:
    """The object that `encode_payload` made the bytes from: see `PayloadCodec`.

    Raises:
        InvalidPayload: the bytes are not a payload, or are damaged.
        PayloadRefused: it is not signed with the key, or it is dill and dill is not allowed.

    >>> from refold.eventstore.payloads import decode_db_payload, encode_payload
    >>> decode_db_payload(encode_payload({"lr": 0.1}))
    {'lr': 0.1}
    """
    return PayloadCodec(key, allow_dill).decode(data)


def digest(data: bytes) -> str:
    """The SHA-256 of the bytes of a payload in hex: the address of its content.

    >>> from refold.eventstore.payloads import digest
    >>> digest(b"")[:8]
    'e3b0c442'
    """
    return sha256(data).hexdigest()

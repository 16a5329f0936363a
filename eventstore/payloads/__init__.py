"""Any Python object to bytes and back, with types kept."""

import hmac
import os
import struct
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from hashlib import sha256
from typing import Any, cast
from zlib import crc32

import msgspec

from refold.eventstore.errors import InvalidPayload, PayloadRefused
from refold.eventstore.payloads.arrays import (
    ArrayLayout,
    Count,
    StoredTensors,
    TensorLayout,
    Tensors,
)
from refold.eventstore.payloads.outlines import outline
from refold.eventstore.payloads.plain import (
    NotPlain,
    as_json,
    from_json,
    pack_plain,
    unpack_plain,
)

# The kind and the version of its format. No UTF-8 text, pickle, image or archive starts with one
# of these bytes, and so no JSON or base64 does.
JSON = b"\xf7\x01"
OUTLINED = b"\xf7\x02"
PLAIN = b"\xf8\x01"
TENSORS = b"\xf9\x01"
DILL = b"\xfa\x01"

SIGNED = b"\xfb"
MAC_SIZE = 32
"""The bytes of the HMAC-SHA256 between `SIGNED` and the payload that it signs."""

OUTLINE_END = b"\0"
"""What stands behind the outline and before the payload of another kind; no JSON holds it."""

_KINDS = frozenset({JSON, OUTLINED, PLAIN, TENSORS, DILL})
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
    """`JSON`, `OUTLINED`, `PLAIN`, `TENSORS`, `DILL` or `SIGNED`.

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
    try:
        return key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidPayload("the payload key holds a lone surrogate: pass bytes") from None


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


_ALIGNMENT = 64
_CHECK = struct.Struct(">IQ")
_CHECK_START = 2
_HEAD_START = _CHECK_START + _CHECK.size


class _Head(msgspec.Struct, array_like=True):
    tree: bytes
    sizes: list[Count]
    layouts: list[ArrayLayout | TensorLayout]
    devices: list[str] | None = None
    """Where each of them was; not there if that is the CPU for all."""


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(_Head).decode


def bundle(kind: bytes, tree: bytes, tensors: Tensors) -> list[bytes | memoryview]:
    """The parts of a payload, to be joined; the buffers are not copied."""
    sizes = [len(buffer) for buffer in tensors.buffers]
    devices = [] if {*tensors.devices} <= {"cpu"} else [tensors.devices]
    head = _encode_head([tree, sizes, tensors.layouts, *devices])
    parts: list[bytes | memoryview] = [kind, _CHECK.pack(crc32(head), len(head)), head]
    end = _HEAD_START + len(head)
    for buffer, (start, stop) in zip(tensors.buffers, _places(end, sizes), strict=True):
        parts += [bytes(start - end), buffer]
        end = stop
    return parts


def unbundle(payload: memoryview) -> tuple[bytes, StoredTensors]:
    """The tree and the tensors of a payload.

    Raises:
        InvalidPayload: bytes are missing, too many or altered.
    """
    if len(payload) < _HEAD_START:
        raise InvalidPayload("the payload is cut off in its header")
    checksum, length = _CHECK.unpack_from(payload, _CHECK_START)
    end = _HEAD_START + length
    head = payload[_HEAD_START:end]
    if len(head) != length or crc32(head) != checksum:
        raise InvalidPayload("the payload is cut off or damaged in its head")
    try:
        decoded = _decode_head(head)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidPayload(f"the head of the payload cannot be decoded: {error}") from error
    places = list(_places(end, decoded.sizes))
    end = places[-1][1] if places else end
    if len(payload) != end:
        raise InvalidPayload(f"the payload has {len(payload)} bytes where {end} were written")
    buffers = [payload[start:stop] for start, stop in places]
    return decoded.tree, StoredTensors(decoded.layouts, buffers, decoded.devices)


def _places(end: int, sizes: list[int]) -> Iterator[tuple[int, int]]:
    for size in sizes:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + size
        yield start, end


class PayloadCodec(msgspec.Struct, frozen=True):
    """Turns any Python object into bytes and back: `decode(encode(x)) == x`, types included.

    Plain data becomes JSON text, which SQL can read, or MessagePack where JSON would lose a type;
    tensors and NumPy arrays become their bare bytes; all three are safe to decode whoever wrote
    them. Everything else is pickled with dill, and **unpickling runs code**: give a key, or forbid
    dill, where others can write to the store.

    Tensors come back on their device, or on the CPU where that device is missing or full. They are
    writable and without their gradients; one that is a view comes back with memory of its own.
    Code of a script's classes and functions can be read by the same version of Python.

    Args:
        key: signs payloads, and refuses those that are not signed with it; by default what the
            environment variable `REFOLD_PAYLOAD_KEY` holds now; without it nothing is signed.
        allow_dill: whether payloads may be dill; without, they are neither read nor written.

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

    def encode(self, obj: Any, *, outlined: bool = False) -> bytes:
        """The object as bytes.

        Args:
            obj: any.
            outlined: have JSON text of what is plain in it before the exact bytes, if they are none
                themselves, so that SQL can read it.

        Raises:
            InvalidPayload: it holds what cannot be stored, such as a socket or a generator, or what
                can be pickled but not unpickled.
            PayloadRefused: it needs dill, and dill is not allowed.
        """
        try:
            parts = _parts(obj, allow_dill=self.allow_dill)
        except msgspec.EncodeError as error:
            raise InvalidPayload(
                f"an object is too large to be stored ({error}): store it as a NumPy array"
            ) from error
        return self._joined(_outlined(parts, obj) if outlined else parts)

    def decode(self, data: bytes) -> Any:
        """The object that `encode` made the bytes from.

        Raises:
            InvalidPayload: the bytes are not a payload, or are damaged.
            PayloadRefused: it is not signed with the key, or it is dill and dill is not allowed;
                nothing of it was decoded.
        """
        payload = self._verified(view_of(data))
        kind = kind_of(payload)
        if kind == OUTLINED:
            payload = _without_outline(payload)
            kind = kind_of(payload)
        if kind == JSON:
            return from_json(payload[len(JSON) :])
        if kind == PLAIN:
            return unpack_plain(payload[len(PLAIN) :])
        if kind == TENSORS:
            tree, tensors = unbundle(payload)
            return unpack_plain(tree, tensors.get)
        if kind == DILL:
            return self._unpickle(payload)
        raise InvalidPayload("the payload is signed or outlined twice")

    def adopt(self, data: bytes, *, outlined: bool = False) -> bytes:
        """The bytes of a payload that somebody else made, as this codec can read them back.

        With a key, plain data and tensors are signed, as the object itself would be. What is
        pickled and not signed is refused, since to look at it would run its code.

        Args:
            data: the bytes.
            outlined: see `encode`.

        Raises:
            InvalidPayload: the bytes are not a payload, or cannot be decoded here.
            PayloadRefused: they are signed with another key, or pickled and not signed, or dill is
                not allowed.
        """
        payload = view_of(data)
        if self.key is not None and _inner_kind(payload) in (JSON, PLAIN, TENSORS):
            data = self._joined([payload])
        value = self.decode(data)
        payload = self._verified(view_of(data))
        if outlined and kind_of(payload) not in (JSON, OUTLINED):
            return self._joined(_outlined([payload], value))
        return data

    def _joined(self, parts: list[bytes | memoryview]) -> bytes:
        key = cast("bytes | None", self.key)
        return b"".join(parts if key is None else sign(parts, key))

    def _verified(self, payload: memoryview) -> memoryview:
        key = cast("bytes | None", self.key)
        if kind_of(payload) == SIGNED:
            return verify(payload, key)
        if key is not None:
            raise PayloadRefused(
                f"the payload is not signed, and the key ({KEY_VARIABLE}) demands it"
            )
        return payload

    def _unpickle(self, payload: memoryview) -> Any:
        if not self.allow_dill:
            raise PayloadRefused(
                "the payload is pickled with dill, which allow_dill=False refuses: unpickling runs "
                "code, so allow it only if you trust whoever wrote the payload"
            )
        from refold.eventstore.payloads import pickled

        tree, tensors = unbundle(payload)
        return pickled.load(tree, tensors.get)


def _outlined(parts: list[bytes | memoryview], obj: Any) -> list[bytes | memoryview]:
    if parts[0] == JSON or (text := outline(obj)) is None:
        return parts
    return [OUTLINED, text, OUTLINE_END, *parts]


def _without_outline(payload: memoryview) -> memoryview:
    end = bytes(payload).find(OUTLINE_END)
    if end < 0:
        raise InvalidPayload("the payload is cut off in its outline")
    return payload[end + 1 :]


def _inner_kind(payload: memoryview) -> bytes:
    kind = kind_of(payload)
    return kind_of(_without_outline(payload)) if kind == OUTLINED else kind


_storing = ContextVar("storing", default=False)


def is_storing() -> bool:
    """Return whether an object that is being pickled becomes a payload, and is not just sent."""
    return _storing.get()


def _parts(obj: Any, *, allow_dill: bool) -> list[bytes | memoryview]:
    tensors = Tensors()
    try:
        tree = pack_plain(obj, tensors.add)
    except NotPlain:
        if not allow_dill:
            raise PayloadRefused(
                f"an object of type {type(obj).__qualname__} can only be pickled with dill, which "
                f"allow_dill=False refuses: store plain data, tensors or arrays"
            ) from None
        from refold.eventstore.payloads import pickled

        token = _storing.set(True)
        try:
            data = pickled.dump(obj, tensors)
        finally:
            _storing.reset(token)
        # Of its own accord pickle tells only the reader that an object cannot be made again.
        pickled.check(data, StoredTensors(tensors.layouts, tensors.buffers, None).get, obj)
        return bundle(DILL, data, tensors)
    except RecursionError as error:
        raise InvalidPayload("an object is nested too deeply to be stored") from error
    if tensors.layouts:
        return bundle(TENSORS, tree, tensors)
    text = as_json(obj)
    return [PLAIN, tree] if text is None else [JSON, text]


def encode_payload(obj: Any, *, key: bytes | str | None = None) -> bytes:
    """Any Python object as bytes: see `PayloadCodec`.

    Raises:
        InvalidPayload: it holds what cannot be stored, or the key is empty.

    >>> from refold.eventstore.payloads import encode_payload
    >>> encode_payload({"lr": 0.1}).hex()
    'f7017b226c72223a302e317d'
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


def check_digest(name: str, content: bytes) -> bytes:
    """Return the bytes of a payload, which are those that their digest names.

    Raises:
        PayloadRefused: they are not.
    """
    if sha256(content).hexdigest() != name:
        raise PayloadRefused(
            f"the payload {name} was altered: its bytes have another digest; restore a backup"
        )
    return content

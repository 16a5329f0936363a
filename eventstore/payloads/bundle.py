"""A tree and the tensors in it as one payload.

kind and version    2 bytes
CRC-32 of the head  4 bytes, big-endian
length of the head  8 bytes, big-endian
head                MessagePack: the tree, the sizes of the buffers, the layouts of the tensors
each buffer         from the next multiple of 64 bytes on
"""

import struct
from collections.abc import Iterator
from zlib import crc32

import msgspec

from refold.eventstore.errors import InvalidPayload
from refold.eventstore.payloads.layout import ArrayLayout, Count, TensorLayout
from refold.eventstore.payloads.tensors import StoredTensors, Tensors

_ALIGNMENT = 64
_CHECK = struct.Struct(">IQ")
_CHECK_START = 2
_HEAD_START = _CHECK_START + _CHECK.size


class _Head(msgspec.Struct, array_like=True):
    tree: bytes
    sizes: list[Count]
    layouts: list[ArrayLayout | TensorLayout]


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(_Head).decode


def bundle(kind: bytes, tree: bytes, tensors: Tensors) -> list[bytes | memoryview]:
    """The parts of a payload, to be joined; the buffers are not copied."""
    sizes = [len(buffer) for buffer in tensors.buffers]
    head = _encode_head(_Head(tree, sizes, tensors.layouts))
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
    return decoded.tree, StoredTensors(decoded.layouts, buffers)


def _places(end: int, sizes: list[int]) -> Iterator[tuple[int, int]]:
    for size in sizes:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + size
        yield start, end

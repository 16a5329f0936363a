"""What decoding makes is bounded by the payload's size, also for those that somebody has forged."""

import struct
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.msgpack import Ext

from refold import InvalidPayload
from refold.eventstore.payloads import PLAIN, TENSORS, PayloadCodec
from refold.eventstore.payloads.arrays import WITHOUT_BYTES

pack = msgspec.msgpack.Encoder().encode
safe = PayloadCodec(allow_dill=False)


def tensor(number: int) -> Ext:
    return Ext(6, pack(number))


def forged(tree: Any, layouts: list[Any], *buffers: bytes) -> bytes:
    head = pack([pack(tree), [len(one) for one in buffers], layouts])
    data = TENSORS + struct.pack(">IQ", zlib.crc32(head), len(head)) + head
    for one in buffers:
        data += bytes(-len(data) % 64) + one
    return data


BODY = bytes(1_000)
FORGED = {
    "arrays that share a buffer": forged(
        [tensor(number) for number in range(1_000)],
        [["numpy", "|u1", [1_000], [], 0]] * 1_000,
        BODY,
    ),
    "no bytes, a huge shape": forged(tensor(0), [["numpy", "|V0", [2**40], [], 0]], b""),
    "text without bytes": forged(tensor(0), [["numpy", "|S0", [2**40], [], 0]], b""),
    "text of no letters": forged(tensor(0), [["numpy", "<U0", [2**40], [], 0]], b""),
    "fields without bytes": forged(tensor(0), [["numpy", "[('a', '|V0')]", [2**33], [], 0]], b""),
    "an empty field in each": forged(
        tensor(0), [["numpy", "[('a', '|u1', (0,))]", [2**33], [], 0]], b""
    ),
    "a shape beyond its bytes": forged(tensor(0), [["numpy", "|u1", [2**40], [], 0]], BODY),
    "a scalar without its bytes": PLAIN + pack(Ext(7, pack(["|V2000000000", b""]))),
    "a huge buffer": forged(tensor(0), [["numpy", "|u1", [2**40], [], 0]], BODY).replace(
        pack(1_000), pack(2_000)
    ),
}


@pytest.mark.parametrize("data", FORGED.values(), ids=FORGED)
def test_small_payloads_make_nothing_large(data: bytes) -> None:
    with pytest.raises(InvalidPayload):
        safe.decode(data)


def test_arrays_without_bytes_are_kept() -> None:
    for array in (np.zeros(3, "V0"), np.zeros((0, 2**20)), np.zeros((2, 0, 3), "f4")):
        again = safe.decode(safe.encode(array))
        assert (again.shape, again.dtype) == (array.shape, array.dtype)
    with pytest.raises(InvalidPayload):
        safe.encode(np.zeros(WITHOUT_BYTES + 1, "V0"))


def test_the_same_array_twice_is_one() -> None:
    array = np.arange(10)
    one, other = safe.decode(safe.encode([array, array]))
    assert one is other

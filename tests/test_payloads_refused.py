"""Bytes that are no payloads, damaged ones and forged ones: refused, and nothing of them is run."""

import contextlib
import pickle
from collections import OrderedDict
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import example, given
from ids import told
from tries import tries

from refold.eventstore.errors import InvalidPayload, PayloadRefused
from refold.eventstore.payloads import (
    DILL,
    PLAIN,
    TENSORS,
    bundle,
    decode_db_payload,
    encode_payload,
    pickled,
)
from refold.eventstore.payloads.arrays import ArrayLayout, TensorLayout, Tensors

KEY = b"secret"
SAMPLES = {
    "plain": encode_payload({"lr": 0.1, "betas": (0.9, 0.999), 1: {2, 3}, "s": np.float32(1)}),
    "tensors": encode_payload([torch.arange(5), np.arange(3), torch.nn.Parameter(torch.ones(1))]),
    "dill": encode_payload(OrderedDict(a=1, b=torch.ones(2))),
    "signed": encode_payload({"lr": 0.1}, key=KEY),
    "signed dill": encode_payload(OrderedDict(a=1), key=KEY),
}


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFOLD_PAYLOAD_KEY", raising=False)


@pytest.fixture
def no_dill(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> Any:
        raise AssertionError("dill was reached")

    monkeypatch.setattr(pickled, "load", load)


# --- no payloads, and damaged ones --------------------------------------------------------------


@pytest.mark.parametrize("data", [None, 1, 1.5, [], "text", memoryview(b"")], ids=told)
def test_what_is_not_bytes_is_refused_with_its_type(data: Any) -> None:
    with pytest.raises(InvalidPayload, match=type(data).__name__):
        decode_db_payload(data)


def test_text_is_refused_with_a_hint_at_base64() -> None:
    with pytest.raises(InvalidPayload, match="base64"):
        decode_db_payload("gASVDAAAAAAAAAB9lIwBYZRLAXMu")  # type: ignore[arg-type]


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_part_of_a_payload_that_is_cut_off_is_refused(sample: str) -> None:
    data = SAMPLES[sample]
    key = KEY if sample.startswith("signed") else None
    decode_db_payload(data, key=key)
    for end in range(len(data)):
        with pytest.raises(InvalidPayload):
            decode_db_payload(data[:end], key=key)
    with pytest.raises(InvalidPayload):
        decode_db_payload(data + b"\0", key=key)


def decodes_or_is_refused(data: bytes, **settings: Any) -> None:
    with contextlib.suppress(InvalidPayload):
        decode_db_payload(data, **settings)


@given(
    st.binary()
    | st.builds(
        bytes.__add__,
        st.sampled_from([PLAIN, TENSORS, DILL, b"\xfb"]),
        st.binary(max_size=200),
    )
)
@tries(500)
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    decodes_or_is_refused(data)
    with pytest.raises(InvalidPayload):
        decode_db_payload(data, key=KEY)


@given(st.sampled_from(sorted(SAMPLES)), st.data())
@tries(500)
def test_an_altered_payload_is_decoded_or_refused(sample: str, draw: st.DataObject) -> None:
    data = bytearray(SAMPLES[sample])
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data) - 1))
        data[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    decodes_or_is_refused(bytes(data), allow_dill=False)
    if bytes(data) != SAMPLES[sample]:
        with pytest.raises(InvalidPayload):
            decode_db_payload(bytes(data), key=KEY)


@pytest.mark.parametrize(
    "tail",
    ["ddffffffff", "dfffffffff", "c6ffffffff", "dbffffffff", "c9ffffffff01", "dd0fffffff" * 50],
)
def test_huge_lengths_are_refused(tail: str) -> None:
    with pytest.raises(InvalidPayload):
        decode_db_payload(PLAIN + bytes.fromhex(tail))
    with pytest.raises(InvalidPayload):
        decode_db_payload(TENSORS + b"\0" * 4 + b"\xff" * 8 + bytes.fromhex(tail))


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01", b"\xc7\x02\x01\x91", b"\x81"])
def test_nesting_without_end_is_refused(opening: bytes) -> None:
    with pytest.raises(InvalidPayload):
        decode_db_payload(PLAIN + opening * 100_000)


def extension(code: int, content: bytes) -> bytes:
    return PLAIN + msgspec.msgpack.encode(msgspec.msgpack.Ext(code, content))


def test_an_extension_of_the_future_says_so() -> None:
    with pytest.raises(InvalidPayload, match=r"extension type 99.*newer refold"):
        decode_db_payload(extension(99, b""))


def test_a_kind_of_the_future_says_so() -> None:
    with pytest.raises(InvalidPayload, match="newer refold"):
        decode_db_payload(b"\xf8\x02\x01")


@given(st.integers(1, 40), st.binary(max_size=40))
@example(18, b"1")
@example(19, msgspec.msgpack.encode(["2024-01-01", 0, "../../etc/passwd"]))
@example(19, msgspec.msgpack.encode(["2024-01-01", 0, 10**18]))
@example(19, msgspec.msgpack.encode(["2024-01-01", 7, None]))
@example(23, b"not a number")
@example(24, b"short")
@example(4, msgspec.msgpack.encode([1, 2, 3]))
@example(2, msgspec.msgpack.encode([[]]))
@example(6, msgspec.msgpack.encode(0))
@example(7, msgspec.msgpack.encode(["|O", b"12345678"]))
@example(7, msgspec.msgpack.encode(["[('a', '|O')]", b"12345678"]))
@example(7, msgspec.msgpack.encode(["[", b""]))
@example(7, msgspec.msgpack.encode(["<f8", b"1234"]))
@tries(500)
def test_any_content_of_an_extension_is_decoded_or_refused(code: int, content: bytes) -> None:
    decodes_or_is_refused(extension(code, content))


@pytest.mark.parametrize(
    "layout",
    [
        TensorLayout("float32", (3,), (), 0),
        TensorLayout("float32", (2**62, 2**62), (), 0),
        TensorLayout("float32", (0, 2**63), (), 1),
        TensorLayout("qint8", (8,), (), 0),
        TensorLayout("Tensor", (8,), (), 0),
        TensorLayout("float31", (2,), (), 0),
        TensorLayout("float32", (2,), (1,), 0),
        TensorLayout("float32", (2,), (), 9),
        TensorLayout("int32", (2,), (), 0, requires_grad=True),
        TensorLayout("int32", (2,), (), 0, parameter=True, requires_grad=True),
        ArrayLayout("|O", (1,), (), 0),
        ArrayLayout("[('a', '|O')]", (1,), (), 0),
        ArrayLayout("[" * 5_000, (1,), (), 0),
        ArrayLayout("<f8", (2,), (), 0),
        ArrayLayout("<f8", (1,), (0, 0), 0),
        ArrayLayout("<f8", (0, 2**63), (), 1),
    ],
    ids=lambda layout: f"{layout}"[:60],
)
def test_a_tensor_that_does_not_fit_its_bytes_is_refused(layout: Any) -> None:
    forged = Tensors()
    forged.layouts.append(layout)
    forged.buffers += [memoryview(b"12345678"), memoryview(b"")]
    tree = msgspec.msgpack.encode(msgspec.msgpack.Ext(6, b"\0"))
    with pytest.raises(InvalidPayload):
        decode_db_payload(b"".join(bundle(TENSORS, tree, forged)))


@pytest.mark.parametrize("number", [1, 10**9, "0", None, [0]])
def test_a_tensor_that_is_not_there_is_refused(number: Any) -> None:
    tree = msgspec.msgpack.encode(msgspec.msgpack.Ext(6, msgspec.msgpack.encode(number)))
    with pytest.raises(InvalidPayload):
        decode_db_payload(b"".join(bundle(TENSORS, tree, Tensors())))


@pytest.mark.parametrize(
    "stream", [b"", b"\x80\x05", b"not a pickle", pickle.dumps(1)[:-1], b"cnowhere\nnothing\n."]
)
def test_what_cannot_be_unpickled_is_refused(stream: bytes) -> None:
    with pytest.raises(InvalidPayload):
        decode_db_payload(b"".join(bundle(DILL, stream, Tensors())))


def test_a_damaged_pickle_is_not_given_to_dill(no_dill: None) -> None:
    data = bytearray(SAMPLES["dill"])
    data[30] ^= 1
    with pytest.raises(InvalidPayload, match="damaged"):
        decode_db_payload(bytes(data))


# --- signatures -----------------------------------------------------------------------------


@pytest.mark.parametrize("sample", SAMPLES)
def test_with_a_key_only_what_it_signed_is_decoded(sample: str, no_dill: None) -> None:
    with pytest.raises(PayloadRefused):
        decode_db_payload(SAMPLES[sample], key="another secret")


@pytest.mark.parametrize("sample", ["plain", "tensors", "dill"])
def test_an_unsigned_payload_is_refused_by_name_of_the_key(sample: str, no_dill: None) -> None:
    with pytest.raises(PayloadRefused, match=r"not signed.*REFOLD_PAYLOAD_KEY"):
        decode_db_payload(SAMPLES[sample], key=KEY)


def test_every_altered_bit_of_a_signed_payload_is_noticed(no_dill: None) -> None:
    data = SAMPLES["signed dill"]
    for at in range(1, len(data)):
        altered = bytearray(data)
        altered[at] ^= 1
        with pytest.raises(PayloadRefused):
            decode_db_payload(bytes(altered), key=KEY)


def test_a_signed_payload_without_a_key_names_the_variable_to_set(no_dill: None) -> None:
    with pytest.raises(PayloadRefused, match="set REFOLD_PAYLOAD_KEY"):
        decode_db_payload(SAMPLES["signed dill"])


def test_a_payload_signed_twice_is_refused() -> None:
    from refold.eventstore.payloads import sign

    twice = b"".join(sign([SAMPLES["signed"]], KEY))
    with pytest.raises(InvalidPayload, match="twice"):
        decode_db_payload(twice, key=KEY)


def test_text_and_bytes_are_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_payload([torch.ones(2)], key="schlüssel")
    assert data == encode_payload([torch.ones(2)], key="schlüssel".encode())
    monkeypatch.setenv("REFOLD_PAYLOAD_KEY", "schlüssel")
    assert torch.equal(decode_db_payload(data)[0], torch.ones(2))


def test_an_empty_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidPayload, match="empty"):
        encode_payload(1, key="")
    monkeypatch.setenv("REFOLD_PAYLOAD_KEY", "")
    with pytest.raises(InvalidPayload, match="REFOLD_PAYLOAD_KEY"):
        decode_db_payload(encode_payload(1))


def test_a_signed_pickle_is_still_refused_where_dill_is_not_allowed(no_dill: None) -> None:
    with pytest.raises(PayloadRefused, match="allow_dill"):
        decode_db_payload(SAMPLES["signed dill"], key=KEY, allow_dill=False)

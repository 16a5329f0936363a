"""Payloads of plain data: what goes in comes out, types included, and the bytes never change."""

import collections
import contextlib
import dataclasses
import enum
import os
import struct
import subprocess
import sys
import types
import typing
import uuid
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from ids import told

from refold.eventstore import payloads
from refold.eventstore.errors import InvalidPayload, PayloadRefused
from refold.eventstore.payloads import (
    PayloadCodec,
    decode_db_payload,
    digest,
    encode_payload,
    is_payload,
)

JSON, PLAIN, TENSORS, DILL, SIGNED = 0xF7, 0xF8, 0xF9, 0xFA, 0xFB


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFOLD_PAYLOAD_KEY", raising=False)


def same(one: Any, other: Any) -> bool:
    """Equal down to the types, the bits of floats, the order of dicts and the zones of times."""
    if type(one) is not type(other):
        return False
    match one:
        case np.generic():
            return one.dtype == other.dtype and one.tobytes() == other.tobytes()
        case float():
            return struct.pack("<d", one) == struct.pack("<d", other)
        case complex():
            return same(one.real, other.real) and same(one.imag, other.imag)
        case Decimal():
            return one.as_tuple() == other.as_tuple()
        case datetime():
            return (
                one.replace(tzinfo=None) == other.replace(tzinfo=None)
                and one.fold == other.fold
                and same_zone(one.tzinfo, other.tzinfo)
            )
        case time():
            return (
                one.replace(tzinfo=None) == other.replace(tzinfo=None)
                and one.fold == other.fold
                and same_zone(one.tzinfo, other.tzinfo)
            )
        case list() | tuple():
            return len(one) == len(other) and all(map(same, one, other))
        case dict():
            return same([*one.items()], [*other.items()])
        case set() | frozenset():
            return same(sorted(one, key=in_order), sorted(other, key=in_order))
        case _:
            return bool(one == other)


def same_zone(one: Any, other: Any) -> bool:
    if type(one) is timezone:
        return (type(other), other.utcoffset(None), other.tzname(None)) == (
            timezone,
            one.utcoffset(None),
            one.tzname(None),
        )
    return one is other


def in_order(value: Any) -> tuple[str, str]:
    if isinstance(value, frozenset):
        return "frozenset", repr(sorted(map(in_order, value)))
    return type(value).__name__, repr(value)


def comes_back(value: Any, kind: int = PLAIN) -> Any:
    data = encode_payload(value)
    assert data[0] in ((kind, JSON) if kind == PLAIN else (kind,))
    assert is_payload(data)
    back = decode_db_payload(data)
    assert same(back, value)
    return back


TEXT = st.text(st.characters(exclude_categories=[]))
OFFSETS = st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
ZONES = (
    st.none()
    | st.just(UTC)
    | st.builds(timezone, OFFSETS)
    | st.builds(timezone, OFFSETS, st.text(st.characters(codec="utf-8")))
    | st.timezones()
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats()
    | TEXT
    | st.binary()
    | st.complex_numbers()
    | st.datetimes(timezones=ZONES)
    | st.dates()
    | st.times(timezones=ZONES)
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.builds(Path, st.text(st.characters(exclude_categories=[], exclude_characters="\0")))
    | st.floats(width=32).map(np.float32)
    | st.integers(0, 255).map(np.uint8)
    | TEXT.map(np.str_)
    | st.binary().map(np.bytes_)
)
KEYS = st.recursive(
    SCALARS.filter(lambda value: not (type(value) is Decimal and value.is_snan())),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
DATA = st.recursive(
    SCALARS | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(KEYS, max_size=4)
        | st.frozensets(KEYS, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=12,
)

# --- round trips ----------------------------------------------------------------------------


@given(DATA)
@example({"big": [2**64 - 1, 2**64, -(2**63), -(2**63) - 1]})
@example({"text": ["\ud800", "\0", "", "é\udcff"], "\ud800": 1})
@example({float("nan"): -0.0, None: float("-inf"), (1, (2, 3)): {"a": ()}})
@example([Decimal("sNaN7"), Decimal("-0.00"), Decimal("1E+999999")])
@example({1, 1.5, "1", b"1", (1,), frozenset({1}), None, np.int8(3)})
def test_plain_data_comes_back_with_its_types(value: Any) -> None:
    comes_back(value)


@given(DATA)
def test_the_same_data_gives_the_same_bytes(value: Any) -> None:
    assert encode_payload(value) == encode_payload(value)


def test_sets_give_the_same_bytes_in_every_process() -> None:
    code = (
        "from refold.eventstore.payloads import encode_payload\n"
        "words = [f'word-{i}' for i in range(50)]\n"
        "print(encode_payload({'set': set(words), 'sets': {frozenset(words[:3]), 'a'}}).hex())"
    )
    written = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(written) == 1


@pytest.mark.parametrize("key", ["Europe/Berlin", "UTC"])
def test_a_zone_comes_back_as_the_zone_with_that_key(key: str) -> None:
    zone = zoneinfo.ZoneInfo(key)
    ambiguous = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zone)
    assert comes_back(ambiguous).tzinfo is zone


def test_a_zone_that_is_not_found_by_its_key_is_pickled() -> None:
    zone = zoneinfo.ZoneInfo.no_cache("Europe/Berlin")
    data = encode_payload(datetime(2024, 7, 1, tzinfo=zone))
    assert data[0] == DILL
    assert decode_db_payload(data).tzinfo.key == "Europe/Berlin"


def test_a_zone_whose_name_is_no_unicode_is_pickled() -> None:
    moment = datetime(2024, 7, 1, tzinfo=timezone(timedelta(hours=1), "\ud800"))
    comes_back(moment, DILL)


def test_a_zone_that_this_machine_lacks_is_named() -> None:
    data = encode_payload(datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")))
    with pytest.raises(InvalidPayload, match="Nowhere"):
        decode_db_payload(data.replace(b"Europe/Berlin", b"Europ/Nowhere"))


class Colour(enum.IntEnum):
    RED = 1


class Words(str):
    pass


@dataclasses.dataclass
class Config:
    lr: float


class Point(typing.NamedTuple):
    x: int


@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        Colour.RED,
        Words("text"),
        Config(0.1),
        Point(1),
        range(3),
        PurePosixPath("a/b"),
        [1, {"deep": (Words("inside"),)}],
        {Words("key"): 1},
        int,
        types.FunctionType,
        len,
        ...,
    ],
    ids=told,
)
def test_what_is_not_exactly_plain_is_pickled_and_comes_back(value: Any) -> None:
    comes_back(value, DILL)


def test_a_list_that_is_there_twice_stays_one_list() -> None:
    shared = [1]
    back = comes_back({"a": shared, "b": shared}, DILL)
    assert back["a"] is back["b"]
    inside = (shared,)
    first, second = comes_back([inside, inside], DILL)
    assert first[0] is second[0]


def test_data_that_holds_itself_comes_back_holding_itself() -> None:
    ring: dict[str, Any] = {}
    ring["me"] = [ring]
    back = decode_db_payload(encode_payload(ring))
    assert back["me"][0] is back


def test_a_tuple_that_is_there_twice_is_still_plain() -> None:
    betas = (0.9, 0.999)
    comes_back({"first": betas, "second": betas})


def test_tuples_that_double_at_each_level_do_not_double_in_size() -> None:
    value: Any = (1, 2)
    for _ in range(64):
        value = (value, value)
    assert len(encode_payload(value)) < 10_000


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: [inner],
        lambda inner: (inner,),
        lambda inner: {"a": inner},
        lambda inner: {(1, 2): inner},
        lambda inner: frozenset([inner]),
    ],
    ids=["list", "tuple", "dict", "dict by tuples", "frozenset"],
)
def test_what_was_nested_too_deeply_to_read_was_not_written(wrap: Any) -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = wrap(value)
        return value

    with pytest.raises(InvalidPayload, match="too deeply"):
        encode_payload(nested(1_000))
    for depth in range(1_000, 0, -20):
        with contextlib.suppress(InvalidPayload):
            data = encode_payload(nested(depth))
            break
    decode_db_payload(data)


def test_neither_torch_nor_numpy_nor_dill_is_imported_for_plain_data() -> None:
    code = (
        "import sys\n"
        "from refold.eventstore.payloads import decode_db_payload, encode_payload\n"
        "decode_db_payload(encode_payload({'a': (1, 2.5, {3})}))\n"
        "print({'torch', 'numpy', 'dill'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- the format -----------------------------------------------------------------------------

EVERY_PLAIN_TYPE = {
    "none": None,
    "flags": [True, False],
    "ints": [0, -1, 2**63, 2**64, -(2**80)],
    "floats": [0.5, float("inf")],
    "text": ["é", "\ud800", "nul\0"],
    "bytes": [b"\x00\xff", bytearray(b"ab")],
    "containers": [(1, (2,)), {3, 1, 2}, frozenset({"a"}), {(1, 2): 3, 4: 5}],
    "complex": 1.5 - 2j,
    "times": [
        datetime(2024, 1, 2, 3, 4, 5, 6),
        datetime(2024, 1, 2, tzinfo=UTC),
        datetime(2024, 1, 2, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=1, microseconds=1))),
        time(1, 2, tzinfo=timezone(timedelta(hours=2), "here")),
        date(2024, 1, 2),
        timedelta(1, 2, 3),
    ],
    "others": [Decimal("1.50"), uuid.UUID(int=7), Path("a/b")],
}

PLAIN_HEX = (
    "f8018aa46e6f6e65c0a5666c61677392c3c2a4696e74739500ffcf8000000000000000c7091101000000000000"
    "0000c70b11ff00000000000000000000a6666c6f61747392cb3fe0000000000000cb7ff0000000000000a47465"
    "787493a2c3a9c70310eda080a46e756c00a5627974657392c40200ffd5056162aa636f6e7461696e65727394c7"
    "06019201d5019102d60293010203c7030391a161c70a0494c70301920102030405a7636f6d706c6578c7131292"
    "cb3ff8000000000000cbc000000000000000a574696d657397c71e1393ba323032342d30312d30325430333a30"
    "343a30352e30303030303600c0c7171393b3323032342d30312d30325430303a30303a30300000c7241393b332"
    "3032342d30312d30325430303a30303a303001ad4575726f70652f4265726c696ec71b1393b3323032342d3031"
    "2d30325430303a30303a303000ced693a401c71a1593a830313a30323a30300092cf00000001ad274800a46865"
    "7265c70a14323032342d30312d3032d61693010203a66f746865727393d617312e3530d8180000000000000000"
    "0000000000000007c70319612f62"
)


def test_the_bytes_of_plain_data_are_those_of_version_1() -> None:
    assert encode_payload(EVERY_PLAIN_TYPE).hex() == PLAIN_HEX


def test_plain_data_of_version_1_is_read() -> None:
    assert same(decode_db_payload(bytes.fromhex(PLAIN_HEX)), EVERY_PLAIN_TYPE)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"lr": 0.1, "é": [1, True, None, "x"]}, '{"lr":0.1,"é":[1,true,null,"x"]}'),
        ({"whole": 1.0, "zero": -0.0}, '{"whole":1.0,"zero":-0.0}'),
        ({"large": 2**64}, '{"large":18446744073709551616}'),
        (1, "1"),
        ({}, "{}"),
    ],
)
def test_data_of_json_is_json_text(value: Any, text: str) -> None:
    data = encode_payload(value)
    assert (data[:2], data[2:].decode()) == (b"\xf7\x01", text)
    assert same(decode_db_payload(data), value)


@pytest.mark.parametrize(
    "value",
    [(1,), {1: 2}, {"a": "\0"}, {"a": "\ud800"}, {"a": float("nan")}, {"a": b""}, {"a": {1}}],
)
def test_data_that_json_would_change_is_not(value: Any) -> None:
    assert encode_payload(value)[0] == PLAIN
    assert same(decode_db_payload(encode_payload(value)), value)


@pytest.mark.parametrize("text", [b"", b"{", b"{}x", b"\xff", b"nan"])
def test_a_damaged_text_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidPayload, match="damaged"):
        decode_db_payload(b"\xf7\x01" + text)


SIGNED_HEX = (
    "fb88af63f9d023488d3b0c4d0b1f78f4c4a85dbcf794ad07d5b4ce24896ec0561ef80181a26c72cb3fb9999999"
    "99999a"
)


def test_a_signed_payload_of_version_1_is_read() -> None:
    assert decode_db_payload(bytes.fromhex(SIGNED_HEX), key="secret") == {"lr": 0.1}


DILL_HEX = (
    "fa01f899642e000000000000004193c43c80059531000000000000008c0b636f6c6c656374696f6e73948c0b4f"
    "726465726564446963749493942952948c026c7294473fb999999999999a732e9090"
)


def test_a_pickled_payload_of_version_1_is_read() -> None:
    back = decode_db_payload(bytes.fromhex(DILL_HEX))
    assert same(back, collections.OrderedDict(lr=0.1))


# --- the doors ------------------------------------------------------------------------------


def test_the_digest_is_sha256_in_hex() -> None:
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_text_beyond_4_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_long(*_: Any) -> bytes:
        raise msgspec.EncodeError("Can't encode strings longer than 2**32 - 1")

    monkeypatch.setattr(payloads, "pack_plain", too_long)
    with pytest.raises(InvalidPayload, match="NumPy"):
        encode_payload("imagine it")


def test_other_bytes_are_no_payload() -> None:
    for other in (b"", b"\xf8", b"\xf8\x02", b"{}", b"\x80\x05", b"\xfb" * 99, "text", None, 1):
        assert not is_payload(other)
    assert is_payload(bytearray(encode_payload(1)))
    assert is_payload(encode_payload(1, key="k"))


def test_a_codec_keeps_its_settings_and_hides_its_key() -> None:
    own = PayloadCodec(key="secret", allow_dill=False)
    assert own.decode(own.encode({1: 2})) == {1: 2}
    assert "secret" not in repr(own)
    assert "secret" not in str(own)
    with pytest.raises(AttributeError):
        own.allow_dill = True  # type: ignore[misc]


def test_a_codec_takes_the_key_of_the_moment_when_it_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsigned = PayloadCodec()
    monkeypatch.setenv("REFOLD_PAYLOAD_KEY", "secret")
    assert unsigned.encode(1)[0] == JSON
    assert PayloadCodec().encode(1) == encode_payload(1, key="secret")
    assert decode_db_payload(encode_payload(1)) == 1


def test_a_pickle_is_refused_where_dill_is_not_allowed() -> None:
    with pytest.raises(PayloadRefused, match="dill"):
        decode_db_payload(encode_payload(Config(0.1)), allow_dill=False)

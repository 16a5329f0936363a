"""Payloads of tensors and arrays: every dtype, every layout, writable, and the same object once."""

import copy
import subprocess
import sys
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from ids import told
from tries import tries

from refold.eventstore.payloads import decode_db_payload, encode_payload, is_payload
from refold.eventstore.payloads.arrays import Tensors, here

PLAIN, TENSORS, DILL = 0xF8, 0xF9, 0xFA


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFOLD_PAYLOAD_KEY", raising=False)


def there_and_back(value: Any, kind: int) -> Any:
    data = encode_payload(value)
    assert data[0] == kind
    assert is_payload(data)
    return decode_db_payload(data)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    whole = tensor.detach().resolve_conj().resolve_neg()
    if whole.element_size() < 16:
        number = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        whole = whole.view(number[whole.element_size()])
    return whole.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def same_tensor(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (
        type(one) is type(other)
        and one.dtype == other.dtype
        and one.shape == other.shape
        and one.requires_grad == other.requires_grad
        and torch.equal(bits(one), bits(other))
    )


# --- torch ----------------------------------------------------------------------------------

DTYPES = sorted({each for each in vars(torch).values() if isinstance(each, torch.dtype)}, key=str)
QUANTISED = [dtype for dtype in DTYPES if str(dtype).startswith("torch.q")]
BARE = [dtype for dtype in DTYPES if dtype not in QUANTISED]


def filled(dtype: torch.dtype) -> torch.Tensor:
    raw = torch.arange(6 * dtype.itemsize, dtype=torch.uint8)
    return (raw % 2 if dtype is torch.bool else raw).view(dtype).reshape(2, 3)


def quantised(dtype: torch.dtype) -> torch.Tensor:
    if dtype in (torch.quint4x2, torch.quint2x4):
        scales, zeros = torch.tensor([0.1, 0.2]), torch.tensor([0.0, 1.0])
        return torch.quantize_per_channel(torch.ones(2, 4), scales, zeros, 0, dtype)
    return torch.quantize_per_tensor(torch.randn(2, 3), 0.1, 0, dtype)


@pytest.mark.parametrize("dtype", BARE, ids=str)
def test_a_tensor_of_every_dtype_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    tensor = filled(dtype)
    back = there_and_back({"a": [tensor, tensor.t(), tensor[:, 1], tensor[0, 0]]}, TENSORS)["a"]
    assert same_tensor(back[0], tensor)
    assert same_tensor(back[1], tensor.t())
    assert same_tensor(back[2], tensor[:, 1])
    assert same_tensor(back[3], tensor[0, 0])


@pytest.mark.parametrize("dtype", QUANTISED, ids=str)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_quantised_tensor_of_every_dtype_comes_back(dtype: torch.dtype) -> None:
    tensor = quantised(dtype)
    back = there_and_back([tensor], DILL)[0]
    assert back.dtype == dtype
    assert back.qscheme() == tensor.qscheme()
    assert torch.equal(back.dequantize(), tensor.dequantize())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.empty(0),
        torch.empty(2, 0, 3),
        torch.ones(()).expand(3, 4),
        torch.arange(12).reshape(3, 4)[::2, 1::2],
        torch.tensor([1 + 2j, 3 - 1j]).conj(),
        torch.tensor([1 + 2j]).conj().imag,
        torch.tensor([1.0, float("nan")], requires_grad=True),
        torch.nn.Parameter(torch.ones(2)),
        torch.nn.Parameter(torch.ones(2), requires_grad=False),
        torch.nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16).t()),
    ],
    ids=str,
)
def test_tensors_of_every_shape_come_back(tensor: torch.Tensor) -> None:
    back = there_and_back((tensor,), TENSORS)[0]
    assert same_tensor(back, tensor)
    with torch.no_grad():
        back += 1
    assert back.is_leaf


def test_a_result_that_requires_grad_comes_back_as_a_leaf() -> None:
    result = torch.ones(2, requires_grad=True) * 2
    back = there_and_back(result, TENSORS)
    assert same_tensor(back, result)
    back.sum().backward()
    assert torch.equal(back.grad, torch.ones(2))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.arange(6).reshape(2, 3).t(),
        torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
    ],
    ids=["channels last", "transposed", "permuted"],
)
def test_a_dense_order_of_axes_is_kept(tensor: torch.Tensor) -> None:
    back = there_and_back(tensor, TENSORS)
    assert same_tensor(back, tensor)
    assert back.stride() == tensor.stride()


def test_a_slice_does_not_carry_its_whole_storage_along() -> None:
    assert len(encode_payload(torch.zeros(1_000_000)[:10])) < 500


def test_the_same_tensor_comes_back_as_one() -> None:
    tensor, array = torch.ones(3), np.ones(3)
    a, b, c, d = there_and_back([tensor, {"again": tensor}, array, array], TENSORS)
    assert a is b["again"]
    assert c is d


def test_tied_weights_are_stored_once_and_stay_tied() -> None:
    embedding = torch.nn.Embedding(1_000, 10)
    head = torch.nn.Linear(10, 1_000, bias=False)
    head.weight = embedding.weight
    weights = dict(torch.nn.ModuleList([embedding, head]).state_dict())
    assert len(weights) == 2
    assert len(encode_payload(weights)) < 41_000
    first, second = there_and_back(weights, TENSORS).values()
    first[0, 0] = 7
    assert second[0, 0] == 7


def test_tensors_do_not_share_memory_with_the_payload_or_each_other() -> None:
    data = encode_payload([torch.zeros(2), torch.zeros(2), np.zeros(2)])
    a, b, c = decode_db_payload(data)
    a += 1
    c += 1
    assert not b.any()
    again = decode_db_payload(data)
    assert not any(each.any() for each in again)


def test_tensors_can_be_keys_and_items_of_sets() -> None:
    tensor = torch.ones(1)
    back = there_and_back({tensor: {tensor}}, TENSORS)
    [(key, items)] = back.items()
    assert items == {key}


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_coo(),
        torch.empty(3, device="meta"),
        torch.nn.Buffer(torch.ones(2)),
        torch.nn.UninitializedParameter(),
    ],
    ids=["sparse", "coo", "meta", "with attributes", "uninitialised"],
)
def test_other_tensors_are_pickled(tensor: torch.Tensor) -> None:
    back = there_and_back([tensor], DILL)[0]
    assert type(back) is type(tensor)
    assert back.layout == tensor.layout
    assert back.device == tensor.device
    assert vars(back) == vars(tensor)


class Celsius(torch.Tensor):
    pass


def test_a_subclass_of_tensor_comes_back_as_one() -> None:
    back = there_and_back(torch.ones(2).as_subclass(Celsius), DILL)
    assert type(back) is Celsius
    assert torch.equal(back.as_subclass(torch.Tensor), torch.ones(2))


def test_the_tensors_of_a_module_are_stored_bare_whatever_their_dtype() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    module.register_buffer("scales", torch.ones(5, dtype=torch.float8_e4m3fn))
    module[1].weight = module[0].bias
    back = there_and_back({"model": module}, DILL)["model"]
    assert type(back) is torch.nn.Sequential
    assert back[1].weight is back[0].bias
    assert all(map(same_tensor, back.parameters(), module.parameters()))
    assert all(map(same_tensor, back.buffers(), module.buffers()))
    x = torch.ones(4, 3)
    assert torch.equal(back(x), copy.deepcopy(module)(x))


def test_an_optimiser_is_stored_without_the_code_of_torch() -> None:
    module = torch.nn.Linear(8, 8)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.5)
    module(torch.ones(1, 8)).sum().backward()
    optimiser.step()
    data = encode_payload(optimiser)
    assert len(data) < 5_000
    back = decode_db_payload(data)
    assert type(back) is torch.optim.Adam
    assert back.state_dict()["param_groups"] == optimiser.state_dict()["param_groups"]
    for one, other in zip(back.state.values(), optimiser.state.values(), strict=True):
        assert torch.equal(one["exp_avg"], other["exp_avg"])


def test_the_state_of_a_module_and_its_optimiser_come_back() -> None:
    module = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    there_and_back(optimiser.state_dict(), TENSORS)
    back = decode_db_payload(encode_payload([module.state_dict(), optimiser.state_dict()]))
    assert type(back[0]) is type(module.state_dict())
    assert vars(back[0]) == vars(module.state_dict())
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(back[0])
    torch.optim.Adam(other.parameters()).load_state_dict(back[1])
    assert all(map(same_tensor, other.parameters(), module.parameters()))


def test_tensors_come_back_on_the_cpu_whatever_the_default_device() -> None:
    data = encode_payload(torch.ones(3))
    with torch.device("meta"):
        back = decode_db_payload(data)
    assert torch.equal(back, torch.ones(3))


def test_buffers_lie_at_multiples_of_64_bytes() -> None:
    data = encode_payload([torch.full((3,), 7, dtype=torch.uint8), np.full(3, 9, np.uint8)])
    assert data.index(b"\7\7\7") % 64 == 0
    assert data.index(b"\x09\x09\x09", 64) % 64 == 0


def test_reading_tensors_without_torch_says_what_to_install() -> None:
    data = encode_payload(torch.ones(1))
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from refold.eventstore.errors import InvalidPayload\n"
        "from refold.eventstore.payloads import decode_db_payload\n"
        "try:\n"
        "    decode_db_payload(bytes.fromhex(sys.argv[1]))\n"
        "except InvalidPayload as error:\n"
        "    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, data.hex()], capture_output=True, text=True, check=True
    )
    assert "pip install refold[torch]" in done.stdout


# --- NumPy ----------------------------------------------------------------------------------


def same_array(one: Any, other: Any) -> bool:
    return (
        type(one) is type(other)
        and one.dtype == other.dtype
        and one.dtype.num == other.dtype.num
        and one.dtype.isalignedstruct == other.dtype.isalignedstruct
        and one.shape == other.shape
        and contents(one) == contents(other)
    )


def contents(array: Any) -> Any:
    # A long double is 80 bits in 128; whatever lies in the others is copied or not.
    if array.dtype.char in "gG":
        return [repr(value) for value in np.ravel(array)]
    return np.ascontiguousarray(array).tobytes()


ARRAYS = hnp.arrays(
    hnp.scalar_dtypes() | hnp.array_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_dims=3)
)


@given(ARRAYS, st.data())
@tries(150)
def test_arrays_come_back_bit_for_bit(array: Any, data: st.DataObject) -> None:
    if array.ndim:
        array = array[data.draw(hnp.basic_indices(array.shape, allow_newaxis=True))]
    back = there_and_back([array], TENSORS if type(array) is np.ndarray else PLAIN)[0]
    assert same_array(back, array)


@given(hnp.arrays(hnp.scalar_dtypes(), 1))
@tries(150)
def test_scalars_come_back_as_scalars_of_their_type(array: Any) -> None:
    back = there_and_back({array[0]: array[0]}, PLAIN)
    [(key, value)] = back.items()
    assert same_array(value, array[0])
    assert type(key) is type(value)


@pytest.mark.parametrize("code", np.typecodes["All"])
def test_an_array_and_a_scalar_of_every_typecode_come_back(code: str) -> None:
    array = np.zeros(3, code)
    assert same_array(decode_db_payload(encode_payload(array)), array)
    if code != "O":
        assert same_array(there_and_back([array[0]], PLAIN)[0], array[0])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        np.array([(1, [2.0, 3.0])], dtype=[("a", "i4"), ("b", ">f8", (2,))]),
        np.zeros(2, np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [4], "itemsize": 12})),
        np.array(["2024-01-01", "NaT"], dtype="M8[25s]"),
        np.array(7),
        np.zeros((0, 3), order="F"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_byte_order_memory_order_and_fields_are_kept(array: Any) -> None:
    back = there_and_back(array, TENSORS)
    assert same_array(back, array)
    assert back.strides == array.strides
    assert back.flags.f_contiguous == array.flags.f_contiguous
    assert back.flags.writeable
    back[...] = 0


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, None, "a", {"b": (1,)}], dtype=object),
        np.zeros(2, np.dtype([("a", "i1"), ("b", "i4")], align=True)),
        np.zeros(2, np.dtype([("a", "O"), ("b", "i4")])),
        np.zeros(2, np.dtype("i4", metadata={"unit": "m"})),
        np.array(["text", "längerer Text"], dtype=np.dtypes.StringDType()),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    ],
    ids=["objects", "aligned", "objects in fields", "metadata", "strings", "records"],
)
def test_other_arrays_are_pickled(array: Any) -> None:
    back = there_and_back([array], DILL)[0]
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert back.dtype.isalignedstruct == array.dtype.isalignedstruct
    assert back.tolist() == array.tolist()


def test_a_masked_array_comes_back_with_its_mask() -> None:
    array = np.ma.masked_array([1, 2], mask=[False, True])
    back = there_and_back(array, DILL)
    assert type(back) is type(array)
    assert (back.mask == array.mask).all()


@pytest.mark.parametrize("value", [np.sin, np.float32, np.dtype("f4"), np.pi], ids=told)
def test_what_is_numpys_but_no_array_comes_back(value: Any) -> None:
    assert decode_db_payload(encode_payload([value])) == [value]


def test_states_of_random_generators_come_back() -> None:
    generator = np.random.default_rng(1)
    states = [np.random.RandomState(1).get_state(), torch.get_rng_state()]
    numpy_state, torch_state = there_and_back(states, TENSORS)
    assert numpy_state[2:] == states[0][2:]
    assert torch.equal(torch_state, states[1])
    back = decode_db_payload(encode_payload(generator))
    assert back.random() == generator.random()


# --- the format -----------------------------------------------------------------------------


def every_kind_of_tensor() -> dict[str, Any]:
    weight = torch.nn.Parameter(torch.arange(6, dtype=torch.float32).reshape(2, 3))
    return {
        "weight": weight,
        "again": weight,
        "tied": weight.detach(),
        "transposed": torch.arange(6, dtype=torch.int16).reshape(2, 3).t(),
        "nothing": torch.empty(0, 2, dtype=torch.bfloat16),
        "array": np.arange(3, dtype=">i2"),
        "fields": np.array([(1, 2)], dtype=[("a", "<i2"), ("b", "|i1")]),
        "scalar": np.float32(0.5),
    }


TENSORS_HEX = (
    "f9011d8cfa2e00000000000000f793c45d88a6776569676874d40600a5616761696ed40600a474696564d40601"
    "aa7472616e73706f736564d40602a76e6f7468696e67d40603a56172726179d40604a66669656c6473d40605a6"
    "7363616c6172c70b0792a33c6634c4040000003f95180c0006039697a5746f726368a7666c6f61743332920203"
    "9000c3c397a5746f726368a7666c6f617433329202039000c2c297a5746f726368a5696e743136920203920100"
    "01c2c297a5746f726368a862666c6f617431369200029002c2c295a56e756d7079a33e69329103900395a56e75"
    "6d7079bc5b282761272c20273c693227292c20282762272c20277c693127295d91019004000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000803f0000004000004040000080400000a04000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000001000200030004000500000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000100020000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000010002"
)


def test_the_bytes_of_tensors_are_those_of_version_1() -> None:
    assert encode_payload(every_kind_of_tensor()).hex() == TENSORS_HEX


def test_tensors_of_version_1_are_read() -> None:
    back, written = decode_db_payload(bytes.fromhex(TENSORS_HEX)), every_kind_of_tensor()
    assert list(back) == list(written)
    assert back["again"] is back["weight"]
    assert back["tied"].data_ptr() == back["weight"].data_ptr()
    for name, value in written.items():
        check = same_tensor if isinstance(value, torch.Tensor) else same_array
        assert check(back[name], value), name


# --- devices ---------------------------------------------------------------------------------


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU, if there is one; else the CPU under the name of one, for what is written."""
    if torch.cuda.is_available():
        return torch.device("cuda:0")
    add = Tensors.add

    def named(self: Tensors, value: Any) -> int | None:
        number = add(self, value)
        self.devices = ["cuda:0"] * len(self.layouts)
        return number

    monkeypatch.setattr(Tensors, "add", named)
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
    return torch.device("cpu")


def test_a_tensor_comes_back_on_its_device_or_on_the_cpu(on_gpu: torch.device) -> None:
    weight = torch.nn.Parameter(torch.arange(6.0, device=on_gpu).reshape(2, 3).T)
    data = encode_payload({"a": weight, "tied": [weight, weight.detach()]})
    back = decode_db_payload(data)
    assert back["a"].device == weight.device
    assert same_tensor(back["a"].cpu(), weight.cpu())
    assert back["tied"][0] is back["a"]
    assert back["tied"][1].data_ptr() == back["a"].data_ptr()
    assert back["a"].stride() == weight.stride()
    # For whoever has no GPU.
    assert b"cuda:0" in data


def test_a_pickled_tensor_comes_back_on_its_device_or_on_the_cpu(on_gpu: torch.device) -> None:
    data = encode_payload(torch.ones(2, device=on_gpu).as_subclass(Celsius))
    back = decode_db_payload(data)
    assert type(back) is Celsius
    assert back.device == on_gpu
    assert b"cuda:0" in data


def test_which_devices_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = ["cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "meta", "nosuch:0", "nn", "__doc__"]
    assert [here(device) for device in devices] == [
        "cpu",
        "cuda",
        "cuda:0",
        "cuda:1",
        "cpu",
        "cpu",
        "cpu",
        "cpu",
        "cpu",
    ]

"""Tensors and arrays as dtype, shape and raw bytes, without pickle."""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec

from refold.eventstore.errors import InvalidPayload

if TYPE_CHECKING:
    import numpy as np


Count = Annotated[int, msgspec.Meta(ge=0)]


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """What turns the bytes of a buffer into a tensor or an array."""

    dtype: str
    shape: tuple[Count, ...]
    """The lengths of the axes in the order in which they lie in memory, the slowest first."""
    axes: tuple[Count, ...]
    """Which of those each axis of the tensor is; empty if they are in order already."""
    buffer: Count
    """The number of the buffer; two tensors may share one, as tied weights do."""


class ArrayLayout(Layout, frozen=True, array_like=True, tag="numpy"):
    """A NumPy array."""


class TensorLayout(Layout, frozen=True, array_like=True, tag="torch"):
    """A torch tensor."""

    parameter: bool = False
    """Whether it is a `torch.nn.Parameter`."""
    requires_grad: bool = False


def memory_order(strides: Sequence[int]) -> list[int]:
    """The axes from the one with the longest stride to the one with the shortest."""
    return sorted(range(len(strides)), key=lambda axis: -strides[axis])


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The axes that undo a transposition by `order`."""
    return tuple(sorted(range(len(order)), key=lambda place: order[place]))


_SIMPLE_DTYPE = re.compile(r"[<>|][biufcmMSUV]\d*(\[\w+\])?|[qQ]")

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[str, bytes]).decode


def lower_array(array: Any, place: Callable[[memoryview], int]) -> ArrayLayout | None:
    """The layout of an array, whose bytes are given to `place`; None if it needs pickling.

    An order of axes that is dense in memory, such as Fortran's, is kept; other arrays are
    copied into C order.
    """
    import numpy as np

    if type(array) is not np.ndarray:
        return None
    dtype = _dtype_text(array.dtype)
    if dtype is None or (not array.itemsize and array.size > WITHOUT_BYTES):
        return None
    order = memory_order(array.strides)
    dense = array.transpose(order)
    if array.flags.c_contiguous or not dense.flags.c_contiguous:
        order, dense = [], np.ascontiguousarray(array).reshape(array.shape)
    data = dense.reshape(-1).view(np.uint8).data if dense.nbytes else memoryview(b"")
    return ArrayLayout(dtype, dense.shape, inverse(order), place(data))


def raise_array(layout: ArrayLayout, data: memoryview) -> Any:
    """The array, writable and with memory of its own.

    Raises:
        ValueError: the layout does not fit the bytes, or the dtype is not one of bare bytes.
    """
    import numpy as np

    # Where there are no bytes NumPy may give each element one.
    dtype = np.empty(0, _dtype(layout.dtype)).dtype
    _check_size(layout, dtype.itemsize, len(data))
    array = np.empty(layout.shape, dtype)
    if len(data):
        # By bytes, because a copy by fields would leave what lies between them to chance.
        array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    return array.transpose(layout.axes) if layout.axes else array


WITHOUT_BYTES = 10_000
"""Elements that an array has at most whose dtype has no bytes: nothing else bounds them."""


def _check_size(layout: Layout, itemsize: int, size: int) -> None:
    """Refuse a layout that does not fit its bytes.

    Raises:
        ValueError: it does not.
    """
    count = math.prod(layout.shape)
    if count * itemsize != size or (not itemsize and count > WITHOUT_BYTES):
        raise ValueError("the shape of an array or a tensor does not fit its bytes")


def pack_scalar(value: Any) -> bytes | None:
    """A NumPy scalar such as `np.float32(1)` as bytes; None if it is none, or needs pickling."""
    kind = cast("type[object]", type(value))
    if kind.__module__ != "numpy":
        return None
    import numpy as np

    if not issubclass(kind, np.generic) or value.dtype.type is not kind:
        return None
    dtype = _dtype_text(value.dtype)
    if dtype is None:
        return None
    return _pack((dtype, value.tobytes()[: value.itemsize]))  # an empty np.str_ has one byte more


def unpack_scalar(data: bytes) -> Any:
    """The scalar that `pack_scalar` packed.

    Raises:
        ValueError: the bytes are not one.
    """
    import numpy as np

    dtype, content = _unpack(data)
    # An array would lose NULs at the end of these two.
    if dtype.startswith("|S"):
        return np.bytes_(content)
    if dtype.startswith("<U"):
        return np.str_(content.decode("utf-32-le", "surrogatepass"))
    return raise_array(ArrayLayout(dtype, (), (), 0), memoryview(content))[()]


def _dtype_text(dtype: "np.dtype[Any]") -> str | None:
    """A dtype as in the header of a .npy file, if that is exactly it."""
    import numpy as np

    if dtype.hasobject or dtype.metadata:
        return None
    try:
        named = dtype.names is not None
        texts = [repr(np.lib.format.dtype_to_descr(dtype))] if named else [dtype.str, dtype.char]
        return next((text for text in texts if _is_exactly(_dtype(text), dtype)), None)
    except (ValueError, TypeError):
        return None


def _dtype(text: str) -> "np.dtype[Any]":
    import numpy as np

    if _SIMPLE_DTYPE.fullmatch(text):
        return np.dtype(text)
    if not text.startswith("["):
        raise ValueError(f"an array has the unknown dtype {text!r}")
    import ast  # seldom needed, and slow to import

    described: Any = ast.literal_eval(text)
    dtype = np.lib.format.descr_to_dtype(described)
    if dtype.hasobject:
        raise ValueError("an array of Python objects cannot be made from bytes")
    return dtype


def _is_exactly(one: "np.dtype[Any]", other: "np.dtype[Any]") -> bool:
    return (
        one == other
        and one.num == other.num
        and one.type is other.type
        and one.isalignedstruct == other.isalignedstruct
    )


def lower_tensor(
    tensor: Any, place: Callable[[memoryview, tuple[str, int] | None], int]
) -> TensorLayout | None:
    """The layout of a tensor, whose bytes are given to `place`; None if it needs pickling.

    The bytes are those of the tensor's own elements, not of the whole storage that it may be a
    view of. An order of axes that is dense in memory, such as channels last, is kept; other
    tensors are copied into C order. `place` is told where bytes that were not copied lie: tensors
    that share them have the same device and address.
    """
    import torch

    parameter = type(tensor) is torch.nn.Parameter
    if not (parameter or type(tensor) is torch.Tensor) or not _has_bare_bytes(tensor):
        return None
    values: torch.Tensor = tensor.detach().resolve_conj().resolve_neg()
    # torch cannot copy every dtype, but whole numbers of every size.
    of_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    values = values.view(of_size.get(values.element_size(), values.dtype))
    order = memory_order(values.stride())
    dense = values.permute(order)
    if values.is_contiguous() or not dense.is_contiguous():
        order, dense = [], values.contiguous()
    address = dense.data_ptr()
    at = (str(tensor.device), address) if address == tensor.data_ptr() else None
    data = dense.cpu().as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy().data
    return TensorLayout(
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(dense.shape),
        axes=inverse(order),
        buffer=place(data, at),
        parameter=parameter,
        requires_grad=tensor.requires_grad,
    )


def _has_bare_bytes(tensor: Any) -> bool:
    import torch

    return (
        tensor.layout is torch.strided
        and not tensor.is_nested
        and not _is_quantised(str(tensor.dtype))
        and tensor.device.type != "meta"
        and not tensor.__dict__
    )


def _is_quantised(dtype: str) -> bool:
    return dtype.removeprefix("torch.").startswith("q")


def here(device: str) -> str:
    """A device, such as `cuda:1`, if this machine has it; the CPU otherwise."""
    import torch

    kind, _, index = device.partition(":")
    count = getattr(getattr(torch, kind, None), "device_count", None)
    return device if count is not None and int(index or 0) < count() else "cpu"


def new_storage(data: memoryview, device: str) -> Any:
    """The bytes of a buffer as a tensor that several tensors may be made from.

    It is on the device, or on the CPU if that does not take it.
    """
    import torch

    storage = torch.empty(len(data), dtype=torch.uint8, device="cpu")
    if data:
        storage.numpy().data[:] = data
    if device != "cpu":
        with suppress(RuntimeError):  # it has no room left, or this is the child of a fork
            return storage.to(device)
    return storage


def raise_tensor(layout: TensorLayout, storage: Any) -> Any:
    """The tensor, on the device of its storage.

    Raises:
        ValueError: the layout does not fit the bytes, or this torch does not know the dtype.
        RuntimeError: the same, found by torch.
    """
    import torch

    dtype = getattr(torch, layout.dtype, None)
    if not isinstance(dtype, torch.dtype) or _is_quantised(layout.dtype):
        raise ValueError(f"this torch has no dtype {layout.dtype!r}: update torch")
    _check_size(layout, dtype.itemsize, storage.numel())
    tensor = storage.view(dtype).reshape(layout.shape)
    if layout.axes:
        tensor = tensor.permute(layout.axes)
    if layout.parameter:
        return torch.nn.Parameter(tensor.detach(), requires_grad=layout.requires_grad)
    return tensor.detach().requires_grad_(layout.requires_grad)


_MALFORMED = (
    LookupError,
    ValueError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    SyntaxError,
    MemoryError,
)


class Tensors:
    """Collects tensors and arrays; each gets a number, the same one if it comes again."""

    def __init__(self) -> None:
        self.layouts: list[ArrayLayout | TensorLayout] = []
        self.devices: list[str] = []
        """Where each of them is."""
        self.buffers: list[memoryview] = []
        self._numbers: dict[int, int] = {}
        self._kept_alive: list[Any] = []
        self._placed: dict[tuple[tuple[str, int], int], int] = {}

    def add(self, value: Any) -> int | None:
        """The number of `value`; None if it is no tensor, or one that has to be pickled."""
        module = type(value).__module__
        if module != "numpy" and module != "torch" and module != "torch.nn.parameter":
            return None
        number = self._numbers.get(id(value))
        if number is None and (layout := self._lower(value, module)) is not None:
            number = self._numbers[id(value)] = len(self.layouts)
            self._kept_alive.append(value)
            self.layouts.append(layout)
            self.devices.append(str(value.device) if module != "numpy" else "cpu")
        return number

    def _lower(self, value: Any, module: str) -> ArrayLayout | TensorLayout | None:
        try:
            if module == "numpy":
                return lower_array(value, self._place)
            return lower_tensor(value, self._place_shared)
        except (RuntimeError, TypeError):
            return None

    def _place(self, data: memoryview) -> int:
        self.buffers.append(data)
        return len(self.buffers) - 1

    def _place_shared(self, data: memoryview, address: tuple[str, int] | None) -> int:
        if address is None or not data:
            return self._place(data)
        at = (address, len(data))
        if at not in self._placed:
            self._placed[at] = self._place(data)
        return self._placed[at]


class StoredTensors:
    """Makes the tensors and arrays of a payload that is read, each once.

    Args:
        layouts: of each.
        buffers: the bytes that they are made from.
        devices: where each was; it comes back there if it can, and on the CPU otherwise. None: on
            the CPU, all of them.

    Raises:
        InvalidPayload: two arrays share a buffer.
    """

    def __init__(
        self,
        layouts: Sequence[ArrayLayout | TensorLayout],
        buffers: Sequence[memoryview],
        devices: Sequence[str] | None,
    ) -> None:
        # Tensors share what they are made from. An array is a copy, and so needs a buffer of its
        # own, or a small payload could make any number of large ones.
        arrays = [one.buffer for one in layouts if isinstance(one, ArrayLayout)]
        if len({*arrays}) < len(arrays):
            raise InvalidPayload("two arrays of the payload share their bytes: it was altered")
        self._layouts = layouts
        self._buffers = buffers
        self._devices = devices
        self._made: dict[int, Any] = {}
        self._storages: dict[tuple[int, str], Any] = {}

    def get(self, number: int) -> Any:
        """The tensor or array with a number.

        Raises:
            InvalidPayload: there is none, or its library is not installed here.
        """
        if number not in self._made:
            try:
                device = here(self._devices[number]) if self._devices else "cpu"
                self._made[number] = self._raise(self._layouts[number], device)
            except ImportError as error:
                raise InvalidPayload(
                    f"the payload holds tensors: pip install refold[torch] ({error})"
                ) from error
            except _MALFORMED as error:
                raise InvalidPayload(f"tensor {number} cannot be decoded: {error}") from error
        return self._made[number]

    def _raise(self, layout: ArrayLayout | TensorLayout, device: str) -> Any:
        data = self._buffers[layout.buffer]
        if isinstance(layout, ArrayLayout):
            return raise_array(layout, data)
        at = layout.buffer, device
        if at not in self._storages:
            self._storages[at] = new_storage(data, device)
        return raise_tensor(layout, self._storages[at])

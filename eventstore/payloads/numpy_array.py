"""One NumPy array or scalar to bytes and back. NumPy is imported only where there is one."""

import ast
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from eventstore.errors import InvalidPayload
from eventstore.payloads.layout import ArrayLayout, inverse, memory_order

if TYPE_CHECKING:
    import numpy as np

SCALAR = 32
"""The extension code of a NumPy scalar: it is in payloads ever written, so it never changes."""

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[str, bytes]).decode


def lower_array(array: Any, place: Callable[[memoryview], int]) -> ArrayLayout | None:
    """The layout of an array, whose bytes are given to `place`; None if it needs pickling.

    An order of axes that is dense in memory, such as Fortran's, is kept; other arrays are
    copied into C order.
    """
    import numpy as np

    dtype = _dtype_text(array.dtype)
    if type(array) is not np.ndarray or dtype is None:
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
        ValueError: the layout does not fit the bytes.
        InvalidPayload: its dtype would need pickling.
    """
    import numpy as np

    dtype = _dtype(layout.dtype)
    if math.prod(layout.shape) * dtype.itemsize != len(data):
        raise ValueError("the shape of an array does not fit its bytes")
    array = np.ndarray(layout.shape, dtype, buffer=data).copy()
    return array.transpose(layout.axes) if layout.axes else array


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
    data = value.tobytes()
    # A trailing NUL of np.str_ and np.bytes_ is lost in an array.
    return (
        None if value.dtype.kind in "US" and value != _scalar(dtype, data) else _pack((dtype, data))
    )


def unpack_scalar(data: bytes) -> Any:
    """The scalar that `pack_scalar` packed.

    Raises:
        ValueError: the bytes are not one.
    """
    return _scalar(*_unpack(data))


def _scalar(dtype: str, data: bytes) -> Any:
    return raise_array(ArrayLayout(dtype, (), (), 0), memoryview(data))[()]


def _dtype_text(dtype: "np.dtype[Any]") -> str | None:
    """A dtype as in the header of a .npy file, if that is exactly it."""
    import numpy as np

    if dtype.hasobject or dtype.metadata:
        return None
    if dtype.names is None:
        return next(
            (text for text in (dtype.str, dtype.char) if _is_exactly(np.dtype(text), dtype)), None
        )
    try:
        described = np.lib.format.dtype_to_descr(dtype)
    except ValueError:
        return None
    return repr(described) if _is_exactly(np.lib.format.descr_to_dtype(described), dtype) else None


def _is_exactly(one: "np.dtype[Any]", other: "np.dtype[Any]") -> bool:
    return (
        one == other
        and one.num == other.num
        and one.type is other.type
        and one.isalignedstruct == other.isalignedstruct
    )


def _dtype(text: str) -> "np.dtype[Any]":
    import numpy as np

    described: Any = ast.literal_eval(text) if text.startswith("[") else text
    dtype = np.lib.format.descr_to_dtype(described)
    if dtype.hasobject:
        raise InvalidPayload("the payload has an array of Python objects as bare bytes")
    return dtype

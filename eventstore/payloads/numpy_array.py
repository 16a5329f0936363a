"""One NumPy array or scalar to bytes and back. NumPy is imported only where there is one."""

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from refold.eventstore.payloads.layout import ArrayLayout, inverse, memory_order

if TYPE_CHECKING:
    import numpy as np

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
    if dtype is None:
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

    dtype = _dtype(layout.dtype)
    if math.prod(layout.shape) * dtype.itemsize != len(data):
        raise ValueError("the shape of an array does not fit its bytes")
    array = np.empty(layout.shape, dtype)
    if len(data):
        # By bytes, because a copy by fields would leave what lies between them to chance.
        array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
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

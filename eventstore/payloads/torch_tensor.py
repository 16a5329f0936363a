"""One torch tensor to bytes and back. torch is imported only where there is one."""

import math
from collections.abc import Callable
from typing import Any

from refold.eventstore.payloads.layout import TensorLayout, inverse, memory_order


def lower_tensor(tensor: Any, place: Callable[[memoryview, int], int]) -> TensorLayout | None:
    """The layout of a tensor, whose bytes are given to `place`; None if it needs pickling.

    The bytes are those of the tensor's own elements, not of the whole storage that it may be a
    view of. An order of axes that is dense in memory, such as channels last, is kept; other
    tensors are copied into C order. A tensor on another device is copied to the CPU.
    """
    import torch

    parameter = type(tensor) is torch.nn.Parameter
    if not (parameter or type(tensor) is torch.Tensor) or not _has_bare_bytes(tensor):
        return None
    values: torch.Tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    # torch cannot copy every dtype, but whole numbers of every size.
    of_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    values = values.view(of_size.get(values.element_size(), values.dtype))
    order = memory_order(values.stride())
    dense = values.permute(order)
    if values.is_contiguous() or not dense.is_contiguous():
        order, dense = [], values.contiguous()
    data = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy().data
    return TensorLayout(
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(dense.shape),
        axes=inverse(order),
        buffer=place(data, dense.data_ptr()),
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


def new_storage(data: memoryview) -> Any:
    """The bytes of a buffer as a tensor that several tensors may be made from."""
    import torch

    storage = torch.empty(len(data), dtype=torch.uint8, device="cpu")
    if data:
        storage.numpy().data[:] = data
    return storage


def raise_tensor(layout: TensorLayout, storage: Any) -> Any:
    """The tensor, on the CPU.

    Raises:
        ValueError: the layout does not fit the bytes, or this torch does not know the dtype.
        RuntimeError: the same, found by torch.
    """
    import torch

    dtype = getattr(torch, layout.dtype, None)
    if not isinstance(dtype, torch.dtype) or _is_quantised(layout.dtype):
        raise ValueError(f"this torch has no dtype {layout.dtype!r}: update torch")
    if math.prod(layout.shape) * dtype.itemsize != storage.numel():
        raise ValueError("the shape of a tensor does not fit its bytes")
    tensor = storage.view(dtype).reshape(layout.shape)
    if layout.axes:
        tensor = tensor.permute(layout.axes)
    if layout.parameter:
        return torch.nn.Parameter(tensor.detach(), requires_grad=layout.requires_grad)
    return tensor.detach().requires_grad_(layout.requires_grad)

"""How a tensor or an array lies in its buffer."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

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

"""The tensors and arrays of one payload: collected when it is written, made when it is read."""

from collections.abc import Sequence
from typing import Any

from refold.eventstore.errors import InvalidPayload
from refold.eventstore.payloads.layout import ArrayLayout, TensorLayout
from refold.eventstore.payloads.numpy_array import lower_array, raise_array
from refold.eventstore.payloads.torch_tensor import lower_tensor, new_storage, raise_tensor

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
        self.buffers: list[memoryview] = []
        self._numbers: dict[int, int] = {}
        self._kept_alive: list[Any] = []
        self._placed: dict[tuple[int, int], int] = {}

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

    def _place_shared(self, data: memoryview, address: int) -> int:
        if not data:
            return self._place(data)
        at = (address, len(data))
        if at not in self._placed:
            self._placed[at] = self._place(data)
        return self._placed[at]


class StoredTensors:
    """Makes the tensors and arrays of a payload that is read, each once."""

    def __init__(
        self, layouts: Sequence[ArrayLayout | TensorLayout], buffers: Sequence[memoryview]
    ) -> None:
        self._layouts = layouts
        self._buffers = buffers
        self._made: dict[int, Any] = {}
        self._storages: dict[int, Any] = {}

    def get(self, number: int) -> Any:
        """The tensor or array with a number.

        Raises:
            InvalidPayload: there is none, or its library is not installed here.
        """
        if number not in self._made:
            try:
                self._made[number] = self._raise(self._layouts[number])
            except ImportError as error:
                raise InvalidPayload(
                    f"the payload holds tensors: pip install refold[torch] ({error})"
                ) from error
            except _MALFORMED as error:
                raise InvalidPayload(f"tensor {number} cannot be decoded: {error}") from error
        return self._made[number]

    def _raise(self, layout: ArrayLayout | TensorLayout) -> Any:
        data = self._buffers[layout.buffer]
        if isinstance(layout, ArrayLayout):
            return raise_array(layout, data)
        if layout.buffer not in self._storages:
            self._storages[layout.buffer] = new_storage(data)
        return raise_tensor(layout, self._storages[layout.buffer])

"""Objects that are not plain data to dill and back; whoever imports this file imports dill."""

import io
import pickle
import re
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import Any

import dill

from refold.eventstore.errors import InvalidPayload
from refold.eventstore.payloads.arrays import Tensors, here
from refold.eventstore.payloads.scripts import SCRIPTS, reduction

# pyright: reportUnknownMemberType=false, reportAttributeAccessIssue=false


_PROTOCOL = 5

_FILES = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")

# What the code of a pickled object may raise: everything that Python itself raises.
_ERRORS = (
    pickle.PickleError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    ReferenceError,
    RuntimeError,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    Warning,
)


def dump(obj: Any, tensors: Tensors) -> bytes:
    """Pickle an object with dill; the tensors in it go to `tensors`.

    Raises:
        InvalidPayload: something in it cannot be pickled, or not so that others can read it.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, tensors)
    try:
        pickler.dump(obj)
    except RecursionError as error:
        raise InvalidPayload("an object is nested too deeply to be stored") from error
    except _ERRORS as error:
        raise InvalidPayload(
            f"an object of type {_type_name(pickler.current)} cannot be stored ({error}): store "
            f"the data that it is made from, or move its class from the script to a module"
        ) from error
    return file.getvalue()


def load(data: bytes, tensor: Callable[[int], Any]) -> Any:
    """The object that `dump` pickled; `tensor` gives the tensor with a number.

    Raises:
        InvalidPayload: it cannot be unpickled here.
    """
    try:
        return _Unpickler(io.BytesIO(data), tensor).load()
    except _ERRORS as error:
        raise InvalidPayload(
            f"the payload cannot be unpickled here ({type(error).__name__}: {error}): "
            f"it needs the modules and versions that it was written with"
        ) from error


def check(data: bytes, tensor: Callable[[int], Any], obj: Any) -> None:
    """Look whether what `dump` made of an object can be read again.

    Raises:
        InvalidPayload: it cannot be unpickled.
    """
    try:
        load(data, tensor)
    except InvalidPayload as error:
        raise InvalidPayload(
            f"an object of type {_type_name(obj)} can be pickled but not unpickled, so it is not "
            f"stored ({error.__cause__}): an exception with an __init__ of its own needs a "
            f"__reduce__; or store the data that it is made from"
        ) from error


def _type_name(obj: Any) -> str:
    kind: type = obj if isinstance(obj, type) else type(obj)
    return f"{kind.__module__}.{kind.__qualname__}"


class _Pickler(dill.Pickler):
    def __init__(self, file: io.BytesIO, tensors: Tensors) -> None:
        super().__init__(file, protocol=_PROTOCOL, byref=False, recurse=True)
        self._tensors = tensors
        self.current: Any = None

    def persistent_id(self, obj: Any) -> int | None:
        return self._tensors.add(obj)

    def reducer_override(self, obj: Any) -> Any:
        self.current = obj
        if issubclass(type(obj), _FILES):
            return _reduce_file(obj)
        return reduction(obj)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__module__", None) in SCRIPTS:
            raise TypeError(f"cannot pickle {name!r} of a script")
        super().save_global(obj, name)


def _reduce_file(file: Any) -> Any:
    for name in _STREAMS:
        if file is getattr(sys, name):
            return getattr, (sys, name)
    # dill would open it again on reading, and so truncate one that was open for writing.
    raise TypeError("cannot pickle an open file")


def _free_lock(*_: Any) -> Any:
    return threading.Lock()


def _free_rlock(*_: Any) -> Any:
    return threading.RLock()


# dill's own would give a lock back as it was, held by a thread that is not there.
_LOCKS = {"_create_lock": _free_lock, "_create_rlock": _free_rlock}


def _load_storage(data: bytes) -> Any:
    """Do as torch's own does, but for a device that is not here take the CPU."""
    import torch

    def place(storage: Any, device: str) -> Any:
        return storage if here(device) == "cpu" else None  # None: torch moves it to the device

    return torch.load(io.BytesIO(data), map_location=place, weights_only=False)


class _Unpickler(dill.Unpickler):
    def __init__(self, file: io.BytesIO, tensor: Callable[[int], Any]) -> None:
        super().__init__(file, ignore=True)
        self._tensor = tensor

    def persistent_load(self, pid: Any) -> Any:
        return self._tensor(pid)

    def find_class(self, module: str, name: str) -> Any:
        if module == "dill._dill" and name in _LOCKS:
            return _LOCKS[name]
        if module == "torch.storage" and name == "_load_from_bytes":
            return _load_storage
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            if not _OURS.match(module):
                raise
        return _moved(module, name)


# Up to 0.1.0 the rooms were packages of their own. What payloads name is now in these modules.
_OURS = re.compile(r"(?:refold|eventstore|projections|commands)(?:\.|$)")
_NOW_IN = {
    "eventstore.event": (
        "eventstore.events.event eventstore.events.codec eventstore.events.upcasting"
    ),
    "eventstore.log.recorded": "eventstore.recorded",
    "eventstore.payloads.scripts": (
        "eventstore.payloads.script_classes eventstore.payloads.script_functions"
    ),
    "projections.fit": (
        "projections.runs projections.worker_task projections.progress "
        "projections.interactive_control"
    ),
    "projections.evals": "projections.contexts projections.pipelines projections.actor_tasks",
    "projections.experiments": "projections.ids",
    "projections.past.history": "projections.past.why",
    "projections.past.changes": "projections.past.change projections.past.diff",
    "eventstore.errors": "extras export.json_lines.line",
    "copies": "copy_store fork",
    "replay": "try_projection",
    "export.tables": "arrow export.csv export.parquet",
}
_MOVED = {old: new for new, olds in _NOW_IN.items() for old in olds.split()}


def _moved(module: str, name: str) -> Any:
    """Return what a payload of an older release names in a module of refold that is no more.

    If nothing is known of the module, it stands in a package around it.
    """
    inside = module.removeprefix("refold.")
    place = "refold." + _MOVED.get(inside, inside)
    while place:
        try:
            return attrgetter(name)(import_module(place))
        except (ImportError, AttributeError):
            place = place.rpartition(".")[0]
    raise AttributeError(f"refold has no {name} any more, which stood in {inside}")

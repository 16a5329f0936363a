"""Classes and functions of a script or a notebook, which other processes cannot import.

They are pickled as they are. dill does that too, but it cannot rebuild enums, classes that refer
to themselves, or functions that call each other, and it copies a project's modules into the pickle.
"""

import importlib
import sys
import types
from typing import Any, TypeVar, cast

from refold.eventstore.payloads.importable import SCRIPTS, is_importable
from refold.eventstore.payloads.script_classes import reduce_class, reduce_type_variable
from refold.eventstore.payloads.script_functions import reduce_cell, reduce_function


def reduction(obj: Any) -> Any:
    """How to pickle `obj`, as `__reduce__` would say it; NotImplemented: as usual."""
    kind = cast("type[object]", type(obj))
    if kind is types.FunctionType:
        return NotImplemented if is_importable(obj) else reduce_function(obj)
    if kind is types.CellType:
        return reduce_cell(obj)
    if kind is types.ModuleType:
        by_name = obj.__name__ not in SCRIPTS and sys.modules.get(obj.__name__) is obj
        return (importlib.import_module, (obj.__name__,)) if by_name else NotImplemented
    if kind is TypeVar:
        return NotImplemented if is_importable(obj) else reduce_type_variable(obj)
    if isinstance(obj, type) and "__module__" in vars(obj) and not is_importable(obj):
        return reduce_class(obj)
    return NotImplemented

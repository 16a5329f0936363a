"""Functions of a script: their code is pickled, with the globals that it uses.

Pickles call `make_function`, `fill_function` and `fill_cell` by these names: they stay.
"""

import dis
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from refold.eventstore.errors import InvalidPayload
from refold.eventstore.payloads.importable import SCRIPTS

_PYTHON = sys.version_info[:2]
_GLOBAL_INSTRUCTIONS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"})


def reduce_function(function: types.FunctionType) -> tuple[Any, ...]:
    """How to pickle a function."""
    module = _module_of(function)
    used = {} if module else _used_globals(function)
    attributes = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "__defaults__": function.__defaults__,
        "__kwdefaults__": function.__kwdefaults__,
        "__annotations__": function.__annotations__,
    }
    made_from = (_PYTHON, function.__code__, module, function.__name__, function.__closure__)
    state = (used, attributes, vars(function))
    return make_function, made_from, state, None, None, fill_function


def _module_of(function: types.FunctionType) -> str | None:
    """The module whose globals a function uses, if others can import it."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    live = module is not None and vars(module) is function.__globals__
    return name if live and name not in SCRIPTS else None


def _used_globals(function: types.FunctionType) -> dict[str, Any]:
    have = function.__globals__
    used = {name: have[name] for name in _global_names(function.__code__) if name in have}
    return {"__name__": function.__module__, **used}


def _global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBAL_INSTRUCTIONS:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def make_function(
    python: tuple[int, int],
    code: types.CodeType,
    module: str | None,
    name: str,
    closure: tuple[types.CellType, ...] | None,
) -> types.FunctionType:
    """A function that `fill_function` completes: what it uses may in turn refer to it."""
    if python != _PYTHON:
        raise InvalidPayload(
            f"the payload holds the code of {name!r}, which Python {python[0]}.{python[1]} "
            f"compiled: read it with that Python, or move the function to a module"
        )
    its_globals = vars(importlib.import_module(module)) if module else {}
    return types.FunctionType(code, its_globals, name, None, closure)


def fill_function(
    function: types.FunctionType,
    state: tuple[dict[str, Any], dict[str, Any], dict[str, Any]],
) -> None:
    """Give a function the globals that it uses and its attributes."""
    used, attributes, own = state
    function.__globals__.update(used)
    for name, value in attributes.items():
        setattr(function, name, value)
    vars(function).update(own)


def reduce_cell(cell: types.CellType) -> tuple[Any, ...]:
    """How to pickle a variable that closures share."""
    try:
        contents = cell.cell_contents
    except ValueError:
        return types.CellType, ()
    return types.CellType, (), (contents,), None, None, fill_cell


def fill_cell(cell: types.CellType, state: tuple[Any]) -> None:
    """Give a cell of a closure its contents."""
    [cell.cell_contents] = state

"""What only a script defines, its classes and functions, pickled by value."""

import dis
import enum
import functools
import importlib
import inspect
import os
import sys
import types
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, TypeVar, cast
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakValueDictionary

from refold.eventstore.errors import InvalidPayload

SCRIPTS = ("__main__", "__mp_main__")
"""The names under which a script is a module: its own, and that in a spawned process."""


def name_in_module(obj: Any) -> str | None:
    """The name of a class, function or type variable, if its module has it under that name.

    The module is looked up in `sys.modules`, since a package may hide its submodules.
    """
    module = sys.modules.get(obj.__module__)
    name = getattr(obj, "__qualname__", obj.__name__)
    try:
        found = obj.__module__ not in SCRIPTS and attrgetter(name)(module) is obj
    except AttributeError:
        return None
    return name if found else None


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


_SKELETON = "__refold_skeleton__"
_GIVEN_AT_BIRTH = ("__module__", "__qualname__", "__slots__", "__orig_bases__")
_NOT_COPIED = {*_GIVEN_AT_BIRTH, "__dict__", "__weakref__", "_abc_impl"}
_MAKE_PLAIN_CLASSES = sys.stdlib_module_names | {"torch"}
_MADE_BY_ENUM = (vars(enum.Enum("_", {})).keys() | vars(enum.Flag("_", {})).keys()) - {"__doc__"}

Identity = tuple[str, str | None, str]
"""Of a class: a token that it has in this process, its script if it has one, its full name."""

_tokens: WeakKeyDictionary[type, str] = WeakKeyDictionary()
_classes: WeakValueDictionary[str, type] = WeakValueDictionary()


def reduce_class(cls: type) -> tuple[Any, ...]:
    """How to pickle a class."""
    if not all(map(_makes_plain_classes, inspect.getmro(type(cls)))):
        raise TypeError(f"cannot pickle a {type(cls).__qualname__} of a script")
    namespace = vars(cls)
    members = {name: each.value for name, each in _members(cls).items()}
    given = {name: namespace[name] for name in _GIVEN_AT_BIRTH if name in namespace}
    given["__qualname__"] = cls.__qualname__
    made_from = (_identity(cls), type(cls), cls.__name__, _bases(cls), given, members)
    rest = {name: value for name, value in namespace.items() if _is_copied(cls, name, value)}
    state = (rest, {name: vars(each) for name, each in _members(cls).items()})
    return make_class, made_from, state, None, None, fill_class


def _makes_plain_classes(metaclass: type) -> bool:
    """Whether a class of it can be made empty and be filled later; those of libraries cannot."""
    library = metaclass.__module__.partition(".")[0]
    return library in _MAKE_PLAIN_CLASSES or name_in_module(metaclass) is None


def _members(cls: type) -> dict[str, enum.Enum]:
    return dict(cls.__members__) if issubclass(cls, enum.Enum) else {}


def _bases(cls: type) -> tuple[Any, ...]:
    if tuple in cls.__bases__:  # what is written as a NamedTuple is in truth a tuple
        return cls.__bases__
    return vars(cls).get("__orig_bases__", cls.__bases__)


def _is_copied(cls: type, name: str, value: Any) -> bool:
    if name in _NOT_COPIED or isinstance(value, types.MemberDescriptorType):
        return False
    if not issubclass(cls, enum.Enum):
        return True
    by_enum = name in _MADE_BY_ENUM and getattr(value, "__module__", None) != cls.__module__
    return not by_enum and name not in cls.__members__


def make_class(
    identity: Identity,
    metaclass: type,
    name: str,
    bases: tuple[Any, ...],
    given: dict[str, Any],
    members: dict[str, Any],
) -> type:
    """The class if this process or this script has it, else one for `fill_class` to complete."""
    known = _known(identity)
    if known is not None:
        return known

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(given | members | {_SKELETON: True})

    cls = types.new_class(name, bases, {"metaclass": metaclass}, fill)
    _tokens[cls], _classes[identity[0]] = identity[0], cls
    return cls


def fill_class(cls: type, state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    """Give a class that `make_class` made its attributes; leave one that it found alone."""
    if _SKELETON not in vars(cls):
        return
    type.__delattr__(cls, _SKELETON)
    attributes, members = state
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    for name, own in members.items():
        vars(_members(cls)[name]).update(own)


def _identity(cls: type) -> Identity:
    if cls not in _tokens:
        _tokens[cls] = uuid4().hex
        _classes[_tokens[cls]] = cls
    script = _script() if cls.__module__ in SCRIPTS else None
    return _tokens[cls], script, cls.__qualname__


def _known(identity: Identity) -> type | None:
    token, script, qualname = identity
    if token in _classes or script != _script():
        return _classes.get(token)
    try:
        found = attrgetter(qualname)(sys.modules["__main__"])
    except AttributeError:
        return None
    return found if isinstance(found, type) else None


def _script() -> str:
    return os.path.basename(getattr(sys.modules["__main__"], "__file__", None) or "")


def reduce_type_variable(variable: TypeVar) -> tuple[Any, ...]:
    """How to pickle a type variable."""
    make = functools.partial(
        TypeVar,
        variable.__name__,
        *variable.__constraints__,
        bound=variable.__bound__,
        covariant=variable.__covariant__,
        contravariant=variable.__contravariant__,
    )
    return make, ()


_DEFINITIONS = (types.FunctionType, TypeVar, type)


def reduction(obj: Any) -> Any:
    """How to pickle `obj`, as `__reduce__` would say it; NotImplemented: as usual."""
    kind = cast("type[object]", type(obj))
    if kind is types.CellType:
        return reduce_cell(obj)
    if kind is types.ModuleType:
        by_name = obj.__name__ not in SCRIPTS and sys.modules.get(obj.__name__) is obj
        return (importlib.import_module, (obj.__name__,)) if by_name else NotImplemented
    if not issubclass(kind, _DEFINITIONS):
        return NotImplemented
    if (name := name_in_module(obj)) is not None:
        return name
    if kind is types.FunctionType:
        return reduce_function(obj)
    if kind is TypeVar:
        return reduce_type_variable(obj)
    return reduce_class(obj) if _is_written_in_python(obj) else NotImplemented


def _is_written_in_python(cls: type) -> bool:
    return isinstance(vars(cls).get("__module__"), str)

"""Classes of a script: what they hold is pickled.

Where the class is at hand, it is found again instead: in the process that wrote the payload, and
under its name in a script of the same file name, such as a training that was started anew.

Pickles call `make_class` and `fill_class` by these names: they stay.
"""

import enum
import functools
import inspect
import os
import sys
import types
from operator import attrgetter
from typing import Any, TypeVar
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakValueDictionary

from refold.eventstore.payloads.importable import SCRIPTS, is_importable

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
    return library in _MAKE_PLAIN_CLASSES or not is_importable(metaclass)


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

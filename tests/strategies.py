"""Hypothesis strategies for events and commands, read off the types of their fields."""

from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from refold import commands
from refold.commands import Command
from refold.eventstore import events
from refold.eventstore.event import Event
from refold.eventstore.payloads import encode_payload


def _is_concrete(thing: Any, base: type) -> bool:
    return isinstance(thing, type) and issubclass(thing, base) and thing is not base


EVENT_TYPES: list[type[Event]] = events.event_types()
COMMAND_TYPES: list[type[Command]] = [
    cls for name in commands.__all__ if _is_concrete(cls := getattr(commands, name), Command)
]

# Few ids, so that events meet; now and then the ends of what an engine can hold.
FEW = st.integers(0, 3)
IDS = st.integers(0, 40).map(lambda n: 2**63 - 1 if n == 40 else n % 4)
NUMBERS = st.one_of(FEW, st.sampled_from([-(2**63), -1, 2**31, 2**53 + 1, 2**63 - 1]))
DIGESTS = st.sampled_from(["0" * 64, "9f86d081" * 8])
PAYLOADS = st.sampled_from([encode_payload({"lr": 0.1}), encode_payload((1, None))])
# All characters but NUL and lone surrogates, which the log refuses.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Return a strategy for the values that a field's type allows."""
    match kind:
        case inspect.IntType(ge=1):
            return st.integers(1, 2**31)
        case inspect.IntType(ge=0):
            return IDS
        case inspect.IntType():
            return NUMBERS
        case inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case inspect.StrType(min_length=64):
            return DIGESTS
        case inspect.StrType(min_length=least):
            return st.text(CHARACTERS, min_size=least or 0, max_size=8)
        case inspect.BytesType():
            return PAYLOADS
        case inspect.BoolType():
            return st.booleans()
        case inspect.AnyType():  # a number, as `log_metrics` takes them
            return st.floats() | NUMBERS
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType(cls=enum):
            return st.sampled_from(enum)
        case inspect.LiteralType(values=words):
            return st.sampled_from(words)
        case inspect.UnionType(types=kinds):
            return st.one_of(*map(values, kinds))
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=3)
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=3).map(tuple)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=3)
        case inspect.StructType(cls=struct, fields=fields):
            return st.builds(struct, **{field.name: values(field.type) for field in fields})
        case _:
            raise NotImplementedError(f"no strategy for a field of type {kind}")


def structs(cls: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Return a strategy for the instances of a struct, defaults left out now and then."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    needed = {field.name: values(field.type) for field in info.fields if field.required}
    optional = {field.name: values(field.type) for field in info.fields if not field.required}
    return st.fixed_dictionaries(needed, optional=optional).map(lambda fields: cls(**fields))


def one_of_structs(types: list[type[Any]], often: Iterable[type[Any]]) -> st.SearchStrategy[Any]:
    """Return a strategy for the instances of several structs, of some of them more often."""
    return st.one_of([structs(cls) for cls in [*types, *[cls for cls in often for _ in range(4)]]])


# Without rows most events change nothing, and without resets rows only ever grow.
any_event: st.SearchStrategy[Event] = one_of_structs(
    EVENT_TYPES,
    often=[events.RunCreated, events.ContextCreated, events.TaskScheduled, events.TablesReset],
)
any_command: st.SearchStrategy[Command] = one_of_structs(
    COMMAND_TYPES, often=[commands.CreateExperiment, commands.CreateRun, commands.CreateWorkerTask]
)

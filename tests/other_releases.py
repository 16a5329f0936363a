"""What older and newer releases of a program write: its event types exist only in a child."""

from types import new_class
from typing import ClassVar

from children import Parent

from refold.eventstore import Event, open_store


def write_first_schemas(_: Parent, place: str) -> None:
    """Write events as the first release knew them."""

    class DoseGiven(Event, frozen=True):
        amount: str

    class PatientSeen(Event, frozen=True):
        name: str

    with open_store(place) as store:
        store.append("patient-1", [DoseGiven("10 mg"), PatientSeen("Ada")])


def write_second_schema(_: Parent, place: str) -> None:
    """Write an event as the second release knew it."""

    class DoseGiven(Event, frozen=True):
        schema_version: ClassVar[int] = 2
        milligrams: int

    with open_store(place) as store:
        store.append("patient-1", [DoseGiven(20)])


def write_unknown_type(_: Parent, place: str) -> None:
    """Write an event of a type that nobody here has defined."""

    class DoseRefused(Event, frozen=True):
        pass

    with open_store(place) as store:
        store.append("patient-1", [DoseRefused()])


def event_type(name: str) -> type[Event]:
    """Define an event type without fields."""
    return new_class(name, (Event,), {"frozen": True})


def write_type_that_comes_later(_: Parent, place: str, name: str) -> None:
    """Write an event of a type that a test will define when it has looked for it."""
    with open_store(place) as store:
        store.append("patient-1", [event_type(name)()])


def write_newer_schema(_: Parent, place: str) -> None:
    """Write an event of a known type, of a schema version that is not known yet."""

    class DoseMeasured(Event, frozen=True):
        schema_version: ClassVar[int] = 4
        micrograms: int

    with open_store(place) as store:
        store.append("patient-1", [DoseMeasured(20_000)])

"""Events go into the log and come out equal, whatever release wrote them."""

import json
from typing import ClassVar

import msgspec
import other_releases
import pytest
from children import call
from hypothesis import given
from hypothesis import strategies as st
from strategies import EVENT_TYPES, structs
from tries import tries

from refold.eventstore import (
    Event,
    EventStore,
    Id,
    InvalidEvent,
    UnknownEventType,
    open_store,
    upcaster,
)
from refold.eventstore.events import (
    ControllerTaskSet,
    ExperimentCreated,
    ExperimentErrorRecorded,
    ExperimentStatesReset,
    RunCreated,
    RunMetricsRecorded,
    RunProgressed,
    RunStarted,
    StoreEvent,
)
from refold.eventstore.statuses import ControllerTask, TaskStatus


def kept(store: EventStore, event: Event) -> Event:
    """Append an event and return what the log holds of it."""
    [recorded] = store.append("any", [event])
    [read] = store.read(recorded.position - 1)
    assert read == recorded
    return read.event


@pytest.mark.property
@pytest.mark.parametrize("cls", EVENT_TYPES, ids=lambda cls: cls.__name__)
def test_every_event_comes_back_equal(store: EventStore, cls: type[Event], engine: str) -> None:
    @tries(40, engine)
    @given(st.lists(structs(cls), min_size=1))
    def property_(events: list[Event]) -> None:
        appended = store.append("any", events)
        read = list(store.read(appended[0].position - 1))
        assert read == appended
        assert [(type(r.event), r.event) for r in read] == [(cls, event) for event in events]

    property_()


@pytest.mark.property
@pytest.mark.parametrize("cls", EVENT_TYPES, ids=lambda cls: cls.__name__)
def test_every_event_is_json_that_people_can_read(
    store: EventStore, cls: type[Event], engine: str
) -> None:
    @tries(20, engine)
    @given(structs(cls))
    def property_(event: Event) -> None:
        store.append("any", [event])
        with store.reading() as connection:
            [(name, text)] = connection.execute(
                "SELECT type, data FROM events ORDER BY position DESC LIMIT 1"
            )
        assert name == cls.__name__
        told = json.loads(text)
        assert list(told) == [
            name
            for name in cls.__struct_fields__
            if getattr(event, name) is not msgspec.UNSET
            and (name in told or not cls.__struct_config__.omit_defaults)
        ]
        assert msgspec.convert(json.loads(text), cls) == event

    property_()


def test_numbers_keep_their_types(store: EventStore) -> None:
    metrics = {
        "int": 1,
        "float": 1.0,
        "true": True,
        "small": 5e-324,
        "big": 2**63 - 1,
        "none": None,
    }
    event = kept(store, RunMetricsRecorded(1, metrics))
    assert isinstance(event, RunMetricsRecorded)
    assert repr(event.metrics) == repr(metrics)


def test_words_are_enums_again(store: EventStore) -> None:
    event = kept(store, ControllerTaskSet(ControllerTask.RUN_FIT, TaskStatus.PENDING))
    assert isinstance(event, ControllerTaskSet)
    assert event.task is ControllerTask.RUN_FIT
    assert event.status is TaskStatus.PENDING


@pytest.mark.parametrize(
    "text", ["\\u0000", "\\\\u0000", '"\\', "a\nb\r\u2028", "𝄞 é 漢", "\x7f\x01"]
)
def test_unusual_text_is_kept(store: EventStore, text: str) -> None:
    assert kept(store, ExperimentErrorRecorded(1, text)) == ExperimentErrorRecorded(1, text)


NAN, INFINITY = float("nan"), float("inf")
NOT_EXACT = {
    "NaN": ExperimentCreated(1, "evals", "a", "running", num_cpus=NAN),
    "infinity": ExperimentCreated(1, "evals", "a", "running", num_gpus=-INFINITY),
    "NaN in metrics": RunMetricsRecorded(1, {"loss": NAN}),
    "infinity deep in metrics": RunMetricsRecorded(1, {"loss": {"all": [0.5, INFINITY]}}),
    "a tuple": RunMetricsRecorded(1, {"losses": (0.5, 0.25)}),
    "a list for a tuple": ExperimentStatesReset(runs=[1]),
    "a lone surrogate": ExperimentErrorRecorded(1, "\ud800"),
    "a lone surrogate as key": RunMetricsRecorded(1, {"\udfff": 1}),
    "NUL": ExperimentErrorRecorded(1, "a\0b"),
    "NUL behind a backslash": ExperimentErrorRecorded(1, "\\\0"),
    "NUL as key": RunMetricsRecorded(1, {"\0": 1}),
    "more than 64 bits": RunStarted(2**64),
    "one more than 63 bits": RunProgressed(1, 2**63, 0),
    "one less than 63 bits": RunProgressed(1, 0, -(2**63) - 1),
    "more than 64 bits in metrics": RunMetricsRecorded(1, {"n": 2**64}),
    "an id below 0": RunStarted(-1),
    "no id": RunStarted(None),
    "text for an id": RunStarted("1"),
    "a bool for an id": RunStarted(True),
    "a fraction for an id": RunStarted(1.5),
    "an unknown word": ControllerTaskSet("DREAM", TaskStatus.PENDING),
    "an empty name": RunCreated(1, 1, ""),
    "an object": RunMetricsRecorded(1, {"loss": object()}),
    "a set": RunMetricsRecorded(1, {"losses": {1}}),
    "keys of a group that are no text": RunMetricsRecorded(1, {"a": {1: 2}}),
}


@pytest.mark.parametrize("event", NOT_EXACT.values(), ids=NOT_EXACT.keys())
def test_what_would_not_come_back_equal_is_refused(store: EventStore, event: Event) -> None:
    store.append("any", [RunStarted(1)])
    before = list(store.read())
    with pytest.raises(InvalidEvent, match=type(event).__name__):
        store.append("any", [RunStarted(1), event])
    assert list(store.read()) == before
    assert store.version("any") == 1


@pytest.mark.parametrize("stream", ["", "a\0b", "\ud800", 5, b"run-5"])
def test_a_bad_name_of_a_stream_is_refused(store: EventStore, stream: str) -> None:
    with pytest.raises(InvalidEvent, match="not a valid name for a stream"):
        store.append(stream, [RunStarted(1)])
    assert store.head() == 0


@pytest.mark.parametrize("thing", [None, "RunStarted", {"run_id": 1}, RunStarted])
def test_what_is_no_event_is_refused(store: EventStore, thing: Event) -> None:
    with pytest.raises(InvalidEvent, match="not an event"):
        store.append("any", [thing])
    assert store.head() == 0


def test_a_numpy_number_in_metrics_becomes_a_plain_one(store: EventStore) -> None:
    numpy = pytest.importorskip("numpy")
    event = kept(store, RunMetricsRecorded(1, {"loss": numpy.float64(0.5), "n": numpy.int64(3)}))
    assert event == RunMetricsRecorded(1, {"loss": 0.5, "n": 3})


# --- events of a user's own ------------------------------------------------------------------


class Weighed(Event, frozen=True):
    patient_id: Id
    grams: float
    tags: tuple[str, ...] = ()

    @property
    def stream(self) -> str:
        return f"patient-{self.patient_id}"


def test_events_of_a_users_own_work_beside_ours(store: EventStore) -> None:
    weighed = Weighed(7, 70_500.5, ("morning",))
    with store.transaction() as transaction:
        transaction.append([weighed, RunStarted(1)])
    assert [(r.stream, r.type, r.event) for r in store.read()] == [
        ("patient-7", "Weighed", weighed),
        ("run-1", "RunStarted", RunStarted(1)),
    ]
    assert [r.event for r in store.read(types=[Weighed])] == [weighed]


class PatientEvent(Event, frozen=True):
    patient_id: Id


class Admitted(PatientEvent, frozen=True):
    pass


class Discharged(PatientEvent, frozen=True):
    pass


def test_a_base_class_stands_for_all_its_types(store: EventStore) -> None:
    store.append("patient-1", [Admitted(1), Weighed(1, 70_500.5), Discharged(1)])
    assert [r.event for r in store.read(types=[PatientEvent])] == [Admitted(1), Discharged(1)]


def test_an_event_without_a_stream_of_its_own_needs_one(store: EventStore) -> None:
    class Sneezed(Event, frozen=True):
        pass

    with pytest.raises(InvalidEvent, match="Sneezed names no stream"), store.transaction() as t:
        t.append([Sneezed()])
    assert store.head() == 0
    assert kept(store, Sneezed()) == Sneezed()


def test_a_class_defined_anew_takes_the_place_of_the_first(store: EventStore) -> None:
    notebook = {"__name__": "notebook", "Event": Event}
    exec("class Slept(Event, frozen=True):\n    hours: int", notebook)
    store.append("patient-1", [notebook["Slept"](8)])
    exec("class Slept(Event, frozen=True):\n    hours: float\n    deep: bool = False", notebook)
    again = notebook["Slept"]
    store.append("patient-1", [again(7.5, True)])
    assert [r.event for r in store.read()] == [again(8.0, False), again(7.5, True)]


def test_two_types_of_one_name_are_refused() -> None:
    with pytest.raises(
        InvalidEvent, match=r"RunStarted is defined twice, in refold\.eventstore\.events"
    ):

        class RunStarted(Event, frozen=True):
            pass


# --- events of other releases ----------------------------------------------------------------


class DoseGiven(Event, frozen=True):
    schema_version: ClassVar[int] = 3
    milligrams: int
    route: str


class PersonSeen(Event, frozen=True):
    """Was PatientSeen until schema version 1."""

    schema_version: ClassVar[int] = 2
    name: str


class DoseMeasured(Event, frozen=True):
    milligrams: int


@upcaster("DoseGiven", 1)
def amount_in_milligrams(data: dict[str, str]) -> dict[str, int]:
    return {"milligrams": int(data["amount"].removesuffix(" mg"))}


@upcaster("DoseGiven", 2)
def by_mouth(data: dict[str, int]) -> dict[str, object]:
    return {**data, "route": "mouth"}


@upcaster("PatientSeen", 1, becomes="PersonSeen")
def unchanged(data: dict[str, str]) -> dict[str, str]:
    return data


def test_events_of_older_releases_are_read_as_todays(place: str) -> None:
    call(other_releases.write_first_schemas, place)
    call(other_releases.write_second_schema, place)
    with open_store(place) as store:
        store.append("patient-1", [DoseGiven(30, "vein")])
        assert [r.event for r in store.read()] == [
            DoseGiven(10, "mouth"),
            PersonSeen("Ada"),
            DoseGiven(20, "mouth"),
            DoseGiven(30, "vein"),
        ]
        assert [r.event for r in store.read(types=[PersonSeen])] == [PersonSeen("Ada")]
        assert [r.event for r in store.read(types=[DoseGiven])] == [
            DoseGiven(10, "mouth"),
            DoseGiven(20, "mouth"),
            DoseGiven(30, "vein"),
        ]


def test_an_unknown_type_is_named_with_its_position(place: str) -> None:
    with open_store(place) as store:
        known = store.append("patient-1", [DoseGiven(1, "vein"), DoseGiven(2, "vein")])
        call(other_releases.write_unknown_type, place)
        known += store.append("patient-1", [DoseGiven(3, "vein")])
        events = store.read()
        assert [next(events), next(events)] == known[:2]
        with pytest.raises(UnknownEventType, match="event 3: type 'DoseRefused', schema version 1"):
            next(events)
        assert list(store.read(after=3)) == known[2:]
        assert list(store.read(types=[DoseGiven])) == known


def test_a_newer_schema_version_is_named_with_its_position(place: str) -> None:
    with open_store(place) as store:
        known = store.append("patient-1", [DoseMeasured(1)])
        call(other_releases.write_newer_schema, place)
        events = store.read()
        assert [next(events)] == known
        with pytest.raises(UnknownEventType, match="event 2: type 'DoseMeasured', schema ver"):
            next(events)


def test_an_event_is_known_once_its_class_is_defined(place: str, engine: str) -> None:
    name = f"DoseForgottenOn{engine.capitalize()}"  # defined once, it is known for good
    call(other_releases.write_type_that_comes_later, place, name)
    with open_store(place) as store:
        with pytest.raises(UnknownEventType, match="import them"):
            list(store.read())
        forgotten = other_releases.event_type(name)
        assert [r.event for r in store.read()] == [forgotten()]


# --- the stream that an event names --------------------------------------------------------------


class Bell(StoreEvent, frozen=True):
    """An event without a field, of the stream of its base."""


class Whisper(Event, frozen=True):
    stream_of = "whisper-{}"
    to: str


class Loud(Event, frozen=True):
    """Fields that are named like what every event has are fields."""

    stream_of: str  # type: ignore[misc]
    names_another: str = ""


class Moody(Event, frozen=True):
    """Its stream may raise."""

    a: int | None

    @property
    def stream(self) -> str:
        return f"own-{self.a:03d}"


def test_an_event_names_its_stream_by_a_pattern(store: EventStore) -> None:
    store.append(None, [Bell(), Whisper("{}")])
    store.append("elsewhere", [Bell(), Whisper("b"), Loud("run-{}")])
    assert [recorded.stream for recorded in store.read()] == [
        *("store", "whisper-{}", "elsewhere", "elsewhere", "elsewhere"),
    ]
    assert store.strays() == [3, 4]
    with pytest.raises(InvalidEvent, match="Loud names no stream"):
        store.append(None, [Loud("run-{}")])


@pytest.mark.parametrize("pattern", ["n-{name}", "n-{", "n-{}-{}", "n-}"])
def test_a_pattern_that_is_none(pattern: str) -> None:
    with pytest.raises(InvalidEvent, match=r"one \{\} at most"):
        type("Patterned", (Event,), {"stream_of": pattern, "__annotations__": {"n": int}})


def test_an_event_whose_stream_raises_leaves_nothing(store: EventStore) -> None:
    with store.transaction() as transaction:
        transaction.append([Bell()])
        with pytest.raises(TypeError):
            transaction.append([Moody(None)], stream="x")
        transaction.append([Bell()])
    assert [recorded.type for recorded in store.read()] == ["Bell", "Bell"]

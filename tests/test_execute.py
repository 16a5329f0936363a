"""The way that a change takes: loaded, decided, appended, committed; with an id, only once."""

from typing import Any

import pytest

from refold import RfDb
from refold.commands import (
    Command,
    CreateExperiment,
    CreateRun,
    RequestCloneModify,
    RequestResume,
    RequestStop,
    execute,
)
from refold.eventstore import Metadata
from refold.eventstore.errors import CommandIdReused, InvalidCommand, NotFound
from refold.eventstore.events import RunCreated
from refold.eventstore.statuses import ExperimentStatus

FIT = CreateExperiment("fit", "digits", ExperimentStatus.NEW)


@pytest.fixture
def filled(db: RfDb) -> RfDb:
    """A store with a run."""
    execute(db.views, FIT)
    assert execute(db.views, CreateRun(1)) == 1
    return db


def test_the_events_are_appended_with_what_is_known_of_them(filled: RfDb) -> None:
    about = Metadata(command_id="a", actor="me", correlation="web", cause=1)
    assert execute(filled.views, CreateRun(1), about) == 2
    recorded = list(filled.store.read())[-1]
    assert (recorded.event, recorded.metadata) == (RunCreated(2, 1, "run_2"), about)
    assert filled.views.verify() == []


def test_a_command_with_an_id_is_carried_out_once(filled: RfDb) -> None:
    about = Metadata(command_id="a")
    assert [execute(filled.views, CreateRun(1), about) for _ in range(3)] == [2, 2, 2]
    assert execute(filled.views, CreateRun(1), Metadata(command_id="b")) == 3
    assert [execute(filled.views, CreateRun(1)) for _ in range(2)] == [4, 5]
    assert filled.store.head() == 6


@pytest.mark.parametrize("other", [RequestStop(2), RequestResume(1)])
def test_an_id_belongs_to_one_command(filled: RfDb, other: Command) -> None:
    execute(filled.views, CreateRun(1))
    execute(filled.views, RequestStop(1), Metadata(command_id="a"))
    head = filled.store.head()
    with pytest.raises(CommandIdReused):
        execute(filled.views, other, Metadata(command_id="a"))
    assert filled.store.head() == head


def test_what_was_asked_is_kept_as_a_name_and_a_digest(filled: RfDb) -> None:
    execute(filled.views, RequestCloneModify(1, b"x", True), Metadata(command_id="a"))
    with filled.store.reading() as connection:
        kept = connection.execute("SELECT command, first, last, result FROM commands")
    assert kept == [("RequestCloneModify 8869eb2dba230922", 3, 3, "1")]


def test_the_same_object_may_be_pickled_to_other_bytes(filled: RfDb) -> None:
    about = Metadata(command_id="a")
    assert execute(filled.views, RequestCloneModify(1, b"x"), about) == 1
    assert execute(filled.views, RequestCloneModify(1, b"y"), about) == 1
    assert execute(filled.views, RequestCloneModify(1, b"y")) == 2
    with filled.store.reading() as connection:
        assert connection.execute("SELECT content FROM payloads ORDER BY content") == [
            (b"x",),
            (b"y",),
        ]


class Scalar:
    """A number as other libraries have it."""

    def __init__(self, value: object) -> None:
        self._value = value

    def item(self) -> object:
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


def test_fields_are_checked_and_made_plain(filled: RfDb) -> None:
    number: Any = Scalar(1)
    assert execute(filled.views, CreateRun(number)) == 2
    for wrong in ("1", Scalar(OverflowError()), Scalar("1")):
        field: Any = wrong
        with pytest.raises(InvalidCommand, match="CreateRun: "):
            execute(filled.views, CreateRun(field))
    assert filled.store.head() == 3


def test_a_command_that_is_refused_leaves_nothing(filled: RfDb) -> None:
    about = Metadata(command_id="a")
    with pytest.raises(NotFound):
        execute(filled.views, CreateRun(7, config_leaf=b"x"), about)
    assert filled.store.head() == 2
    assert execute(filled.views, CreateRun(1), about) == 2

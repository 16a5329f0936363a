"""`refold.testing`: what holds passes, and what does not is told in words that help."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import force_setattr, replace

from refold import (
    IllegalTransition,
    InvalidCommand,
    InvalidEvent,
    InvalidMoment,
    NotFound,
    RFDatabase,
    RfDb,
)
from refold.commands import Command, Decision, RequestStop, SetRunStatus
from refold.eventstore import Event, Id, StoreClosed
from refold.eventstore.events import (
    RunCreated,
    RunEvent,
    RunKilled,
    RunMetricsRecorded,
    RunStarted,
    StopRequested,
)
from refold.projections import Row, Rows, View
from refold.projections.fit import runs
from refold.testing import given, temporary_store

RUN = RunCreated(5, 1, "run_5")


# --- events, a view and a command of one's own ----------------------------------------------


class Promoted(RunEvent, frozen=True):
    stage: str


class Remark(Event, frozen=True):
    """An event that names no stream."""

    text: Any


class Promotion(Row, frozen=True):
    run_id: int
    stage: str
    times: int = 1


promotions = View("promotions", Promotion, version=1)
promotions.put_by(
    Promoted,
    lambda row, e: Promotion(e.run_id, e.stage, row.times + 1 if row else 1),
    key=lambda e: e.run_id,
)


class Promote(Command, frozen=True):
    run_id: Id
    stage: str

    def decide(self, rows: Rows) -> Decision:
        if rows.get(runs, self.run_id) is None:
            raise NotFound(f"there is no run {self.run_id}")
        if rows.first(promotions, run_id=self.run_id, stage=self.stage) is not None:
            return Decision(result=False)
        return Decision([Promoted(self.run_id, self.stage)], result=True, payloads=[b"card"])


class Do(Command, frozen=True):
    """Decides whatever a test wants."""

    answer: Any

    def decide(self, rows: Rows) -> Decision:
        return self.answer(rows)

    def validated(self) -> "Do":
        return self


def test_a_command_of_ones_own() -> None:
    staged = Promoted(5, "staging")
    sent = given(RUN, views=[promotions]).when(Promote(5, "staging"))
    sent.then(staged).result(True).payloads(b"card")
    given(RUN, staged, views=[promotions]).when(Promote(5, "staging")).then().result(False)
    given(views=[promotions]).when(Promote(5, "staging")).refused(NotFound, "no run 5")
    given(views=[promotions]).when(Promote(-1, "staging")).refused(InvalidCommand, "Promote")


def test_a_view_of_ones_own() -> None:
    happened = given(Promoted(7, "staging"), Promoted(5, "staging"), Promoted(5, "live"))
    assert happened.rows(promotions) == [Promotion(5, "live", 2), Promotion(7, "staging")]
    assert happened.row(promotions, 5) == Promotion(5, "live", times=2)
    assert happened.row(promotions, 6) is None
    assert given().rows(promotions) == []


def test_a_view_of_refold_that_is_given_as_well_folds_once() -> None:
    given(RUN, views=[runs, promotions]).when(Promote(5, "a")).then(Promoted(5, "a"))


def test_events_need_no_stream_to_have_happened() -> None:
    given(Remark("hello"), RUN).when(RequestStop(5)).then(StopRequested(1, 5))


# --- what does not hold ---------------------------------------------------------------------


def fails(test: Callable[[], object], *fragments: str) -> None:
    with pytest.raises(AssertionError) as failed:
        test()
    assert failed.type is AssertionError
    missing = [part for part in fragments if part not in str(failed.value)]
    assert not missing, str(failed.value)


def test_other_events_follow() -> None:
    sent = given(RUN).when(RequestStop(5))
    fails(
        lambda: sent.then(StopRequested(2, 5)),
        "RequestStop(run_id=5, config_leaf=None) leads to\n  StopRequested(ic_id=1, run_id=5",
        "\nand not to\n  StopRequested(ic_id=2, run_id=5",
    )
    fails(sent.then, "and not to\n  nothing")
    fails(
        lambda: sent.result(2),
        "the result of RequestStop(run_id=5, config_leaf=None) is 1 and not 2",
    )
    fails(
        lambda: sent.payloads(b"x"),
        "RequestStop(run_id=5, config_leaf=None) stores\n  nothing\nand not\n  b'x'",
    )


def test_it_is_refused_otherwise_or_not_at_all() -> None:
    sent = given(RUN, RunKilled(5)).when(RequestStop(5))
    sent.refused(IllegalTransition, "run 5", "KILLED")
    fails(
        lambda: sent.refused(NotFound),
        "is refused by IllegalTransition, not by NotFound: run 5 is KILLED",
    )
    fails(lambda: sent.refused(IllegalTransition, "KILLED", "run 6"), "'run 6' is not in 'run 5 is")
    with pytest.raises(IllegalTransition):
        sent.then()
    fails(
        lambda: given(RUN).when(RequestStop(5)).refused(NotFound),
        "is not refused: it leads to\n  StopRequested(ic_id=1",
    )


def test_an_error_of_a_subclass_is_another() -> None:
    class NoModel(NotFound):
        pass

    def refuse(rows: Rows) -> Decision:
        raise NoModel("no model")

    given().when(Do(refuse)).refused(NoModel)
    fails(lambda: given().when(Do(refuse)).refused(NotFound), "refused by NoModel, not by NotFound")


def test_a_decision_that_is_not_pure() -> None:
    numbers = itertools.count()
    drawn = Do(lambda rows: Decision([Promoted(next(numbers), "a")]))
    fails(lambda: given().when(drawn).then(Promoted(0, "a")), "is not pure: asked again it answers")


def test_a_decision_that_changes_rows() -> None:
    def decide(rows: Rows) -> Decision:
        [run] = rows.find(runs)
        force_setattr(run, "current_chunk", 7)
        return Decision()

    fails(lambda: given(RUN).when(Do(decide)).then(), "changes rows: let it return events")


@pytest.mark.parametrize("value", [float("nan"), (1, 2), "\0"])
def test_what_the_log_cannot_keep(value: Any) -> None:
    with pytest.raises(InvalidEvent):
        given(Remark(value))
    decided = Do(lambda rows: Decision([Remark(value)]))
    given().when(decided).refused(InvalidEvent)
    with pytest.raises(InvalidEvent):
        given().when(decided).then(Remark(value))


def test_what_a_command_leads_to_names_its_stream() -> None:
    given().when(Do(lambda rows: Decision([Remark("a")]))).refused(InvalidEvent, "names no stream")


def test_a_view_that_is_not_given() -> None:
    fails(
        lambda: given(RUN).when(Promote(5, "a")).then(Promoted(5, "a")),
        "decide looks at View('promotions', version=1), which is not there",
        "views=[promotions]",
        "projections=[promotions]",
    )


def test_a_view_that_is_not_pure() -> None:
    times = itertools.count()
    view = View("promotions", Promotion, version=1)
    view.created_by(Promoted, lambda e: Promotion(e.run_id, e.stage, next(times)))
    fails(lambda: given(Promoted(5, "a")).rows(view), "View('promotions', version=1) is not pure")


@pytest.mark.parametrize("stage", [["a"], 7, 2**70, None, "\ud800"])
def test_rows_that_their_table_cannot_keep(stage: Any) -> None:
    class Stage(Row, frozen=True):
        run_id: int
        stage: Any

    schema = (
        "CREATE TABLE stages (run_id INTEGER PRIMARY KEY, stage TEXT NOT NULL, "
        "created_at TEXT, updated_at TEXT, position INTEGER);"
    )
    view = View("stages", Stage, version=1, schema=schema)
    view.created_by(Promoted, lambda e: Stage(e.run_id, stage))
    fails(
        lambda: given(Promoted(5, "a")).row(view, 5),
        "the table of View('stages', version=1) cannot keep Stage(run_id=5",
    )


# --- what it says is what a store does ------------------------------------------------------


def test_the_same_rows_as_on_a_store() -> None:
    events = [RUN, RunStarted(5), RunMetricsRecorded(5, {"loss": 1}), Promoted(5, "a")]
    with temporary_store(projections=[promotions]) as db:
        db.append(*events)
        with db.views.reading() as connection:
            for view in (runs, promotions):
                [values] = connection.execute(view.select)
                row = replace(view.load(values), created_at=0, updated_at=0, position=0)
                assert given(*events).rows(view) == [row]


def test_the_same_decision_as_on_a_store() -> None:
    given(RUN).when(SetRunStatus(5, "ONGOING")).then(RunStarted(5))
    with temporary_store() as db:
        db.append(RUN)
        db.send(SetRunStatus(5, "ONGOING"))
        assert [recorded.event for recorded in db.store.read()] == [RUN, RunStarted(5)]


# --- temporary stores -----------------------------------------------------------------------


def folder_of(db: RfDb | RFDatabase) -> Path:
    return Path(db.store.engine.name).parent


def test_a_temporary_store_is_deleted() -> None:
    with temporary_store(projections=[promotions]) as db:
        assert type(db) is RfDb
        folder = folder_of(db)
        db.append(RUN)
        assert db.send(Promote(5, "live")) is True
        assert db.as_of(1).db.execute("SELECT * FROM promotions") == []
        assert db.verify() == []
        assert folder.exists()
    assert not folder.exists()
    with pytest.raises(StoreClosed):
        db.get_run(5)


def test_a_temporary_store_is_deleted_after_an_error() -> None:
    folders: list[Path] = []

    def fail() -> None:
        with temporary_store() as db, db.batch():
            folders.append(folder_of(db))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    [folder] = folders
    assert not folder.exists()


def test_each_temporary_store_is_new() -> None:
    with temporary_store() as first, temporary_store(RFDatabase, actor="test") as second:
        assert type(second) is RFDatabase
        assert first.create_experiment("a") == second.create_experiment("b") == 1
        assert [recorded.metadata.actor for recorded in second.store.read()] == ["test"]


def test_the_clock_of_a_temporary_store() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    with temporary_store(clock=noon) as db:
        db.create_experiment("a")
        db.create_experiment("b")
        assert [recorded.time for recorded in db.store.read()] == [noon, noon]
    with temporary_store(clock=itertools.count(1).__next__) as db:
        db.create_experiment("a")
        db.create_experiment("b")
        assert [recorded.recorded_at for recorded in db.store.read()] == [1, 2]
    with pytest.raises(InvalidMoment, match="has no zone"), temporary_store(clock=datetime.min):
        pass


def test_it_is_loaded_only_by_those_who_test_and_needs_no_pytest() -> None:
    script = """
import sys, refold
refold.RfDb, refold.AsyncRfDb
assert "refold.testing" not in sys.modules
import refold.testing
assert not {"pytest", "hypothesis", "unittest"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)

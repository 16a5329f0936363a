"""A view by itself: what it refuses, its table and its statements; no database."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest

from refold.eventstore.errors import InvalidView
from refold.eventstore.events import RunCreated, RunProgressed, RunStarted, TablesReset
from refold.projections import Row, View
from refold.projections.fit import runs
from refold.projections.view import RESERVED, Handler, created_by, types_of


class Best(Row, frozen=True):
    run_id: int
    loss: float
    name: str = ""
    good: bool = False
    sure: bool | None = None
    steps: Annotated[int, msgspec.Meta(ge=0)] | None = None
    raw: bytes | None = None


best = View("best", Best, version=3)


# --- what it refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "table"), [("my view", None), ("best", "my table"), ("", None)])
def test_a_name_must_be_an_identifier(name: str, table: str | None) -> None:
    with pytest.raises(InvalidView, match="the name must be an identifier"):
        View(name, Best, version=1, table=table)


@pytest.mark.parametrize("words", [["all"], ["user", "with"], *[[word] for word in RESERVED]])
def test_a_reserved_word_names_no_column(words: list[str]) -> None:
    row = msgspec.defstruct("Odd", [("key", int), *[(w, int) for w in words]], bases=(Row,))
    with pytest.raises(InvalidView) as caught:
        View("odd", row, version=1)
    assert f"view odd: {', '.join(sorted(words))} cannot name a column" in str(caught.value)


@pytest.mark.parametrize("declare", ["created_by", "on"])
def test_an_event_that_names_no_row_needs_a_key(declare: str) -> None:
    view = View("best", Best, version=1)
    with pytest.raises(InvalidView, match="best: TablesReset has no field 'run_id': pass key="):
        getattr(view, declare)(TablesReset, lambda *_: None)
    getattr(view, declare)(TablesReset, lambda *_: None, key=lambda _: 1)


# --- what events do ---------------------------------------------------------------------------


def test_handlers() -> None:
    view: View[Any] = View("best", Best, version=1)
    started, created = RunStarted(5), RunCreated(6, 1, "run_6")
    view.created_by(RunCreated, lambda e: Best(e.run_id, 0.0))
    view.on(RunStarted, lambda row, _: row)
    view.on(RunProgressed, lambda row, _: row, keys=lambda e: [e.run_id, e.current_chunk])
    view.cleared_by(TablesReset)
    creates, starts, goes_on = (
        view.handlers[name] for name in ("RunCreated", "RunStarted", "RunProgressed")
    )
    assert [*creates.touched(created)] == [6]
    assert creates.evolve("whatever was there", created) == Best(6, 0.0)
    assert (creates.begins, creates.regardless) == (True, True)
    assert [*starts.touched(started)] == [5]
    assert (starts.begins, starts.regardless) == (False, False)
    assert [*goes_on.touched(RunProgressed(5, 7, 0))] == [5, 7]
    assert view.clearing["TablesReset"](TablesReset(False)) is True

    view.put_by(RunStarted, lambda row, e: Best(e.run_id, 1.0), key=lambda _: 9)
    assert [*view.handlers["RunStarted"].touched(started)] == [9]
    assert view.handlers["RunStarted"].begins
    assert not view.handlers["RunStarted"].regardless


def test_an_event_may_empty_a_view_on_a_condition() -> None:
    view = View("best", Best, version=1)
    assert not view.is_cleared_by(TablesReset(True))
    view.cleared_by(TablesReset, when=lambda e: e.experiments)
    assert view.is_cleared_by(TablesReset(True))
    assert not view.is_cleared_by(TablesReset(False))
    assert not view.is_cleared_by(RunStarted(5))


def test_a_key_of_ones_own() -> None:
    view: View[Any] = View("best", Best, version=1)
    view.created_by(RunCreated, lambda e: Best(1, 0.0), key=lambda e: e.experiment_id)
    view.on(RunStarted, lambda row, _: row, key=lambda e: e.run_id + 1)
    assert [*view.handlers["RunCreated"].touched(RunCreated(6, 3, "run_6"))] == [3]
    assert [*view.handlers["RunStarted"].touched(RunStarted(6))] == [7]


def test_a_handler_without_keys_touches_nothing() -> None:
    assert [*Handler(lambda row, _: row, None).touched(RunStarted(6))] == []


def test_the_types_of_events_of_views() -> None:
    one, two = View("one", Best, version=1), View("two", Best, version=1)
    one.on(RunStarted, lambda row, _: row)
    two.cleared_by(TablesReset)
    assert types_of([one, two]) == {"RunStarted", "TablesReset"}
    assert types_of([]) == set()


# --- the table --------------------------------------------------------------------------------


def test_what_a_view_tells_of_itself() -> None:
    assert repr(best) == "View('best', version=3)"
    assert (best.table, best.stream, best.key, best.key_type) == ("best", None, "run_id", int)
    assert best.columns == (
        *("run_id", "loss", "name", "good", "sure", "steps", "raw"),
        *("created_at", "updated_at", "position"),
    )
    other = View("other", Best, version=1, table="others", stream="run-{}")
    assert (other.table, other.stream) == ("others", "run-{}")


def test_the_table_is_made_from_the_fields() -> None:
    assert best.schema == [
        "CREATE TABLE best (run_id INTEGER PRIMARY KEY, loss REAL, name TEXT, good INTEGER, "
        "sure INTEGER, steps INTEGER, raw BLOB, created_at TEXT NOT NULL, "
        "updated_at TEXT NOT NULL, position INTEGER NOT NULL);"
    ]
    assert best.objects == ["best"]
    assert runs.objects == ["runs_folded", "runs"]


def test_a_schema_of_ones_own() -> None:
    view = View("best", Best, version=1, schema="CREATE TABLE a (b INTEGER);\nCREATE VIEW c AS d;")
    assert view.objects == ["a", "c"]


def test_what_statements_create() -> None:
    assert created_by(
        [
            "create table if not exists a (b)",
            "CREATE  VIEW\nc AS SELECT 1",
            "CREATE VIEW IF NOT EXISTS d AS SELECT 1",
            "CREATE INDEX e ON a (b)",
            "SELECT 1",
        ]
    ) == ["a", "c", "d"]


class Two(Row, frozen=True):
    key: str
    value: int


def test_statements() -> None:
    two = View("two", Two, version=1, table="twos")
    assert two.select == "SELECT key, value, created_at, updated_at, position FROM twos"
    assert two.on_conflict == (
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value, created_at = excluded.created_at, "
        "updated_at = excluded.updated_at, position = excluded.position"
    )
    assert two.upsert == (
        "INSERT INTO twos (key, value, created_at, updated_at, position) VALUES (?, ?, ?, ?, ?) "
        + two.on_conflict
    )
    assert two.delete == "DELETE FROM twos WHERE key = ?"


# --- rows there and back ----------------------------------------------------------------------

NOON = int(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000
ROW = Best(
    5, 0.5, "a", True, None, 3, b"x", created_at=NOON, updated_at=NOON + 1_000_023, position=7
)
DUMPED = (
    *(5, 0.5, "a", True, None, 3, b"x"),
    *("2026-01-01 12:00:00.000000", "2026-01-01 12:00:01.000023", 7),
)


def test_a_row_that_no_event_made() -> None:
    row = Best(5, 0.5)
    assert (row.created_at, row.updated_at, row.position) == (0, 0, 0)


def test_a_row_and_the_values_of_its_columns() -> None:
    assert best.dump(ROW) == DUMPED
    assert best.load(DUMPED) == ROW


def test_flags_are_bools_whatever_sql_made_of_them() -> None:
    for value, flag in ((0, False), (1, True), (None, None)):
        loaded = best.load((*DUMPED[:3], value, value, *DUMPED[5:]))
        assert (loaded.good, loaded.sure) == (flag, flag)
        assert (loaded.steps, loaded.position) == (3, 7)
    assert best.typed((5, 1, "a", 1, 0, 1, b"")) == [5, 1, "a", True, False, 1, b""]
    assert best.row_of((*DUMPED[:7], NOON, NOON + 1_000_023, 7)) == ROW


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (-0.0, 0.0),
        (1, 1.0),
        (-1, -1.0),
        (0.5, 0.5),
        (2**63 - 1, 2.0**63),
        (2**63, 2.0**63),
        (True, 1.0),
    ],
)
def test_a_fresh_row_becomes_what_its_table_gives_back(value: float, kept: float) -> None:
    row = Best(5, value, steps=3)
    best.settle(row)
    assert repr(row) == repr(Best(5, kept, steps=3))


@pytest.mark.parametrize("value", [None, "?", 10**400])
def test_what_is_no_number_is_left_as_it_is(value: Any) -> None:
    row = Best(5, value)
    best.settle(row)
    assert row.loss is value


class Mixed(Row, frozen=True):
    mixed_id: int
    fraction: float | None = None
    either: int | float | None = None
    flag: bool | float | None = None
    whole: int | float = 0
    count: int = 0
    text: str = ""


mixed = View("mixed", Mixed, version=1)


@pytest.mark.parametrize(
    ("value", "fraction", "either"),
    [
        (float("nan"), None, None),
        (float("inf"), float("inf"), float("inf")),
        (2.0, 2.0, 2),
        (0.5, 0.5, 0.5),
        (-0.0, 0.0, 0),
        (3, 3.0, 3),
    ],
)
def test_numbers_are_settled_by_what_their_column_can_hold(
    value: float, fraction: float | None, either: float | None
) -> None:
    row = Mixed(1, value, value, value, value, 2.0, "2.0")  # type: ignore[arg-type]
    mixed.settle(row)
    assert repr((row.fraction, row.either)) == repr((fraction, either))
    # Not of numbers, or of flags too: left as they are.
    assert repr((row.flag, row.count, row.text)) == repr((value, 2.0, "2.0"))
    assert row.mixed_id == 1


def test_whole_numbers_beyond_what_a_table_holds_stay_floats() -> None:
    for value, kept in ((2.0**63, 2.0**63), (-(2.0**63), -(2.0**63)), (2.0**62, 2**62)):
        row = Mixed(1, either=value)
        mixed.settle(row)
        assert repr(row.either) == repr(kept)


def test_the_columns_of_a_table_are_made_for_their_numbers() -> None:
    [table] = mixed.schema
    assert (
        "fraction REAL, either NUMERIC, flag INTEGER, whole NUMERIC, count INTEGER, text" in table
    )

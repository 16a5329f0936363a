"""Views and the log as Arrow tables."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_logs import OWN, VIEWS, BirdSeen, Step, append_row, log_of, steps
from raw import raw
from tables import Tables
from tries import tries

from refold import InvalidMoment, NotFound, ProjectionFailed, RfDb
from refold.eventstore import DamagedEvent, Event
from refold.eventstore.errors import MissingPackage
from refold.eventstore.events import RunProgressed
from refold.eventstore.paging import PAGE
from refold.export.tables import batches
from refold.projections import Row, View

Place = Callable[[], str]

TIME = pyarrow.timestamp("us", tz="UTC")


def as_rows(table: pyarrow.Table) -> list[dict[str, Any]]:
    """Return a table's rows as the views have them: times as text."""

    def told(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=None).isoformat(" ", "microseconds")
        return value

    return [{name: told(value) for name, value in row.items()} for row in table.to_pylist()]


@pytest.mark.property
def test_every_view_holds_its_rows_then_and_now(engine: str, new_place: Place) -> None:
    @tries(8, engine)
    @given(st.lists(steps, max_size=6), st.data())
    def check(happens: list[Step], data: st.DataObject) -> None:
        with log_of(new_place(), happens) as log:
            at = data.draw(st.sampled_from([*log.positions]))
            now: Tables = log.seen[log.db.store.head()]
            then = log.folded()[at]
            for view in VIEWS:
                assert as_rows(log.db.to_arrow(view.table)) == now[view.name]
                assert as_rows(log.db.to_arrow(view.table, at=at)) == then[view.name]
            events = log.db.to_arrow("events", at=at).to_pylist()
            assert [row["position"] for row in events] == [*range(1, at + 1)]
            assert [row["type"] for row in events] == [
                recorded.type for recorded in log.events if recorded.position <= at
            ]

    check()


def test_columns_have_their_types(db: RfDb) -> None:
    run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    db.update_run_metrics(run_id, {"loss": 0.5})
    db.create_worker_task(run_id, 0, 0)
    expected = {
        "runs": {
            "run_id": pyarrow.int64(),
            "run_name": pyarrow.string(),
            "warm_start": pyarrow.bool_(),
            "config_leaf": pyarrow.binary(),
            "seed": pyarrow.int64(),
            "metrics": pyarrow.string(),
            "created_at": TIME,
            "updated_at": TIME,
            "position": pyarrow.int64(),
        },
        "experiments": {"num_cpus": pyarrow.float64(), "num_shards": pyarrow.int64()},
        "interactive_control": {"config_leaf": pyarrow.binary(), "warm_start": pyarrow.bool_()},
        "actor_tasks": {"duration_seconds": pyarrow.float64(), "started_at": pyarrow.string()},
        "ids": {"kind": pyarrow.string(), "last": pyarrow.int64()},
        "events": {
            "position": pyarrow.int64(),
            "stream": pyarrow.string(),
            "version": pyarrow.int64(),
            "type": pyarrow.string(),
            "schema_version": pyarrow.int64(),
            "data": pyarrow.string(),
            "metadata": pyarrow.string(),
            "recorded_at": TIME,
        },
    }
    for name, types in expected.items():
        # The same whether there are rows or not.
        for at in (None, 0):
            schema = db.to_arrow(name, at=at).schema
            assert {column: schema.field(column).type for column in types} == types
    assert db.to_arrow("runs", at=0).num_rows == 0
    assert db.to_arrow("events", at=0).num_rows == 0


def test_a_run_and_an_event(place: str) -> None:
    noon = datetime(2024, 1, 31, 12, tzinfo=UTC)
    with RfDb(place, actor="ü", clock=lambda: 1_706_702_400_000_000) as db:
        run_id = db.create_run(db.create_experiment("digits"), config_leaf=(1, 2), warm_start=True)
        db.update_run_metrics(run_id, {"loss": 0.5})
        [run] = db.to_arrow("runs").to_pylist()
        assert run["warm_start"] is True
        assert run["metrics"] == '{"loss":0.5}'
        assert run["parent_run_id"] is None
        assert run["created_at"] == noon
        assert db.payloads.decode(run["config_leaf"]) == (1, 2)
        [*_, event] = db.to_arrow("events").to_pylist()
    assert event == {
        "position": 3,
        "stream": "run-1",
        "version": 2,
        "type": "RunMetricsRecorded",
        "schema_version": 1,
        "data": '{"run_id":1,"metrics":{"loss":0.5}}',
        "metadata": '{"actor":"ü"}',
        "recorded_at": noon,
    }


def test_events_of_unknown_types_and_odd_times_are_there_too(db: RfDb, place: str) -> None:
    append_row(place, "bird-1", "BirdSung", {"song": None})
    assert db.to_arrow("events").column("data").to_pylist() == ['{"song": null}']


# --- views of one's own ----------------------------------------------------------------------


class Measured(Event, frozen=True):
    name: str
    weight: float
    heavy: bool

    @property
    def stream(self) -> str:
        return f"weight-{self.name}"


class Weight(Row, frozen=True, kw_only=False):
    name: str
    weight: float
    heavy: bool | None
    raw: bytes
    count: int


weights = View(
    "weights",
    Weight,
    version=1,
    schema="""
CREATE TABLE weights (
    name TEXT PRIMARY KEY, weight REAL, heavy INTEGER, raw BLOB, count INTEGER,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, position INTEGER NOT NULL
);
CREATE VIEW heaviest AS
SELECT heavy, max(weight) AS most, sum(count) AS counted, max(name) AS latest, NULL AS unknown
FROM weights GROUP BY heavy;
""",
)
weights.put_by(
    Measured,
    lambda row, e: Weight(e.name, e.weight, e.heavy, b"\0", 1 if row is None else row.count + 1),
    key=lambda e: e.name,
)


def test_a_view_of_ones_own_with_an_sql_view(place: str) -> None:
    with RfDb(place, projections=[weights]) as db:
        for name, weight in (("a", 1.5), ("b", 3.0), ("a", 2.0)):
            db.append(Measured(name, weight, weight > 1))
        for at in (None, 3):
            table = db.to_arrow("weights", at=at)
            assert [field.type for field in table.schema][:5] == [
                pyarrow.string(),
                pyarrow.float64(),
                pyarrow.bool_(),
                pyarrow.binary(),
                pyarrow.int64(),
            ]
            assert [
                (row["name"], row["weight"], row["heavy"], row["raw"], row["count"])
                for row in table.to_pylist()
            ] == [("a", 2.0, True, b"\0", 2), ("b", 3.0, True, b"\0", 1)]
            # Expressions have no declared type, so the rows tell.
            heaviest = db.to_arrow("heaviest", at=at)
            assert heaviest.to_pylist() == [
                {"heavy": True, "most": 3.0, "counted": 3, "latest": "b", "unknown": None}
            ]
            assert heaviest.schema.field("most").type == pyarrow.float64()
            assert heaviest.schema.field("unknown").type == pyarrow.string()


class Loose(Row, frozen=True, kw_only=False):
    bird_id: int
    weight: int | None


loose = View("loose_birds", Loose, version=1)
loose.put_by(BirdSeen, lambda _, e: Loose(e.bird_id, e.weight), key=lambda e: e.bird_id)  # type: ignore


def test_a_view_that_breaks_its_own_types_is_named(tmp_path: Path) -> None:
    with RfDb(tmp_path / "store.db", projections=[loose]) as db:
        db.append(BirdSeen(1, "oak", 1.5))
        with pytest.raises(ProjectionFailed, match=r"loose_birds fails .* weight is 1\.5"):
            db.to_arrow("loose_birds")


# --- what is refused -------------------------------------------------------------------------


def test_an_unknown_view_is_refused(place: str) -> None:
    with RfDb(place, projections=OWN) as db:
        for name in ("rnus", "", "payloads", "streams", "runs; DROP TABLE events", "EVENTS"):
            with pytest.raises(NotFound, match=r"take one of experiments, .*birds, .* or events"):
                db.to_arrow(name)


def test_a_moment_that_is_none_is_refused(db: RfDb) -> None:
    with pytest.raises(InvalidMoment):
        db.to_arrow("runs", at=1)


def test_an_altered_event_is_named(tmp_path: Path) -> None:
    place = str(tmp_path / "store.db")  # a server's columns take nothing else
    with RfDb(place) as db:
        db.append(*[RunProgressed(1, n, 0) for n in range(3)])
        with raw(place) as connection:
            connection.execute("DROP TRIGGER events_are_never_updated")
            connection.execute("UPDATE events SET version = 'x' WHERE position = 2")
        with pytest.raises(DamagedEvent, match="one of the events 1 to 3 was altered"):
            db.to_arrow("events")


def test_without_pyarrow_it_says_what_to_install(db: RfDb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackage, match=r"pyarrow, .*: pip install 'refold\[arrow\]'"):
        db.to_arrow("runs")


def test_refold_imports_no_extra_and_nothing_of_the_command_line() -> None:
    code = (
        "import sys, refold, refold.plot, refold.export.tables\n"
        "from refold.export import json_lines, tables, trace\n"
        "others = {'pyarrow', 'matplotlib', 'plotext', 'numpy', 'torch', 'psycopg'}\n"
        "others |= {'typer', 'click', 'rich'}\n"
        "assert not others & sys.modules.keys(), others & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- memory ----------------------------------------------------------------------------------


def test_the_events_are_never_in_memory_all_at_once(tmp_path: Path) -> None:
    with RfDb(tmp_path / "store.db") as db:
        db.append(*[RunProgressed(1, n, 0) for n in range(4 * PAGE)])

        def most(count: int) -> int:
            tracemalloc.start()
            reader = batches(db.as_of(count), "events")
            assert sum(batch.num_rows for batch in reader) == count
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return peak

        most(PAGE)  # what is imported now is there for ever
        assert most(4 * PAGE) < 1.2 * most(2 * PAGE)

"""A view of a user's own that fails stays behind alone: it is named, the others go on."""

import json
from collections.abc import Callable
from contextlib import nullcontext, suppress
from io import BytesIO
from pathlib import Path

import pytest
from command_line import refold
from msgspec.structs import replace
from raw import raw

from refold import InvalidView, ProjectionFailed, RfDb
from refold.eventstore import Event, Id, open_store
from refold.eventstore.events import RunCreated, RunMetricsRecorded
from refold.export.tables import write_csv
from refold.projections import Row, View


class Best(Row, frozen=True):
    run_id: int
    loss: float = 9.0


def best(
    evolve: Callable[[Best, RunMetricsRecorded], Best] = lambda row, e: replace(
        row, loss=min(row.loss, e.metrics["loss"])
    ),
) -> View[Best]:
    view = View("best", Best, version=1)
    view.created_by(RunCreated, lambda e: Best(e.run_id))
    view.on(RunMetricsRecorded, evolve)
    return view


def mended(row: Best, event: RunMetricsRecorded) -> Best:
    return replace(row, loss=min(row.loss, event.metrics.get("loss", 9.0)))


def check_behind(db: RfDb, run_id: int, position: int) -> None:
    """All goes on but `best`, which is told by name."""
    for statement in ("SELECT * FROM best", "SELECT count(*) FROM runs JOIN BEST USING (run_id)"):
        with pytest.raises(ProjectionFailed, match=f"view best fails on event {position}") as told:
            db.db.execute(statement)
        failed = told.value
        assert (failed.view, failed.position, failed.type, failed.key) == (
            "best",
            position,
            "RunMetricsRecorded",
            run_id,
        )
    with pytest.raises(ProjectionFailed, match="view best"):
        write_csv(db, "best", BytesIO())
    assert db.get_run(run_id)["run_id"] == run_id
    assert db.db.execute("SELECT count(*) AS n FROM runs")[0]["n"] == len(db.get_all_runs())
    assert db.create_run(1) > run_id
    assert [str(one) for one in db.verify() if "view best" in str(one)]


def check_caught_up(place: str, losses: list[float]) -> None:
    with RfDb(place, projections=[best(mended)]) as db:
        rows = db.db.execute("SELECT loss FROM best ORDER BY run_id")
        assert [row["loss"] for row in rows][: len(losses)] == losses
        assert db.verify() == []


def test_an_event_of_a_process_that_does_not_have_the_view(place: str) -> None:
    with RfDb(place, projections=[best()]) as db, RfDb(place) as worker:
        run_id = db.create_run(db.create_experiment("digits"))
        db.update_run_metrics(run_id, {"loss": 0.5})
        worker.update_run_metrics(run_id, {"accuracy": 0.9})
        worker.update_run_metrics(run_id, {"loss": 0.25})
        check_behind(db, run_id, 4)
        with RfDb(place, projections=[best()]) as again:
            check_behind(again, run_id, 4)
    check_caught_up(place, [0.25])


def test_an_event_of_its_own_process(place: str) -> None:
    with RfDb(place, projections=[best()]) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.update_run_metrics(run_id, {"loss": 0.5})
        db.update_run_metrics(run_id, {"accuracy": 0.9})
        assert db.get_run(run_id)["metrics"] == {"accuracy": 0.9}
        check_behind(db, run_id, 4)
        db.update_run_metrics(run_id, {"loss": 0.25})
        check_behind(db, run_id, 4)
    check_caught_up(place, [0.25])


def test_in_the_middle_of_a_batch(place: str) -> None:
    with RfDb(place, projections=[best()]) as db:
        with db.batch():
            run_id = db.create_run(db.create_experiment("digits"))
            db.update_run_metrics(run_id, {"loss": 0.5})
            db.update_run_metrics(run_id, {"accuracy": 0.9})
            with pytest.raises(ProjectionFailed):
                db.db.execute("SELECT * FROM best")
            db.update_run_metrics(run_id, {"loss": 0.25})
        check_behind(db, run_id, 4)
        with raw(place) as connection:
            assert list(connection.execute("SELECT loss FROM best")) == [(0.5,)]
    check_caught_up(place, [0.25])


def test_what_was_taken_back_is_no_failure(place: str) -> None:
    with RfDb(place, projections=[best()]) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        with suppress(ZeroDivisionError), db.batch():
            db.update_run_metrics(run_id, {"accuracy": 0.9})
            raise ZeroDivisionError
        db.update_run_metrics(run_id, {"loss": 0.25})
        assert db.db.execute("SELECT loss FROM best") == [{"loss": 0.25}]
        assert db.verify() == []


def test_a_rebuild_leaves_it_behind(place: str) -> None:
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.update_run_metrics(run_id, {"accuracy": 0.9})
    with RfDb(place, projections=[best()]) as db:
        assert db.rebuild() == 3
        check_behind(db, run_id, 3)
    check_caught_up(place, [9.0])


def test_the_past_is_known_up_to_there(place: str) -> None:
    with RfDb(place, projections=[best()]) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.update_run_metrics(run_id, {"loss": 0.5})
        db.update_run_metrics(run_id, {"accuracy": 0.9})
        assert db.as_of(3).db.execute("SELECT loss FROM best") == [{"loss": 0.5}]
        with pytest.raises(ProjectionFailed, match="event 4"):
            db.as_of(4).db.execute("SELECT loss FROM best")
        assert db.as_of(4).get_run(run_id)["metrics"] == {"accuracy": 0.9}


@pytest.mark.parametrize(
    "evolve",
    [
        lambda row, _: replace(row, loss="low"),
        lambda row, _: replace(row, run_id=2**63),
        lambda row, _: "no row",
        lambda row, _: replace(row, loss=[1]),
    ],
)
def test_a_row_that_no_table_can_hold(
    place: str, evolve: Callable[[Best, RunMetricsRecorded], Best]
) -> None:
    with RfDb(place, projections=[best(evolve)]) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.update_run_metrics(run_id, {"loss": 0.5})
        check_behind(db, run_id, 3)
    check_caught_up(place, [0.5])


class ScaleRead(Event, frozen=True):
    run_id: Id
    grams: float


class Weight(Row, frozen=True):
    run_id: int
    grams: float


weights = View("weights", Weight, version=1)
weights.created_by(ScaleRead, lambda e: Weight(e.run_id, e.grams))


def test_a_damaged_event_that_only_it_folds(place: str) -> None:
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        db.append(ScaleRead(run_id, 1.5), stream="scale")
    on = " ON events" if "://" in place else ""
    with raw(place) as connection:
        connection.execute(f"DROP TRIGGER events_are_never_updated{on}")
        connection.execute("UPDATE events SET data = '{}' WHERE position = 3")
    with RfDb(place, projections=[weights]) as db:
        assert db.get_run(run_id)["status"] == "NEW"
        db.set_run_status(run_id, "ONGOING")
        with pytest.raises(ProjectionFailed, match="view weights fails on event 3, ScaleRead"):
            db.db.execute("SELECT * FROM weights")


def test_doctor_says_so(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spoilt.py").write_text(
        "from refold.eventstore.events import RunCreated\n"
        "from refold.projections import Row, View\n"
        "class Spoilt(Row, frozen=True):\n    run_id: int\n"
        "spoilt = View('spoilt', Spoilt, version=1)\n"
        "spoilt.created_by(RunCreated, lambda e: 1 / 0)\n"
    )
    with RfDb(place) as db:
        db.create_run(db.create_experiment("digits"))
    with open_store(place) as store, store.transaction() as transaction:
        transaction.set_projection("spoilt", 1, 0)
    monkeypatch.chdir(tmp_path)
    done = refold("doctor", "--json", "--import", "spoilt", "--store", place)
    problems = [one for one in json.loads(done.out) if one["level"] == "problem"]
    assert (done.code, len(problems)) == (1, 1)
    assert "view spoilt fails on event 2, RunCreated" in problems[0]["text"]


# --- tables with rules of their own ----------------------------------------------------------

RULES = {
    "check": "loss REAL NOT NULL CHECK (loss < 5)",
    "unique": "loss REAL NOT NULL UNIQUE",
    "not null": "loss REAL NOT NULL",
}


class Latest(Row, frozen=True):
    run_id: int
    loss: float | None = 1.0


def latest(rule: str, version: int = 1) -> View[Latest]:
    view = View(
        "latest",
        Latest,
        version=version,
        schema=f"""
            CREATE TABLE latest (run_id INTEGER PRIMARY KEY, {rule}, created_at TEXT NOT NULL,
                                 updated_at TEXT NOT NULL, position INTEGER NOT NULL);""",
    )
    view.put_by(
        RunMetricsRecorded,
        lambda row, e: Latest(e.run_id, e.metrics.get("loss")),
        key=lambda e: e.run_id,
    )
    return view


REFUSED = {"check": {"loss": 9.0}, "unique": {"loss": 0.5}, "not null": {"accuracy": 1.0}}


def check_refused(db: RfDb, place: str, losses: list[float], position: int) -> None:
    match = f"view latest fails on event {position}, RunMetricsRecorded"
    with pytest.raises(ProjectionFailed, match=match):
        db.db.execute("SELECT * FROM latest")
    with raw(place) as connection:
        rows = list(connection.execute("SELECT loss FROM latest ORDER BY run_id"))
    assert rows == [(loss,) for loss in losses]
    assert [str(one) for one in db.verify() if "view latest" in str(one)]


@pytest.mark.parametrize("rule", REFUSED)
@pytest.mark.parametrize("how", ["live", "batch", "rebuild"])
def test_a_row_that_its_table_refuses_leaves_the_view_behind(
    place: str, rule: str, how: str
) -> None:
    view = latest(RULES[rule])
    with RfDb(place, projections=() if how == "rebuild" else [view]) as db:
        with db.batch() if how == "batch" else nullcontext():
            first, second, third = (
                db.create_run(db.create_experiment("digits") if n == 0 else 1) for n in range(3)
            )
            db.update_run_metrics(first, {"loss": 0.5})
            db.update_run_metrics(second, {"loss": 0.4})
            db.update_run_metrics(second, REFUSED[rule])
            db.update_run_metrics(third, {"loss": 0.1})
        assert db.get_run(second)["metrics"] == REFUSED[rule]
        assert db.get_run(third)["metrics"] == {"loss": 0.1}
        if how != "rebuild":
            check_refused(db, place, [0.5, 0.4], 7)
            db.set_run_progress(third, 1, 0)
            check_refused(db, place, [0.5, 0.4], 7)
    with RfDb(place, projections=[view]) as db:
        check_refused(db, place, [0.5, 0.4], 7)
        db.update_run_metrics(first, {"loss": 0.3})
        assert db.get_run(first)["metrics"] == {"loss": 0.3}
    with RfDb(place, projections=[latest("loss REAL", version=2)]) as db:
        rows = db.db.execute("SELECT loss FROM latest ORDER BY run_id")
        assert [row["loss"] for row in rows] == [0.3, REFUSED[rule].get("loss"), 0.1]
        assert db.verify() == []


def test_a_table_without_a_column_of_its_rows_is_refused(place: str) -> None:
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
    with pytest.raises(InvalidView, match=r"view latest: its schema lacks .*loss"):
        RfDb(place, projections=[latest("gain REAL")])
    with RfDb(place, projections=[latest("loss REAL")]) as db:
        assert db.get_run(run_id)["status"] == "NEW"
        assert db.db.execute("SELECT * FROM latest") == []


def test_rows_that_change_places_are_not_refused(place: str) -> None:
    """In one batch a value goes from one row to another: event by event nothing is double."""
    with RfDb(place, projections=[latest(RULES["unique"])]) as db:
        first = db.create_run(db.create_experiment("digits"))
        second = db.create_run(1)
        db.update_run_metrics(second, {"loss": 0.5})
        with db.batch():
            db.update_run_metrics(second, {"loss": 0.4})
            db.update_run_metrics(first, {"loss": 0.5})
        assert db.db.execute("SELECT loss FROM latest ORDER BY run_id") == [
            {"loss": 0.5},
            {"loss": 0.4},
        ]
        assert db.verify() == []

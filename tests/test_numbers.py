"""A number is the same, type and sign, when it was folded, loaded, rebuilt, copied or imported."""

import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from places import Place
from random_logs import append_row, exactly
from tables import tables

from refold import RFDatabase, RfDb, copy_store
from refold.eventstore import Event, Id, InvalidEvent
from refold.eventstore.events import ExperimentCreated, RunMetricsRecorded
from refold.export import json_lines
from refold.face import Face
from refold.projections import Row, View


def assert_same_everywhere(db: Face, place: str, new_place: Place, new_target: Place) -> None:
    """What was folded live is what every other way gives."""
    live = exactly(tables(db))
    own = db.views.views[-1:] if db.views.views[-1].name == "losses" else ()
    assert "-0.0" not in repr(live)
    assert exactly(tables(db.as_of(db.store.head()))) == live
    file = io.BytesIO()
    json_lines.write(db, file)
    for place in (new_place(), new_target()):
        file.seek(0)
        json_lines.read(file, place, projections=own)
        with RfDb(place, projections=own) as imported:
            assert exactly(tables(imported)) == live
    copy_store(place, copied := new_target(), projections=own)
    with RfDb(copied, projections=own) as copy:
        assert exactly(tables(copy)) == live
    db.rebuild()
    assert exactly(tables(db)) == live
    assert db.verify() == []


@pytest.mark.parametrize("zero", [-0.0, np.float32(-0.0)])
def test_a_negative_zero_becomes_zero(
    evals: RFDatabase, place: str, new_place: Place, new_target: Place, zero: Any
) -> None:
    experiment_id = evals.create_experiment("digits", 1, 1, num_cpus=zero, num_gpus=zero)
    context_id = evals.create_context("hash")
    evals.set_context_end_time(context_id, "2026-01-01T00:00:00", zero)
    pipeline_id = evals.create_pipeline(experiment_id, "p", "vllm")
    task_id = evals.create_actor_task(experiment_id, pipeline_id, 0, 0)
    evals.set_actor_task_end_time(task_id, "2026-01-01T00:00:00", zero)
    with evals.store.reading() as connection:
        texts = connection.execute("SELECT data FROM events")
    assert "-0.0" not in repr(texts)
    assert_same_everywhere(evals, place, new_place, new_target)


def test_metrics_hold_no_negative_zero(
    db: RfDb, place: str, new_place: Place, new_target: Place
) -> None:
    run_id = db.create_run(db.create_experiment("digits"), run_name='say "-0.0", not -0.0')
    db.update_run_metrics(run_id, {"loss": -0.0, "all": [{"-0.0": [-0.0, -0.05, -0.01]}]})
    kept = db.get_run(run_id)
    assert repr(kept["metrics"]) == "{'loss': 0.0, 'all': [{'-0.0': [0.0, -0.05, -0.01]}]}"
    assert kept["run_name"] == 'say "-0.0", not -0.0'
    [recorded] = db.store.read(types=[RunMetricsRecorded])
    assert repr(recorded.event) == repr(RunMetricsRecorded(run_id, kept["metrics"]))
    db.update_run_metrics(run_id, {"loss": 0.0, "all": [{"-0.0": [0.0, -0.05, -0.01]}]})
    assert db.store.head() == recorded.position  # nothing has changed


def test_a_negative_zero_of_an_older_release_is_read(
    place: str, new_place: Place, new_target: Place
) -> None:
    RfDb(place).close()
    data = {"experiment_id": 1, "kind": "evals", "experiment_name": "digits", "status": "running"}
    append_row(place, "experiment-1", "ExperimentCreated", {**data, "num_gpus": -0.0})
    append_row(place, "run-1", "RunMetricsRecorded", {"run_id": 1, "metrics": {"loss": -0.0}})
    with RFDatabase(place) as db:
        assert repr(db.get_experiment(1)["num_gpus"]) == "0.0"
        assert [type(recorded.event) for recorded in db.store.read()] == [
            ExperimentCreated,
            RunMetricsRecorded,
        ]
        with db.store.reading() as connection:
            ((text,), _) = connection.execute("SELECT data FROM events ORDER BY position")
        assert repr(json.loads(text)["num_gpus"]) == "-0.0"  # the log stays as it is
        assert_same_everywhere(db, place, new_place, new_target)


class NumberSeen(Event, frozen=True):
    run_id: Id
    loss: float | int

    @property
    def stream(self) -> str:
        return f"run-{self.run_id}"


class Losses(Row, frozen=True):
    run_id: int
    negated: float
    either: int | float
    maybe: float | None
    told: str = ""


losses = View("losses", Losses, version=1, stream="run-{}")
losses.put_by(
    NumberSeen,
    lambda row, e: (
        Losses(e.run_id, 0.0, 0.0, None)
        if row is None
        # What a row holds goes into the next one: a row that was loaded must hold the same.
        else replace(
            row,
            negated=-e.loss,
            either=e.loss,
            maybe=e.loss * -0.0,
            told=f"{row.told} {row.negated} {row.either} {row.maybe}",
        )
    ),
    key=lambda e: e.run_id,
)


def test_rows_of_own_views_are_the_same_remembered_and_loaded(
    place: str, new_place: Place, new_target: Place
) -> None:
    seen = [0.0, 0, 3, 0.5, -0.0, 2**53, -1, 2**60 + 1, -(2**63)]
    with RfDb(place, projections=[losses]) as db:
        for loss in seen:
            db.append(NumberSeen(1, loss))
            with RfDb(place, projections=[losses]) as other:  # which loads each row anew
                other.append(NumberSeen(2, loss))
    with RfDb(place, projections=[losses]) as db:
        first, second = db.db.execute("SELECT * FROM losses ORDER BY run_id")
        assert repr(first["told"]) == repr(second["told"])
        assert first["told"].split() == second["told"].split()
        assert_same_everywhere(db, place, new_place, new_target)


@pytest.mark.parametrize(
    ("value", "only_float", "either"),
    [
        (True, 1.0, 1),
        (np.float64(0.5), 0.5, 0.5),
        (np.float32(0.5), 0.5, 0.5),
        (np.int64(3), 3.0, 3),
        (5.0, 5.0, 5),
        (-0.0, 0.0, 0),
        (2**60 + 1, float(2**60), 2**60 + 1),
        (float("nan"), None, None),
        (float("inf"), float("inf"), float("inf")),
        (None, None, None),
    ],
)
def test_a_row_is_settled_to_what_its_table_gives_back(
    value: Any, only_float: Any, either: Any
) -> None:
    row = Losses(1, value, value, value)
    losses.settle(row)
    assert repr(row.negated) == repr(row.maybe) == repr(only_float)
    assert repr(row.either) == repr(either)


def test_a_row_of_another_class_is_left_to_the_table() -> None:
    losses.settle(StrangeRow(1))  # type: ignore[arg-type]


class StrangeRow(Row, frozen=True):
    run_id: int


@pytest.fixture
def run_id(db: RfDb) -> int:
    """A run of which nothing is known yet."""
    return db.create_run(db.create_experiment("digits"))


# --- numbers that JSON lacks ------------------------------------------------------------------

NO_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@pytest.mark.parametrize("of", [float, np.float64, np.float32, np.float16, torch.tensor])
@pytest.mark.parametrize("word", NO_NUMBERS)
def test_metrics_that_are_no_numbers_come_back(
    db: RfDb, run_id: int, of: Callable[[float], Any], word: str
) -> None:
    x, number = of(NO_NUMBERS[word]), NO_NUMBERS[word]
    for given, numbers, path in (
        ({"loss": x, "rate": 0.5}, {"rate": 0.5}, "loss"),
        ({"loss": [0.5, x]}, {"loss": [0.5, None]}, "loss/1"),
        ({"a/~b": {"loss": x, "best": 1}}, {"a/~b": {"best": 1}}, "a~1~0b/loss"),
        ({"epochs": [{"loss": x}]}, {"epochs": [{}]}, "epochs/0/loss"),
        ({"losses": {"by": [0.5, x]}}, {"losses": {"by": [0.5, None]}}, "losses/by/1"),
    ):
        db.update_run_metrics(run_id, given)
        row = db.db.execute("SELECT metrics, metric_words FROM runs WHERE run_id = ?", (run_id,))
        assert [json.loads(text) for text in row[0].values()] == [numbers, {path: word}]
        found = db.get_run(run_id)["metrics"]
        assert json.dumps(found, sort_keys=True) == json.dumps(given, default=float, sort_keys=True)
        assert repr(number) in repr(found)
        head = db.store.head()
        db.update_run_metrics(run_id, given)
        db.update_run_metrics(run_id, json.dumps(found))
        assert db.store.head() == head, "nothing has changed"
    db.update_run_metrics(run_id, {"loss": 0.5})
    assert db.get_run(run_id)["metrics"] == {"loss": 0.5}
    assert db.verify(log=True) == []


def test_they_are_the_same_everywhere(
    db: RfDb, place: str, run_id: int, new_place: Place, new_target: Place
) -> None:
    db.update_run_metrics(run_id, {"loss": math.nan, "by": {"validation": [0.5, -math.inf]}})
    assert_same_everywhere(db, place, new_place, new_target)


def test_words_that_lead_nowhere_hide_nothing(db: RfDb, run_id: int) -> None:
    words: Any = {
        "loss": "nan",
        "gone/2": "inf",
        "rate/0/x": "inf",
        "list/9": "nan",
        "list/x": "inf",
    }
    db.append(RunMetricsRecorded(run_id, {"rate": 0.5, "list": [1]}, words))
    assert repr(db.get_run(run_id)["metrics"]) == "{'rate': 0.5, 'list': [1], 'loss': nan}"


def test_an_event_by_hand_still_has_no_nan(db: RfDb, run_id: int) -> None:
    with pytest.raises(InvalidEvent, match="NaN"):
        db.append(RunMetricsRecorded(run_id, {"loss": math.nan}))
    wrong: Any = {"loss": "many"}
    with pytest.raises(InvalidEvent, match="many"):
        db.append(RunMetricsRecorded(run_id, {}, wrong))

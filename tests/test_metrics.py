"""What is measured: points with steps, and what is known of each metric."""

import json
import math
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import refold

from refold import (
    InvalidCommand,
    InvalidPayload,
    InvalidQuery,
    MissingPackage,
    NotFound,
    PayloadRefused,
    RfDb,
    decode_db_payload,
    encode_payload,
)
from refold.eventstore.payloads import PayloadCodec
from refold.export.tables import write_csv


@pytest.fixture
def run_id(db: RfDb) -> int:
    """A run of which nothing is known yet."""
    return db.create_run(db.create_experiment("digits"))


def points(db: RfDb, run_id: int, metric: str) -> list[tuple[Any, Any]]:
    return [(point["step"], point["value"]) for point in db.metric_history(run_id, metric)]


def known(db: RfDb, run_id: int, metric: str) -> dict[str, Any]:
    [row] = db.db.execute(
        "SELECT count, last, last_step, last_word, first, first_step, min, min_step, max, max_step "
        "FROM run_metrics WHERE run_id = ? AND metric = ?",
        (run_id, metric),
    )
    return row


def test_points_have_steps_and_the_others_keep_their_values(db: RfDb, run_id: int) -> None:
    assert db.log_metrics(run_id, {"loss": 0.5, "accuracy": 0.7}, step=10) == 10
    assert db.log_metrics(run_id, {"loss": 0.1}, step=20) == 20
    assert db.log_metrics(run_id, {"loss": 0.3}, step=30) == 30
    assert db.get_run(run_id)["metrics"] == {"loss": 0.3, "accuracy": 0.7}
    assert points(db, run_id, "loss") == [(10, 0.5), (20, 0.1), (30, 0.3)]
    assert known(db, run_id, "loss") == {
        "count": 3,
        "last": 0.3,
        "last_step": 30,
        "last_word": None,
        "first": 0.5,
        "first_step": 10,
        "min": 0.1,
        "min_step": 20,
        "max": 0.5,
        "max_step": 10,
    }
    assert db.verify(log=True) == []


def test_steps_are_counted_where_none_is_given(db: RfDb, run_id: int) -> None:
    assert [db.log_metrics(run_id, {"loss": 1.0}) for _ in range(3)] == [0, 1, 2]
    assert db.log_metrics(run_id, {"loss": 1.0, "accuracy": 0.5}) == 3
    assert db.log_metrics(run_id, {"epoch_loss": 1.0}) == 0
    db.log_metrics(run_id, {"loss": 1.0}, step=-7)
    assert db.log_metrics(run_id, {"loss": 1.0}) == -6


@pytest.mark.parametrize("of", [float, np.float64, np.float32, np.float16, torch.tensor])
def test_numbers_of_all_kinds(db: RfDb, run_id: int, of: Callable[[float], Any]) -> None:
    db.log_metrics(
        run_id, {"a": of(0.5), "b": of(math.nan), "c/d": of(-math.inf), "e": np.int64(7)}
    )
    assert repr(db.get_run(run_id)["metrics"]) == "{'a': 0.5, 'e': 7, 'b': nan, 'c/d': -inf}"
    assert repr(points(db, run_id, "b")) == "[(0, nan)]"
    assert known(db, run_id, "c/d")["last_word"] == "-inf"


def test_nan_is_never_best_and_is_gone_with_the_next_value(db: RfDb, run_id: int) -> None:
    for value in (math.nan, 0.5, math.inf, 0.7, math.nan):
        db.log_metrics(run_id, {"loss": value})
    row = known(db, run_id, "loss")
    assert (row["min"], row["max"], row["last"], row["last_word"]) == (0.5, 0.7, None, "nan")
    db.log_metrics(run_id, {"loss": 0.6})
    assert db.get_run(run_id)["metrics"] == {"loss": 0.6}
    assert known(db, run_id, "loss")["last_word"] is None


def test_both_ways_to_note_metrics_share_their_storage(db: RfDb, run_id: int) -> None:
    db.log_metrics(run_id, {"loss": 0.5, "accuracy": 0.7}, step=3)
    db.update_run_metrics(run_id, {"loss": 0.4, "by_class": [0.1, 0.2], "note": "warm", "ok": True})
    assert db.get_run(run_id)["metrics"] == {
        "loss": 0.4,
        "by_class": [0.1, 0.2],
        "note": "warm",
        "ok": True,
    }
    assert points(db, run_id, "loss") == [(3, 0.5), (None, 0.4)]
    assert known(db, run_id, "loss")["min"] == 0.4
    assert points(db, run_id, "accuracy") == [(3, 0.7)]
    assert db.log_metrics(run_id, {"accuracy": 0.9}) == 4


def test_what_is_no_metric(db: RfDb, run_id: int) -> None:
    head = db.store.head()
    for metrics in ({"loss": "low"}, {"loss": None}, {"loss": [1]}, {"loss": True}, {"loss": {}}):
        with pytest.raises(InvalidCommand, match="metric 'loss' is a"):
            db.log_metrics(run_id, metrics)
    wrong: Any = [0.5]
    with pytest.raises(InvalidCommand, match="pass a dict"):
        db.log_metrics(run_id, wrong)
    with pytest.raises(InvalidCommand):
        db.log_metrics(run_id, {"": 0.5})
    with pytest.raises(InvalidCommand):
        db.log_metrics(run_id, {"loss": 0.5}, step=2**63)
    with pytest.raises(NotFound, match="run 7"):
        db.log_metrics(7, {"loss": 0.5})
    db.log_metrics(run_id, {})
    assert db.store.head() == head


def test_a_history_that_is_not_there(db: RfDb, run_id: int) -> None:
    with pytest.raises(NotFound, match="no run 7"):
        db.metric_history(7, "loss")
    with pytest.raises(NotFound, match="has no metric 'loss': it has none yet"):
        db.metric_history(run_id, "loss")
    db.log_metrics(run_id, {"loss": 1, "accuracy": 1})
    with pytest.raises(NotFound, match="it has accuracy, loss"):
        db.metric_history(run_id, "los")


def test_the_past_has_its_own_points(db: RfDb, run_id: int) -> None:
    for value in (0.5, 0.4, 0.3):
        db.log_metrics(run_id, {"loss": value})
    past = db.as_of(db.store.head() - 1)
    assert points(past, run_id, "loss") == [(0, 0.5), (1, 0.4)]
    assert known(past, run_id, "loss")["last"] == 0.4
    assert past.get_run(run_id)["metrics"] == {"loss": 0.4}


def test_many_threads_lose_no_point(db: RfDb, run_id: int) -> None:
    def log() -> None:
        for step in range(20):
            db.log_metrics(run_id, {"loss": step / 20}, step=step)

    threads = [threading.Thread(target=log) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert known(db, run_id, "loss")["count"] == 100
    assert db.verify() == []


# --- which run is best --------------------------------------------------------------------------


@pytest.fixture
def searched(db: RfDb) -> RfDb:
    """Six runs with parameters, names and metrics, and one whose configuration has no names."""
    experiment_id = db.create_experiment("digits")
    for n in range(6):
        run_id = db.create_run(
            experiment_id,
            run_name=f"r{n}",
            config_leaf={
                "lr": 10.0**-n,
                "model": {"layers": n},
                "opt": "adam" if n % 2 else "sgd",
                "warm-up": bool(n % 2),
                "size": 1,
            },
        )
        db.log_metrics(run_id, {"loss": 1 / (n + 1), "accuracy": n, "size": n})
        db.log_metrics(run_id, {"loss": math.nan if n == 3 else 1 / (n + 2)})
    db.create_run(experiment_id, config_leaf=(1, 2))
    db.set_run_status(2, "ONGOING")
    return db


@pytest.mark.parametrize(
    ("where", "sort", "found"),
    [
        (None, None, [1, 2, 3, 4, 5, 6, 7]),
        ("", "loss", [6, 5, 3, 2, 1, 4, 7]),
        ("  ", "-loss", [1, 2, 3, 5, 6, 4, 7]),
        ("lr > 0.01", None, [1, 2]),
        ("params.lr>=1e-2 AND NOT run_id = 1", None, [2, 3]),
        ("model.layers >= 3", "-metrics.loss", [5, 6, 4]),
        ("opt = 'adam' and \"warm-up\" = true", "lr", [6, 4, 2]),
        ("status = 'new' and id in (1, 2, 7)", "name desc", [7, 1]),
        ("status not in ('NEW')", None, [2]),
        ("accuracy >= 2 or accuracy is null", "-accuracy", [6, 5, 4, 3, 7]),
        ("min(loss) < 0.2 and count(loss) = 2", "min(loss)", [6, 5]),
        ("max_step(metrics.loss) = 0", "id desc", [6, 5, 4, 3, 2, 1]),
        ("name like 'r%' and opt is not null", "opt, -lr", [2, 4, 6, 1, 3, 5]),
        ("params.size = 1 and metrics.size = 4", None, [5]),
        ("lr > 'a'", None, []),
        ("opt > 0", None, []),
        ("lr < metrics.loss", None, [2, 3, 5, 6]),
        ("name = 'it''s; DROP TABLE events'", None, []),
    ],
)
def test_runs_are_found(
    searched: RfDb, where: str | None, sort: str | None, found: list[int]
) -> None:
    assert [run["run_id"] for run in searched.search_runs(where, sort=sort)] == found
    limited = searched.search_runs(where, sort=sort, limit=2)
    assert [run["run_id"] for run in limited] == found[:2]
    assert all(run == searched.get_run(run["run_id"]) for run in limited if run["run_id"] != 4)
    past = searched.as_of(searched.store.head())
    assert [run["run_id"] for run in past.search_runs(where, sort=sort)] == found


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("size < 1", "size is both: write params.size or metrics.size"),
        ("lrr > 1", "no column, parameter or metric 'lrr'; did you mean lr"),
        ("lr >", "a value is missing"),
        ("lr", "a comparison is missing"),
        ("status = 3", "3 is a number, where a text is compared"),
        ("lr > 1; DROP TABLE events", "'; DROP TABLE events' is not understood"),
        ("(lr > 0.1", "a \\) is missing"),
        ("lr > 0.1)", "'\\)' is not expected"),
        ("'a' = lr", "a name is missing"),
        ("lr in ()", "is not a value"),
        ("lr > 0.1 and", "a name is missing"),
        ("min(", "no column, parameter or metric 'min'|a metric is missing"),
    ],
)
def test_what_cannot_be_understood(searched: RfDb, where: str, told: str) -> None:
    with pytest.raises(InvalidQuery, match=told):
        searched.search_runs(where)


class Colour(Enum):
    """A member's value is searched for."""

    RED = "red"


@dataclass
class Model:
    """A configuration as people write it, with what cannot be searched."""

    layers: tuple[int, ...]
    activation: Any
    schedule: Callable[[float], float] = math.sqrt


CONFIGURATIONS: list[tuple[Any, Any, str]] = [
    (
        {"lr": 0.1, "layers": (64, 32), "nan": math.nan},
        {"lr": 0.1, "layers": [64, 32], "nan": "nan"},
        "lr = 0.1 and params.nan = 'nan'",
    ),
    (
        {
            "lr": np.float32(0.5),
            "weights": torch.ones(2),
            "big": 2**70,
            "at": {Path("/b"), Path("/a")},
        },
        {"lr": 0.5, "weights": "<torch.Tensor>", "big": "<int of 71 bits>", "at": ["/a", "/b"]},
        "lr = 0.5 and weights like '<torch%'",
    ),
    (
        {"model": Model((64, 32), torch.nn.ReLU()), "optimizer": torch.optim.SGD, 3: Colour.RED},
        {
            "model": {
                "layers": [64, 32],
                "activation": "<torch.nn.modules.activation.ReLU>",
                "schedule": "math.sqrt",
            },
            "optimizer": "torch.optim.sgd.SGD",
            "3": "red",
        },
        "optimizer like '%SGD' and params.\"3\" = 'red' and model.activation like '<torch%'",
    ),
    ((1, "\0\ud800"), [1, "\ufffd?"], "id = 1"),
]


@pytest.mark.parametrize("key", [None, "a secret"])
@pytest.mark.parametrize(("config", "outline", "where"), CONFIGURATIONS)
def test_what_is_plain_in_any_configuration_is_searched(
    place: str, config: Any, outline: Any, where: str, key: str | None
) -> None:
    with RfDb(place, signing_key=key) as db:
        experiment_id = db.create_experiment("digits")
        for given in (config, encode_payload(config, key=key)):
            run_id = db.create_run(experiment_id, config_leaf=given)
            [row] = db.db.execute("SELECT config_json FROM runs WHERE run_id = ?", (run_id,))
            assert json.loads(row["config_json"]) == outline
            [leaf] = db.db.execute("SELECT config_leaf FROM runs WHERE run_id = ?", (run_id,))
            for back in (
                db.get_run(run_id)["config_leaf"],
                decode_db_payload(leaf["config_leaf"], key=key),
            ):
                assert repr(back) == repr(config)
        assert [run["run_id"] for run in db.search_runs(f"({where}) or id = 2")] == [1, 2]
        assert db.verify(payloads=True) == []


def test_an_outline_is_never_without_limit() -> None:
    endless: list[Any] = []
    endless.append(endless)
    doubled: Any = (1,)
    for _ in range(40):
        doubled = (doubled, doubled)
    deep: Any = 0
    for _ in range(300):
        deep = [deep]
    assert PayloadCodec().encode({"a": endless}, outlined=True)[2:12] == b'{"a":["\xe2\x80\xa6'
    assert PayloadCodec().encode({"a": deep, "b": ()}, outlined=True)[:2] == b"\xf7\x02"
    assert PayloadCodec().encode(doubled, outlined=True)[:1] == b"\xfa"


def test_an_outline_that_is_cut_off_or_altered() -> None:
    signed = PayloadCodec(key="a secret")
    data = signed.encode({"layers": (1,)}, outlined=True)
    altered = data.replace(b'"layers"', b'"lawyer"', 1)
    assert altered != data
    with pytest.raises(PayloadRefused, match="altered"):
        signed.decode(altered)
    plain = PayloadCodec().encode({"layers": (1,)}, outlined=True)
    for end in range(2, len(plain)):
        with pytest.raises(InvalidPayload):
            decode_db_payload(plain[:end])
    with pytest.raises(InvalidPayload, match="twice"):
        decode_db_payload(plain[:2] + b"{}\0" + plain)


def test_code_of_others_is_not_run_for_an_outline(place: str) -> None:
    with RfDb(place, allow_dill=False) as db:
        experiment_id = db.create_experiment("digits")
        payload = PayloadCodec().encode({"a": lambda: 1}, outlined=True)
        with pytest.raises(PayloadRefused, match="allow_dill"):
            db.create_run(experiment_id, config_leaf=payload)
        with pytest.raises(PayloadRefused, match="not signed"):
            PayloadCodec(key="a secret").adopt(payload, outlined=True)


@pytest.mark.parametrize("limit", [-1, True, "3", 1.5])
def test_a_limit_that_is_none(searched: RfDb, limit: Any) -> None:
    with pytest.raises(InvalidQuery, match="limit is"):
        searched.search_runs(limit=limit)


def test_configurations_can_be_read_in_sql(searched: RfDb, tmp_path: Path) -> None:
    rows = searched.db.execute("SELECT config_json FROM runs ORDER BY run_id")
    assert rows[0] == {
        "config_json": '{"lr":1.0,"model":{"layers":0},"opt":"sgd","warm-up":false,"size":1}'
    }
    assert rows[-1] == {"config_json": "[1,2]"}


def test_a_signed_configuration_can_be_read_in_sql(place: str) -> None:
    with RfDb(place, signing_key="a secret") as db:
        run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
        assert db.db.execute("SELECT config_json FROM runs") == [{"config_json": '{"lr":0.1}'}]
        assert [run["run_id"] for run in db.search_runs("lr = 0.1")] == [run_id]


# --- side by side -------------------------------------------------------------------------------


@pytest.fixture
def compared(db: RfDb) -> RfDb:
    """Three runs that differ in all ways."""
    experiment_id = db.create_experiment("digits")
    configs: list[Any] = [
        {"lr": 0.1, "model": {"layers": (64, 32)}, "seed": "a", "size": 1, "flag": True},
        {"lr": 1, "model": {"layers": 3}, "act": torch.nn.ReLU(), "mixed": "x"},
        None,
    ]
    for config in configs:
        db.create_run(experiment_id, config_leaf=config)
    db.update_run_metrics(1, {"loss": math.nan, "val": {"acc": 0.5}, "size": 2, "note": "warm"})
    db.log_metrics(2, {"loss": 0.25})
    return db


EXPECTED: dict[str, list[Any]] = {
    "run_id": [1, 2, 3],
    "status": ["NEW", "NEW", "NEW"],
    "lr": [0.1, 1.0, None],
    "model.layers": ["[64,32]", "3", None],
    "params.seed": ["a", None, None],
    "params.size": [1, None, None],
    "flag": [True, None, None],
    "act": [None, "<torch.nn.modules.activation.ReLU>", None],
    "val.acc": [0.5, None, None],
    "metrics.size": [2, None, None],
    "note": ["warm", None, None],
}


def test_runs_with_a_column_for_each_parameter_and_metric(compared: RfDb) -> None:
    table = compared.to_arrow("runs_wide")
    assert {name: table.column(name).to_pylist() for name in EXPECTED} == EXPECTED
    assert repr(table.column("loss").to_pylist()) == "[nan, 0.25, None]"
    assert str(table.schema.field("created_at").type) == "timestamp[us, tz=UTC]"
    assert not {"metrics", "config_digest", "size"} & set(table.column_names)
    past = compared.as_of(3).to_arrow("runs_wide")
    assert past.column("run_id").to_pylist() == [1, 2]
    file = BytesIO()
    assert write_csv(compared, "runs_wide", file) == 3
    heading, first, *_ = file.getvalue().decode().splitlines()
    assert {"lr", "model.layers", "loss", "val.acc"} < set(heading.split(","))
    assert '"[64,32]"' in first
    assert first.endswith(",nan")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_runs_as_a_data_frame(compared: RfDb, library: Any) -> None:
    frame = compared.runs_frame("id < 3", sort="-id", library=library)
    column = (
        (lambda name: frame[name].to_list()) if library == "polars" else lambda n: list(frame[n])
    )
    assert type(frame).__module__.split(".")[0] == library
    assert column("run_id") == [2, 1]
    assert column("lr") == [1.0, 0.1]
    assert column("model.layers") == ["3", "[64,32]"]
    assert repr([float(value) for value in column("loss")]) == "[0.25, nan]"
    assert str(frame["created_at"].dtype).startswith(
        "datetime64[us" if library == "pandas" else "Datetime"
    )
    assert len(compared.runs_frame("id > 99", library=library)) == 0
    assert "params.size" in compared.runs_frame(library=library).columns


def test_a_data_frame_that_cannot_be(compared: RfDb, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(compared.runs_frame()).__module__.split(".")[0] == "pandas"
    wrong: Any = "numpy"
    with pytest.raises(InvalidCommand, match="library is 'numpy'"):
        compared.runs_frame(library=wrong)
    with pytest.raises(InvalidQuery, match="did you mean lr"):
        compared.runs_frame("lrr > 1")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage, match=r"pip install 'refold\[frames\]'"):
        compared.runs_frame(library="pandas")


# --- on the command line ------------------------------------------------------------------------


def test_runs_are_compared_on_the_command_line(searched: RfDb, place: str) -> None:
    said = refold("runs", "--store", place, "--sort", "loss", "--limit", "2").out.splitlines()
    heading = said[0].split()
    assert heading[:4] == ["RUN", "EXP", "NAME", "STATUS"]
    assert {"lr", "model.layers", "opt", "loss", "accuracy"} < set(heading)
    assert [line.split()[0] for line in said[1:]] == ["6", "5"]
    assert "nan" in refold("runs", "--store", place).out
    best = refold("runs", "--store", place, "--best=-accuracy", "--columns", "name,opt,loss").out
    assert [line.split() for line in best.splitlines()] == [
        ["RUN", "NAME", "opt", "loss"],
        ["6", "r5", "adam", "0.1429"],
    ]
    where = "lr > 0.01 and status = 'NEW'"
    assert [
        line.split()[0]
        for line in refold("runs", "--store", place, "--where", where).out.splitlines()
    ] == ["RUN", "1"]
    wrong = refold("runs", "--store", place, "--where", "lrr > 1")
    assert wrong.code
    assert "did you mean lr" in wrong.err

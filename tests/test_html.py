"""What notebooks show: the store, runs, and what looks back tells."""

import math

import pytest

from refold import RFDatabase, RfDb
from refold.eventstore.errors import StoreClosed


def shown(value: object) -> str:
    return value._repr_html_()  # type: ignore


def test_a_store_and_its_runs(place: str) -> None:
    with RfDb(place) as db:
        experiment_id = db.create_experiment("digits")
        for lr in (0.1, 1 / 3):
            db.create_run(experiment_id, config_leaf={"lr": lr, "loss": "<b>", "run_id": 7})
        db.log_metrics(1, {"loss": math.nan, "accuracy": 0.5})
        head = db.store.head()
        assert repr(db) == f"<RfDb of {db.store.engine.name} at event {head}>"
        assert repr(db.as_of(2)) == f"<RfDb of {db.store.engine.name} as of event 2>"
        told = shown(db)
        assert "&lt;RfDb of" in told
        for cell in ("accuracy", "lr", "0.333333", "nan", "params.loss", "metrics.loss"):
            assert f">{cell}<" in told
        assert "<b>" not in told
        assert "&lt;b&gt;" in told
        assert shown(db.search_runs("lr > 0.2")).count("<tr>") == 2
        assert shown(db.get_all_runs(config=False)).count("<tr>") == 3
        assert shown(db.as_of(2)).count("<tr>") == 2
    assert "StoreClosed" in repr(db)
    with pytest.raises(StoreClosed):
        shown(db)


def test_many_runs_and_long_cells(db: RfDb) -> None:
    experiment_id = db.create_experiment("digits")
    with db.batch():
        for n in range(70):
            db.create_run(experiment_id, run_name=f"n{n}", config_leaf={"text": "x" * 100})
    assert "<p>60 of 70</p>" in shown(db)
    assert ">n69<" in shown(db)
    assert f">{'x' * 60}…<" in shown(db)


def test_what_looks_back_tells(db: RfDb, evals: RFDatabase) -> None:
    run_id = db.create_run(db.create_experiment("<digits>"))
    db.set_run_status(run_id, "ONGOING")
    for value in (db.why("run", run_id, "status"), *db.history("run", run_id), *db.diff(1, 3)):
        assert shown(value).startswith("<pre>")
        assert "<digits>" not in shown(value)
    assert "RFDatabase" in shown(evals)

"""States of runs, from which their training goes on."""

from typing import Any

import numpy as np
import pytest
import torch
from raw import raw

from refold import InvalidCommand, InvalidPayload, NotFound, RfDb


@pytest.fixture
def run_id(db: RfDb) -> int:
    """A run without checkpoints."""
    return db.create_run(db.create_experiment("digits"))


def test_checkpoints_are_found_again(db: RfDb, run_id: int) -> None:
    assert db.checkpoints(run_id) == []
    assert db.latest_checkpoint(run_id) is None
    first = {"weights": torch.arange(3.0), "optimizer": np.ones(2)}
    digest = db.save_checkpoint(run_id, first, step=10, epoch=1, chunk=0, actor="worker-0")
    at = db.store.head()
    assert digest is not None
    assert torch.equal(db.get_payload(digest)["weights"], first["weights"])
    assert db.save_checkpoint(run_id, location="s3://bucket/run-1", checksum="abc") is None
    elsewhere = db.latest_checkpoint(run_id)
    assert elsewhere is not None
    assert (elsewhere["location"], elsewhere["checksum"]) == ("s3://bucket/run-1", "abc")
    assert (elsewhere["state"], elsewhere["digest"], elsewhere["step"]) == (None, None, None)
    one, other = db.checkpoints(run_id)
    assert other == {name: value for name, value in elsewhere.items() if name != "state"}
    assert (one["step"], one["epoch"], one["chunk"]) == (10, 1, 0)
    assert (one["digest"], one["position"], one["run_id"]) == (digest, at, run_id)
    past = db.as_of(at).latest_checkpoint(run_id)
    assert past is not None
    assert torch.equal(past["state"]["weights"], first["weights"])
    assert db.verify(log=True, payloads=True) == []


def test_a_clone_begins_where_its_parent_was(db: RfDb, run_id: int) -> None:
    db.save_checkpoint(run_id, "first", step=1)
    clone = db.create_run(1, parent_run_id=run_id, warm_start=True)
    db.save_checkpoint(run_id, "later", step=2)
    grandchild = db.create_run(1, parent_run_id=clone)
    assert latest(db, clone) == latest(db, grandchild) == (run_id, "first")
    db.save_checkpoint(clone, "its own")
    assert latest(db, clone) == (clone, "its own")
    assert latest(db, grandchild) == (run_id, "first")
    assert latest(db, run_id) == (run_id, "later")
    assert db.checkpoints(grandchild) == []


def latest(db: RfDb, run_id: int) -> tuple[int, Any]:
    found = db.latest_checkpoint(run_id)
    assert found is not None
    return found["run_id"], found["state"]


def test_what_is_no_checkpoint(db: RfDb, run_id: int) -> None:
    head = db.store.head()
    for arguments in ({}, {"state": 1, "location": "/a"}, {"location": ""}, {"step": "1"}):
        wrong: Any = {"state": 1, **arguments} if "step" in arguments else arguments
        with pytest.raises(InvalidCommand):
            db.save_checkpoint(run_id, **wrong)
    with pytest.raises(InvalidPayload):
        db.save_checkpoint(run_id, (n for n in range(3)))
    for call in (db.checkpoints, db.latest_checkpoint, lambda run: db.save_checkpoint(run, 1)):
        with pytest.raises(NotFound, match="no run 7"):
            call(7)
    assert db.store.head() == head


def test_a_state_that_is_missing_is_named(db: RfDb, run_id: int, place: str) -> None:
    digest = db.save_checkpoint(run_id, "state")
    with raw(place) as connection:
        of_table = "" if db.store.engine.sql == "sqlite" else " ON payloads"
        connection.execute(f"DROP TRIGGER payloads_are_never_deleted{of_table}")
        connection.execute("DELETE FROM payloads")
    [fault] = db.verify(payloads=True)
    assert str(digest) in str(fault)
    assert f"event {db.store.head()} names it" in str(fault)
    with pytest.raises(NotFound):
        db.latest_checkpoint(run_id)

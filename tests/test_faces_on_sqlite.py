"""What the faces do on SQLite alone: its own statements, and its URLs."""

import pytest
from querying import alone_and_in_a_batch, check_refused, querying

from refold import ControllerTask, InvalidQuery, RfDb

WRITES = [
    "REPLACE INTO experiments (experiment_id) VALUES (9)",
    "PRAGMA user_version = 99",
    "PRAGMA application_id = 0",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA query_only = 0",
    "PRAGMA writable_schema = 1",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "BEGIN IMMEDIATE",
    "REINDEX",
    "ANALYZE",
]


@alone_and_in_a_batch
@pytest.mark.parametrize("statement", WRITES)
def test_a_statement_that_would_write_is_refused(db, statement, batch):
    with querying(db, batch):
        check_refused(db, statement)


@alone_and_in_a_batch
def test_vacuum_is_refused(db, batch):
    with querying(db, batch), pytest.raises(InvalidQuery, match="VACUUM"):
        db.db.execute("VACUUM")  # in a batch SQLite refuses it itself


def test_a_face_on_a_url(tmp_path):
    with RfDb(f"sqlite:///{tmp_path}/store.db") as db:
        db.set_controller_task(ControllerTask.IDLE)
    with RfDb(tmp_path / "store.db") as db:
        assert db.get_controller_task()["task"] == "IDLE"

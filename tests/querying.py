"""Queries of a user's own, alone and while a batch is open."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from refold import RfDb, WriteRefused

alone_and_in_a_batch = pytest.mark.parametrize("batch", [False, True], ids=["alone", "in a batch"])


@contextmanager
def querying(db: RfDb, batch: bool) -> Iterator[RfDb]:
    """Fill a store with a run and its tasks, the last of them in a batch that is still open."""
    run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    db.create_worker_task(run_id, 0, 0)
    with db.batch() if batch else nullcontext():
        db.create_worker_task(run_id, 0, 1)
        yield db


def check_refused(db: RfDb, statement: str) -> None:
    """The statement is refused because it would write, and nothing is changed by it."""
    looks = "SELECT * FROM worker_task", "SELECT * FROM runs", "SELECT * FROM events"
    before = [db.db.execute(look) for look in looks]
    for commit in (False, True):
        with pytest.raises(WriteRefused, match="would write: the views are rebuilt from events"):
            db.db.execute(statement, commit=commit)
    assert [db.db.execute(look) for look in looks] == before
    assert db.verify() == []
    db.create_experiment("and everything goes on")

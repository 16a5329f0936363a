"""What is asked for is found by an index: SQLite's planner says so, however many rows there are."""

import re
from collections.abc import Callable

import pytest
from raw_sqlite import noting, raw

from refold import RFDatabase, RfDb
from refold.eventstore import open_store
from refold.eventstore.events import RunCompleted, RunStarted

Poll = Callable[[RfDb, RFDatabase], object]

POLLS: dict[str, Poll] = {
    "get_next_worker_task": lambda db, _: db.get_next_worker_task(0),
    "claim_next_worker_task": lambda db, _: db.claim_next_worker_task(0),
    "get_next_actor_task": lambda _, evals: evals.get_next_actor_task(0),
    "claim_next_actor_task": lambda _, evals: evals.claim_next_actor_task(0),
    "get_running_actor_tasks": lambda _, evals: evals.get_running_actor_tasks(1),
    "get_ic_ops_request": lambda db, _: db.get_ic_ops_request(),
    "create_context": lambda _, evals: evals.create_context("c0ffee"),
}
RESET = {"worker_task", "actor_tasks"}
"""Tables of which a reset looks only at what is open."""


def plans(place: str, noted: list[str]) -> dict[str, str]:
    """Return how SQLite goes about each SELECT."""
    with raw(place) as connection:
        return {
            sql: "; ".join(
                step
                for *_, step in connection.execute(
                    f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?")
                )
            )
            for sql in noted
            if sql.startswith("SELECT")
        }


@pytest.mark.parametrize("poll", POLLS)
def test_a_poll_uses_an_index(place: str, poll: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with noting(monkeypatch) as noted, RfDb(place) as db, RFDatabase(place) as evals:
        run_id = db.create_run(evals.create_experiment("digits"))
        db.create_worker_task(run_id, 0, 0)
        evals.create_actor_task(1, evals.create_pipeline(1, "p", "vllm"), 0, 0)
        db.get_all_runs()
        noted.clear()
        POLLS[poll](db, evals)
    found = plans(place, [sql for sql in noted if not re.search("FROM (projections|events)", sql)])
    assert found
    for sql, plan in found.items():
        assert "INDEX" in plan or "PRIMARY KEY" in plan, (sql, plan)


def test_a_reset_looks_at_open_tasks_only(
    place: str, db: RfDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.create_run(db.create_experiment("digits"))
    with noting(monkeypatch) as noted, RfDb(place) as again:
        again.reset_experiment_states()
    plan = plans(place, noted)
    for table in RESET:
        [sql] = [sql for sql in plan if f"FROM {table} " in sql]
        assert f"INDEX {table}_open" in plan[sql], (sql, plan[sql])


def test_a_search_for_a_rare_type_ends_where_it_is_told(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with noting(monkeypatch) as noted, open_store(place) as store:
        store.append(None, [RunStarted(run) for run in range(20)])
        noted.clear()
        assert list(store.read(5, until=15, types=[RunCompleted])) == []
        assert list(store.read(5, types=[RunCompleted], backwards=True)) == []
    found = plans(place, [sql for sql in noted if "LIMIT" in sql])
    assert len(found) == 2
    for plan in found.values():
        assert "rowid>? AND rowid<?" in plan, found

"""How much each method asks of the database: a regression shows here without a clock."""

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from proxy import Proxy
from raw_sqlite import noting

from refold import RFDatabase, RfDb
from refold.eventstore.events import RunProgressed

Work = Callable[[RfDb, RFDatabase, int], object]

# Of the third call. On SQLite all that is executed, BEGIN and COMMIT included; on PostgreSQL all
# that is sent, where several statements go as one text if nothing is to be heard in between.
WORK: dict[str, tuple[Work, dict[str, int]]] = {
    "set_run_progress": (
        lambda db, _, n: db.set_run_progress(1, n, 0),
        {"sqlite": 6, "postgres": 1},
    ),
    "set_run_progress to where it is": (
        lambda db, _, n: db.set_run_progress(2, 7, 7),
        {"sqlite": 3, "postgres": 2},
    ),
    "update_run_metrics": (
        lambda db, _, n: db.update_run_metrics(1, {"loss": n}),
        {"sqlite": 7, "postgres": 1},
    ),
    "create_run": (
        lambda db, _, n: db.create_run(1, config_leaf={"lr": n}),
        {"sqlite": 9, "postgres": 5},
    ),
    "create_worker_task": (
        lambda db, _, n: db.create_worker_task(1, 9, n),
        {"sqlite": 8, "postgres": 5},
    ),
    "claim_next_worker_task": (
        lambda db, _, n: db.claim_next_worker_task(n),
        {"sqlite": 9, "postgres": 5},
    ),
    "claim_next_worker_task, none": (
        lambda db, _, n: db.claim_next_worker_task(50),
        {"sqlite": 4, "postgres": 2},
    ),
    "request_stop": (
        lambda db, _, n: db.request_stop(n),
        {"sqlite": 9, "postgres": 5},
    ),
    "append": (
        lambda db, _, n: db.append(RunProgressed(1, n, 1)),
        {"sqlite": 6, "postgres": 3},
    ),
    "set_pipeline_progress": (
        lambda _, evals, n: evals.set_pipeline_progress(1, n, n, n),
        {"sqlite": 6, "postgres": 1},
    ),
    "get_run": (lambda db, _, n: db.get_run(n), {"sqlite": 2, "postgres": 1}),
    "get_all_runs": (lambda db, _, n: db.get_all_runs(), {"sqlite": 2, "postgres": 1}),
    "get_next_worker_task": (
        lambda db, _, n: db.get_next_worker_task(0),
        {"sqlite": 2, "postgres": 1},
    ),
    "get_ic_ops_request": (
        lambda db, _, n: db.get_ic_ops_request(),
        {"sqlite": 2, "postgres": 1},
    ),
}


@pytest.mark.parametrize("work", WORK)
def test_statements(
    place: str,
    work: str,
    engine: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with RfDb(place) as db, RFDatabase(place) as evals:
        evals.create_pipeline(db.create_experiment("digits"), "p", "vllm")
        for worker_id in range(4):
            run_id = db.create_run(1, config_leaf={"worker": worker_id})
            db.create_worker_task(run_id, worker_id, 0)
        db.set_run_progress(1, 1, 1)
        db.set_run_progress(1, 0, 0)
    do, expected = WORK[work]

    def count(place: str, noted: list[str]) -> None:
        with RfDb(place) as db, RFDatabase(place) as evals:
            do(db, evals, 1)
            do(db, evals, 2)
            noted.clear()
            do(db, evals, 3)
            told = [" ".join(sql.split()) for sql in noted]
            assert len(told) == expected[engine], "\n".join(told)

    if engine == "sqlite":
        with noting(monkeypatch) as noted:
            count(place, noted)
        return
    url: str = request.getfixturevalue("postgres_url")
    server = urlsplit(url)
    assert server.hostname is not None
    with Proxy(server.hostname, server.port or 5432) as proxy:
        count(proxy.url(place), proxy.messages)

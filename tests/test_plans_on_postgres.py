"""The log is read in its order, by its index: PostgreSQL's planner says so, without statistics."""

import re

import pytest
from raw import raw

from refold import RfDb, copy_store
from refold.eventstore import open_store
from refold.eventstore.engines.engine import Values
from refold.eventstore.engines.postgres import dialect
from refold.eventstore.engines.postgres.connection import PostgresConnection
from refold.eventstore.events import RunProgressed


def test_pages_of_a_log_without_statistics_are_not_sorted(
    place: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: dict[str, Values] = {}
    execute = PostgresConnection.execute

    def noting(self: PostgresConnection, sql: str, parameters: Values = (), /) -> object:
        if re.search(r"FROM events .* LIMIT \d\d", sql):
            noted.setdefault(sql, parameters)
        return execute(self, sql, parameters)

    with raw(place) as server:
        with open_store(place) as store:
            server.execute("ALTER TABLE events SET (autovacuum_enabled = false)")
            server.commit()
            for step in range(50):
                store.append(None, [RunProgressed(run, step, 0) for run in range(1_000)])
            monkeypatch.setattr(PostgresConnection, "execute", noting)
            assert sum(1 for _ in store.read()) == 50_000
            assert sum(1 for _ in store.read(40_000, backwards=True)) == 10_000
        with RfDb(place) as db:  # folds
            assert db.verify() == []
        copy_store(place, target)
        assert len(noted) >= 4
        for sql, parameters in noted.items():
            text = dialect.query(f"EXPLAIN {sql}").decode()
            plan = "\n".join(line for (line,) in server.execute(text, parameters))
            assert "Index Scan" in plan, plan
            assert "Sort" not in plan, plan

"""The log is read in its order, by its index: PostgreSQL's planner says so, without statistics."""

import re

import pytest
from raw import raw

from refold import RfDb, copy_store
from refold.eventstore import EventStore, open_store
from refold.eventstore.engines.engine import Values
from refold.eventstore.engines.postgres import dialect
from refold.eventstore.engines.postgres.connection import PostgresConnection
from refold.eventstore.engines.postgres.server import address_of
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


def test_no_plan_is_kept_that_was_made_for_a_small_log(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: dict[str, Values] = {}
    execute = PostgresConnection.execute

    def noting(self: PostgresConnection, sql: str, parameters: Values = (), /) -> object:
        noted[" ".join(sql.split())] = parameters
        return execute(self, sql, parameters)

    def use(store: EventStore) -> None:
        [recorded] = store.append("run-1", [RunProgressed(1, 0, 0)])
        assert len(list(store.read(recorded.position - 1, stream="run-1"))) == 1
        assert len(list(store.read(recorded.position - 1))) == 1
        store.version("run-1")

    with open_store(place) as store, open_store(place) as other, raw(place) as server:
        for table in ("events", "streams"):
            server.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)".encode())
        store.append("run-1", [RunProgressed(1, 0, 0)])
        server.commit()
        server.execute("ANALYZE events, streams")  # as small as they are now
        server.commit()
        for _ in range(20):  # often enough to be prepared, and to have a plan kept
            use(store)
        other.append(None, [RunProgressed(n % 5_000, 0, 0) for n in range(20_000)])
        monkeypatch.setattr(PostgresConnection, "execute", noting)
        use(store)
        [connection] = store.engine._pool._idle  # pyright: ignore
        assert connection.prepare_threshold is not None
        plans = connection.execute(
            "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements"
        ).fetchall()
        known = {_bare(sql) for sql in noted}
        for statement, generic, custom in plans:
            assert (generic, custom > 0) == (0, True), statement
        assert sum(_bare(statement) in known for statement, _, _ in plans) >= 3
        for sql, parameters in noted.items():
            text = dialect.query(dialect.qualified(f"EXPLAIN {sql}", address_of(place).schema))
            plan = "\n".join(line for (line,) in connection.execute(text, parameters))
            assert "Seq Scan on events" not in plan, plan
            assert "Seq Scan on streams" not in plan, plan


def _bare(sql: str) -> str:
    """Return a statement without what differs between its text here and on the server."""
    return re.sub(r'"test_\w+"\.|\$\d+|\?|\s', "", sql)

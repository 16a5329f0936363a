"""What the engine promises where a server is not like a file."""

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psycopg
import pytest

from refold import AccessDenied, InvalidQuery, NotFound, ProjectionFailed, RfDb, TransactionFailed
from refold.eventstore import Event, EventStore, open_store
from refold.eventstore.engines.postgres.server import address_of
from refold.eventstore.events import RunStarted
from refold.projections import Row, View


class Scaled(Event):
    run_id: int
    grams: int


class Weight(Row, frozen=True):
    run_id: int
    grams: int


@contextmanager
def admin(place: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with psycopg.connect(address_of(place).conninfo, autocommit=True) as raw:
        raw.execute(f"SET search_path = {address_of(place).schema}".encode())
        yield raw


@contextmanager
def a_gap(store: EventStore) -> Iterator[None]:
    """Leave a gap in the positions, which a transaction of somebody else's keeps open."""
    place = store.engine._address  # pyright: ignore
    with psycopg.connect(place.conninfo) as foreign:
        foreign.execute("SELECT pg_current_xact_id()")

        def fail(transaction) -> None:
            transaction.append([RunStarted(9)])
            raise KeyError

        with suppress(KeyError):
            store.perform(fail)
        yield


def test_a_command_that_cannot_be_announced_has_happened(place: str) -> None:
    # Whoever may not announce, whose queue is full or whose announcement is cancelled.
    with RfDb(place) as db, admin(place) as raw:
        schema = address_of(place).schema
        raw.execute(
            f"CREATE FUNCTION {schema}.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION 'no'; END $$".encode()
        )
        with db.store.engine._pool.lend() as lent:  # the only one, so the commands use it
            lent.execute(f"SET search_path = {schema}, pg_catalog, pg_temp".encode())
        assert db.create_experiment("digits") == 1
        with (
            pytest.raises(psycopg.errors.RaiseException),
            psycopg.connect(
                address_of(place).conninfo, options=f"-c search_path={schema},pg_catalog"
            ) as like_it,
        ):
            like_it.execute("SELECT pg_notify('a', '')")
        assert [row["experiment_id"] for row in db.db.execute("SELECT * FROM experiments")] == [1]


def test_a_transaction_that_the_server_has_given_up_does_not_pass_for_committed(
    store: EventStore,
) -> None:
    digests: list[str] = []

    def put_and_fail() -> None:
        with store.transaction() as transaction:
            digests.append(transaction.put_payload(b"content"))
            with suppress(InvalidQuery):
                transaction.writer.execute("SELECT 1 / 0")

    with pytest.raises(TransactionFailed):
        put_and_fail()
    with pytest.raises(NotFound):
        store.get_payload(*digests)


def test_a_subscription_in_a_process_with_many_open_files(store: EventStore) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    try:
        with store.subscribe() as events:
            assert events.wait(0.05) == []
            store.append("run-1", [RunStarted(1)])
            assert next(events).position == 1
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_rule_of_a_users_own_view_is_no_conflict(place: str) -> None:
    weights = View(
        "weights",
        Weight,
        version=1,
        schema="CREATE TABLE weights (run_id INTEGER PRIMARY KEY, grams INTEGER UNIQUE, "
        "created_at TEXT NOT NULL, updated_at TEXT NOT NULL, position INTEGER NOT NULL);",
    )
    weights.created_by(Scaled, lambda e: Weight(e.run_id, e.grams))
    with RfDb(place, projections=[weights]) as db:
        db.append(Scaled(1, 50), stream="run-1")
        db.append(Scaled(2, 50), stream="run-2")
        assert db.store.head() == 2
        with pytest.raises(ProjectionFailed, match=r"event 2, Scaled, .*weights_grams_key"):
            db.db.execute("SELECT * FROM weights")


def test_who_writes_reads_it_although_somebody_else_is_slower(
    place: str, new_place: Callable[[], str]
) -> None:
    drawn, go = threading.Event(), threading.Event()

    def slow(transaction) -> None:
        transaction.append([RunStarted(2)])
        drawn.set()
        go.wait()

    with open_store(place) as store, open_store(place) as other:
        thread = threading.Thread(target=other.perform, args=(slow,))
        thread.start()
        drawn.wait()
        [recorded] = store.append("run-1", [RunStarted(1)])
        assert recorded.position == 2
        threading.Timer(0.05, go.set).start()  # while the reader waits
        assert [r.position for r in store.read()] == [1, 2]
        thread.join()


def test_a_snapshot_sees_what_a_reader_sees(store: EventStore) -> None:
    store.append("run-1", [RunStarted(1)])
    with a_gap(store):
        store.append("run-1", [RunStarted(1)])
        read = [recorded.position for recorded in store.read()]
        with store.snapshot():
            assert [recorded.position for recorded in store.read()] == read == [1, 3]


def test_a_child_leaves_the_parents_connection_alone(store: EventStore) -> None:
    store.append("run-1", [RunStarted(1)])
    with store.snapshot():
        reading = store.snapshot()
        with reading:
            pid = os.fork()
            if not pid:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    snapshot = store.snapshot()
    snapshot.__enter__()
    pid = os.fork()
    if not pid:
        snapshot.__exit__(None, None, None)
        os._exit(len(store.engine._pool._idle))  # pyright: ignore
    assert os.waitpid(pid, 0)[1] == 0
    assert [recorded.position for recorded in store.read()] == [1]
    snapshot.__exit__(None, None, None)


def test_a_server_to_which_less_had_come(store: EventStore, place: str) -> None:
    store.append("run-1", [RunStarted(1)] * 4)
    assert store.head() == 4
    with admin(place) as raw:  # as a backup or a late replica would have it
        raw.execute("ALTER TABLE events DISABLE TRIGGER ALL")
        raw.execute("DELETE FROM events WHERE position > 2")
        raw.execute("UPDATE streams SET version = 2, position = 2")
        raw.execute("ALTER TABLE events ENABLE TRIGGER ALL")
        raw.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'refold' AND pid <> pg_backend_pid()"
        )
    assert store.head() == 2


def test_views_that_somebody_left_behind_and_a_reader(place: str) -> None:
    with RfDb(place) as db, admin(place) as raw:
        db.create_experiment("digits")
        schema, role = address_of(place).schema, f"reader_of_{address_of(place).schema}"
        raw.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'reads'".encode())
        try:
            raw.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}".encode())
            raw.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}".encode())
            host = place.partition("://")[2].rpartition("@")[2]
            with RfDb(f"postgresql://{role}:reads@{host}", timeout=2) as reader:
                assert reader.get_experiment(1)["experiment_name"] == "digits"
                with open_store(place) as plain:
                    plain.append("run-1", [RunStarted(1)])
                with pytest.raises(AccessDenied, match="views are behind the log"):
                    reader.get_experiment(1)
                db.get_experiment(1)
                assert reader.get_experiment(1)["experiment_name"] == "digits"
        finally:
            raw.execute(f"DROP OWNED BY {role}".encode())
            raw.execute(f"DROP ROLE {role}".encode())


def test_a_query_that_the_server_refuses_is_told_within_a_batch_too(place: str) -> None:
    with RfDb(place) as db:
        wrong: Any = "a"
        refused = partial(pytest.raises, InvalidQuery, match="invalid input syntax")
        ask = partial(db.views.select, "SELECT * FROM runs WHERE run_id = ?", wrong)
        with pytest.raises(TransactionFailed), db.batch(), refused():
            ask()
        with db.store.snapshot(), refused():
            ask()
        with refused():
            ask()


def test_both_sides_look_after_5_seconds_whether_the_other_is_there(store: EventStore) -> None:
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
    with store.engine.read() as connection:
        client = connection.raw.info.get_parameters()
        [server] = connection.execute(
            "SELECT current_setting('tcp_keepalives_idle'), "
            "current_setting('tcp_keepalives_interval'), "
            "current_setting('tcp_keepalives_count'), current_setting('tcp_user_timeout')"
        )
    assert [client[name] for name in names] == ["5", "5", "2", "15000"]
    assert list(server) == ["5", "5", "2", "15000"]

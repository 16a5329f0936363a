"""Places on servers where no store can be, or where it cannot be written or reached."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from postgres import PostgresServer, drop_schema, new_schema
from psycopg import sql

from refold import (
    AccessDenied,
    DBException,
    NotAStore,
    RFDatabase,
    RfDb,
    StoreBusy,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
    StoreUnreachable,
)
from refold.eventstore import open_store
from refold.eventstore.events import RunCreated
from refold.projections import Row, View

SECRET = "se cret@:/%?#'\"é"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server whose settings a test may change, if it changes them back."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def postgres_url(server: PostgresServer) -> str:
    """Have the fixtures of all tests use that one."""
    return server.url()


@contextmanager
def administering(url: str) -> Iterator[Callable[[str], None]]:
    """Yield what runs statements as an administrator."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("SET default_transaction_read_only = off")
        yield lambda statement: connection.execute(statement.encode()) and None


@pytest.fixture
def admin(postgres_url: str) -> Iterator[Callable[[str], None]]:
    with administering(postgres_url) as admin:
        yield admin


@pytest.fixture
def digits(place: str) -> str:
    """The URL of a store with a run in it."""
    with RfDb(place) as db:
        db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    return place


@pytest.fixture
def schema(place: str) -> str:
    """The schema that `place` names."""
    return place.rpartition("schema=")[2]


def check_intact(place: str, head: int = 2) -> None:
    with RfDb(place) as db:
        assert db.store.head() == head
        assert db.get_run(1)["config_leaf"] == {"lr": 0.1}
        assert db.verify() == []


def check_told(error: BaseException, *fragments: str, secrets: tuple[str, ...] = ()) -> None:
    text = str(error)
    missing = [part for part in fragments if part not in text]
    assert not missing, f"{missing} is not in {text!r}"
    everything = "".join(traceback.format_exception(error))
    for secret in secrets:
        for form in (secret, quote(secret, ""), repr(secret)[1:-1]):
            assert form not in everything


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that led to it and that a traceback would show."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def check_refused(
    place: str, kind: type[DBException], *fragments: str, secrets: tuple[str, ...] = ()
) -> None:
    for face in (RfDb, RFDatabase):
        with pytest.raises(DBException) as caught:
            face(place, timeout=1)
        assert caught.type is kind, caught.value
        check_told(caught.value, *fragments, secrets=secrets)


# --- nobody answers --------------------------------------------------------------------------


def test_a_host_that_is_not_there() -> None:
    place = "postgresql://user:secret@nowhere.invalid/db?schema=digits"
    shown = "postgresql://user@nowhere.invalid/db?schema=digits"
    check_refused(place, StoreUnreachable, shown, "check the host", secrets=("secret",))


def test_a_port_where_nobody_listens(server: PostgresServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    place = f"postgresql://user:secret@127.0.0.1:{port}/db"
    check_refused(place, StoreUnreachable, f"127.0.0.1:{port}/db", "port", secrets=("secret",))


def test_a_port_where_something_else_listens() -> None:
    """It takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        place = f"postgresql://user:secret@127.0.0.1:{port}/db?connect_timeout=2"
        with pytest.raises(StoreUnreachable) as caught:
            RfDb(place)
        check_told(caught.value, "check the host and the port", "timeout", secrets=("secret",))


def test_a_port_where_something_else_answers() -> None:
    """It speaks another protocol."""

    def answer(server: socket.socket) -> None:
        for _ in (RfDb, RFDatabase):
            with server.accept()[0] as client:
                client.recv(1024)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        port = server.getsockname()[1]
        place = f"postgresql://user:secret@127.0.0.1:{port}/db?sslmode=disable"
        check_refused(place, StoreUnreachable, "check the host and the port", secrets=("secret",))


def test_a_server_that_lets_nobody_in_now(
    server: PostgresServer, digits: str, admin: Callable[[str], None]
) -> None:
    """All its connections are taken."""
    admin("CREATE ROLE worker LOGIN PASSWORD 'secret'")
    server.settings = {"max_connections": 6, "superuser_reserved_connections": 2}
    server.restart()
    try:
        as_worker = server.url(user="worker", password="secret")
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(psycopg.connect(as_worker))
            check_refused(new_schema(as_worker), StoreBusy, "max_connections", "worker@")
            with RfDb(digits, timeout=1) as db:  # for a superuser two are left
                for _ in range(2):
                    with pytest.raises(psycopg.OperationalError):
                        stack.enter_context(psycopg.connect(as_worker))
                taken = [stack.enter_context(db.store.engine.read()) for _ in range(2)]
                check_refused(digits, StoreBusy, "max_connections", secrets=(server.password,))
                with pytest.raises(StoreBusy, match="max_connections") as caught:
                    db.create_experiment("digits")
                check_told(caught.value, secrets=(server.password,))
                assert len(taken) == 2
        check_intact(digits)
    finally:
        server.settings = {}
        server.restart()
        with administering(server.url()) as admin:
            admin("DROP ROLE worker")


LIMITS = {
    "of the role": "ALTER ROLE worker CONNECTION LIMIT 0",
    "of the database": "ALTER DATABASE small CONNECTION LIMIT 0",
}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_connections_are_limited(
    server: PostgresServer, admin: Callable[[str], None], limit: str
) -> None:
    admin("CREATE ROLE worker LOGIN PASSWORD 'secret'")
    admin("CREATE DATABASE small OWNER worker")
    try:
        admin(limit)
        place = server.url(user="worker", password="secret", database="small")
        check_refused(place, StoreBusy, "worker@", "small", "too many connections")
    finally:
        admin("DROP DATABASE small")
        admin("DROP ROLE worker")


# --- nobody is let in ------------------------------------------------------------------------


def test_a_wrong_password(server: PostgresServer) -> None:
    place = server.url(password=SECRET)
    check_refused(place, AccessDenied, "refold@", "check the user", secrets=(SECRET,))


def test_no_password(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", os.devnull)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    place = f"postgresql://refold@{server.listen}:{server.port}/postgres"
    check_refused(place, AccessDenied, place, "password")


def test_a_user_that_is_not_there(server: PostgresServer) -> None:
    place = server.url(user="nobody's", password=SECRET)
    check_refused(place, AccessDenied, "nobody", "check the user", secrets=(SECRET,))


def test_a_user_that_may_not_log_in(server: PostgresServer, admin: Callable[[str], None]) -> None:
    admin("CREATE ROLE worker NOLOGIN PASSWORD 'secret'")
    try:
        place = server.url(user="worker", password="secret")
        check_refused(place, AccessDenied, "worker@", "not permitted to log in")
    finally:
        admin("DROP ROLE worker")


def test_a_host_that_the_server_does_not_expect(
    server: PostgresServer, admin: Callable[[str], None]
) -> None:
    hosts = server.data / "pg_hba.conf"
    usual = hosts.read_text()
    hosts.write_text(
        f"host strange all all reject\n{usual}".replace("all all all", "all refold all")
    )
    try:
        admin("SELECT pg_reload_conf()")
        strange = server.url(database="strange")
        other = server.url(user="other")
        for _ in range(2):  # the first session tells that the server has read it
            with pytest.raises(DBException):
                RfDb(strange)
        for place in (strange, other):
            check_refused(place, AccessDenied, "pg_hba.conf", secrets=(server.password,))
    finally:
        hosts.write_text(usual)
        admin("SELECT pg_reload_conf()")


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_tls_that_the_server_does_not_offer(server: PostgresServer, mode: str) -> None:
    place = f"{server.url()}?sslmode={mode}&sslrootcert=system"
    fragments = (f"sslmode={mode}", "SSL") if mode == "require" else ("SSL",)
    place = place if mode == "verify-full" else f"{server.url()}?sslmode=require"
    with pytest.raises(DBException) as caught:
        RfDb(place)
    check_told(caught.value, *fragments, secrets=(server.password,))
    assert caught.type in (StoreUnreachable, AccessDenied)


def test_options_pass_through(server: PostgresServer, place: str) -> None:
    def told(query: str, setting: str) -> str:
        with RfDb(f"{place}&{query}") as db:
            [row] = db.db.execute("SELECT current_setting(?) AS it", (setting,))
            return row["it"]

    assert told("application_name=two%20words%2C+a%2Bb", "application_name") == "two words,+a+b"
    assert told("options=-c%20work_mem%3D7MB", "work_mem") == "7MB"
    assert told("sslmode=disable&", "application_name") == "refold"


# --- no place for a store --------------------------------------------------------------------


def test_a_database_that_is_not_there(server: PostgresServer) -> None:
    place = server.url(database="nowhere")
    shown = f"refold@{server.listen}:{server.port}/nowhere"
    check_refused(place, NotAStore, shown, "create the database", secrets=(server.password,))


URLS = [
    "postgresql://user:secret@host:port/db",
    "postgresql://user:secret@host:99999/db",
    "postgresql://user:secret@host:-1/db",
    "postgresql://user:secret@[::1/db",
    "postgresql://user:secret@[nonsense]/db",
    "postgresql://user:secret@host/db?nonsense=1",
    "postgresql://user:secret@host/db?sslmode=perhaps",
    "postgresql://user:secret@host/db?connect_timeout=soon",
    "postgresql://user:secret@host/db?schema=%00",
    "postgresql://user:secret@host/db?schema=",
    "postgresql://user:secret@host/db?schema=\ud800",
    "postgresql://user:secret@host/\ud800",
    "postgresql://user:secret\ud800@host/db",
    "postgresql://user:secret@host/db\0",
    "postgresql://user:secret@\0/db",
    "postgresql://user:secret@host/%zz",
    "postgresql://user:secret@host/db#fragment",
    "postgresql://user:secret@host/db?=&=&",
    "postgresql://user:secret@host/db?password",
    "postgresql:///db?host=nowhere.invalid&password=secret&user=",
    "postgresql://user@host.invalid/db?password=secret&sslpassword=secret",
    f"postgresql://user:secret@{'a' * 64}.invalid/db",
    "postgresql://user:secret@a..b/db",
    "postgresql://user:secret@é\u0301.invalid/db",
    # A password that should have been quoted: most of it is taken for something else.
    "postgresql://user:100%secret@host.invalid/db",
    "postgresql://user:%zzsecret@host.invalid/db",
    "postgresql://user:two/secret@host.invalid/db",
    "postgresql://user:two?secret@host.invalid/db",
    "postgresql://user:two#secret@host.invalid/db",
    "postgresql://user:two@secret@host.invalid/db",
    "postgresql://user:two:secret@host.invalid/db",
    "postgresql://user:two secret@host.invalid/db",
    "postgresql://user:[secret@host.invalid/db",
    "postgresql://:secret@host.invalid/db",
    # And the scheme likewise.
    "postgresql:/user:secret@host.invalid/db",
    "postgresql:user:secret@host.invalid/db",
    "POSTGRESQL://user:secret@host.invalid:port/db",
    "postgresql+psycopg://user:secret@host.invalid/db",
    " postgresql://user:secret@host.invalid/db",
]


@pytest.mark.parametrize("url", URLS, ids=ascii)
def test_urls_of_no_store(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DBException) as caught:
        RfDb(url, timeout=1)
    assert caught.type in (NotAStore, StoreUnreachable, AccessDenied)
    told = [str(error) for error in chain(caught.value)]
    assert not [text for text in told if "secret" in text]
    assert list(tmp_path.iterdir()) == []


SCHEMAS = [
    "Digits",
    "UPPER",
    "PG_",
    "with space",
    "with-dash.and.dots",
    'quo"ted',
    "quo'ted",
    "per%cent%s",
    "que?stion&mark=#",
    "a,b",
    "$users",
    "select",
    "дигиты 数字 \N{SMILING FACE WITH OPEN MOUTH}",
    "back\\slash",
    "line\nbreak\ttab",
    " ",
    "1",
    "x" * 63,
    "é" * 31,
]


@pytest.mark.parametrize("name", SCHEMAS, ids=ascii)
def test_odd_names_of_schemas(postgres_url: str, name: str) -> None:
    place = f"{postgres_url}?schema={quote(name, '')}"
    with administering(postgres_url) as admin:
        try:
            with RfDb(place) as db, RFDatabase(place) as evals, db.subscribe() as events:
                db.create_experiment("digits")
                assert next(events).position == 1
                db.create_run(1, config_leaf={"lr": 0.1})
                assert next(events).position == 2
                evals.create_context("hash")
                with db.batch():
                    db.append(*[recorded.event for recorded in db.store.read(types=["RunCreated"])])
                db.rebuild()
                assert db.verify() == []
                found = psycopg.connect(postgres_url)
                with found:
                    assert found.execute(
                        "SELECT count(*) FROM pg_tables WHERE schemaname = %s "
                        "AND tablename IN ('events', 'contexts')",
                        (name,),
                    ).fetchone() == (2,)
                found.close()
                assert quote(name) in db.store.engine.name or name in db.store.engine.name
            check_intact(place, head=4)
        finally:
            admin(
                sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)).as_string()
            )


def test_stores_whose_names_begin_alike(postgres_url: str) -> None:
    """What PostgreSQL would cut off is not cut off."""
    places = [f"{postgres_url}?schema={'x' * 62}{end}" for end in "ab"]
    try:
        with RfDb(places[0]) as one, RfDb(places[1]) as other, one.subscribe() as events:
            assert one.create_experiment("one") == 1
            assert other.create_experiment("other") == 1
            assert other.create_experiment("another") == 2
            assert [next(events).event.experiment_name] == ["one"]
            assert events.wait(0.1) == []
            assert one.store.head() == 1
    finally:
        for place in places:
            drop_schema(place)


@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "\N{SMILING FACE WITH OPEN MOUTH}" * 16])
def test_names_that_no_schema_can_have(server: PostgresServer, name: str) -> None:
    place = f"{server.url()}?schema={quote(name)}"
    check_refused(place, NotAStore, "schema", "63 bytes", secrets=(server.password,))


@pytest.mark.parametrize("name", ["pg_store", "pg_", "pg_catalog", "$user"])
def test_names_that_the_server_keeps_for_itself(server: PostgresServer, name: str) -> None:
    place = f"{server.url()}?schema={name}"
    check_refused(place, NotAStore, name, "pg_", "pass", secrets=(server.password,))


def test_a_schema_of_the_server_itself(server: PostgresServer) -> None:
    place = f"{server.url()}?schema=information_schema"
    check_refused(place, NotAStore, place[-18:], "something else", secrets=(server.password,))


TABLES_OF_RAPIDFIRE = (
    "CREATE TABLE {schema}.experiments (experiment_id serial PRIMARY KEY, status text)",
    "CREATE TABLE {schema}.runs (run_id serial PRIMARY KEY, config_leaf bytea)",
    "INSERT INTO {schema}.experiments (status) VALUES ('RUNNING')",
)

OTHERS = {
    "tables": TABLES_OF_RAPIDFIRE,
    "events of its own": ("CREATE TABLE {schema}.events (position int)",),
    "a view": ("CREATE VIEW {schema}.precious AS SELECT 1 AS one",),
    "a sequence": ("CREATE SEQUENCE {schema}.event_positions",),
    "a comment": (
        "CREATE TABLE {schema}.events (position int)",
        "COMMENT ON TABLE {schema}.events IS 'refold, log format unknown'",
    ),
}


def fingerprint(url: str, schema: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT relname, relkind, pg_relation_filenode(oid), obj_description(oid) "
            "FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%s)) ORDER BY relname",
            (schema,),
        ).fetchall()


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_a_schema_of_something_else(
    server: PostgresServer,
    place: str,
    schema: str,
    admin: Callable[[str], None],
    others: tuple[str, ...],
) -> None:
    admin(f"CREATE SCHEMA {schema}")
    for statement in others:
        admin(statement.format(schema=schema))
    before = fingerprint(server.url(), schema)
    check_refused(
        place, NotAStore, schema, "something else", "?schema=", secrets=(server.password,)
    )
    assert fingerprint(server.url(), schema) == before != []


ENCODINGS = ["LATIN1", "SQL_ASCII"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_database_that_cannot_hold_all_text(
    server: PostgresServer, admin: Callable[[str], None], encoding: str
) -> None:
    admin(f"CREATE DATABASE narrow ENCODING {encoding} LOCALE 'C' TEMPLATE template0")
    try:
        place = server.url(database="narrow")
        check_refused(place, NotAStore, encoding, "UTF8", secrets=(server.password,))
    finally:
        admin("DROP DATABASE narrow WITH (FORCE)")


TASTES = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "backslash_quote": "on",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "client_encoding": "LATIN1",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "search_path": "elsewhere",
    "default_transaction_isolation": "serializable",
    "synchronous_commit": "off",
    "jit_above_cost": "0",
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "enable_indexscan": "off",
    "enable_sort": "off",
    "client_min_messages": "debug1",
    "check_function_bodies": "off",
}


def test_a_database_of_odd_tastes(
    server: PostgresServer, place: str, admin: Callable[[str], None]
) -> None:
    odd = (
        "it's \\'; SELECT pg_notify('x', '') -- \N{SMILING FACE WITH OPEN MOUTH} %s %% ? $1 {}\n\\"
    )
    config = {"lr": 0.1 + 0.2, "bytes": bytes(range(256)), "text": odd, odd: None, "tiny": 5e-324}
    for name, value in TASTES.items():
        admin(f"ALTER DATABASE postgres SET {name} = '{value}'")
    try:
        with RfDb(place) as db, db.subscribe() as events:
            assert db.create_experiment(odd, command_id=odd, actor=odd) == 1
            assert db.create_experiment(odd, command_id=odd, actor=odd) == 1
            assert db.create_run(1, odd, config_leaf=config) == 1
            db.update_run_metrics(1, {"loss": 0.1 + 0.2, odd: odd, "tiny": 5e-324})
            with db.batch():
                db.append(*[recorded.event for recorded in db.store.read()] * 60)
            log = list(db.store.read())
            assert list(islice(events, len(log))) == log
            for store in (db, RfDb(place)):
                assert store.get_experiment(1)["experiment_name"] == odd
                assert store.get_run(1)["config_leaf"] == config
                assert store.get_run(1)["metrics"] == {"loss": 0.1 + 0.2, odd: odd, "tiny": 5e-324}
                assert store.db.execute("SELECT ? AS it, '\\' AS mark", (odd,)) == [
                    {"it": odd, "mark": "\\"}
                ]
            store.close()
            db.rebuild()
            assert db.verify() == []
            assert list(db.store.read()) == log
            [told] = db.db.execute("SELECT current_setting('synchronous_commit') AS it")
            assert told == {"it": "on"}
    finally:
        admin("ALTER DATABASE postgres RESET ALL")


def test_a_schema_that_is_empty(place: str, schema: str, admin: Callable[[str], None]) -> None:
    admin(f"CREATE SCHEMA {schema}")
    with RfDb(place) as db:
        assert db.create_experiment("digits") == 1


# --- another refold --------------------------------------------------------------------------


def test_a_log_of_a_newer_refold(
    server: PostgresServer, digits: str, schema: str, admin: Callable[[str], None]
) -> None:
    admin(f"COMMENT ON TABLE {schema}.events IS 'refold, log format 3'")
    check_refused(
        digits, StoreTooNew, schema, "log format 3", "upgrade", secrets=(server.password,)
    )
    admin(f"COMMENT ON TABLE {schema}.events IS 'refold, log format 2'")
    check_intact(digits)


def test_views_of_a_newer_refold(
    server: PostgresServer, digits: str, schema: str, admin: Callable[[str], None]
) -> None:
    with RfDb(digits) as db:
        admin(f"UPDATE {schema}.projections SET version = 1000 WHERE name = 'runs'")
        check_refused(
            digits, StoreTooNew, schema, "view runs", "version 1000", secrets=(server.password,)
        )
        for call in (
            lambda: db.get_run(1),
            lambda: db.create_run(1, config_leaf={}),
            lambda: db.db.execute("SELECT * FROM runs"),
            db.rebuild,
            db.verify,
        ):
            with pytest.raises(StoreTooNew, match="view runs is at version 1000"):
                call()
        assert db.store.head() == 2
        with open_store(digits) as store:  # which needs no views
            assert len(list(store.read())) == 2


def test_views_of_an_older_refold(digits: str, schema: str, admin: Callable[[str], None]) -> None:
    admin(f"UPDATE {schema}.projections SET version = 0")
    admin(f"DROP VIEW {schema}.runs")
    admin(f"ALTER TABLE {schema}.runs_folded DROP COLUMN status CASCADE, ADD COLUMN old bigint")
    admin(f"DELETE FROM {schema}.experiments")
    check_intact(digits)


class Small(Row, frozen=True, kw_only=False):
    run_id: int


class Large(Row, frozen=True, kw_only=False):
    run_id: int
    name: str


def test_a_view_gets_another_column_under_a_reader(digits: str) -> None:
    small = View("sizes", Small, version=1)
    small.put_by(RunCreated, lambda _, event: Small(event.run_id), key=lambda e: e.run_id)
    large = View("sizes", Large, version=2)
    large.put_by(RunCreated, lambda _, e: Large(e.run_id, "x"), key=lambda e: e.run_id)
    with RfDb(digits) as reader, RfDb(digits, projections=[small]):
        for _ in range(10):  # often enough to have the statement prepared
            [row] = reader.db.execute("SELECT * FROM sizes")
        RfDb(digits, projections=[large]).close()
        assert row["run_id"] == 1
        for _ in range(10):
            [row] = reader.db.execute("SELECT * FROM sizes")
            assert row["name"] == "x"


# --- rights ----------------------------------------------------------------------------------


@pytest.fixture
def worker(
    server: PostgresServer, admin: Callable[[str], None], place: str, schema: str
) -> Iterator[str]:
    """The same place for a user that has no rights yet."""
    admin("CREATE ROLE worker LOGIN PASSWORD 'secret'")
    yield server.url(user="worker", password="secret") + f"?schema={schema}"
    admin("DROP OWNED BY worker CASCADE")
    admin("DROP ROLE worker")


def test_no_right_to_create_a_schema(worker: str, place: str, schema: str) -> None:
    check_refused(worker, AccessDenied, "worker@", schema, "CREATE SCHEMA", secrets=("secret",))
    with pytest.raises(AccessDenied) as caught:
        RfDb(worker)
    # What it says helps.
    _, _, advice = str(caught.value).partition("CREATE SCHEMA")
    with administering(place.partition("?")[0]) as admin:
        admin(f"CREATE SCHEMA {advice}")
    with RfDb(worker) as db:
        assert db.create_experiment("digits") == 1


def test_no_right_to_create_a_schema_with_an_odd_name(server: PostgresServer, worker: str) -> None:
    place = worker.partition("?")[0] + "?schema=" + quote('Odd "name"')
    with pytest.raises(AccessDenied) as caught:
        RfDb(place)
    _, _, advice = str(caught.value).partition("CREATE SCHEMA")
    with administering(server.url()) as admin:
        admin(f"CREATE SCHEMA {advice}")
    with RfDb(place) as db:
        assert db.create_experiment("digits") == 1


def test_no_right_to_create_tables(worker: str, schema: str, admin: Callable[[str], None]) -> None:
    admin(f"CREATE SCHEMA {schema}")
    admin(f"GRANT USAGE ON SCHEMA {schema} TO worker")
    check_refused(worker, AccessDenied, "worker@", schema, "permission denied")


def test_no_right_to_look(worker: str, digits: str, schema: str) -> None:
    check_refused(worker, AccessDenied, "worker@", schema, "permission denied", "administrator")


def test_no_right_to_connect(
    server: PostgresServer, worker: str, admin: Callable[[str], None]
) -> None:
    admin("CREATE DATABASE closed")
    try:
        admin("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
        place = server.url(user="worker", password="secret", database="closed")
        check_refused(place, AccessDenied, "worker@", "permission denied", secrets=("secret",))
    finally:
        admin("DROP DATABASE closed")


def test_a_right_to_read_only(
    worker: str, digits: str, schema: str, admin: Callable[[str], None]
) -> None:
    admin(f"GRANT USAGE ON SCHEMA {schema} TO worker")
    admin(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO worker")
    with RfDb(worker) as db:
        check_readable(db)
        for call in WRITES:
            with pytest.raises(AccessDenied) as caught:
                call(db)
            check_told(caught.value, "worker@", "permission denied", secrets=("secret",))
    check_intact(digits)


def batch(db: RfDb) -> None:
    with db.batch():
        db.create_experiment("in vain")


WRITES: list[Callable[[RfDb], object]] = [
    lambda db: db.create_experiment("in vain"),
    lambda db: db.reset_all_tables(),
    lambda db: db.put_payload({"in": "vain"}),
    lambda db: db.append(*[recorded.event for recorded in db.store.read()]),
    batch,
    lambda db: db.rebuild(),
]


def check_readable(db: RfDb) -> None:
    assert db.get_run(1)["config_leaf"] == {"lr": 0.1}
    assert [row["run_id"] for row in db.db.execute("SELECT * FROM runs")] == [1]
    assert len(list(db.store.read())) == db.store.head() == 2
    assert len(list(db.store.read(stream="run-1", backwards=True))) == 1
    assert db.verify() == []
    with db.store.snapshot():
        assert db.store.version("run-1") == 1
    with db.subscribe() as events:
        assert [recorded.position for recorded in islice(events, 2)] == [1, 2]


# --- a server that can only be read ----------------------------------------------------------


def test_a_server_in_recovery(
    server: PostgresServer, digits: str, new_place: Callable[[], str]
) -> None:
    behind = new_place()
    with RfDb(behind) as db:
        db.create_experiment("digits")
    with open_store(behind) as store:
        store.append(None, [recorded.event for recorded in store.read()])
    signal = server.data / "standby.signal"
    with RfDb(digits, timeout=1) as before:
        check_readable(before)
        server.stop()
        signal.touch()
        try:
            server.start()
            with RfDb(digits, timeout=1) as db:
                for each in (db, before):
                    check_readable(each)
                    for call in WRITES:
                        with pytest.raises(StoreReadOnly) as caught:
                            call(each)
                        check_told(caught.value, "that writes", secrets=(server.password,))
            # What would have to be written first: the schema, or views that are behind.
            for place in (new_place(), behind):
                check_refused(place, StoreReadOnly, "that writes", secrets=(server.password,))
        finally:
            server.stop()
            signal.unlink()
            server.start()
        check_readable(before)
        assert before.create_experiment("another") == 2
    check_intact(digits, head=3)


def test_a_server_that_begins_transactions_read_only(
    server: PostgresServer, digits: str, admin: Callable[[str], None]
) -> None:
    """That is a default, and no reason not to write."""
    admin("ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        with RfDb(digits) as db:
            db.create_experiment("another")
            batch(db)
    finally:
        admin("ALTER DATABASE postgres RESET default_transaction_read_only")
    check_intact(digits, head=4)


# --- a disk that is full ---------------------------------------------------------------------


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of its own that the server may write."""
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory(prefix="refold-disk-") as folder:
        os.chmod(folder, 0o711)
        disk = Path(folder) / "disk"
        disk.mkdir()
        options = f"size={megabytes}m,uid={owner.pw_uid},gid={owner.pw_gid},mode=711"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no right to mount a file system: {mounted.stderr.strip()}")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def small_tablespace(server: PostgresServer, admin: Callable[[str], None]) -> Iterator[Path]:
    """A small disk that is all that the database `small` has for its tables."""
    with small_disk(24) as disk:
        space = disk / "space"
        space.mkdir()
        shutil.chown(space, server.data.owner())
        admin(f"CREATE TABLESPACE small LOCATION '{space}'")
        admin("CREATE DATABASE small TABLESPACE small")
        yield disk
        admin("DROP DATABASE small WITH (FORCE)")
        admin("CHECKPOINT")
        admin("DROP TABLESPACE small")


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(8192))


def test_a_disk_that_is_full(server: PostgresServer, small_tablespace: Path) -> None:
    place = server.url(database="small")
    filler = small_tablespace / "filler"
    with RfDb(place) as db:
        db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
        fill(filler)
        weights = os.urandom(2_000_000)

        def in_batch() -> None:
            with db.batch():
                db.create_experiment("in vain")
                db.put_payload(weights)

        events = [recorded.event for recorded in db.store.read(types=["ExperimentCreated"])]
        for call in (
            lambda: db.put_payload(weights),
            lambda: db.create_run(1, config_leaf={"weights": weights}),
            lambda: db.append(*(events * 50_000)),
            in_batch,
        ):
            with pytest.raises(StoreFull) as caught:
                call()
            check_told(caught.value, "small", "make room", secrets=(server.password,))
            check_readable(db)
        filler.unlink()
        digest = db.put_payload(weights)
        assert db.get_payload(digest) == weights
        assert db.create_run(1, config_leaf={"weights": weights}) == 2
    with RfDb(place) as db:
        assert len(list(db.store.read())) == 3
        assert db.verify() == []


def test_a_disk_that_is_full_for_the_log_of_the_server() -> None:
    """Without room for its write-ahead log, the server itself goes down."""
    with small_disk(48) as disk, ExitStack() as stack:
        server = PostgresServer()
        stack.callback(server.close)
        shutil.move(server.data / "pg_wal", disk / "pg_wal")
        subprocess.run(["chown", "-R", server.data.owner(), disk / "pg_wal"], check=True)
        (server.data / "pg_wal").symlink_to(disk / "pg_wal")
        server.start()
        place = new_schema(server.url())
        filler = disk / "filler"
        with RfDb(place, timeout=1) as db:
            experiment_id = db.create_experiment("digits")
            fill(filler)
            kept: list[int] = []

            def create_for_ever() -> None:
                while True:
                    weights = os.urandom(1_000_000)
                    kept.append(db.create_run(experiment_id, config_leaf={"weights": weights}))

            with pytest.raises(DBException) as caught:
                create_for_ever()
            assert "PANIC" in server.log()
            check_told(caught.value, "postgresql://refold@", secrets=(server.password,))
            server.kill()
            filler.unlink()
            server.start()
            runs = [run["run_id"] for run in db.get_all_runs()]
            assert runs in (kept, [*kept, len(kept) + 1])
            assert db.create_run(experiment_id, config_leaf={}) == len(runs) + 1
            assert db.verify() == []


# --- no psycopg ------------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules["psycopg"] = None
import refold
with refold.RfDb("store.db") as db:
    db.create_experiment("digits")
try:
    refold.RfDb("postgresql://user:secret@host.invalid/db")
except refold.NotAStore as error:
    print(error)
"""


def run(script: str, folder: Path) -> str:
    here = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": here},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_no_psycopg(tmp_path: Path) -> None:
    told = run(WITHOUT, tmp_path)
    assert "pip install 'refold[postgres]'" in told
    assert "secret" not in told


def test_who_needs_no_psycopg_does_not_import_it(tmp_path: Path) -> None:
    script = (
        "import sys, refold\n"
        "with refold.RfDb('store.db') as db: db.create_experiment('digits')\n"
        "print([name for name in sys.modules if name.startswith('psycopg')])"
    )
    assert run(script, tmp_path) == "[]\n"


# --- what nobody may see ---------------------------------------------------------------------


def test_the_password_is_not_shown(
    server: PostgresServer,
    digits: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    with RfDb(digits, timeout=1) as db, RFDatabase(digits) as evals, db.subscribe() as events:
        next(events)
        shown = [repr(each) for each in (db, evals, events, db.store, db.db, db.views)]
        shown += [repr(vars(each)) for each in (db.store, db.store.engine, events)]
        with db.store.engine.read() as connection:
            shown += [repr(connection), repr(vars(connection))]
        server.restart()
        db.create_experiment("digits")
        server.kill()
        try:
            for call in (lambda: db.create_experiment("in vain"), lambda: list(islice(events, 4))):
                with pytest.raises(StoreUnreachable) as caught:
                    call()
                shown.append("".join(traceback.format_exception(caught.value)))
        finally:
            server.start()
        shown += [*capfd.readouterr(), caplog.text]
        processes = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True)
        with psycopg.connect(server.url()) as connection:
            sessions = connection.execute("SELECT * FROM pg_stat_activity").fetchall()
        shown += [processes.stdout, repr(sessions), server.log()]
    for secret in (server.password, quote(server.password, "")):
        assert not [text for text in shown if secret in text]

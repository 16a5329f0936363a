"""Who may append, read or administer, as docs/scaling.md grants it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from refold import AccessDenied, RfDb
from refold.eventstore.engines.postgres.server import address_of

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
READER, WRITER = "refold_reader", "refold_writer"
PASSWORD = "of a role"


@pytest.fixture
def as_role(place: str) -> Iterator[Callable[[str], str]]:
    """Make a store and the page's roles; return a function that gives the URL of a member."""
    with RfDb(place) as db:
        db.create_run(db.create_experiment("digits"))
    url, schema, suffix = address_of(place), address_of(place).schema, uuid4().hex
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names = {name: f"{name}_{suffix}" for name in (READER, WRITER)}
    for name, own in names.items():
        block = block.replace(name, own)
    block = re.sub(r"\bSCHEMA refold\b", f"SCHEMA {schema}", block).replace("refold.", f"{schema}.")
    with psycopg.connect(url.conninfo, autocommit=True) as admin:
        admin.execute(block.encode())
        for own in names.values():
            admin.execute(
                f"CREATE USER member_of_{own} PASSWORD '{PASSWORD}' IN ROLE {own}".encode()
            )
        try:
            yield lambda name: member(place, f"member_of_{names[name]}")
        finally:
            admin.execute(f"DROP SCHEMA {schema} CASCADE".encode())
            for own in names.values():
                for role in (f"member_of_{own}", own):
                    admin.execute(f"DROP OWNED BY {role}".encode())
                    admin.execute(f"DROP ROLE {role}".encode())


def member(place: str, user: str) -> str:
    parts = urlsplit(place)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{PASSWORD.replace(' ', '%20')}@{host}"))


def test_a_writer_sends_commands_and_rebuilds(as_role: Callable[[str], str]) -> None:
    with RfDb(as_role(WRITER), timeout=2) as db:
        run_id = db.create_run(1, config_leaf={"lr": 0.1}, command_id="once")
        db.set_run_status(run_id, "ONGOING")
        db.create_worker_task(run_id, worker_id=0, chunk_id=0)
        assert db.claim_next_worker_task(0) is not None
        with db.batch():
            db.set_run_progress(run_id, 1, 0)
        db.reset_experiment_states()
        assert db.rebuild() == db.store.head()
        db.reset_all_tables()
        assert db.verify() == []


@pytest.mark.parametrize("statement", ["UPDATE events SET data = '{}'", "DELETE FROM events"])
@pytest.mark.parametrize("table", ["events", "payloads", "commands"])
def test_a_writer_changes_nothing_that_happened(
    as_role: Callable[[str], str], statement: str, table: str
) -> None:
    place = address_of(as_role(WRITER))
    with psycopg.connect(place.conninfo, autocommit=True) as raw:
        raw.execute(f"SET search_path = {place.schema}".encode())
        column = {"events": "data", "payloads": "content", "commands": "result"}[table]
        text = statement.replace("events", table).replace("data =", f"{column} =")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            raw.execute(text.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            raw.execute(f"TRUNCATE {table}".encode())


@pytest.mark.parametrize("statement", ["UPDATE events SET data = '{}'", "DELETE FROM events"])
def test_nor_does_the_owner(place: str, statement: str) -> None:
    with RfDb(place) as db:
        db.create_experiment("digits")
        with psycopg.connect(address_of(place).conninfo, autocommit=True) as raw:
            raw.execute(f"SET search_path = {address_of(place).schema}".encode())
            for text in (statement, "TRUNCATE events"):
                with pytest.raises(psycopg.errors.RaiseException, match="events are never"):
                    raw.execute(text.encode())
        assert db.store.head() == 1


def test_a_reader_reads_and_subscribes(as_role: Callable[[str], str]) -> None:
    with RfDb(as_role(READER), timeout=2) as db, db.subscribe() as events:
        assert db.get_run(1)["status"] == "NEW"
        assert [next(events).type for _ in range(2)] == ["ExperimentCreated", "RunCreated"]
        assert db.verify() == []
        with pytest.raises(AccessDenied, match="permission denied"):
            db.request_stop(1)
        with pytest.raises(AccessDenied), db.batch():
            db.set_run_status(1, "ONGOING")
        assert db.store.head() == 2


def test_tls_settings_and_the_rest_of_the_url_reach_libpq(place: str) -> None:
    separator = "&" if "?" in place else "?"
    given = f"{place}{separator}sslmode=verify-full&sslrootcert=/no/such%20file&connect_timeout=3"
    reached = conninfo_to_dict(address_of(given).conninfo)
    assert reached["sslmode"] == "verify-full"
    assert reached["sslrootcert"] == "/no/such file"
    assert reached["connect_timeout"] == "3"

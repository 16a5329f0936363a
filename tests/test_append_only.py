"""The database refuses to change what happened, whoever asks it to."""

import sqlite3

import psycopg
import pytest
from raw import raw

from refold.eventstore import EventStore
from refold.eventstore.events import RunProgressed, RunStarted

CHANGES = [
    "UPDATE events SET data = '{}'",
    "UPDATE events SET position = position + 10",
    "UPDATE events SET data = '{}' WHERE position = 1",
    "DELETE FROM events",
    "DELETE FROM events WHERE position = 1",
    "INSERT INTO events SELECT * FROM events WHERE position = 1 ON CONFLICT (position) "
    "DO UPDATE SET data = '{}'",
    "UPDATE payloads SET content = content",
    "DELETE FROM payloads",
]
# What only one of the engines can say.
CHANGES_OF = {
    "sqlite": [
        "REPLACE INTO events SELECT * FROM events WHERE position = 1",
        "INSERT OR REPLACE INTO payloads SELECT digest, x'00' FROM payloads",
    ],
    "postgres": [
        "TRUNCATE events",
        "TRUNCATE payloads",
        "MERGE INTO events USING (VALUES (1)) AS one (n) ON position = n "
        "WHEN MATCHED THEN UPDATE SET data = '{}'",
        "WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone",
    ],
}


@pytest.fixture
def filled(store: EventStore) -> EventStore:
    store.append("run-1", [RunStarted(1), RunProgressed(1, 1, 0)])
    store.put_payload(b"weights")
    return store


def check_refused(store: EventStore, place: str, change: str) -> None:
    log = list(store.read())
    refused = pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match="never")
    with refused, raw(place) as connection:
        connection.execute(change)
    assert list(store.read()) == log
    with raw(place) as connection:
        assert connection.execute("SELECT content FROM payloads").fetchall() == [(b"weights",)]


@pytest.mark.parametrize("change", CHANGES)
def test_no_statement_changes_what_happened(filled: EventStore, place: str, change: str) -> None:
    check_refused(filled, place, change)


def test_none_of_the_engines_own_does(filled: EventStore, place: str, engine: str) -> None:
    for change in CHANGES_OF[engine]:
        check_refused(filled, place, change)

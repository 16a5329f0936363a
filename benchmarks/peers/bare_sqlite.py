"""The bare engine: the same bytes through sqlite3, with no layer at all."""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from refold.eventstore import Event
from refold.eventstore.sql import section, statements

SETTINGS = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA cache_size = -65536;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA temp_store = MEMORY;
"""
"""What refold sets too: every contender on SQLite has the same."""

WHEN = "2026-01-01 00:00:00.000000"
RUN = (1, 1, "run_1", None, "NEW", "USER", None, None, 0, None, None, 16, 0, 0, "{}", WHEN, WHEN, 0)

SELECT_EVENTS = """
    SELECT position, stream, version, type, schema_version, data, metadata, recorded_at
    FROM events ORDER BY position"""
"""All that refold's `read` gives."""

INSERT_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

UPSERT_STREAM = """
    INSERT INTO streams VALUES (?, ?, ?)
    ON CONFLICT (stream) DO UPDATE SET version = excluded.version, position = excluded.position"""

UPSERT_RUN = """
    INSERT INTO runs_folded VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run_id) DO UPDATE SET
        current_chunk = excluded.current_chunk, current_epoch = excluded.current_epoch,
        updated_at = excluded.updated_at, position = excluded.position"""

UPSERT_ID = """
    INSERT INTO ids VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (kind) DO UPDATE SET
        last = excluded.last, updated_at = excluded.updated_at, position = excluded.position"""

Row = tuple[Any, ...]


class BareSqlite:
    """The tables of `tables.sql`, without the triggers that guard the log."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(SETTINGS)
        for statement in statements(section("log") + section("runs") + section("ids")):
            if statement.startswith("CREATE TABLE"):
                self.connection.execute(statement)
        self.connection.execute(f"INSERT INTO runs_folded VALUES ({', '.join('?' * 18)})", RUN)

    def set_run_progress(self, number: int, *, with_stream: bool = False) -> None:
        """Begin, select, insert, upsert, commit: what the progress of run 1 needs at the least.

        Args:
            number: of the event, from 1.
            with_stream: upsert the last event of the run's stream too, as refold does.
        """
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        row = execute("SELECT * FROM runs_folded WHERE run_id = 1").fetchone()
        data = f'{{"run_id":1,"current_chunk":{number},"current_epoch":0}}'
        now = time.time_ns() // 1_000
        execute(
            INSERT_EVENT,
            (number, "run-1", number, number - 1 or None, "RunProgressed", 1, data, "{}", now),
        )
        if with_stream:
            execute(UPSERT_STREAM, ("run-1", number, number))
        execute(UPSERT_RUN, (*row[:12], number, 0, *row[14:16], WHEN, number))
        execute("COMMIT")

    def create_run(self, number: int, content: bytes) -> None:
        """Insert the payload of a configuration, the event, its stream, the run and the last id.

        Args:
            number: of the run, from 2.
            content: the configuration, encoded.
        """
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        digest = sha256(content).hexdigest()
        execute("INSERT INTO payloads VALUES (?, ?)", (digest, content))
        stream, now = f"run-{number}", time.time_ns() // 1_000
        data = (
            f'{{"run_id":{number},"experiment_id":1,"run_name":"run_{number}","status":"NEW",'
            f'"source":"USER","mlflow_run_id":null,"parent_run_id":null,"warm_start":false,'
            f'"config":"{digest}","seed":null,"num_chunks":16}}'
        )
        execute(INSERT_EVENT, (number, stream, 1, None, "RunCreated", 1, data, "{}", now))
        execute(UPSERT_STREAM, (stream, 1, number))
        row = (number, 1, f"run_{number}", *RUN[3:9], digest, *RUN[10:17], number)
        execute(UPSERT_RUN, row)
        execute(UPSERT_ID, ("run", number, WHEN, WHEN, number))
        execute("COMMIT")

    def append(
        self, events: Sequence[Row], streams: Sequence[Row] = (), runs: Sequence[Row] = ()
    ) -> None:
        """Insert rows of events, upsert those of their streams and of runs, in one transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(INSERT_EVENT, events)
        self.connection.executemany(UPSERT_STREAM, streams)
        self.connection.executemany(UPSERT_RUN, runs)
        self.connection.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()


class Rows:
    """Numbers events, and makes the rows that refold would."""

    def __init__(self) -> None:
        self._position = 0
        self._streams: dict[str, tuple[int, int | None]] = {}

    def of(self, events: Iterable[Event]) -> tuple[list[Row], list[Row]]:
        """Return the rows of events, and those of their streams."""
        now = time.time_ns() // 1_000
        rows: list[Row] = []
        changed: dict[str, Row] = {}
        for event in events:
            stream, data = event.stream, msgspec.json.encode(event).decode()
            version, previous = self._streams.get(stream, (0, None))
            version, self._position = version + 1, self._position + 1
            self._streams[stream] = (version, self._position)
            changed[stream] = (stream, version, self._position)
            name = type(event).__name__
            row = (self._position, stream, version, previous, name, 1, data, "{}", now)
            rows.append(row)
        return rows, list(changed.values())

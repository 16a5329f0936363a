"""The bare engine: the same bytes through sqlite3, with no layer at all."""

import sqlite3

SETTINGS = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA cache_size = -65536;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA temp_store = MEMORY;
"""
"""What refold sets too: every contender on SQLite has the same."""


class BareSqlite:
    """The statements that a run's progress needs at the least, with an event for it."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(
            SETTINGS
            + """
            CREATE TABLE events (
                position INTEGER PRIMARY KEY, stream TEXT, version INTEGER, type TEXT,
                schema_version INTEGER, data TEXT, metadata TEXT, recorded_at INTEGER);
            CREATE TABLE runs (
                run_id INTEGER PRIMARY KEY, experiment_id INTEGER, status TEXT,
                current_chunk INTEGER, current_epoch INTEGER, position INTEGER);
            INSERT INTO runs VALUES (1, 1, 'NEW', 0, 0, 0);
            """
        )

    def set_run_progress(self, run_id: int, chunk: int, epoch: int) -> None:
        """Begin, select, insert, upsert, commit."""
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        row = execute("SELECT * FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        event = (
            f"run-{run_id}",
            chunk,
            "RunProgressed",
            1,
            f'{{"run_id":{run_id},"current_chunk":{chunk},"current_epoch":{epoch}}}',
            "{}",
            1_700_000_000_000_000 + chunk,
        )
        position = execute(
            "INSERT INTO events (stream, version, type, schema_version, data, metadata, "
            "recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            event,
        ).lastrowid
        execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run_id) DO UPDATE SET "
            "current_chunk = excluded.current_chunk, current_epoch = excluded.current_epoch, "
            "position = excluded.position",
            (*row[:3], chunk, epoch, position),
        )
        execute("COMMIT")

    def close(self) -> None:
        self.connection.close()

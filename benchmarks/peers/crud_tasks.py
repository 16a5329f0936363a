"""The CRUD layer as several processes share it: each call one statement, autocommitted."""

import json
import sqlite3
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from benchmarks.peers.bare_sqlite import SETTINGS

TIMEOUT = 30
"""Seconds that a statement waits for other writers, as many as refold does; sqlite3 itself: 5."""


class CrudTasks:
    """Runs and tasks of workers, with refold's methods for them.

    The partial index is refold's: without it each poll would look through all tasks.
    """

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, timeout=TIMEOUT, isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        self.connection.executescript(
            SETTINGS
            + """
            CREATE TABLE IF NOT EXISTS runs (
                run_id INTEGER PRIMARY KEY AUTOINCREMENT, status TEXT NOT NULL,
                config_leaf TEXT, metrics TEXT NOT NULL,
                current_chunk INTEGER NOT NULL, current_epoch INTEGER NOT NULL);
            CREATE TABLE IF NOT EXISTS worker_task (
                task_id INTEGER PRIMARY KEY AUTOINCREMENT, run_id INTEGER NOT NULL,
                worker_id INTEGER NOT NULL, chunk_id INTEGER NOT NULL, status TEXT NOT NULL);
            CREATE INDEX IF NOT EXISTS worker_task_open ON worker_task (status, worker_id, task_id)
            WHERE status IN ('SCHEDULED', 'IN_PROGRESS');
            """
        )

    def create_run(self, config_leaf: str) -> int | None:
        return self.connection.execute(
            "INSERT INTO runs (status, config_leaf, metrics, current_chunk, current_epoch) "
            "VALUES ('ONGOING', ?, '{}', 0, 0)",
            (config_leaf,),
        ).lastrowid

    def get_all_runs(self) -> list[dict[str, Any]]:
        rows = [dict(row) for row in self.connection.execute("SELECT * FROM runs ORDER BY run_id")]
        for row in rows:
            row["config_leaf"] = json.loads(row["config_leaf"])
            row["metrics"] = json.loads(row["metrics"])
        return rows

    def set_run_progress(self, run_id: int, current_chunk: int, current_epoch: int) -> None:
        self.connection.execute(
            "UPDATE runs SET current_chunk = ?, current_epoch = ? WHERE run_id = ?",
            (current_chunk, current_epoch, run_id),
        )

    def update_run_metrics(self, run_id: int, metrics: Mapping[str, Any]) -> None:
        self.connection.execute(
            "UPDATE runs SET metrics = ? WHERE run_id = ?", (json.dumps(metrics), run_id)
        )

    def create_worker_task(self, run_id: int, worker_id: int, chunk_id: int) -> int | None:
        return self.connection.execute(
            "INSERT INTO worker_task (run_id, worker_id, chunk_id, status) "
            "VALUES (?, ?, ?, 'SCHEDULED')",
            (run_id, worker_id, chunk_id),
        ).lastrowid

    def get_next_worker_task(self, worker_id: int) -> dict[str, Any] | None:
        found = self.connection.execute(
            "SELECT * FROM worker_task WHERE status = 'SCHEDULED' AND worker_id = ? "
            "ORDER BY task_id LIMIT 1",
            (worker_id,),
        ).fetchone()
        return None if found is None else dict(found)

    def get_tasks_after(self, task_id: int) -> list[dict[str, Any]]:
        found = self.connection.execute(
            "SELECT * FROM worker_task WHERE task_id > ? ORDER BY task_id", (task_id,)
        )
        return [dict(row) for row in found]

    def set_worker_task_status(self, task_id: int, status: str) -> None:
        self.connection.execute(
            "UPDATE worker_task SET status = ? WHERE task_id = ?", (str(status), task_id)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()

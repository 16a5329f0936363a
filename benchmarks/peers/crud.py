"""The CRUD layer that the seeds describe, written plainly: one UPDATE per call, autocommitted."""

import base64
import sqlite3
from typing import Any

import dill

from benchmarks.peers.bare_sqlite import SETTINGS


class Crud:
    """Training's part of it, as far as it is measured."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(
            SETTINGS
            + """
            CREATE TABLE runs (
                run_id INTEGER PRIMARY KEY AUTOINCREMENT, status TEXT NOT NULL,
                config_leaf TEXT, current_chunk INTEGER NOT NULL, current_epoch INTEGER NOT NULL);
            """
        )

    def create_run(self, config_leaf: Any) -> int:
        pickled = dill.dumps(config_leaf)  # pyright: ignore[reportUnknownMemberType]
        encoded = base64.b64encode(pickled).decode()
        cursor = self.connection.execute(
            "INSERT INTO runs (status, config_leaf, current_chunk, current_epoch) "
            "VALUES ('NEW', ?, 0, 0)",
            (encoded,),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def get_all_runs(self) -> list[dict[str, Any]]:
        cursor = self.connection.execute("SELECT * FROM runs ORDER BY run_id")
        names = [column[0] for column in cursor.description]
        runs = [dict(zip(names, row, strict=True)) for row in cursor]
        for run in runs:
            pickled = base64.b64decode(run["config_leaf"])
            run["config_leaf"] = dill.loads(pickled)  # pyright: ignore[reportUnknownMemberType]
        return runs

    def set_run_progress(self, run_id: int, chunk: int, epoch: int) -> None:
        self.connection.execute(
            "UPDATE runs SET current_chunk = ?, current_epoch = ? WHERE run_id = ?",
            (chunk, epoch, run_id),
        )

    def close(self) -> None:
        self.connection.close()

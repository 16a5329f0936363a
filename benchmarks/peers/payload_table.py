"""Payloads in a table of their own, with no layer at all."""

import sqlite3

from benchmarks.peers.bare_sqlite import SETTINGS


class PayloadTable:
    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(
            SETTINGS + "CREATE TABLE payloads (id INTEGER PRIMARY KEY, content NOT NULL);"
        )

    def put(self, content: bytes) -> int | None:
        return self.connection.execute(
            "INSERT INTO payloads (content) VALUES (?)", (content,)
        ).lastrowid

    def get(self, number: int | None) -> bytes:
        found = self.connection.execute("SELECT content FROM payloads WHERE id = ?", (number,))
        return found.fetchone()[0]

    def close(self) -> None:
        self.connection.close()

"""Where the contenders keep what they store: files in one folder, schemas of one server."""

import os
import secrets
import sys
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import psycopg

Engine = Literal["sqlite", "postgres"]
ENGINES: dict[Engine, str] = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
"""Their names, as people write them."""


class Places:
    """A new place for each contender; all of them are gone at the end."""

    def __init__(self) -> None:
        self._afterwards = ExitStack()

    @cached_property
    def folder(self) -> Path:
        """A folder for files."""
        folder = tempfile.TemporaryDirectory(prefix="refold-bench-")
        return Path(self._afterwards.enter_context(folder))

    def file(self, name: str = "store.db") -> str:
        """Return a path where nothing is yet."""
        return str(self.folder / f"{secrets.token_hex(4)}-{name}")

    @cached_property
    def server(self) -> str:
        """The URL of the server that REFOLD_STORE names, or of one that is started for this."""
        if given := os.environ.get("REFOLD_STORE"):
            return given
        sys.path.append(str(Path(__file__).parent.parent / "tests"))
        from postgres import PostgresServer  # pyright: ignore

        return self._afterwards.enter_context(PostgresServer()).url()

    def schema(self) -> str:
        """Return the name of a schema that is there, and empty."""
        name = f"refold_bench_{secrets.token_hex(4)}"
        with psycopg.connect(self.server, autocommit=True) as admin:
            admin.execute(f"CREATE SCHEMA {name}".encode())
        self._afterwards.callback(self._drop, name)
        return name

    def _drop(self, schema: str) -> None:
        with psycopg.connect(self.server, autocommit=True) as admin:
            admin.execute(f"DROP SCHEMA {schema} CASCADE".encode())

    def store(self, engine: Engine) -> str:
        """Return the place of a new store."""
        if engine == "sqlite":
            return self.file()
        return f"{self.server}{'&' if '?' in self.server else '?'}schema={self.schema()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._afterwards.close()

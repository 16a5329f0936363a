"""message-db, the event store of Eventide: functions in PL/pgSQL, in a database of its own.

Its SQL comes from npm, as its users get it, and is not kept here.
"""

import secrets
import subprocess
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.places import Places
from refold.eventstore import Event

PACKAGE = "@eventide/message-db@1.3.1"

# What its install.sh runs, in that order. Left out are the role and its privileges, since the
# owner of the database does all here; views for people; and pgcrypto, of which it only needs
# gen_random_uuid, which PostgreSQL has by itself since version 13.
PARTS = ("schema", "tables", "types", "functions", "indexes")


class NotThere(Exception):
    """The package cannot be had, or the server does not take it."""


class MessageDb:
    """A connection on which messages are written."""

    def __init__(self, database: str) -> None:
        self.connection = psycopg.connect(database, autocommit=True)
        self.connection.execute("SET search_path = message_store, public")

    def write(self, event: Event, stream: str | None = None) -> None:
        """Write an event to a stream, by default the one that it names itself."""
        self.connection.execute(
            "SELECT write_message(%s, %s, %s, %s, %s)",
            (
                str(uuid4()),
                stream or event.stream,
                type(event).__name__,
                msgspec.json.encode(event).decode(),
                "{}",
            ),
        )

    def close(self) -> None:
        self.connection.close()


@contextmanager
def message_db(places: Places) -> Generator[str]:
    """Install it in a new database, whose URL is given, and drop that afterwards.

    Raises:
        NotThere: there is no npm, no network, or no right to make a database.
    """
    package = _package(places.folder)
    name = f"refold_bench_{secrets.token_hex(4)}"
    with psycopg.connect(places.server, autocommit=True) as admin:
        try:
            admin.execute(f"CREATE DATABASE {name}".encode())
        except psycopg.Error as error:
            raise NotThere(str(error)) from error
        try:
            database = make_conninfo(places.server, dbname=name)
            _install(package / "database", database)
            yield database
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _package(folder: Path) -> Path:
    command = ["npm", "pack", PACKAGE, "--silent", "--ignore-scripts"]
    try:
        packed = subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotThere(f"npm pack {PACKAGE}: {error}") from error
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        archive.extractall(folder / "message-db", filter="data")
    return folder / "message-db" / "package"


def _install(folder: Path, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET search_path = message_store, public")
        for part in PARTS:
            for file in sorted((folder / part).glob("*.sql")):
                connection.execute(file.read_bytes())

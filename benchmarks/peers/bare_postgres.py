"""The bare engine: the same bytes through psycopg, with no layer at all."""

from collections.abc import Iterator, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL, Identifier

TABLES = """
    CREATE TABLE events (
        position bigserial PRIMARY KEY, stream text NOT NULL, version bigint NOT NULL,
        previous bigint, type text NOT NULL, schema_version bigint NOT NULL, data text NOT NULL,
        metadata text NOT NULL, recorded_at bigint NOT NULL);
    CREATE TABLE runs (
        run_id bigint PRIMARY KEY, experiment_id bigint NOT NULL, run_name text NOT NULL,
        mlflow_run_id text, status text NOT NULL, source text NOT NULL, ended_by text,
        parent_run_id bigint, warm_start bigint NOT NULL, config_digest text, seed bigint,
        num_chunks bigint, current_chunk bigint NOT NULL, current_epoch bigint NOT NULL,
        metrics text NOT NULL, created_at text NOT NULL, updated_at text NOT NULL,
        position bigint NOT NULL)"""
RUN = """
    INSERT INTO runs
    SELECT run_id, 1, 'run_' || run_id, NULL, 'NEW', 'USER', NULL, NULL, 0, NULL, NULL, NULL, 0, 0,
           '{}', '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000', 0
    FROM generate_series(1, %s) AS run_id"""

COLUMNS = "stream, version, previous, type, schema_version, data, metadata, recorded_at"
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)".encode()
PAGE = b"SELECT * FROM events WHERE position > %s ORDER BY position LIMIT 5000"
COPY = f"COPY events ({COLUMNS}) FROM STDIN".encode()
NOW = "2026-01-01 00:00:00.000000"

LOAD = b"SELECT * FROM runs WHERE run_id = %s FOR UPDATE"
SAVE = b"""
    UPDATE runs SET current_chunk = %s, current_epoch = %s, updated_at = %s, position = %s
    WHERE run_id = %s"""

PREPARED = f"""
    PREPARE load (bigint) AS SELECT * FROM runs WHERE run_id = $1 FOR UPDATE;
    PREPARE save (text, bigint, bigint, text, bigint, text, text, bigint,
                  bigint, bigint, text, bigint) AS
    WITH event AS (
        INSERT INTO events ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING position)
    UPDATE runs SET current_chunk = $9, current_epoch = $10, updated_at = $11,
                    position = event.position
    FROM event WHERE run_id = $12"""
SAVED = "EXECUTE save (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s); COMMIT"


def progressed(run_id: int, chunk: int, epoch: int) -> tuple[Any, ...]:
    """Return the event of a run's progress as its columns."""
    return (
        f"run-{run_id}",
        chunk,
        chunk - 1,
        "RunProgressed",
        1,
        f'{{"run_id":{run_id},"current_chunk":{chunk},"current_epoch":{epoch}}}',
        "{}",
        1_700_000_000_000_000 + chunk,
    )


class BarePostgres:
    """Each statement a message of its own, as psycopg sends it; psycopg prepares them."""

    def __init__(self, server: str, schema: str) -> None:
        self.connection = psycopg.connect(server, autocommit=True)
        self.connection.execute(SQL("SET search_path = {}").format(Identifier(schema)))

    def create_tables(self, runs: int) -> None:
        self.connection.execute(TABLES.encode())
        self.connection.execute(RUN.encode(), (runs,))

    def set_run_progress(self, run_id: int, chunk: int, epoch: int) -> None:
        """Begin, select, insert, update, commit."""
        execute = self.connection.execute
        with self.connection.transaction():
            execute(LOAD, (run_id,)).fetchone()
            event = execute(INSERT + b" RETURNING position", progressed(run_id, chunk, epoch))
            (position,) = event.fetchone() or (0,)
            execute(SAVE, (chunk, epoch, NOW, position, run_id))

    def update_run(self, run_id: int, chunk: int) -> None:
        """Do what a layer does that keeps no history."""
        update = b"UPDATE runs SET current_chunk = %s WHERE run_id = %s"
        self.connection.execute(update, (chunk, run_id))

    def append(self, event: Sequence[Any]) -> None:
        self.connection.execute(INSERT, event)

    def copy(self, events: Sequence[Sequence[Any]]) -> None:
        with self.connection.cursor().copy(COPY) as copy:
            for event in events:
                copy.write_row(event)

    def insert_many(self, events: Sequence[Sequence[Any]]) -> None:
        with self.connection.transaction():
            self.connection.cursor().executemany(INSERT, events)

    def read(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over all events, page by page."""
        position = 0
        while page := self.connection.execute(PAGE, (position,)).fetchall():
            yield from page
            position = page[-1][0]

    def announce(self) -> None:
        self.connection.execute(b"NOTIFY bare")

    def follow(self, after: int) -> Iterator[tuple[Any, ...]]:
        """Iterate for ever over the events after a position, as they are announced."""
        self.connection.execute(b"LISTEN bare")
        while True:
            for event in self.connection.execute(PAGE, (after,)):
                yield event
                after, *_ = event
            for _ in self.connection.notifies(stop_after=1):
                pass

    def close(self) -> None:
        self.connection.close()


class HandTunedPostgres(BarePostgres):
    """The least that the server can be asked: two messages of prepared statements.

    One more would be saved by not looking at the row before deciding.
    """

    def __init__(self, server: str, schema: str) -> None:
        super().__init__(server, schema)
        self._prepared = False
        self._bind = psycopg.ClientCursor(self.connection).mogrify

    def set_run_progress(self, run_id: int, chunk: int, epoch: int) -> None:
        """Begin and select; insert, update and commit."""
        if not self._prepared:
            self.connection.execute(PREPARED.encode())
            self._prepared = True
        found = self._send("BEGIN; EXECUTE load (%s)", run_id)
        found.nextset()
        found.fetchone()
        self._send(SAVED, *progressed(run_id, chunk, epoch), chunk, epoch, NOW, run_id)

    def _send(self, text: LiteralString, *values: Any) -> psycopg.Cursor[tuple[Any, ...]]:
        return self.connection.execute(self._bind(text, values).encode(), prepare=False)

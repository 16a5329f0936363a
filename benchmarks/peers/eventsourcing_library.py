"""The eventsourcing library's application recorders, without its mapper and aggregates above them.

Events become its `StoredEvent`s through msgspec, which is faster than its own JSON mapper. Streams
are named by text, which spares it the making of UUIDs. On PostgreSQL it has two ways. By default it
locks the table against other writers, so that events are committed in the order of their numbers.
With its database functions, its fastest way, one statement inserts them and nothing is locked: then
whoever follows can pass over an event that is committed late.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec
from eventsourcing.persistence import Notification, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteDatastore,
)
from psycopg.conninfo import conninfo_to_dict

from benchmarks.peers.bare_sqlite import SETTINGS
from refold.eventstore import Event

PAGE = 5_000
"""Events that are read at a time; refold reads 2,000."""


class EventsourcingLibrary:
    """A recorder, and the versions of the streams, which whoever appends has to number."""

    def __init__(self, recorder: SQLiteApplicationRecorder | PostgresApplicationRecorder) -> None:
        self.recorder = recorder
        self._versions: defaultdict[str, int] = defaultdict(int)

    @classmethod
    def on_sqlite(cls, path: str) -> "EventsourcingLibrary":
        datastore = SQLiteDatastore(path, originator_id_type="text")
        datastore.pool = _Pool(db_name=path)
        recorder = SQLiteApplicationRecorder(datastore)
        recorder.create_table()
        return cls(recorder)

    @classmethod
    def on_postgres(
        cls, server: str, schema: str, *, database_functions: bool = True
    ) -> "EventsourcingLibrary":
        about = {name: str(value) for name, value in conninfo_to_dict(server).items()}
        datastore = PostgresDatastore(
            about["dbname"],
            about["host"],
            about.get("port", "5432"),
            about["user"],
            about.get("password", ""),
            schema=schema,
            originator_id_type="text",
            enable_db_functions=database_functions,
        )
        recorder = PostgresApplicationRecorder(datastore)
        recorder.create_table()
        return cls(recorder)

    def append(self, events: Iterable[Event]) -> None:
        """Insert events into the streams that they name themselves, in one transaction."""
        self.recorder.insert_events([self._stored(event) for event in events])

    def _stored(self, event: Event) -> StoredEvent:
        stream = event.stream
        self._versions[stream] = version = self._versions[stream] + 1
        return StoredEvent(stream, version, type(event).__name__, msgspec.json.encode(event))

    def read(self) -> Iterator[Notification]:
        """Iterate over all events, whose states nobody has decoded."""
        after = 0
        while page := self.recorder.select_notifications(after, PAGE, inclusive_of_start=False):
            yield from page
            after = page[-1].id

    def close(self) -> None:
        self.recorder.datastore.close()


class _Pool(SQLiteConnectionPool):
    """Connections with the settings of all contenders: the library has none for durability."""

    def _create_connection(self) -> SQLiteConnection:
        connection = super()._create_connection()
        connection._sqlite_conn.executescript(SETTINGS)  # pyright: ignore[reportPrivateUsage]
        return connection

"""The views as they stood at a position."""

import os
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from eventstore.engine import Connection, Values
from eventstore.past import PastStore
from eventstore.sqlite.connection import SqliteConnection
from eventstore.sqlite.guard import only_reads
from projections.past.recorder import columns_of
from projections.past.versions import Versions
from projections.unit_of_work import UnitOfWork
from projections.verify import Difference, differences
from projections.view import View, types_of
from projections.views import Views


class PastViews(Views):
    """Answers reads as the views of a store did when a position was the last.

    They are answered from the versions of the rows, so in SQLite's SQL whatever engine the store
    has.

    Args:
        versions: of the store's rows.
        position: the moment.
    """

    def __init__(self, versions: Versions, position: int) -> None:
        self.store = PastStore(versions.store, position)
        self.views = versions.views
        self.versions = versions
        self.position = position
        self._lock = threading.RLock()
        self._connection: SqliteConnection | None = None
        self._pid = os.getpid()

    @contextmanager
    def reading(self) -> Generator[Connection, None, None]:
        """Lend a connection for reading on which the views are as they were."""
        if self._pid != os.getpid():  # its connection, and maybe its lock, are the parent's
            self._lock, self._pid = threading.RLock(), os.getpid()
            _inherited.append(self._connection)
            self._connection = None
        with self._lock:
            if self._connection is None:
                self._connection = self.versions.connect(self.position)
                for view in self.views:
                    for statement in _schema_at(view, self.position):
                        self._connection.execute(statement)
                self._connection.raw.set_authorizer(only_reads)
            yield self._connection

    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own; refuse one that would write."""
        with self.reading() as connection:
            return connection.select(sql, parameters)

    def close(self) -> None:
        """Let go of the moment; closing twice does nothing."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.raw.close()
            self._connection = None

    def verify(self) -> list[Difference]:
        """Fold the log up to the moment and return where the views differ; empty: nowhere."""
        unit = UnitOfWork(self.views)
        for recorded in self.store.read(types=types_of(self.views)):
            unit.fold(recorded)
        with self.reading() as connection:
            return [
                difference
                for view in self.views
                for difference in differences(view, unit, connection)
            ]


_CREATE_VIEW = re.compile(r"\s*CREATE\s+VIEW\b", re.IGNORECASE)

# Connections of a process that this one was forked from: never closed here.
_inherited: list[SqliteConnection | None] = []


def _schema_at(view: View[Any], position: int) -> list[str]:
    """Return the statements that put a view as of a position in the place of its versions."""
    table = (
        f"CREATE TEMP VIEW {view.table} AS SELECT {columns_of(view)} FROM main.{view.table} "
        f"WHERE position <= {position} AND until > {position}"
    )
    return [
        table,
        *(
            _CREATE_VIEW.sub("CREATE TEMP VIEW", sql)
            for sql in view.schema
            if _CREATE_VIEW.match(sql)
        ),
    ]

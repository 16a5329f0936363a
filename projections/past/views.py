"""The views as they stood at a position."""

import os
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn

from refold.eventstore.engines.engine import Reader, Sql, Values
from refold.eventstore.engines.sqlite.connection import SqliteConnection, only_reads
from refold.eventstore.errors import StoreBusy, StoreClosed
from refold.eventstore.log.faults import Fault
from refold.eventstore.log.past import PastStore
from refold.eventstore.log.reading import read_facts
from refold.projections.entities import own_views
from refold.projections.past.version_writer import UNTIL, columns_of, connect
from refold.projections.past.versions import Versions
from refold.projections.verify import Difference, differences
from refold.projections.view import View, types_of
from refold.projections.views import ReadableViews


class PastViews(ReadableViews):
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
        self._connection: _PastConnection | None = None
        self._closed = False
        self._pid = os.getpid()

    @property
    def sql(self) -> Sql:
        """That of SQLite."""
        return "sqlite"

    @contextmanager
    def reading(self) -> Generator[Reader, None, None]:
        """Lend a connection for reading on which the views are as they were."""
        self._begin_in_child()
        with self.versions.gate.open(), self._lock:
            if self._closed:
                raise StoreClosed(
                    f"{self.store.engine.name} as of position {self.position} was closed: call "
                    f"as_of({self.position}) again"
                )
            path = self.versions.path()
            if self._connection is not None and self._connection.path != path:
                self._connection.raw.close()
                self._connection = None
            if self._connection is None:
                self._connection = _PastConnection(self.versions, self.position)
            yield self._connection

    def select(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run a query on the views as they were, and return its rows as dicts."""
        return self.query(sql, parameters)

    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own; refuse one that would write."""
        with self.reading() as connection:
            return connection.select(sql, parameters)

    def rebuild(self, *, progress: bool | None = None) -> NoReturn:
        """Refuse: the past is folded when it is looked at.

        Raises:
            WriteRefused: always.
        """
        self.store.refuse()

    def close(self) -> None:
        """Let go of the moment; closing twice does nothing."""
        self._begin_in_child()
        with self.versions.gate.open(), self._lock:
            if self._connection is not None:
                self._connection.raw.close()
            self._connection = None
            self._closed = True

    def _begin_in_child(self) -> None:
        # In the child of a fork the connection is the parent's, and maybe the lock.
        if self._pid != os.getpid():
            self._lock, self._pid = threading.RLock(), os.getpid()
            _inherited.append(self._connection)
            self._connection = None

    def verify(self) -> list[Difference | Fault]:
        """Fold the log up to the moment and return where the views differ; empty: nowhere."""
        pages = read_facts(self.versions.store.reading, 0, self.position, types_of(self.views))
        with self.reading() as connection:
            return differences(self.views, pages, connection, own=own_views(self.views))


_WORD = re.compile(r"\w+")
_CREATE_VIEW = re.compile(r"\s*CREATE\s+VIEW\b", re.IGNORECASE)


class _PastConnection(SqliteConnection):
    """A connection that has the versions provided of the views that a statement names."""

    def __init__(self, versions: Versions, position: int) -> None:
        name = f"{versions.store.engine.name} as of position {position}"
        self.path = versions.path()
        super().__init__(connect(self.path, name).raw, name)
        self._versions = versions
        self._position = position
        self._provided: set[View[Any]] = set()
        self._named: dict[str, View[Any]] = {}
        for view in versions.views:
            for statement in _schema_at(view, position):
                super().execute(statement)
            self._named |= dict.fromkeys(map(str.lower, (view.table, *view.objects)), view)
        self.raw.set_authorizer(only_reads)

    def execute(self, sql: str, parameters: Values = (), /) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        self._provide(sql)
        return super().execute(sql, parameters)

    def select(self, sql: str, parameters: Values = (), /) -> list[dict[str, Any]]:
        """Run one statement and return its rows as dicts."""
        self._provide(sql)
        return super().select(sql, parameters)

    def _provide(self, sql: str) -> None:
        missing = self._named_in(sql, set()) - self._provided
        if missing:
            self._versions.provide(missing, self._position)
            if self._versions.path() != self.path:
                raise StoreBusy(
                    f"{self._name}: the temporary file was lost meanwhile (somebody swept it away, "
                    f"or another thread ran out of room): look again"
                )
            self._provided |= missing

    def _named_in(self, sql: str, known: set[View[Any]]) -> set[View[Any]]:
        """Return the views that a statement names, and those that these read.

        A word that names one by chance costs time, no more.
        """
        for word in _WORD.findall(sql):
            view = self._named.get(word.lower())
            if view is not None and view not in known:
                known.add(view)
                self._named_in(" ".join(view.schema), known)
        return known


# Connections of a process that this one was forked from: never closed here.
_inherited: list[SqliteConnection | None] = []


def _schema_at(view: View[Any], position: int) -> list[str]:
    """Return the statements that put a view as of a position in the place of its versions."""
    table = (
        f"CREATE TEMP VIEW {view.table} AS SELECT {columns_of(view)} FROM main.{view.table} "
        f"WHERE position <= {position} AND {UNTIL} > {position}"
    )
    return [
        table,
        *(
            _CREATE_VIEW.sub("CREATE TEMP VIEW", sql)
            for sql in view.schema
            if _CREATE_VIEW.match(sql)
        ),
    ]

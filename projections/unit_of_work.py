"""The rows that one transaction touches: loaded once, evolved in memory, written in bulk."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from msgspec.structs import force_setattr

from eventstore.engine import Connection
from eventstore.recorded import Recorded
from eventstore.statuses import Word
from projections.view import Handler, Key, R, Row, View

T = TypeVar("T", bound=Row)

Concern = tuple[View[Any], Callable[[Any], bool] | None, Handler | None]


class Rows(Protocol):
    """What a decision may look at."""

    def get(self, view: View[T], key: Key) -> T | None:
        """Return the row with a key, or None."""
        ...

    def find(self, view: View[T], *, limit: int | None = None, **columns: Any) -> list[T]:
        """Return the rows whose columns have these values (or one of a tuple), by key."""
        ...


class UnitOfWork:
    """Folds events into rows of views.

    With a connection it is a window on the tables: `get` loads a row once, `flush` upserts all
    that changed. Without one it is the whole of the views, in memory: for tests, `verify` and
    time travel. A command uses one for its transaction, a rebuild one for the whole log: so live
    and replay cannot drift apart.
    """

    def __init__(self, views: Iterable[View[Any]], connection: Connection | None = None) -> None:
        self.views = tuple(views)
        self._connection = connection
        self._rows: defaultdict[View[Any], dict[Key, Any]] = defaultdict(dict)
        self._dirty: defaultdict[View[Any], set[Key]] = defaultdict(set)
        self._cleared: set[View[Any]] = set()
        self._concerned: dict[str, list[Concern]] = {}
        self.before_query: Callable[[], None] = self.flush
        """Called before a query on the tables: a transaction has more to write than the rows."""

    def __len__(self) -> int:
        """Return how many rows are in memory."""
        return sum(map(len, self._rows.values()))

    # --- rows -----------------------------------------------------------------------------

    def get(self, view: View[R], key: Key) -> R | None:
        """Return the row with a key, or None."""
        rows = self._rows[view]
        try:
            return rows[key]
        except KeyError:
            pass
        if self._connection is None or view in self._cleared:
            return None
        found = self._connection.execute(f"{view.select} WHERE {view.key} = ?", (key,))
        row = rows[key] = view.load(found[0]) if found else None
        return row

    def find(self, view: View[R], *, limit: int | None = None, **columns: Any) -> list[R]:
        """Return the rows whose columns have these values (or one of a tuple), by key."""
        wanted: dict[str, tuple[Any, ...]] = {
            name: value if isinstance(value, tuple) else (value,) for name, value in columns.items()
        }
        if self._connection is None:
            found = [
                row
                for row in self.rows(view)
                if all(getattr(row, name) in values for name, values in wanted.items())
            ]
            found.sort(key=lambda row: getattr(row, view.key))
            return found[:limit]
        self.before_query()
        conditions = [
            f"{name} IN ({', '.join(map(_operand, values))})" for name, values in wanted.items()
        ]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"{view.select}{where} ORDER BY {view.key}"
        if limit is not None:
            sql += f" LIMIT {limit}"
        parameters = [v for values in wanted.values() for v in values if _operand(v) == "?"]
        rows = self._rows[view]
        loaded = [view.load(values) for values in self._connection.execute(sql, parameters)]
        for row in loaded:
            rows[getattr(row, view.key)] = row
        return loaded

    def put(self, view: View[R], key: Key, row: R | None) -> None:
        """Set the row with a key, or delete it with None."""
        self._rows[view][key] = row
        self._dirty[view].add(key)

    def clear(self, view: View[R]) -> None:
        """Empty a view."""
        self._rows[view].clear()
        self._dirty[view].clear()
        self._cleared.add(view)

    def rows(self, view: View[R]) -> list[R]:
        """Return the rows of a view that are in memory."""
        return [row for row in self._rows[view].values() if row is not None]

    # --- events ---------------------------------------------------------------------------

    def fold(self, recorded: Recorded) -> None:
        """Let each view take in an event: the one place where rows change, live and in replay."""
        event = recorded.event
        name = type(event).__name__
        concerned = self._concerned.get(name)
        if concerned is None:
            concerned = self._concerned[name] = [
                (view, view.clearing.get(name), view.handlers.get(name))
                for view in self.views
                if name in view.handlers or name in view.clearing
            ]
        for view, clears, handler in concerned:
            if clears is not None and clears(event):
                self.clear(view)
            if handler is None:
                continue
            if handler.key is not None:
                self._evolve(view, handler.key(event), handler, recorded)
            elif handler.keys is not None:
                for key in handler.keys(event):
                    self._evolve(view, key, handler, recorded)

    def _evolve(self, view: View[Any], key: Key, handler: Handler, recorded: Recorded) -> None:
        before = None if handler.regardless else self.get(view, key)
        if before is None and not handler.begins:
            return
        after = handler.evolve(before, recorded.event)
        if after is before:
            return
        if after is None:
            self.put(view, key, None)
            return
        # The fresh row is nobody else's yet.
        if before is None:
            force_setattr(after, "created_at", recorded.recorded_at)
        force_setattr(after, "updated_at", recorded.recorded_at)
        force_setattr(after, "position", recorded.position)
        self.put(view, key, after)

    def flush(self) -> None:
        """Write what has changed to the tables."""
        connection = self._connection
        if connection is None:
            return
        for view in self._cleared:
            connection.execute(f"DELETE FROM {view.table}")
        self._cleared.clear()
        for view, keys in self._dirty.items():
            rows = self._rows[view]
            changed = [view.dump(rows[key]) for key in sorted(keys) if rows[key] is not None]
            deleted = [(key,) for key in sorted(keys) if rows[key] is None]
            for statement, values in ((view.upsert, changed), (view.delete, deleted)):
                if len(values) == 1:
                    connection.execute(statement, values[0])
                elif values:
                    connection.executemany(statement, values)
        self._dirty.clear()

    def forget(self) -> None:
        """Let go of the rows in memory, after a flush: they will be loaded again."""
        for rows in self._rows.values():
            rows.clear()


def _operand(value: Any) -> str:
    # Our own words are constants: as literals they let the engine use a partial index.
    return f"'{value}'" if isinstance(value, Word) else "?"

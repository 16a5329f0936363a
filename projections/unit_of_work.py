"""The rows that one transaction touches: loaded once, evolved in memory, written in bulk."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

from msgspec.structs import force_setattr

from refold.eventstore import times
from refold.eventstore.engines.engine import (
    Lock,
    NotExclusive,
    NotRemembered,
    Placed,
    Seen,
    Writer,
)
from refold.eventstore.errors import InvalidQuery, ProjectionFailed, RowRefused
from refold.eventstore.event import Event
from refold.eventstore.log.reading import Fact
from refold.eventstore.log.recorded import Recorded
from refold.eventstore.log.transaction import Transaction
from refold.eventstore.paging import chunks
from refold.eventstore.sql import marks
from refold.eventstore.statuses import Word
from refold.projections.view import Handler, Key, R, Row, View

T = TypeVar("T", bound=Row)

ROWS_REMEMBERED = 20_000
"""Bounds the memory for rows that are kept from one transaction to the next."""

Concern = tuple[View[Any], Callable[[Any], bool] | None, Handler | None]


class Unless(NamedTuple):
    """Leaves out the rows that belong to a row of another view, by its key, that has a status."""

    view: View[Any]
    status: Word


class Rows(Protocol):
    """What a decision may look at."""

    def get(self, view: View[T], key: Key) -> T | None:
        """Return the row with a key, or None."""
        ...

    def find(self, view: View[T], **columns: Any) -> list[T]:
        """Return the rows whose columns have these values (or one of a tuple), by key."""
        ...

    def first(self, view: View[T], unless: "Unless | None" = None, **columns: Any) -> T | None:
        """Return the first of those rows, or None: a matching one may come in at any moment.

        Args:
            view: whose rows.
            unless: not those that belong to a row of another view that has a status.
            columns: see `find`.
        """
        ...


class UnitOfWork:
    """Folds events into rows of views.

    With a connection it is a window on the tables: `get` loads a row once, `flush` upserts all
    that changed. Without one it is the whole of the views, in memory: for tests, `verify` and
    time travel. A command uses one for its transaction, a rebuild one for the whole log: so live
    and replay cannot drift apart.

    In a shared transaction it locks each row that it loads, and what may become one, until the
    commit. A look at rows that no key names cannot be protected so: it needs an exclusive one.

    Args:
        views: those that are folded.
        writer: the transaction's connection.
        lock: locks names; None: the transaction is exclusive.
        own: those of a user's own: one that fails is left behind, while the others go on.
        memory: keeps the rows for decisions to come.
    """

    def __init__(
        self,
        views: Iterable[View[Any]],
        writer: Writer | None = None,
        lock: Lock | None = None,
        own: Iterable[View[Any]] = (),
        memory: "Memory | None" = None,
    ) -> None:
        self.views = tuple(views)
        self._memory = memory
        self.failed: dict[View[Any], ProjectionFailed] = {}
        """The views that have failed, each on the event that it stopped before."""
        self.on_failure: Callable[[View[Any], ProjectionFailed, bool], None] | None = None
        """Told of a view that fails, and whether the event has emptied it."""
        self._own = frozenset(own)
        self._refusing = {view for view in self._own if view.has_own_schema and writer is not None}
        self._taken: defaultdict[View[Any], list[Fact]] = defaultdict(list)
        """What those whose tables may refuse a row have taken in since they were last written."""
        self._writer = writer
        self._lock = lock
        self._locking = "" if lock is None else " FOR UPDATE"
        self._rows: defaultdict[View[Any], dict[Key, Any]] = defaultdict(dict)
        self._dirty: defaultdict[View[Any], set[Key]] = defaultdict(set)
        self._cleared: set[View[Any]] = set()
        self._concerned: dict[str, list[Concern]] = {}
        self.before_query: Callable[[], None] = self.flush
        """Called before a query on the tables: a transaction has more to write than the rows."""

    def __len__(self) -> int:
        """Return how many rows and events are in memory."""
        return sum(map(len, (*self._rows.values(), *self._taken.values())))

    # --- rows -----------------------------------------------------------------------------

    def get(self, view: View[R], key: Key) -> R | None:
        """Return the row with a key, or None."""
        if view in self.failed:
            raise self.failed[view]
        rows = self._rows[view]
        try:
            return rows[key]
        except KeyError:
            pass
        if self._writer is None or view in self._cleared:
            return None
        self._load(view, (key,))
        if rows[key] is None and self._lock is not None:
            # Nothing is there to be locked, but somebody may be about to commit it.
            self._lock((_name(view, key),))
            self._load(view, (key,))
        return rows[key]

    def _load(self, view: View[Any], keys: Sequence[Key]) -> None:
        assert self._writer is not None
        rows = self._rows[view]
        rows.update(dict.fromkeys(keys))
        for part in chunks(keys):
            condition = "= ?" if len(part) == 1 else f"IN ({marks(part)})"
            sql = f"{view.select} WHERE {view.key} {condition}"
            if self._locking:
                sql += f" ORDER BY {view.key}{self._locking}"
            for values in self._writer.execute(sql, part):
                rows[values[0]] = row = view.load(values)
                self._note(view, values[0], row)

    def find(self, view: View[R], **columns: Any) -> list[R]:
        """Return the rows whose columns have these values (or one of a tuple), by key."""
        self._be_exclusive()
        return self._find(view, columns, None)

    def _be_exclusive(self) -> None:
        if self._lock is not None:
            raise NotExclusive

    def first(self, view: View[R], unless: "Unless | None" = None, **columns: Any) -> R | None:
        """Return the first of those rows, or None: a matching one may come in at any moment."""
        found = self._find(view, columns, 1, unless)
        return found[0] if found else None

    def _find(
        self,
        view: View[R],
        columns: dict[str, Any],
        limit: int | None,
        unless: "Unless | None" = None,
    ) -> list[R]:
        if view in self.failed:
            raise self.failed[view]
        wanted: dict[str, tuple[Any, ...]] = {
            name: value if isinstance(value, tuple) else (value,) for name, value in columns.items()
        }
        if self._writer is None:
            found = [
                row
                for row in self.rows(view)
                if all(getattr(row, name) in values for name, values in wanted.items())
                and not (unless and self._excludes(unless, row))
            ]
            found.sort(key=lambda row: getattr(row, view.key))
            return found[:limit]
        if not all(wanted.values()):
            return []
        self.before_query()
        conditions = [
            f"({' OR '.join(f'{name} = {_operand(value)}' for value in values)})"
            for name, values in wanted.items()
        ]
        if unless is not None:
            table, key = unless.view.table, unless.view.key
            conditions.append(
                f"NOT EXISTS (SELECT 1 FROM {table} AS part WHERE part.{key} = "
                f"{view.table}.{key} AND part.status = '{unless.status}')"
            )
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"{view.select}{where} ORDER BY {view.key}"
        if limit is not None:
            sql += f" LIMIT {limit}"
        parameters = [v for values in wanted.values() for v in values if _operand(v) == "?"]
        rows = self._rows[view]
        loaded = [
            view.load(values)
            for values in self._writer.execute(f"{sql}{self._locking}", parameters)
        ]
        for row in loaded:
            key = getattr(row, view.key)
            rows[key] = row
            self._note(view, key, row)
        return loaded

    def _note(self, view: View[Any], key: Key, row: Row) -> None:
        if self._memory is not None:
            self._memory.loaded(view, key, row)

    def _excludes(self, unless: "Unless", row: Row) -> bool:
        part = self.get(unless.view, getattr(row, unless.view.key))
        return part is not None and part.status == unless.status

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

    def expect(self, events: Iterable[Event]) -> None:
        """Load the rows that events will change, all at once; see `Fold.expect`."""
        if self._writer is None or len(self._cleared) == len(self.views):
            return
        touched: dict[View[Any], set[Key]] = {}
        for event in events:
            for view, clears, handler in self._concerns(event):
                try:
                    clearing = clears is not None and clears(event)
                    # A row that is created is of interest only to who might create it as well.
                    needless = handler is None or (handler.regardless and self._lock is None)
                    keys = () if needless else tuple(self._touched(view, handler, event))
                except Exception:  # noqa: BLE001 the view will be found to fail when it takes the event in
                    continue
                if clearing:
                    self._be_exclusive()
                if keys:
                    touched.setdefault(view, set()).update(keys)
        for view, keys in touched.items():
            rows = self._rows[view]
            unknown = sorted(key for key in keys if key not in rows)
            if unknown and view not in self._cleared:
                if self._lock is not None:
                    self._lock(_name(view, key) for key in unknown)
                self._load(view, unknown)

    def _concerns(self, event: Event) -> list[Concern]:
        name = type(event).__name__
        concerned = self._concerned.get(name)
        if concerned is None:
            concerned = self._concerned[name] = [
                (view, view.clearing.get(name), view.handlers.get(name))
                for view in self.views
                if (name in view.handlers or name in view.clearing) and view not in self.failed
            ]
        return concerned

    def _touched(self, view: View[Any], handler: Handler | None, event: Event) -> Iterable[Key]:
        """Return the keys of the rows that an event touches."""
        if handler is None:
            return ()
        if view not in self._own:
            return handler.touched(event)
        return self._checked(view, handler.touched(event))

    @staticmethod
    def _checked(view: View[Any], keys: Iterable[Key]) -> Iterator[Key]:
        for key in keys:
            view.check_key(key)
            yield key

    def fold(self, recorded: Recorded) -> None:
        """Let each view take in an event that has been recorded."""
        self.take_in(recorded.position, recorded.event, recorded.recorded_at)

    def take_in(self, position: int, event: Event, recorded_at: int) -> None:
        """Let each view take in an event: the one place where rows change, live and in replay."""
        recorded_at = times.within(recorded_at)  # a log may hold times that no row can
        for view, clears, handler in self._concerns(event):
            if view in self._refusing:
                self._taken[view].append((position, event, recorded_at))
            key: Key | None = None
            clearing, taken = False, list[tuple[Key, Any]]()
            asked = True  # the view's own code; what else fails here is no fault of the view
            try:
                clearing = clears is not None and clears(event)
                if clearing:
                    self.clear(view)
                for key in self._touched(view, handler, event):
                    assert handler is not None
                    asked = False
                    before = None if handler.regardless else self.get(view, key)
                    asked = True
                    if before is None and not handler.begins:
                        continue
                    after = (
                        handler.evolve(before, event, key)
                        if handler.keyed
                        else handler.evolve(before, event)
                    )
                    if after is before:
                        continue
                    if after is not None:
                        # The fresh row is nobody else's yet.
                        view.settle(after)
                        if handler.marks is not None:
                            force_setattr(after, handler.marks, position)
                        if before is None:
                            force_setattr(after, "created_at", recorded_at)
                        force_setattr(after, "updated_at", recorded_at)
                        force_setattr(after, "position", position)
                        if view in self._own:
                            view.check(after)
                    asked = False
                    self.put(view, key, after)
                    asked = True
                    taken.append((key, before))
            except Exception as error:
                if not asked:
                    raise
                for done, row in reversed(taken):  # half of an event is none
                    self.put(view, done, row)
                self._fail(view, position, event, key, error, emptied=clearing)

    def _fail(
        self,
        view: View[Any],
        position: int,
        event: Event,
        key: Key | None,
        error: Exception,
        *,
        emptied: bool,
    ) -> None:
        """Leave a view behind that fails on an event; refold's own must not."""
        row = None if key is None else (view.key, key)
        failed = ProjectionFailed.on(view.name, position, type(event).__name__, row, error)
        if view not in self._own:
            raise failed
        if self.on_failure is not None:
            self.on_failure(view, failed, emptied)
        self.leave(view, failed)

    def leave(self, view: View[Any], failed: ProjectionFailed) -> None:
        """Fold nothing more into a view, which has failed."""
        self.failed[view] = failed
        self._concerned.clear()

    def flush(self) -> None:
        """Write what has changed to the tables."""
        if self._writer is None:
            return
        for view in dict.fromkeys((*self._cleared, *self._dirty)):
            if view in self._refusing:
                self._write_or_leave(view)
            else:
                self._write(view)

    def _write(self, view: View[Any]) -> None:
        writer = self._writer
        assert writer is not None
        if view in self._cleared:
            writer.run(f"DELETE FROM {view.table}")
            self._cleared.discard(view)
        after = [(key, self._rows[view][key]) for key in sorted(self._dirty.pop(view, ()))]
        changed = [view.dump(row) for _, row in after if row is not None]
        deleted = [(key,) for key, row in after if row is None]
        if len(changed) == 1:
            writer.run(view.upsert, changed[0])
        elif changed:
            writer.insert(view.table, view.columns, changed, view.on_conflict)
        if deleted:
            writer.executemany(view.delete, deleted)

    def _write_or_leave(self, view: View[Any]) -> None:
        """Write a view whose table may refuse a row; then look by which event it came to that."""
        taken = self._taken.pop(view, [])
        if self._refusal(view) is None:
            return
        self._rows[view].clear()
        alone = UnitOfWork([view], self._writer, self._lock, [view])
        alone.on_failure = self.on_failure
        for position, event, recorded_at in taken:
            alone.take_in(position, event, recorded_at)
            refusal = alone._refusal(view)
            if refusal is not None:
                alone._fail(view, position, event, None, refusal, emptied=False)
            if view in alone.failed:
                self.leave(view, alone.failed[view])
                return

    def _refusal(self, view: View[Any]) -> Exception | None:
        """Write a view; if its table refuses a row, write nothing of it, and return why."""
        writer = self._writer
        assert writer is not None
        writer.execute("SAVEPOINT rows")
        try:
            self._write(view)
            writer.execute("RELEASE SAVEPOINT rows")
        except (RowRefused, InvalidQuery) as error:
            writer.execute("ROLLBACK TO SAVEPOINT rows")
            writer.execute("RELEASE SAVEPOINT rows")
            return error
        return None

    def committed(self) -> None:
        """Have the rows remembered."""
        if self._memory is not None:
            for view, rows in self._rows.items():
                for key, row in rows.items():
                    self._memory.keep(view, key, row)

    def forget(self) -> None:
        """Let go of the rows in memory, after a flush: they will be loaded again."""
        for rows in self._rows.values():
            rows.clear()


class Memory:
    """Rows as this store saw them last, for decisions that are made before the server is asked.

    They may be out of date; then the server refuses what was decided on them, which costs a
    message. So a row that others have changed is not believed again until it was loaded as it was
    left here.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[View[Any], Key], Row] = {}
        self._left: dict[tuple[View[Any], Key], int] = {}
        """The positions of rows as they were left here, of those that others have changed."""

    def row(self, view: View[Any], key: Key) -> Row | None:
        """Return a row, if it is remembered and believed."""
        return self._rows.get((view, key))

    def keep(self, view: View[Any], key: Key, row: Row | None) -> None:
        """Remember a row as it is committed; None: there is none."""
        if row is None:
            self._rows.pop((view, key), None)
        elif (view, key) in self._left:
            self._left[view, key] = row.position
        else:
            if len(self._rows) >= ROWS_REMEMBERED:
                self._rows.clear()
            known = self._rows.setdefault((view, key), row)
            if known.position < row.position:  # else another thread's is newer
                self._rows[view, key] = row

    def loaded(self, view: View[Any], key: Key, row: Row) -> None:
        """Take note of a row that has been loaded."""
        if self._left and self._left.get((view, key)) == row.position:
            self._left.pop((view, key), None)

    def forget(self) -> None:
        """Remember nothing."""
        self._rows.clear()

    def disbelieve(self, view: View[Any], key: Key) -> None:
        """Take note that others have changed a row."""
        row = self._rows.pop((view, key), None)
        if len(self._left) >= ROWS_REMEMBERED:
            self._left.clear()
        self._left[view, key] = 0 if row is None else row.position


class RecalledUnit(UnitOfWork):
    """Folds one event into rows that are remembered, for a server to write them.

    Args:
        views: those that are folded, in the order of the tables that the server is told.
        own: those of them that are a user's own.
        memory: has the rows.
    """

    def __init__(
        self, views: Sequence[View[Any]], own: Iterable[View[Any]], memory: Memory
    ) -> None:
        super().__init__(views, own=own)
        self.on_failure = _refuse
        self._recalled = memory
        self._looked: dict[tuple[View[Any], Key], int] = {}
        """The rows that were looked at, and the position of each."""
        self._recorded: Recorded | None = None

    def get(self, view: View[R], key: Key) -> R | None:
        """Return the row with a key.

        Raises:
            NotRemembered: it is not in memory, or there is none.
        """
        rows = self._rows[view]
        if key not in rows:
            row = self._recalled.row(view, key)
            if row is None:
                raise NotRemembered
            rows[key] = row
            self._looked[view, key] = row.position
        return rows[key]

    def _find(
        self,
        view: View[R],
        columns: dict[str, Any],
        limit: int | None,
        unless: "Unless | None" = None,
    ) -> list[R]:
        raise NotRemembered

    def clear(self, view: View[R]) -> None:
        """Refuse: what else a view holds is not in memory."""
        raise NotRemembered

    def put(self, view: View[R], key: Key, row: R | None) -> None:
        """Set the row with a key, which was looked at."""
        may_be_refused = view.has_own_schema and view in self._own
        if row is None or may_be_refused or (view, key) not in self._looked:
            raise NotRemembered
        super().put(view, key, row)

    def fold(self, recorded: Recorded) -> None:
        """Let each view take in an event, which has no place yet."""
        self._recorded = recorded
        super().fold(recorded)

    def seen(self) -> list[Seen]:
        """Return the rows that were looked at, and what has become of them."""
        return [
            Seen(
                self.views.index(view),
                key,
                position,
                view.dump(self._rows[view][key])[1:-2] if key in self._dirty[view] else None,
            )
            for (view, key), position in self._looked.items()
        ]

    def place(self, placed: Placed) -> None:
        """Have what was folded bear its place and time, and remember it."""
        position, version, recorded_at = placed
        recorded = self._recorded
        assert recorded is not None
        force_setattr(recorded, "position", position)
        force_setattr(recorded, "version", version)
        force_setattr(recorded, "recorded_at", recorded_at)
        for view, keys in self._dirty.items():
            for key in keys:
                row = self._rows[view][key]
                force_setattr(row, "updated_at", times.within(recorded_at))
                force_setattr(row, "position", position)
                self._recalled.keep(view, key, row)

    def moved(self, row: int | None) -> None:
        """Let go of one of the rows that were looked at; None: of all that is in memory."""
        if row is None:
            self._recalled.forget()
        else:
            self._recalled.disbelieve(*[*self._looked][row])


class UnitsOfWork:
    """Gives each transaction its unit of work: the one before, as long as nobody else writes.

    Args:
        views: those that are folded.
        own: those of them that are a user's own.
        settle: brings them up to date with the log, within a transaction; it returns those that
            cannot be, and why.
        fell_behind: called with one that fails within a transaction, and whether it was emptied.
    """

    def __init__(
        self,
        views: Sequence[View[Any]],
        own: Sequence[View[Any]],
        settle: Callable[[Transaction], Mapping[View[Any], ProjectionFailed]],
        fell_behind: Callable[[Transaction, View[Any], ProjectionFailed, bool], None],
    ) -> None:
        self._views = views
        self._own = own
        self._settle = settle
        self._fell_behind = fell_behind
        self._unit: UnitOfWork | None = None
        self._memory: Memory | None = None

    def recall(self) -> RecalledUnit:
        """Return a unit of work that folds one event into rows that are remembered."""
        if self._memory is None:
            raise NotRemembered
        return RecalledUnit(self._views, self._own, self._memory)

    def begin(self, transaction: Transaction) -> UnitOfWork:
        """Return the unit of work that folds a transaction's events."""
        unit = self._unit
        if transaction.fresh or unit is None or len(unit) > ROWS_REMEMBERED:
            behind = self._settle(transaction)
            if self._memory is None and transaction.lock is not None:  # others write beside it
                self._memory = Memory()
            unit = UnitOfWork(
                self._views, transaction.writer, transaction.lock, self._own, self._memory
            )
            unit.failed.update(behind)
            self._unit = unit
        unit.before_query = transaction.flush
        unit.on_failure = partial(self._fell_behind, transaction)
        return unit


def _refuse(*_: object) -> NoReturn:
    raise NotRemembered


def unit_of(transaction: Transaction) -> UnitOfWork:
    """Return the unit of work that folds a transaction's events."""
    assert isinstance(transaction.fold, UnitOfWork)
    return transaction.fold


def _name(view: View[Any], key: Key) -> str:
    return f"{view.table} {key}"


def _operand(value: Any) -> str:
    # Our own words are constants: as literals they let the engine use a partial index, whose
    # condition is written in the same way.
    return f"'{value}'" if isinstance(value, Word) else "?"

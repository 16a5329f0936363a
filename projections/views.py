"""The views of a store: kept equal to the log, rebuilt, verified, and asked in SQL."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from refold.eventstore.arguments import excerpt, listed
from refold.eventstore.blocks import Block, Nested
from refold.eventstore.engines.engine import (
    Definition,
    NotRemembered,
    Projections,
    Reader,
    Sql,
    Table,
    Values,
)
from refold.eventstore.engines.log_end import PROJECTIONS, by_name, projections_of
from refold.eventstore.errors import (
    AccessDenied,
    InvalidQuery,
    InvalidView,
    ProjectionFailed,
    StoreReadOnly,
    StoreTooNew,
    UnreadableEvent,
)
from refold.eventstore.event import stored_names
from refold.eventstore.log.faults import Fault
from refold.eventstore.log.reading import Fact, read_facts
from refold.eventstore.log.store import EventStore
from refold.eventstore.log.transaction import Transaction
from refold.eventstore.paging import position_of
from refold.eventstore.progress import ProgressBar
from refold.eventstore.sql import section, statements
from refold.projections.entities import ALL, own_views
from refold.projections.unit_of_work import RecalledUnit, UnitOfWork, UnitsOfWork
from refold.projections.verify import Difference, behind, differences
from refold.projections.view import View, created_by, types_of

ROWS_PER_FLUSH = 200_000
"""Bounds the memory of a rebuild: with this many rows in memory, they are written and forgotten."""


class ReadableViews(ABC):
    """The rows of a store, now or as they were at a moment."""

    views: tuple[View[Any], ...]

    @property
    @abstractmethod
    def sql(self) -> Sql:
        """Whose SQL queries are written in."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Reader]:
        """Lend a connection for reading on which the views are equal to the log."""

    @abstractmethod
    def select(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run a query on the views, which are equal to the log, and return its rows as dicts."""

    @abstractmethod
    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own as dicts; refuse one that would write."""

    @abstractmethod
    def verify(self) -> Sequence[Difference | Fault]:
        """Fold the log in memory and return where the views differ from it; empty means equal."""

    def refuse_failed(self, sql: str) -> None:
        """Refuse a statement that names a view which stays behind the log.

        Raises:
            ProjectionFailed: it does.
        """
        return  # of the past, each view is known up to the event on which it fails

    @abstractmethod
    def close(self) -> None:
        """Let go of them; closing twice does nothing."""


class Views(ReadableViews):
    """Folds every event of a store into views, in the transaction that appends it.

    Views that are missing, of an older version, or behind the log are brought up to date first:
    this is all the migration that there is.

    Args:
        store: the store.
        more: views of one's own.
        progress: show a progress bar while views are brought up to date; None: only on a terminal.

    Raises:
        StoreTooNew: the store's views were built by a newer refold.
    """

    def __init__(
        self, store: EventStore, more: Iterable[View[Any]] = (), *, progress: bool | None = None
    ) -> None:
        self.store = store
        self._progress = progress
        self.views = (*ALL, *_checked(more))
        _check_places(self.views)
        self._own = own_views(self.views)
        self._failed: dict[View[Any], _Failure] = {}
        self._seen: WeakKeyDictionary[Reader, int] = WeakKeyDictionary()
        self._units = UnitsOfWork(self.views, self._own, self._settle, self._fell_behind)
        store.follow(
            (view.name for view in self.views),
            [Table(view.table, view.version, view.columns) for view in self.views],
            self._units.begin,
            self._recall,
        )
        # An event that cannot be read stands in the way of the present, not of the past.
        with suppress(UnreadableEvent), self.reading():
            pass

    # --- live -----------------------------------------------------------------------------

    def _recall(self, projections: Projections) -> RecalledUnit:
        if self._unsettled(projections) or self._failed:
            raise NotRemembered
        return self._units.recall()

    def _settle(self, transaction: Transaction) -> Mapping[View[Any], ProjectionFailed]:
        plan = self._unsettled(transaction.projections)
        if plan:
            transaction.be_exclusive()
            self._refold(transaction, plan, self._progress)
        return {view: failure.error for view, failure in self._failed.items()}

    def _fell_behind(
        self, transaction: Transaction, view: View[Any], error: ProjectionFailed, emptied: bool
    ) -> None:
        """Note that a view of a user's own stays before the event on which it has failed."""
        transaction.be_exclusive()
        self._leave(transaction, view, _Failure(0 if emptied else error.position - 1, error))

    def _leave(self, transaction: Transaction, view: View[Any], failure: "_Failure") -> None:
        transaction.set_projection(view.name, view.version, failure.behind)
        self._failed[view] = failure

    def _unsettled(self, known: Projections) -> dict[View[Any], int]:
        # Which views are to be folded again, and after which position.
        plan: dict[View[Any], int] = {}
        for view in self.views:
            version, position = known.get(view.name, (0, 0))
            if version > view.version:
                raise StoreTooNew(
                    f"{self.store.engine.name}: view {view.name} is at version {version}, this "
                    f"refold has {view.version}: a newer one opened the store. Upgrade this one"
                )
            if version < view.version:
                plan[view] = 0
            elif position is None:
                self._failed.pop(view, None)
            elif view not in self._failed or self._failed[view].behind != position:
                plan[view] = position
        return plan

    def refuse_failed(self, sql: str) -> None:
        """Refuse a statement that names a view which stays behind the log."""
        if not self._failed:
            return
        words = {word.lower() for word in re.findall(r"\w+", sql)}
        for view, failure in self._failed.items():
            if words & {name.lower() for name in (view.table, *view.objects)}:
                raise failure.error.with_traceback(None)

    def reading(self) -> Block[Reader]:
        """Lend a connection for reading on which the views are equal to the log."""
        return Block(_Reading(self))

    def settle(self) -> None:
        """Make the views equal to the log."""
        try:
            self.store.perform(lambda _: None)
        except (AccessDenied, StoreReadOnly) as error:
            raise type(error)(
                f"{self.store.engine.name}: the views are behind the log, or of an older release, "
                f"and cannot be brought up to date from here: open the store once with the right "
                f"to write ({error})"
            ) from error

    @property
    def sql(self) -> Sql:
        """Whose SQL queries are written in."""
        return self.store.engine.sql

    def select(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run a query on the views, which are equal to the log, and return its rows as dicts."""
        store = self.store
        if not store.is_held():
            with store.reading() as connection:
                changes = connection.changes()
                if self._knows(connection, changes):
                    self.refuse_failed(sql)
                    return connection.select(sql, parameters)
                with suppress(InvalidQuery):  # the tables may have to be made first
                    known, found = connection.select_together(PROJECTIONS, sql, parameters)
                    if self._look(connection, changes, by_name(known)):
                        self.refuse_failed(sql)
                        return found
        with self.reading() as connection:
            self.refuse_failed(sql)
            return connection.select(sql, parameters)

    def is_settled(self, connection: Reader) -> bool:
        """Return whether the views on a connection are equal to the log."""
        if self.store.current() is not None:
            return True
        changes = connection.changes()
        return self._knows(connection, changes) or self._look(
            connection, changes, projections_of(connection)
        )

    def _knows(self, connection: Reader, changes: int | None) -> bool:
        """Return whether the views are known to be up to date: nobody has committed since."""
        return changes is not None and self._seen.get(connection) == changes

    def _look(self, connection: Reader, changes: int | None, known: Projections) -> bool:
        if self._unsettled(known):
            return False
        if changes is not None:
            self._seen[connection] = changes
        return True

    def query(self, sql: str, parameters: Values) -> list[dict[str, Any]]:
        """Answer a statement of a user's own as dicts; refuse one that would write."""
        with self.reading() as connection:
            self.refuse_failed(sql)
            within = connection if self.store.current() is not None else None
        return self.store.engine.query(sql, parameters, within=within)

    # --- replay ---------------------------------------------------------------------------

    def rebuild(self, *, progress: bool | None = None) -> int:
        """Fold the whole log into new views; readers see the old ones until these are complete.

        A view of a user's own that fails stays before the event on which it does.

        Args:
            progress: show a progress bar; None: only on a terminal.

        Returns:
            how many events were folded.
        """
        with self.store.transaction() as transaction:
            return self._refold(transaction, dict.fromkeys(self.views, 0), progress)

    def _refold(
        self, transaction: Transaction, plan: dict[View[Any], int], progress: bool | None
    ) -> int:
        transaction.flush()
        if isinstance(transaction.fold, UnitOfWork):
            transaction.fold.forget()
        connection = transaction.writer
        anew = [Definition(view.objects, view.schema) for view in plan if plan[view] == 0]
        start = first = min(plan.values())
        failed: dict[View[Any], _Failure] = {}
        bar = ProgressBar("folding events into views", transaction.head - start, progress)
        with bar, connection.renewed(anew):
            for view in plan:
                if view.has_own_schema and plan[view] == 0:
                    _check_columns(connection, view)
            # Views that are behind by different amounts take turns: from the one that is furthest
            # behind, the others join where they stand.
            ends = [*sorted(set(plan.values()) - {start}), transaction.head]
            for end in ends:
                views = [view for view, after in plan.items() if after < end]
                views = [view for view in views if view not in failed]
                unit = UnitOfWork(views, connection, own=self._own)
                unit.on_failure = lambda view, error, emptied: failed.update(
                    {view: _Failure(0 if emptied else error.position - 1, error)}
                )
                for view in views:
                    if start == 0:
                        unit.clear(view)  # its table is empty: there is nothing to be loaded
                for page in self._facts(unit, start, end):
                    unit.expect(event for _, event, _ in page)
                    for fact in page:
                        unit.take_in(*fact)
                    if len(unit) > ROWS_PER_FLUSH:
                        unit.flush()
                        unit.forget()
                    bar.update(position_of(page[-1]) - first - bar.n if page else 0)
                unit.flush()
                bar.update(end - first - bar.n)
                start = end
        for view in plan:
            if view in failed:
                self._leave(transaction, view, failed[view])
            else:
                transaction.set_projection(view.name, view.version, None)
        return transaction.head - first

    def _facts(self, unit: UnitOfWork, after: int, until: int) -> Iterator[list[Fact]]:
        """Iterate over the pages of events that views fold.

        An event that cannot be decoded, and that only views of a user's own fold, is a failure of
        these; the others go on behind it.
        """
        while True:
            views = [view for view in unit.views if view not in unit.failed]
            try:
                yield from read_facts(self.store.reading, after, until, types_of(views))
            except UnreadableEvent as error:
                with self.store.reading() as connection:
                    found = connection.execute(
                        "SELECT type FROM events WHERE position = ?", (error.position,)
                    )
                kind = found[0][0] if found else ""
                concerned = [view for view in views if kind in stored_names(types_of((view,)))]
                if not concerned or set(concerned) - set(self._own):
                    raise
                for view in concerned:
                    failed = ProjectionFailed.on(view.name, error.position, kind, None, error)
                    assert unit.on_failure is not None
                    unit.on_failure(view, failed, False)
                    unit.leave(view, failed)
                after = error.position
            else:
                return

    def verify(self) -> list[Difference | Fault]:
        """Fold the log in memory and return where the views differ from it; empty means equal.

        A view that stays behind, because it fails on an event, is a fault.
        """
        while True:
            with self.reading():
                pass
            with self.store.snapshot(), self.store.reading() as connection:
                if self._unsettled(projections_of(connection)):
                    continue  # somebody who does not fold them appended in between
                ((end,),) = connection.execute("SELECT coalesce(max(position), 0) FROM events")
                views = [view for view in self.views if view not in self._failed]
                pages = read_facts(self.store.reading, 0, end, types_of(views))
                return [
                    *(behind(failure.error) for failure in self._failed.values()),
                    *differences(views, pages, connection, own=self._own),
                ]

    def close(self) -> None:
        """Close the store; closing twice does nothing."""
        self.store.close()


class _Failure(NamedTuple):
    """That a view of a user's own cannot take in an event."""

    behind: int
    """The position up to which it is folded; the next that it folds is the one it fails on."""
    error: ProjectionFailed


class _Reading(Nested[Reader, Reader]):
    """The use of a connection on which the views are equal to the log."""

    def __init__(self, views: Views) -> None:
        super().__init__(views.store.reading())
        self._views = views

    def begin(self) -> Reader:
        """Take one, and make them equal if they are not."""
        connection = self.enter()
        if self._views.is_settled(connection):
            return connection
        self.end(None)
        self._views.settle()
        return self.enter_anew(self._views.store.reading())


def _checked(more: Iterable[View[Any]]) -> list[View[Any]]:
    for view in (views := listed("projections", more, InvalidView)):
        if not isinstance(view, View):
            raise InvalidView(f"{excerpt(view)} is not a view: pass a projections.View")
    return views


def _check_columns(connection: Reader, view: View[Any]) -> None:
    try:
        connection.execute(f"{view.select} WHERE {view.key} IS NULL")
    except InvalidQuery as error:
        raise InvalidView(
            f"view {view.name}: its schema lacks the table {view.table} or one of its columns "
            f"{', '.join(view.columns)} ({error})"
        ) from error


def _check_places(views: Iterable[View[Any]]) -> None:
    taken = dict.fromkeys(created_by(statements(section("log") + section("store"))), "the log")
    for view in views:
        for name in {name.lower() for name in (view.name, view.table, *view.objects)}:
            if name in taken or name.startswith("sqlite_"):
                raise InvalidView(
                    f"view {view.name}: the name {name} belongs to {taken.get(name, 'SQLite')}: "
                    f"take another name"
                )
            taken[name] = f"view {view.name}"


_PARAMETERS = (int, float, str, bytes, bytearray, memoryview, type(None))


class Queries:
    """Answers SELECTs as dicts and refuses everything that would write."""

    def __init__(self, views: ReadableViews) -> None:
        self._views = views

    def execute(
        self,
        query: str,
        params: Sequence[Any] = (),
        commit: bool = False,
        fetch: bool = True,
    ) -> list[dict[str, Any]]:
        """Run a query with `?` parameters and return its rows as dicts.

        `commit` and `fetch` are taken for the sake of older callers and change nothing.

        Raises:
            WriteRefused: the statement would write: the views are rebuilt from events.
            InvalidQuery: the SQL or the parameters are wrong.

        >>> from refold import RfDb
        >>> RfDb("example.db").db.execute("SELECT count(*) AS n FROM runs")
        [{'n': 0}]
        """
        if (
            not isinstance(query, str)
            or isinstance(params, str)
            or not isinstance(params, Sequence)
        ):
            raise InvalidQuery(
                f"{excerpt(query)} with {excerpt(params)}: pass SQL text, and a tuple or list of "
                f"parameters"
            )
        for value in params:
            if not isinstance(value, _PARAMETERS) or (
                isinstance(value, int) and not -(2**63) <= value < 2**63
            ):
                raise InvalidQuery(
                    f"{excerpt(query)}: parameter {excerpt(value)} is not a value that SQL has: "
                    f"pass int (64 bits), float, str, bytes, bool or None"
                )
        return self._views.query(query, tuple(params))

    def close(self) -> None:
        """Close the store."""
        self._views.close()

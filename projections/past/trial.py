"""What a view would make of a log, before it folds it for good."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple, cast

import msgspec

from refold.eventstore.engines.engine import Reader, Writer
from refold.eventstore.engines.log_end import projections_of
from refold.eventstore.engines.sqlite.connection import SqliteConnection
from refold.eventstore.errors import InvalidCommand, InvalidQuery, ProjectionFailed
from refold.eventstore.log.recorded import Recorded
from refold.eventstore.paging import chunks
from refold.projections.past.changes import BOOKKEEPING, Change
from refold.projections.past.views import PastViews
from refold.projections.unit_of_work import UnitOfWork
from refold.projections.view import Key, R, View, types_of
from refold.projections.views import Views

SHOWN = 5
"""Rows that a trial prints."""

Named = dict[str, Any]


class Trial(msgspec.Struct, frozen=True):
    """What a view makes of the log, and how that differs from the live view of its name.

    Print it for the story in a few lines.
    """

    view: str
    position: int
    """The position at which both are."""
    events: int
    """How many events it folded."""
    seconds: float
    """How long that took."""
    rows: list[Named]
    """All rows that it makes, by key."""
    is_new: bool
    """Whether there is no live view of its name."""
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    changes: list[Change]
    """What becomes of the live rows, by key; for a new view, all rows as added."""

    @property
    def added(self) -> list[Change]:
        """The rows that the live view does not have."""
        return self._of_kind("added")

    @property
    def removed(self) -> list[Change]:
        """The rows that only the live view has."""
        return self._of_kind("removed")

    @property
    def changed(self) -> list[Change]:
        """The rows that both have, and that differ in a column of this view."""
        return self._of_kind("changed")

    @property
    def differs(self) -> bool:
        """Whether anything differs from the live view."""
        return self.is_new or bool(self.changes or self.columns_added or self.columns_removed)

    def _of_kind(self, kind: str) -> list[Change]:
        return [change for change in self.changes if change.kind == kind]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield (
            f"{self.view}: {_count(len(self.rows), 'row')} from {_count(self.events, 'event')} in "
            f"{self.seconds:.2f} s, as of position {self.position}"
        )
        if self.is_new:
            yield "a new view"
        elif not self.differs:
            yield "equal to the live view"
        for what, columns in (("added", self.columns_added), ("removed", self.columns_removed)):
            if columns:
                yield f"columns {what}: {', '.join(columns)}"
        if not self.is_new:
            yield from self._told_by_kind()
        for change in self.changes[:SHOWN]:
            yield f"  {_line(change)}"
        if len(self.changes) > SHOWN:
            yield f"  … and {_count(len(self.changes) - SHOWN, 'row')} more"

    def _told_by_kind(self) -> Iterator[str]:
        for kind in ("added", "removed"):
            if changes := self._of_kind(kind):
                yield f"{_count(len(changes), 'row')} {kind}"
        if changed := self.changed:
            columns = Counter(name for change in changed for name in _differing(change))
            listed = ", ".join(f"{name} in {count}" for name, count in columns.items())
            yield f"{_count(len(changed), 'row')} changed: {listed}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _line(change: Change) -> str:
    if change.columns:
        return str(change)
    # Only when it changed has changed.
    listed = ", ".join(f"{name} {a} -> {b}" for name, (a, b) in _differing(change).items())
    return f"{change.view} {change.key} changed: {listed}"


def _differing(change: Change) -> dict[str, tuple[Any, Any]]:
    """Return the columns of a changed row that differ; those that keep the books if no others."""
    before, after = change.before or {}, change.after or {}
    return change.columns or {
        name: (before[name], after[name])
        for name in after
        if name in BOOKKEEPING and before[name] != after[name]
    }


def trial(views: Views | PastViews, view: View[Any]) -> Trial:
    """Fold the log into a view of no other's concern, and compare it with the live one.

    Raises:
        ProjectionFailed: the view raises, or makes a row that its table cannot hold.
        DamagedEvent, UnknownEventType: an event that the view folds cannot be decoded.
        InvalidCommand: the live view is not known to these views and cannot be compared with.
    """
    began = time.perf_counter()
    with views.store.snapshot(), closing(sqlite3.connect("", isolation_level=None)) as raw:
        live = _live(views, view)
        scratch = SqliteConnection(raw, f"the trial of view {view.name}")
        for statement in view.schema:
            scratch.execute(statement)
        count = 0
        events = views.store.read(until=live.position, types=types_of((view,)))
        for page in chunks(events):
            _fold(view, scratch, page)
            count += len(page)
        rows = _rows(view, scratch)
    keys = sorted(live.rows.keys() | rows.keys(), key=lambda key: (type(key).__name__, key))
    return Trial(
        view=view.name,
        position=live.position,
        events=count,
        seconds=time.perf_counter() - began,
        rows=[rows[key] for key in keys if key in rows],
        is_new=live.columns is None,
        columns_added=_without(view.columns, live.columns),
        columns_removed=_without(live.columns or (), view.columns),
        changes=[
            Change(view.name, key, before, after)
            for key in keys
            if _differ(before := live.rows.get(key), after := rows.get(key))
        ],
    )


def _without(columns: Iterable[str], others: Sequence[str] | None) -> tuple[str, ...]:
    return () if others is None else tuple(name for name in columns if name not in others)


def _differ(before: Named | None, after: Named | None) -> bool:
    if before is None or after is None:
        return True
    return any(before.get(name) != value for name, value in after.items())


# --- the live view --------------------------------------------------------------------------


class _Live(NamedTuple):
    position: int
    """Of the last event that is in it; without it, of the last in the log."""
    columns: tuple[str, ...] | None
    """None: there is no live view."""
    rows: dict[Key, Named]


def _live(views: Views | PastViews, view: View[Any]) -> _Live:
    known = next((one for one in views.views if one.name == view.name), None)
    present = views.store.present if isinstance(views, PastViews) else views.store
    with present.reading() as connection:
        ((last,),) = connection.execute("SELECT coalesce(max(position), 0) FROM events")
        folded = projections_of(connection).get(view.name)
        if isinstance(views, PastViews):
            last = views.position
        elif folded is not None and folded[1] is not None:
            last = folded[1]  # it is behind
        if folded is None:
            return _Live(last, None, {})
        if known is None and isinstance(views, PastViews):
            raise InvalidCommand(
                f"what the live view {view.name} held at position {last} is not known without its "
                f"code: open the face with projections=[it], or leave out the moment"
            )
        if known is None:
            return _Live(last, *_rows_of_unknown(view, connection))
    with views.reading() if isinstance(views, PastViews) else present.reading() as connection:
        return _Live(last, known.columns, _rows(known, connection))


def _rows_of_unknown(
    view: View[Any], connection: Reader
) -> tuple[tuple[str, ...], dict[Key, Named]]:
    try:
        found = connection.select(f"SELECT * FROM {view.table}")
    except InvalidQuery as error:
        raise InvalidCommand(
            f"the live view {view.name} is not in the table {view.table}: open the face with "
            f"projections=[it] to compare with it"
        ) from error
    columns = tuple(found[0]) if found else view.columns
    return columns, {next(iter(row.values())): row for row in found}


def _rows(view: View[Any], connection: Reader) -> dict[Key, Named]:
    return {
        values[0]: dict(zip(view.columns, view.typed(values), strict=True))
        for values in connection.execute(view.select)
    }


# --- the fold -------------------------------------------------------------------------------


def _fold(view: View[Any], scratch: Reader, page: Sequence[Recorded]) -> None:
    scratch.execute("BEGIN")
    unit = UnitOfWork((view,), cast("Writer", scratch))
    try:
        unit.expect([recorded.event for recorded in page])
        for recorded in page:
            unit.fold(recorded)
        unit.flush()
    except Exception as error:  # noqa: BLE001
        scratch.execute("ROLLBACK")
        _fold_one_by_one(view, scratch, page)
        raise (_raised(error) or error) from None
    scratch.execute("COMMIT")


def _fold_one_by_one(view: View[Any], scratch: Reader, page: Iterable[Recorded]) -> None:
    """Find the event and the row that a view fails on.

    Raises:
        ProjectionFailed: always, unless the view is not a pure function.
    """
    unit = _Watched(view, scratch)
    for recorded in page:
        unit.key = None
        try:
            unit.fold(recorded)
        except Exception as error:  # noqa: BLE001
            key = error.key if isinstance(error, ProjectionFailed) else unit.key
            cause = _raised(error) or error
            raise _failed(view, recorded, key, cause) from cause


def _raised(error: Exception) -> Exception | None:
    """Return what the view itself has raised, if it has."""
    cause = error.__cause__ if isinstance(error, ProjectionFailed) else None
    return cause if isinstance(cause, Exception) else None


class _Watched(UnitOfWork):
    """Knows the key of the row that it writes, and writes each row at once."""

    def __init__(self, view: View[Any], scratch: Reader) -> None:
        super().__init__((view,), cast("Writer", scratch))
        self.key: Key | None = None

    def put(self, view: View[R], key: Key, row: R | None) -> None:
        """Set the row with a key, or delete it with None."""
        super().put(view, key, row)
        self.key = key
        self.flush()


def _failed(
    view: View[Any], recorded: Recorded, key: Key | None, error: Exception
) -> ProjectionFailed:
    row = None if key is None else (view.key, key)
    event = f"{recorded.type} in {recorded.stream}"
    return ProjectionFailed.on(view.name, recorded.position, event, row, error)

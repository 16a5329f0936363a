"""A view or the log as columns: the name and type of each, and the rows page by page."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple, Protocol

import msgspec

from refold.eventstore import times
from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import DamagedEvent, InvalidView, NotFound
from refold.eventstore.log.readable import ReadableLog
from refold.eventstore.log.recorded import ReadRow
from refold.eventstore.log.rows import event_rows
from refold.eventstore.paging import Page, position_of
from refold.eventstore.payloads import PayloadCodec
from refold.eventstore.sql import section, statements
from refold.projections.fit import runs
from refold.projections.view import Row, View
from refold.projections.views import ReadableViews
from refold.rows import read_rows, whole
from refold.search import configurations, flat

EVENTS = "events"

RUNS_WIDE = "runs_wide"
"""Runs, with a column for each parameter and metric."""

Kind = type[int] | type[float] | type[bool] | type[str] | type[bytes] | type[datetime]


class Column(NamedTuple):
    """A column; of the type `datetime`, its values are microseconds since 1970-01-01 UTC."""

    name: str
    type: Kind


class Columns(NamedTuple):
    """What `columns_of` found."""

    columns: tuple[Column, ...]
    pages: Iterator[Page]


class Source(Protocol):
    """What is exported: a face, now or as of a moment."""

    payloads: PayloadCodec

    @property
    def store(self) -> ReadableLog:
        """The log."""
        ...

    @property
    def views(self) -> ReadableViews:
        """The views."""
        ...


def columns_of(face: Source, what: str) -> Columns:
    """Return a view, or the log, as columns.

    The events come page by page, the rows of a view all at once, as they are at one moment.

    Args:
        face: of a store, or of one as of a moment.
        what: the name of a view, of one of its tables or SQL views; `runs_wide`; or `events`.

    Raises:
        NotFound: there is no such view.
        DamagedEvent, InvalidView: when a row is reached that is not what its columns say.
    """
    if what == EVENTS:
        types = {"position": int, "version": int, "schema_version": int, "recorded_at": datetime}
        columns = tuple(Column(name, types.get(name, str)) for name in ReadRow._fields)
        pages = event_rows(face.store, face.store.head(), ReadRow._fields)
        return Columns(columns, (_checked(what, columns, page) for page in pages))
    if what == RUNS_WIDE:
        return wide(face)
    for view in face.views.views:
        if what in (view.name, *view.objects):
            return _view(face, view, what if what in view.objects else view.table)
    names = [view.name for view in face.views.views]
    raise NotFound(
        f"there is no view {excerpt(what)}: take one of {', '.join(names)}, {RUNS_WIDE} or {EVENTS}"
    )


def misfit(what: str, rows: Page, error: object) -> InvalidView | DamagedEvent:
    """Return the error of rows that are not what their columns say."""
    if what != EVENTS:
        return InvalidView(
            f"{what} holds what its columns do not allow: have its evolve functions keep to the "
            f"types of its row ({error})"
        )
    return DamagedEvent(
        f"one of the events {position_of(rows[0])} to {position_of(rows[-1])} was altered, to what "
        f"its columns do not allow: {error}"
    )


_HELD: dict[Kind, set[type]] = {
    int: {int, NoneType},
    float: {float, int, NoneType},
    bool: {bool, NoneType},
    str: {str, NoneType},
    bytes: {bytes, NoneType},
    datetime: {int, NoneType},
}


def _checked(what: str, columns: Iterable[Column], rows: Page) -> Page:
    """Return rows, if they are what their columns say: SQLite keeps whatever it is given."""
    for column, values in zip(columns, zip(*rows, strict=True), strict=bool(rows)):
        found: set[Any] = {type(value) for value in values}
        wrong = found - _HELD[column.type]
        if wrong:
            names = " and ".join(sorted(one.__name__ for one in wrong))
            raise misfit(what, rows, f"{names} in column {column.name}")
    return rows


# --- views ----------------------------------------------------------------------------------


def _view(face: Source, view: View[Any], table: str) -> Columns:
    declared = _declared(view, table)
    order = f" ORDER BY {view.key}" if view.key in declared else ""
    with face.views.reading() as connection:
        face.views.refuse_failed(table)
        rows = connection.execute(f"SELECT {', '.join(declared)} FROM {table}{order}")
    columns = [
        Column(name, kind or _kind_of([row[index] for row in rows]))
        for index, (name, kind) in enumerate(declared.items())
    ]
    try:
        typed = _typed(columns, rows)
    except (TypeError, ValueError) as error:
        raise misfit(table, rows, error) from error
    return Columns(tuple(columns), iter([_checked(table, columns, typed)]))


def _declared(view: View[Any], table: str) -> dict[str, Kind | None]:
    """Return the columns of a table or SQL view; None: only the rows tell the type."""
    with closing(sqlite3.connect(":memory:")) as scratch:
        for sql in (*statements(section("log") + section("store")), *view.schema):
            scratch.execute(sql)
        found = scratch.execute(f"PRAGMA table_info({table})").fetchall()
    fields = {field.name: field.type for field in msgspec.structs.fields(view.row)}
    declared: dict[str, Kind | None] = {}
    for _, name, sql_type, *_ in found:
        if name in ("created_at", "updated_at") and name in Row.__struct_fields__:
            declared[name] = datetime
        elif fields.get(name) in (bool, bool | None):
            declared[name] = bool
        else:
            declared[name] = _SQL_TYPES.get(sql_type)
    return declared


_SQL_TYPES: dict[str, Kind] = {"INTEGER": int, "REAL": float, "TEXT": str, "BLOB": bytes}


def _kind_of(values: list[Any]) -> Kind:
    kinds: set[Any] = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 else str


def _typed(columns: list[Column], rows: Page) -> Page:
    moments = [index for index, column in enumerate(columns) if column.type is datetime]
    flags = [index for index, column in enumerate(columns) if column.type is bool]
    typed: list[tuple[Any, ...]] = []
    for row in rows:
        values = list(row)
        for index in moments:
            values[index] = None if values[index] is None else times.from_text(values[index])
        for index in flags:
            values[index] = None if values[index] is None else bool(values[index])
        typed.append(tuple(values))
    return typed


# --- runs, side by side ---------------------------------------------------------------------


def wide(face: Source, ids: Sequence[int] | None = None) -> Columns:
    """Return runs with a column for each parameter and metric, those of groups as `model.layers`.

    Where a name is also that of another column, it is `params.x` or `metrics.x`. A list, and what
    is not of one type in all runs, is JSON text.

    Args:
        face: of a store, or of one as of a moment.
        ids: which runs, in order; None: all.
    """
    with face.views.reading():
        found = read_rows(face.views, runs, "ORDER BY run_id", payloads=face.payloads, config=False)
        configs = configurations(face.views, face.payloads)
    by_id = {row["run_id"]: whole(row) for row in found}
    rows = [by_id[run_id] for run_id in (by_id if ids is None else ids) if run_id in by_id]
    own = [name for name in runs.columns if name not in _NOT_SHOWN]
    parameters = [configs.get(row["run_id"], {}) for row in rows]
    metrics = [flat(row["metrics"]) for row in rows]
    columns = [Column(name, _OWN.get(name, int)) for name in own]
    values = [[row[name] for row in rows] for name in own]
    groups = {"params": _names(parameters), "metrics": _names(metrics)}
    for group, several in (("params", parameters), ("metrics", metrics)):
        others = {*own, *(name for other in groups if other != group for name in groups[other])}
        for name in groups[group]:
            kind, column = _of_one_kind([one.get(name) for one in several])
            columns.append(Column(f"{group}.{name}" if name in others else name, kind))
            values.append(column)
    typed = _typed(columns, [*zip(*values, strict=True)])
    return Columns(tuple(columns), iter([_checked(RUNS_WIDE, columns, typed)]))


_NOT_SHOWN = frozenset({"config_digest", "metrics", "metric_words"})

_OWN: dict[str, Kind] = {
    **dict.fromkeys(("run_name", "mlflow_run_id", "status", "source", "ended_by"), str),
    **dict.fromkeys(("created_at", "updated_at"), datetime),
    "warm_start": bool,
}


def _names(several: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for one in several for name in one))


def _of_one_kind(values: list[Any]) -> tuple[Kind, list[Any]]:
    kind = _kind_of(values)
    if kind in (int, float, bool) or all(value is None or type(value) is str for value in values):
        return kind, values
    texts = [
        None if value is None else value if type(value) is str else msgspec.json.encode(value)
        for value in values
    ]
    return str, [text.decode() if type(text) is bytes else text for text in texts]

"""A view: rows that are folded from events, one pure function for each event that matters."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from importlib import import_module
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.structs import force_setattr, replace

from refold.eventstore import times
from refold.eventstore.arguments import check_text, excerpt, is_utf8, plain_scalar
from refold.eventstore.errors import InvalidView, StoreDamaged
from refold.eventstore.event import Event
from refold.eventstore.sql import marks, statements

Key = int | str

RESERVED = frozenset(
    """all analyse analyze and any array as asc asymmetric both case cast check collate column
    constraint create current_catalog current_date current_role current_time current_timestamp
    current_user default deferrable desc distinct do else end except false fetch for foreign from
    grant group having in initially intersect into lateral leading limit localtime localtimestamp
    not null offset on only or order placing primary references returning select session_user some
    symmetric system_user table then to trailing true union unique user using variadic when where
    window with""".split()  # noqa: SIM905
)
"""Words that no engine, or not every one, takes for the name of a column:
https://www.postgresql.org/docs/current/sql-keywords-appendix.html"""


RESERVED_TABLES = RESERVED | {
    *"""add alter authorization begin between binary by cast commit concurrently cross delete drop
    escape exists freeze full glob group if ilike index inner insert is isnull join left like match
    natural notnull nothing outer overlaps pragma regexp replace right rollback row rows select set
    similar tablesample temp trigger update vacuum values verbose""".split()  # noqa: SIM905
}
"""Words that no engine, or not every one, takes for the name of a table."""

# Longer ones are cut by PostgreSQL, and letters beyond ASCII have a case of their own there.
_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]{0,62}")


class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of a view. Subclass it: its fields are the columns, the key first.

    The fields below are the last columns of every view; the fold sets them.
    """

    created_at: int = 0
    """When the event was recorded that created the row: microseconds since 1970-01-01 UTC."""
    updated_at: int = 0
    """Likewise, of the last event that changed it."""
    position: int = 0
    """The position of the last event that changed it."""


R = TypeVar("R", bound=Row)
E = TypeVar("E", bound=Event)


class Handler(msgspec.Struct, frozen=True):
    """What an event does to rows of a view."""

    evolve: Callable[..., Any]
    """The row before (None if there is none) and the event give the row after."""
    key: Callable[[Any], Key] | None
    """Gives the key of the one row that the event touches …"""
    keys: Callable[[Any], Iterable[Key]] | None = None
    """… or, if it touches several, their keys."""
    begins: bool = False
    """Whether it also sets a row where there is none."""
    keyed: bool = False
    """Whether `evolve` is given the key as well, since the event touches several rows."""
    regardless: bool = False
    """Whether the row before is of no account, so that it need not be loaded."""
    marks: str | None = None
    """The column that holds the position of the event from then on."""

    def touched(self, event: Any) -> Iterable[Key]:
        """Return the keys of the rows that an event touches."""
        if self.key is not None:
            return (self.key(event),)
        return () if self.keys is None else self.keys(event)


class View(Generic[R]):
    """A table that is folded from the log.

    Args:
        name: of the view, for people and messages.
        row: the struct of its rows; its first field is the key.
        version: raise it whenever the columns or what an event does to them changes: stores
            with an older version rebuild the view when they are opened.
        schema: the SQL that creates the table; without it, it is made from the row's fields.
        table: the name of the table, if another than that of the view.
        stream: where the events stand that touch a row, `store` aside, such as `"run-{}"` with the
            key in it: then the row's history is found without reading the whole log.

    >>> from refold.eventstore import Event
    >>> class StepTaken(Event):
    ...     run_id: int
    ...     loss: float
    >>> class LastLoss(Row, frozen=True):
    ...     run_id: int
    ...     loss: float
    >>> last_loss = View("last_loss", LastLoss, version=1)
    >>> last_loss.created_by(StepTaken, lambda e: LastLoss(e.run_id, e.loss))
    """

    def __init__(
        self,
        name: str,
        row: type[R],
        *,
        version: int,
        schema: str | None = None,
        table: str | None = None,
        stream: str | None = None,
    ) -> None:
        if not (isinstance(row, type) and issubclass(row, Row)):
            raise InvalidView(f"view {excerpt(name)}: {excerpt(row)} is not a subclass of Row")
        if not isinstance(version, int) or not 0 < version < 2**31:
            raise InvalidView(
                f"view {excerpt(name)}: version is {excerpt(version)}: pass 1, 2, 3 …"
            )
        for word in (name, table or name):
            if not isinstance(word, str) or not _IDENTIFIER.fullmatch(word):
                raise InvalidView(
                    f"view {excerpt(name)}: the name must be an identifier of 63 letters, digits "
                    f"and _ at most, such as 'checkpoints'"
                )
            if word.lower() in RESERVED_TABLES:
                raise InvalidView(
                    f"view {name}: SQL keeps the word {word} for itself: take another name"
                )
        columns = row.__struct_fields__
        reserved = [column for column in columns if column.lower() in RESERVED]
        if reserved:
            raise InvalidView(
                f"view {name}: {', '.join(sorted(reserved))} cannot name a column: SQL keeps such "
                f"words for itself; take others"
            )
        odd = [column for column in columns if not _IDENTIFIER.fullmatch(column)]
        if odd or len({column.lower() for column in columns}) < len(columns):
            raise InvalidView(
                f"view {name}: the names of columns must be identifiers of 63 letters, digits and "
                f"_ at most, which differ in more than case: not {excerpt(odd or columns)}"
            )
        self.name = name
        self.row = row
        self.version = version
        self.table = table or name
        self.stream = stream
        # By the name of the type: a class that is defined anew is still the same event.
        self.handlers: dict[str, Handler] = {}
        self.clearing: dict[str, Callable[[Any], bool]] = {}
        self._schema = schema
        self.has_own_schema = schema is not None
        """Whether its table may have rules of its own, by which it refuses a row."""

    def __reduce__(self) -> tuple[Callable[[str, str], "View[Any]"], tuple[str, str]]:
        """Pickle it by its name in the module of its rows, where another process finds it."""
        module = self.row.__module__
        for name, value in vars(sys.modules[module]).items():
            if value is self:
                return _named, (module, name)
        raise TypeError(
            f"cannot pickle view {self.name}: it is not a global of {module}, where its rows are "
            f"defined, so another process would not find it"
        )

    def __repr__(self) -> str:
        return f"View({self.name!r}, version={self.version})"

    # --- what events do -------------------------------------------------------------------

    def created_by(
        self, event: type[E], create: Callable[[E], R], *, key: Callable[[E], Key] | None = None
    ) -> None:
        """Declare that an event creates a row, or begins it anew."""

        def begin(_: object, happened: E) -> R:
            return create(happened)

        self.handlers[event.__name__] = Handler(
            begin,
            key or self._key_of(event),
            begins=True,
            regardless=True,
        )

    def on(
        self,
        event: type[E],
        evolve: Callable[[R, E], R | None],
        *,
        key: Callable[[E], Key] | None = None,
        keys: Callable[[E], Iterable[Key]] | None = None,
        marks: str | None = None,
    ) -> None:
        """Declare how an event changes the row that it names; no row, no change.

        Args:
            event: the type of event.
            evolve: a pure function of the row before and the event, which returns the row after,
                or None to delete it; it must not raise.
            key: the row's key, if it is not the event's field of the name of the key column.
            keys: the keys, if the event touches several rows.
            marks: a column that is set to the position of the event: for a row that must tell
                later which event it was.

        Raises:
            InvalidView: there is no such column; or the event does not hold the key.
        """
        one = None if keys else key or self._key_of(event)
        self._check_marked(marks)
        self.handlers[event.__name__] = Handler(evolve, one, keys, marks=marks)

    def moved_by(self, *events: type[Event]) -> None:
        """Declare that events change the status of the row that they name to where they lead."""
        for event in events:
            assert event.leads_to is not None
            self.on(event, partial(_moved, event.leads_to.value))

    def put_by(
        self,
        event: type[E],
        evolve: Callable[[R | None, E], R | None],
        *,
        key: Callable[[E], Key],
        marks: str | None = None,
    ) -> None:
        """Declare how an event changes a row or, where there is None, begins it; see `on`."""
        self._check_marked(marks)
        self.handlers[event.__name__] = Handler(evolve, key, begins=True, marks=marks)

    def put_each_by(
        self,
        event: type[E],
        evolve: Callable[[R | None, E, Any], R | None],
        *,
        keys: Callable[[E], Iterable[Key]],
    ) -> None:
        """Declare likewise how an event changes or begins several rows; it is given each key."""
        self.handlers[event.__name__] = Handler(evolve, None, keys, begins=True, keyed=True)

    def cleared_by(self, event: type[E], when: Callable[[E], bool] = lambda _: True) -> None:
        """Declare that an event empties the view."""
        self.clearing[event.__name__] = when

    def is_cleared_by(self, event: Event) -> bool:
        """Return whether an event empties the view."""
        when = self.clearing.get(type(event).__name__)
        return when is not None and when(event)

    def _check_marked(self, column: str | None) -> None:
        if column is not None and column not in self.columns:
            raise InvalidView(f"view {self.name} has no column {column!r}: marks= names one")

    def _key_of(self, event: type[Event]) -> Callable[[Any], Key]:
        if self.key not in event.__struct_fields__:
            raise InvalidView(
                f"view {self.name}: {event.__name__} has no field {self.key!r}: pass key= or keys="
            )
        return attrgetter(self.key)

    # --- the table ------------------------------------------------------------------------

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, the key first."""
        return self.row.__struct_fields__

    @cached_property
    def key(self) -> str:
        """The name of the key column."""
        return self.columns[0]

    @cached_property
    def key_type(self) -> Any:
        """The type of the key."""
        return msgspec.structs.fields(self.row)[0].type

    @cached_property
    def _flags(self) -> list[int]:
        # What evolve sees must be the same, live and in replay.
        fields = msgspec.structs.fields(self.row)
        return [index for index, field in enumerate(fields) if _holds(field.type, bool)]

    @cached_property
    def _numbers(self) -> list[tuple[str, bool]]:
        # The columns of numbers but not of flags, and whether they may hold a fraction only.
        fields = [f for f in msgspec.structs.fields(self.row) if not _holds(f.type, bool)]
        return [
            (field.name, not _holds(field.type, int))
            for field in fields
            if _holds(field.type, float)
        ]

    def settle(self, row: R) -> None:
        """Make the numbers of a fresh row what its table gives back.

        What `evolve` sees must be the same, whether the row was remembered or loaded. In a column
        of floats, 1 is 1.0, -0.0 is 0.0 and NaN is None; in one of both kinds, 1.0 is 1.
        """
        for name, only_float in self._numbers:
            value = getattr(row, name, None)
            if value is None or (type(value) is float and value and value == value and only_float):
                continue
            with suppress(TypeError, OverflowError):  # the table will refuse it
                force_setattr(row, name, _settled(value, only_float))

    @cached_property
    def _kinds(self) -> list[tuple[str, tuple[type, ...]]]:
        # The columns, and what can stand in them; of a column of another type only SQL knows.
        fields = msgspec.structs.fields(self.row)[: -len(Row.__struct_fields__)]
        return [
            (field.name, kinds)
            for field in fields
            if (kinds := tuple(kind for kind in _HELD if _holds(field.type, kind)))
        ]

    def check(self, row: R) -> None:
        """Refuse a row that not every engine's table can hold.

        Raises:
            ValueError: a column holds a value that is not of its type, or that SQL lacks.
        """
        self.check_key(getattr(row, self.key))
        for name, kinds in self._kinds:
            value = getattr(row, name)
            fits = value is None or isinstance(value, kinds)
            if not fits and not (isinstance(value, int) and float in kinds):
                raise ValueError(f"{name} is {excerpt(value)}, and not a {kinds[0].__name__}")
        for name in self.columns:
            value = getattr(row, name)
            if isinstance(value, int):
                fits = -(2**63) <= value < 2**63
            elif isinstance(value, str):
                fits = "\0" not in value and is_utf8(value)
            else:
                fits = value is None or isinstance(value, float | bytes)
            if not fits:
                raise ValueError(f"{name} is {excerpt(value)}, which SQL cannot keep")

    def check_key(self, key: Key) -> None:
        """Refuse what can be no key of a row, on any engine.

        Raises:
            ValueError: it is of a wrong type, or too large, or too long.
        """
        try:
            msgspec.convert(key, self.key_type)
        except msgspec.ValidationError as error:
            raise ValueError(f"{excerpt(key)} is no {self.key}: {error}") from None
        if isinstance(key, str):
            check_text(self.key, key)
        elif not -(2**63) <= key < 2**63:
            raise ValueError(f"{key} is no {self.key}: it has more than 64 bits")

    @cached_property
    def schema(self) -> list[str]:
        """The statements that create the table and what belongs to it."""
        return statements(self._schema or _table_of(self.table, self.row))

    @cached_property
    def objects(self) -> list[str]:
        """The names of the tables and SQL views that the schema creates."""
        return created_by(self.schema)

    @cached_property
    def select(self) -> str:
        """The SELECT of all columns, to which a condition can be added."""
        return f"SELECT {', '.join(self.columns)} FROM {self.table}"

    @cached_property
    def on_conflict(self) -> str:
        """The clause that overwrites the row with the same key."""
        changed = ", ".join(f"{name} = excluded.{name}" for name in self.columns[1:])
        return f"ON CONFLICT ({self.key}) DO UPDATE SET {changed}"

    @cached_property
    def upsert(self) -> str:
        """The statement that inserts a row or overwrites the one with its key."""
        return (
            f"INSERT INTO {self.table} ({', '.join(self.columns)}) "
            f"VALUES ({marks(self.columns)}) {self.on_conflict}"
        )

    @cached_property
    def delete(self) -> str:
        """The statement that deletes the row with a key."""
        return f"DELETE FROM {self.table} WHERE {self.key} = ?"

    def dump(self, row: R) -> tuple[Any, ...]:
        """Return a row as the values of its columns."""
        values = [*msgspec.structs.astuple(row)]
        values[-3:-1] = times.to_text(row.created_at), times.to_text(row.updated_at)
        return tuple(values)

    def row_of(self, values: Sequence[Any]) -> R:
        """Return the row whose fields have these values, times in microseconds."""
        *fields, created_at, updated_at, position = self.typed(values)
        return self.row(*fields, created_at=created_at, updated_at=updated_at, position=position)

    def typed(self, values: Sequence[Any]) -> list[Any]:
        """Return values of columns as the row has them: SQL keeps a bool as 0 or 1."""
        typed = list(values)
        for index in self._flags:
            typed[index] = typed[index] if typed[index] is None else bool(typed[index])
        return typed

    def load(self, values: tuple[Any, ...]) -> R:
        """Return the row that the values of its columns make.

        Raises:
            StoreDamaged: somebody has altered it.
        """
        *fields, created_at, updated_at, position = values
        try:
            created, updated = times.from_text(created_at), times.from_text(updated_at)
        except (TypeError, ValueError) as error:
            raise StoreDamaged(
                f"{self.name} {values[0]}: somebody has altered its times ({error}): rebuild() "
                f"makes the row anew from the log"
            ) from error
        return self.row_of((*fields, created, updated, position))


def _named(module: str, name: str) -> View[Any]:
    return getattr(import_module(module), name)


def _settled(value: Any, only_float: bool) -> int | float | None:
    number = value if isinstance(value, int | float) else plain_scalar(value)
    if number != number:  # NaN
        return None
    if only_float:
        return float(number) + 0.0
    if isinstance(number, int) or (number.is_integer() and abs(number) < 2**63):
        return int(number)
    return float(number)


def _moved(status: str, row: Any, _: Event) -> Any:
    return replace(row, status=status)


def types_of(views: Iterable[View[Any]]) -> set[str]:
    """Return the names of the types of events that views fold.

    Others may be of types that this process does not know.
    """
    return {name for view in views for name in (*view.handlers, *view.clearing)}


def created_by(schema: Iterable[str]) -> list[str]:
    """Return the names of the tables and SQL views that statements create."""
    return [match[1] for sql in schema if (match := _CREATES.match(sql))]


_CREATES = re.compile(r"CREATE\s+(?:TABLE|VIEW)\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)", re.IGNORECASE)
_HELD = (bool, int, float, bytes, str)
_SQL_TYPES = ((bool, "INTEGER"), (int, "INTEGER"), (float, "REAL"), (bytes, "BLOB"))


def _table_of(table: str, row: type[Row]) -> str:
    lines: list[str] = []
    for field in msgspec.structs.fields(row):
        if field.name in Row.__struct_fields__:
            continue
        sql = next((sql for cls, sql in _SQL_TYPES if _holds(field.type, cls)), "TEXT")
        if _holds(field.type, int) and _holds(field.type, float):
            sql = "NUMERIC"  # whole numbers stay exact
        lines.append(f"{field.name} {sql}{'' if lines else ' PRIMARY KEY'}")
    lines += ["created_at TEXT NOT NULL", "updated_at TEXT NOT NULL", "position INTEGER NOT NULL"]
    return f"CREATE TABLE {table} ({', '.join(lines)});"


def _holds(annotation: Any, cls: type) -> bool:
    # int, int | None, Annotated[int, …], Annotated[int, …] | None
    parts = getattr(annotation, "__args__", ())
    return annotation is cls or any(_holds(part, cls) for part in parts)

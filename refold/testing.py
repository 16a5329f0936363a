"""Test events, views and commands of your own: in memory, or on a store that is deleted afterwards.

`given(*events)` folds what has happened. From there, `.when(command)` lets a command decide, and
`.then(*events)` says what follows; `.rows(view)` are the rows of a view. No database takes part.
`temporary_store()` opens a real one. Any test runner will do: what does not hold raises
`AssertionError`.

>>> from refold.commands import RequestStop
>>> from refold.eventstore import IllegalTransition
>>> from refold.eventstore.events import RunCreated, RunKilled, StopRequested
>>> created = RunCreated(run_id=5, experiment_id=1, run_name="run_5")
>>> _ = given(created).when(RequestStop(5)).then(StopRequested(ic_id=1, run_id=5)).result(1)
>>> given(created, RunKilled(5)).when(RequestStop(5)).refused(IllegalTransition, "run 5 is KILLED")
"""

import sqlite3
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypedDict, TypeVar, Unpack, overload

from msgspec.structs import replace

from refold.commands.command import Command, Decision
from refold.eventstore import times
from refold.eventstore.engines.engine import Durability
from refold.eventstore.errors import DBException, InvalidMoment
from refold.eventstore.event import Event, encode
from refold.face import Face
from refold.projections import ALL, Rows, UnitOfWork, View
from refold.projections.unit_of_work import Unless
from refold.projections.view import Key, R
from refold.rf_db import RfDb

__all__ = ["Given", "Options", "When", "given", "temporary_store"]

F = TypeVar("F", bound=Face)


# --- in memory ------------------------------------------------------------------------------

# What does not hold raises, rather than `assert`, which python -O leaves out. Its text is made only
# then: that of a value which is nested without end cannot be made.


def given(*events: Event, views: Iterable[View[Any]] = ()) -> "Given":
    """Begin a test with what has happened.

    Args:
        events: in order; the first has position 1, and each is recorded a microsecond after the one
            before.
        views: those of your own at which commands look, beside refold's.

    Raises:
        InvalidEvent: the log could not keep one of them.
    """
    return Given(events, views)


class Given:
    """What has happened; `given()` makes one."""

    def __init__(self, events: Iterable[Event], views: Iterable[View[Any]]) -> None:
        self._events = [encode(event)[1] for event in events]
        self._views = tuple(dict.fromkeys((*ALL, *views)))

    def _folded(self, views: Iterable[View[Any]]) -> UnitOfWork:
        unit = UnitOfWork(views)
        for position, event in enumerate(self._events, 1):
            unit.take_in(position, event, recorded_at=position)
        return unit

    def when(self, command: Command) -> "When":
        """Let a command decide on it, as a face does that is sent one."""
        return When(self._folded(self._views), command)

    def rows(self, view: View[R]) -> list[R]:
        """Return the rows that a view makes of it, by key.

        Only fields of the row's own are set: `created_at`, `updated_at` and `position` are 0, so
        that a row equals one that you write down.

        Raises:
            AssertionError: the view is not pure, so that folded again the rows differ; or its table
                cannot keep them.

        >>> from refold.eventstore import Event
        >>> from refold.projections import Row
        >>> class SampleSeen(Event):
        ...     run_id: int
        >>> class Samples(Row):
        ...     run_id: int
        ...     seen: int
        >>> samples = View("samples", Samples, version=1)
        >>> samples.put_by(
        ...     SampleSeen,
        ...     lambda row, e: Samples(e.run_id, row.seen + 1 if row else 1),
        ...     key=lambda e: e.run_id,
        ... )
        >>> assert given(SampleSeen(5), SampleSeen(5)).rows(samples) == [Samples(5, seen=2)]
        """
        __tracebackhide__ = True
        unit = self._folded([view])
        values = _values(unit, view)
        if values != _values(self._folded([view]), view):
            raise AssertionError(
                f"{view} is not pure: it makes other rows when it folds the same events again"
            )
        rows = unit.rows(view)
        _check_kept(view, rows)
        rows.sort(key=lambda row: getattr(row, view.key))
        return [replace(row, created_at=0, updated_at=0, position=0) for row in rows]

    def row(self, view: View[R], key: Key) -> R | None:
        """Return the row with a key that a view makes of it, or None; see `rows`."""
        __tracebackhide__ = True
        found = [row for row in self.rows(view) if getattr(row, view.key) == key]
        return found[0] if found else None


class When:
    """A command that is sent; `given().when()` makes one."""

    def __init__(self, unit: UnitOfWork, command: Command) -> None:
        self._unit = unit
        self._command = command

    def _decide(self) -> Decision:
        __tracebackhide__ = True
        command = self._command.validated()
        rows = _Seen(self._unit)
        before = self._values()
        decision = command.decide(rows)
        again = command.decide(rows)
        if again != decision:
            raise AssertionError(
                f"decide of {command} is not pure: asked again it answers\n  {again}\nand not\n"
                f"  {decision}"
            )
        if self._values() != before:
            raise AssertionError(
                f"decide of {command} changes rows: let it return events, which the views fold"
            )
        for event in decision.events:
            encode(event)
            _ = event.stream
        return decision

    def _values(self) -> list[Any]:
        # As text, since what a row holds may be changed in place.
        return [repr(_values(self._unit, view)) for view in self._unit.views]

    def then(self, *events: Event) -> Self:
        """These events follow, none if there are none.

        Raises:
            AssertionError: others follow; or `decide` is not pure.
            DBException: the command is refused, or the log could not keep the events.
        """
        __tracebackhide__ = True
        decided = list(self._decide().events)
        if decided != list(events):
            raise AssertionError(
                f"{self._command} leads to{_listed(decided)}\nand not to{_listed(events)}"
            )
        return self

    def result(self, expected: object) -> Self:
        """The caller gets this.

        Raises:
            AssertionError: the caller gets something else; or `decide` is not pure.
            DBException: the command is refused.
        """
        __tracebackhide__ = True
        result = self._decide().result
        if result != expected:
            raise AssertionError(
                f"the result of {self._command} is {result!r} and not {expected!r}"
            )
        return self

    def payloads(self, *expected: bytes) -> Self:
        """These bytes are stored.

        Raises:
            AssertionError: others are stored; or `decide` is not pure.
            DBException: the command is refused.
        """
        __tracebackhide__ = True
        payloads = list(self._decide().payloads)
        if payloads != list(expected):
            raise AssertionError(
                f"{self._command} stores{_listed(payloads)}\nand not{_listed(expected)}"
            )
        return self

    def refused(self, kind: type[DBException], *fragments: str) -> None:
        """The command is refused by an error of exactly this kind, whose text holds these parts.

        Raises:
            AssertionError: it is not refused, or otherwise.
        """
        __tracebackhide__ = True
        try:
            decision = self._decide()
        except DBException as error:
            if type(error) is not kind:
                raise AssertionError(
                    f"{self._command} is refused by {type(error).__name__}, not by "
                    f"{kind.__name__}: {error}"
                ) from error
            if missing := ", ".join(repr(part) for part in fragments if part not in str(error)):
                raise AssertionError(f"{missing} is not in {str(error)!r}") from error
        else:
            raise AssertionError(
                f"{self._command} is not refused: it leads to{_listed(decision.events)}"
            )


class _Seen(Rows):
    """The rows, as a decision sees them; it says so if a view is not among them."""

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    def get(self, view: View[R], key: Key) -> R | None:
        self._expect(view)
        return self._unit.get(view, key)

    def find(self, view: View[R], **columns: Any) -> list[R]:
        self._expect(view)
        return self._unit.find(view, **columns)

    def first(self, view: View[R], unless: Unless | None = None, **columns: Any) -> R | None:
        self._expect(view)
        if unless is not None:
            self._expect(unless.view)
        return self._unit.first(view, unless, **columns)

    def _expect(self, view: View[Any]) -> None:
        __tracebackhide__ = True
        if view not in self._unit.views:
            raise AssertionError(
                f"decide looks at {view}, which is not there: given(..., views=[{view.name}]), and "
                f"open stores with projections=[{view.name}]"
            )


def _listed(values: Iterable[object]) -> str:
    return "".join(f"\n  {value!r}" for value in values) or "\n  nothing"


def _values(unit: UnitOfWork, view: View[Any]) -> list[Any]:
    return [view.dump(row) for row in unit.rows(view)]


def _check_kept(view: View[R], rows: Iterable[R]) -> None:
    __tracebackhide__ = True
    with closing(sqlite3.connect(":memory:")) as table:
        for statement in view.schema:
            table.execute(statement)
        for row in rows:
            try:
                table.execute(view.upsert, view.dump(row))
            except (sqlite3.Error, OverflowError, UnicodeError) as error:
                raise AssertionError(f"the table of {view} cannot keep {row}: {error}") from error
            key = getattr(row, view.key)
            [values] = table.execute(f"{view.select} WHERE {view.key} = ?", (key,))
            kept = view.load(values)
            if kept != row:
                raise AssertionError(f"the table of {view} cannot keep {row}: it gives back {kept}")


# --- on a store -----------------------------------------------------------------------------


class Options(TypedDict, total=False):
    """Keywords of a face that `temporary_store` takes too; see `refold.RfDb`."""

    actor: str | None
    durability: Durability
    timeout: float
    signing_key: bytes | str | None
    allow_dill: bool
    projections: Iterable[View[Any]]


Clock = datetime | Callable[[], int]


@overload
@contextmanager
def temporary_store(
    *, clock: Clock | None = None, **options: Unpack[Options]
) -> Generator[RfDb, None, None]: ...


@overload
@contextmanager
def temporary_store(
    face: type[F], *, clock: Clock | None = None, **options: Unpack[Options]
) -> Generator[F, None, None]: ...


@contextmanager
def temporary_store(
    face: type[Face] = RfDb, *, clock: Clock | None = None, **options: Unpack[Options]
) -> Generator[Face, None, None]:
    """Open a new store on a temporary SQLite file; after the block, it is closed and deleted.

    Args:
        face: `RfDb`, `RFDatabase`, or a class of your own that is derived from one.
        clock: a time with its zone, at which the store's clock stands; or a function that returns
            the time in microseconds since 1970-01-01 UTC. By default, the time runs.
        options: the face's keywords, such as `projections=[...]`.

    Raises:
        InvalidMoment: the time has no zone.

    >>> from datetime import UTC, datetime
    >>> with temporary_store(clock=datetime(2026, 1, 1, tzinfo=UTC)) as db:
    ...     experiment_id = db.create_experiment("digits")
    ...     db.get_experiment(experiment_id)["created_at"]
    '2026-01-01 00:00:00.000000'
    """
    if isinstance(clock, datetime):
        if clock.utcoffset() is None:
            raise InvalidMoment(f"{clock} has no zone: add one, such as tzinfo=datetime.UTC")
        stands = times.from_datetime(clock)
        clock = lambda: stands  # noqa: E731
    with (
        TemporaryDirectory(prefix="refold-") as folder,
        face(Path(folder) / "store.db", clock=clock, **options) as db,
    ):
        yield db

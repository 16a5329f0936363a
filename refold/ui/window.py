"""What the page asks of a store, and what people ask of its runs: plain data, no HTTP."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from math import isfinite
from typing import Any, Literal, cast

import msgspec

from refold.as_json import (
    change_as_json,
    event_as_json,
    plain,
    shown_row,
    why_as_json,
)
from refold.configuration import replaced
from refold.eventstore import times
from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import (
    IllegalTransition,
    InvalidCommand,
    UnreadableEvent,
)
from refold.eventstore.events import TablesReset, event_types
from refold.eventstore.log.recorded import Recorded
from refold.eventstore.sql import marks
from refold.face import About
from refold.projections import View, Views
from refold.projections.entities import ENTITIES, view_of
from refold.projections.view import Key
from refold.rf_db import RfDb
from refold.rows import Row, Unreadable, read_rows
from refold.search import flat

Json = dict[str, Any]
Operation = Literal["stop", "resume", "delete", "clone"]

PATIENCE = 10
"""Seconds to wait for other writers, or for a server, before somebody is told."""

MOST_ROWS = 20_000
"""Rows of an entity that are shown: the newest."""

MOST_CHANGES = 5_000
"""Events since a position, beyond which everything is given anew."""

MOST_EVENTS = 1_000
"""Events that are given at a time."""

LOOKED_THROUGH = 20_000
"""Events that are looked through at a time for those of an actor."""

LONGEST = 400
"""Characters of a parameter that are shown."""

EXACT = 2**53
"""Up to here every integer is a number of JavaScript; larger ones travel as text."""


class ChangedSince(IllegalTransition):
    """What somebody asks of a run rests on a state that the run has left since."""


class Window:
    """A store as it is looked at: every read now or as of a position, and requests about runs.

    Nothing that it reads is unpickled.

    Args:
        place: the path or URL of a store that is there.

    Raises:
        NotAStore: there is none.
        DBException: it cannot be opened.
    """

    def __init__(self, place: str) -> None:
        self.db = RfDb(place, create=False, allow_dill=False, timeout=PATIENCE)

    @property
    def name(self) -> str:
        """The path or URL, without any password."""
        return self.db.store.engine.name

    def close(self) -> None:
        """Close the store; closing twice does nothing."""
        self.db.close()

    # --- reading --------------------------------------------------------------------------

    def state(self, *, at: int | None = None, since: int | None = None) -> Json:
        """Return the rows of all entities, and the position that they belong to.

        Args:
            at: as of this position; None: now.
            since: only the rows that differ from those of this position, unless that lies too far
                away; `whole` says which. It may lie ahead of `at`.

        Returns:
            `position`, its `time`, `whole`; by the entity, the `rows`, and the keys of those that
            are `gone`; the entities of which only the newest rows are given, in `cut`.
        """
        with self._one_moment(at) as db:
            position = db.store.head()
            last = next(db.store.read(limit=1, backwards=True, unknown=True, until=position), None)
            told: Json = {
                "position": position,
                "time": None if last is None else times.to_iso(times.within(last.recorded_at)),
                "whole": False,
                "gone": {},
                "cut": [],
            }
            if since is None or self._is_elsewhere(since, at, position):
                told["whole"] = True
                told["rows"] = {entity: _rows(db, view) for entity, view in ENTITIES.items()}
                for entity, rows in told["rows"].items():
                    if len(rows) > MOST_ROWS:
                        told["cut"].append(entity)
                        del rows[0]
            elif at is None:
                told["rows"] = {
                    entity: _rows(db, view, "WHERE position > ?", since)
                    for entity, view in ENTITIES.items()
                }
            else:
                told["rows"], told["gone"] = self._differing(db, since, position)
        return told

    def _is_elsewhere(self, since: int, at: int | None, position: int) -> bool:
        """Return whether the rows of a position are no use on the way to another one."""
        if abs(position - since) > MOST_CHANGES or since > self.head():
            return True
        # Which rows a reset took away is known of the past alone.
        return at is None and any(self.db.store.read(since, types=[TablesReset], limit=1))

    def _differing(self, db: RfDb, since: int, position: int) -> tuple[Json, Json]:
        """Return the rows at a position that differ from those at another one; the keys if none."""
        there: dict[str, list[Key]] = {}
        gone: dict[str, list[Key]] = {}
        for change in self.db.diff(since, position, entities=ENTITIES):
            (gone if change.after is None else there).setdefault(change.view, []).append(change.key)
        rows = {
            entity: _rows(db, view, f"WHERE {view.key} IN ({marks(keys)})", *keys)
            if (keys := there.get(view.name))
            else []
            for entity, view in ENTITIES.items()
        }
        return rows, {entity: gone.get(view.name, []) for entity, view in ENTITIES.items()}

    def head(self) -> int:
        """Return the position of the last event."""
        return self.db.store.head()

    def log(
        self,
        *,
        at: int | None = None,
        after: int = 0,
        types: Iterable[str] = (),
        stream: str | None = None,
        actor: str | None = None,
        limit: int = 200,
    ) -> Json:
        """Return events, the latest first.

        Args:
            at: the position of the latest; None: of the last that there is.
            after: the position behind which they end.
            types: only of these types.
            stream: only of this stream.
            actor: only those by this actor.
            limit: so many at most.

        Returns:
            `events`; `until`, from where an older page goes on (None: there are no older ones);
            `damaged`, what is wrong with the event that hides those before it.
        """
        limit = max(1, min(limit, MOST_EVENTS))
        read = self.db.store.read(
            after,
            until=at,
            stream=stream,
            types=list(types) or None,
            backwards=True,
            unknown=True,
        )
        events: list[Json] = []
        until = damaged = None
        try:
            for recorded in islice(read, limit if actor is None else LOOKED_THROUGH):
                until = recorded.position - 1
                if actor is None or recorded.metadata.actor == actor:
                    events.append(event_as_json(recorded))
                if len(events) == limit:
                    break
            else:
                until = until if next(read, None) is not None else None
        except UnreadableEvent as error:
            damaged, until = str(error), error.position - 1
        return {"events": events, "until": until or None, "damaged": damaged}

    def entities(self) -> Json:
        """Return of each entity the name of its view, and of its key."""
        return {entity: {"view": view.name, "key": view.key} for entity, view in ENTITIES.items()}

    def types(self) -> list[str]:
        """Return the names of the types of events."""
        return sorted(cls.__name__ for cls in event_types())

    def history(self, entity: str, key: str, *, at: int | None = None) -> list[Json]:
        """Return the last events that touched a row, the latest first, each with its changes.

        Raises:
            NotFound: no event ever did, or there is no such entity.
        """
        with self._at(at) as db:
            touched = db.history(entity, self._key(entity, key))
            return [
                {**event_as_json(one.recorded), "change": change_as_json(one.change)}
                for one in reversed(touched[-MOST_EVENTS:])
            ]

    def why(self, entity: str, key: str, column: str, *, at: int | None = None) -> Json:
        """Return why a column of a row holds what it does.

        Raises:
            NotFound: there is no such row, entity or column.
        """
        with self._at(at) as db:
            reason = db.why(entity, self._key(entity, key), column)
            return {**why_as_json(reason), "lost": reason.lost}

    def diff(self, a: int, b: int) -> list[Json]:
        """Return what became of rows between two positions; of the first so many."""
        changes = (
            change
            for change in self.db.diff(a, b, entities=ENTITIES)
            if change.columns or change.kind != "changed"
        )
        return [change_as_json(change) for change in islice(changes, MOST_EVENTS)]

    def found(self, where: str, *, at: int | None = None) -> list[int]:
        """Return the ids of the runs for which a condition holds.

        Raises:
            InvalidQuery: it cannot be understood, and where.
        """
        with self._at(at) as db:
            return [run["run_id"] for run in db.search_runs(where, config=False)]

    def curve(self, run_id: int, metric: str, *, at: int | None = None, width: int = 1000) -> Json:
        """Return the points of a metric of a run, as many as can be seen.

        Args:
            run_id: of the run.
            metric: its name.
            at: as of this position; None: now.
            width: how many pixels there are: of the points of each, the smallest and the largest
                are given. Which runs are shown beside it changes nothing.

        Returns:
            `points`, each `[step, value, time, position]` (a value that is no number as its word);
            `count`, how many were noted.
        """
        with self._at(at) as db:
            points = db.metric_history(run_id, metric)
        numbered: list[Point] = [
            (
                index if point["step"] is None else point["step"],
                point["value"],
                times.from_text(point["time"]) // 1000,
                point["position"],
            )
            for index, point in enumerate(points)
        ]
        return {"points": thinned(numbered, max(1, min(width, 5_000))), "count": len(points)}

    # --- requests -------------------------------------------------------------------------

    def request(
        self,
        operation: Operation,
        run_id: int,
        *,
        seen: int,
        actor: str,
        command_id: str,
        changes: Mapping[str, Any] | None = None,
        warm_start: bool = False,
    ) -> int:
        """Ask something of a run and return the request's id.

        Args:
            operation: what is asked.
            run_id: of the run.
            seen: the position as of which whoever asks has seen the run.
            actor: who asks.
            command_id: the request is made once, however often it is sent.
            changes: of a clone: other values of parameters, by their dotted names.
            warm_start: of a clone: whether it begins with the weights of the run.

        Raises:
            ChangedSince: the run has another status since; nothing was asked.
            NotFound: there is no such run.
            IllegalTransition: the run is KILLED.
        """
        about = About(actor=actor, command_id=command_id)
        with self.db.batch():
            self._check_seen(run_id, seen)
            if operation == "stop":
                return self.db.request_stop(run_id, **about)
            if operation == "resume":
                return self.db.request_resume(run_id, **about)
            if operation == "delete":
                return self.db.request_delete(run_id, **about)
            config = self.db.get_run(run_id)["config_leaf"] if changes else None
            for name, value in (changes or {}).items():
                config = replaced(config, name, value).config
            return self.db.request_clone_modify(run_id, config, warm_start, **about)

    def _check_seen(self, run_id: int, seen: int) -> None:
        run = self.db.get_run(run_id, config=False)
        view = ENTITIES["run"]
        assert view.stream is not None
        # Progress is no reason to ask again: while a run trains, it would never end.
        for recorded in self.db.store.read(
            seen, stream=view.stream.format(run_id), backwards=True, unknown=True
        ):
            if recorded.event.leads_to is not None:
                raise ChangedSince(
                    f"run {run_id} is {run['status']} since event {recorded.position}, "
                    f"{recorded.type}{_by(recorded)}, which came after position {seen}: look at it "
                    f"again, and ask again"
                )

    # --- moments --------------------------------------------------------------------------

    @contextmanager
    def _at(self, at: int | None) -> Generator[RfDb, None, None]:
        if at is None:
            yield self.db
        else:
            with self.db.as_of(at) as past:
                yield past

    @contextmanager
    def _one_moment(self, at: int | None) -> Generator[RfDb, None, None]:
        """Have all reads of the block see one moment, at which the rows are equal to the log."""
        if at is not None:
            with self._at(at) as past:
                yield past
            return
        views = self.db.views
        assert isinstance(views, Views)
        while True:
            with views.reading():  # which makes them equal
                pass
            with views.store.snapshot():
                with views.store.reading() as connection:
                    equal = views.is_settled(connection)
                if equal:  # else somebody who does not fold them appended in between
                    yield self.db
                    return

    def _key(self, entity: str, text: str) -> Any:
        view = view_of(entity, self.db.views.views)
        try:
            return msgspec.convert(text, view.key_type, strict=False)
        except msgspec.ValidationError:
            raise InvalidCommand(
                f"{excerpt(text)} is no id of a {entity}: pass a number, such as 5"
            ) from None


def _by(recorded: Recorded) -> str:
    return f" by {recorded.metadata.actor}" if recorded.metadata.actor else ""


def _rows(db: RfDb, view: View[Any], where: str = "", *values: Any) -> list[Row]:
    """Return the newest rows of a view, by key; one more than is shown if there are more."""
    found = read_rows(
        db.views,
        view,
        f"{where} ORDER BY {view.key} DESC LIMIT ?",
        *values,
        MOST_ROWS + 1,
        payloads=db.payloads,
    )
    return [_as_seen(row) for row in reversed(found)]


def _as_seen(row: Row) -> Row:
    """Return a row with its configuration as parameters, and without what only programs read."""
    if "config_leaf" in row:
        config = row.pop("config_leaf")
        unreadable = isinstance(config, Unreadable)
        row["params"] = {} if unreadable else {n: _short(v) for n, v in flat(config).items()}
        row["unreadable"] = str(config) if unreadable else None
    return shown_row(row)


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else excerpt(value)
    if isinstance(value, list | tuple | dict):
        with suppress(TypeError, ValueError):
            text = msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


Point = tuple[float, float, int, int]
"""The step, the value, the time in milliseconds, and the position."""


def thinned(points: list[Point], width: int) -> list[Point]:
    """Return so many of the points, in order, that a curve of that width looks the same.

    Of each column of the same number of points the first, the smallest, the largest and the last
    stay, and whatever is no number.
    """
    if len(points) <= 4 * width:
        return points
    size = -(-len(points) // width)
    return [
        point
        for start in range(0, len(points), size)
        for point in _ends(points[start : start + size])
    ]


def _ends(column: list[Point]) -> Iterator[Point]:
    numbers = [index for index, point in enumerate(column) if isfinite(point[1])]
    kept = {index for index, point in enumerate(column) if not isfinite(point[1])}
    if numbers:
        kept |= {numbers[0], numbers[-1]}
        kept.add(min(numbers, key=lambda index: column[index][1]))
        kept.add(max(numbers, key=lambda index: column[index][1]))
    return (column[index] for index in sorted(kept))


def encoded(value: Any) -> bytes:
    """Return JSON that JavaScript reads as it is: no NaN, no integer that it would round."""
    try:
        return msgspec.json.encode(_for_javascript(value))
    except (TypeError, ValueError):  # keys that are no text, lone surrogates
        return msgspec.json.encode(_for_javascript(plain(value)))


def _for_javascript(value: Any) -> Any:
    kind = cast("type[Any]", type(value))
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value if -EXACT <= value <= EXACT else str(value)
    if kind is float:
        return value if isfinite(value) else str(value)
    if kind is dict:
        return {name: _for_javascript(one) for name, one in value.items()}
    if kind is list or kind is tuple:
        return [_for_javascript(one) for one in value]
    return _for_javascript(plain(value))

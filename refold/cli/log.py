"""`refold log`: the events in the log."""

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, NamedTuple

import typer

from refold.as_json import event_as_json
from refold.cli.events import event_line
from refold.cli.open_face import import_views, open_log
from refold.cli.options import DEFAULT_STORE, Imports, Json, Store, entity, moment
from refold.cli.output import note, print_json_line
from refold.eventstore import EventStore, times
from refold.eventstore.errors import DamagedEvent, InvalidMoment
from refold.eventstore.events import event_types
from refold.eventstore.log.recorded import Recorded
from refold.projections import ALL, View

JUST_BEFORE = 10
"""Events that `--follow` shows of what has happened already."""


def _types() -> list[str]:
    return [cls.__name__ for cls in event_types()]


def log(
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only of this type; may be given repeatedly.",
            autocompletion=_types,
        ),
    ] = None,
    entity_: Annotated[
        str | None,
        typer.Option("--entity", metavar="ENTITY", help='Only about this one, such as "run 5".'),
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="STREAM", help="Only of this stream: run-5.")
    ] = None,
    actor: Annotated[
        list[str] | None,
        typer.Option("--actor", metavar="NAME", help="Only by this one; may be given repeatedly."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="POSITION|TIME", help="From there on, such as 120 or 5m."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", "--at", metavar="POSITION|TIME", help="Up to there, inclusive."),
    ] = None,
    backwards: Annotated[bool, typer.Option("--backwards", "-b", help="The latest first.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=0, metavar="N", help="At most N.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=0, metavar="N", help="The last N, in order.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new ones as they come, to Ctrl-C.")
    ] = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Show the events: position, time, stream, type, who, and what.

    Events of types that are not known here are shown as they stand. With --json, it is JSON
    Lines, under the names of the columns of the log.

    Examples:
        refold log --last 20
        refold log --entity "run 5" --since 2026-01-31T12:00Z
        refold log --type TaskFailed --type ExperimentStatesReset --backwards --limit 1
        refold log --follow --actor worker-0
        refold log --json | jq -r 'select(.metadata.cause) | [.metadata.cause, .position] | @tsv'
    """
    if follow and (until is not None or backwards or limit is not None):
        raise typer.BadParameter("--follow goes on for ever: no --until, --backwards or --limit")
    if last is not None and (backwards or limit is not None):
        raise typer.BadParameter("--last is --backwards --limit turned round: give one of them")
    if entity_ is not None and stream is not None:
        raise typer.BadParameter("--entity is a stream's: give --entity or --stream")
    if follow and since is None and last is None:
        last = JUST_BEFORE
    views = (*ALL, *import_views(imports or ()).values())
    if entity_ is not None:
        stream = _stream_of(entity_, views)
    with open_log(store) as opened:
        chosen = _Chosen(opened, stream, types, actor)
        after = 0 if since is None else _before(opened, since)
        end = opened.head() if until is None else _last(opened, until)
        if last is not None:
            events = chosen.last(after, end, last)
        else:
            events = chosen.read(after, end, limit, backwards)
        try:
            for recorded in events:
                _print(recorded, json, at_once=follow)
            if follow:
                for recorded in chosen.follow(end):
                    _print(recorded, json, at_once=True)
        except DamagedEvent as error:
            if not backwards:
                note(f"refold log --since {error.position + 1} shows what stands behind it")
            raise


class _Chosen(NamedTuple):
    """The events of a log that were asked for."""

    log: EventStore
    stream: str | None
    types: list[str] | None
    actors: list[str] | None

    def read(
        self, after: int, until: int, limit: int | None, backwards: bool
    ) -> Iterator[Recorded]:
        """Iterate over those between two positions, at most so many."""
        found = self.log.read(
            after,
            stream=self.stream,
            types=self.types,
            limit=None if self.actors else limit,
            backwards=backwards,
            until=until,
            unknown=True,
        )
        return islice(self._by_actors(found), limit)

    def last(self, after: int, until: int, count: int) -> Iterator[Recorded]:
        """Iterate over the last so many of them, in order."""
        return reversed(deque(self.read(after, until, count, backwards=True)))

    def follow(self, after: int) -> Iterator[Recorded]:
        """Iterate over those that come, for ever."""
        with self.log.subscribe(
            after, stream=self.stream, types=self.types, unknown=True
        ) as events:
            yield from self._by_actors(events)

    def _by_actors(self, events: Iterator[Recorded]) -> Iterator[Recorded]:
        if not self.actors:
            return events
        return (recorded for recorded in events if recorded.metadata.actor in self.actors)


def _print(recorded: Recorded, json: bool, *, at_once: bool = False) -> None:
    if json:
        print_json_line(event_as_json(recorded))
    else:
        print(event_line(recorded), flush=at_once)


def _stream_of(text: str, views: Iterable[View[Any]]) -> str:
    found, rest = entity(text.split(), views)
    if rest or found.view.stream is None:
        raise typer.BadParameter(
            f"{text!r} has no stream of its own: refold history tells what touched it",
            param_hint="--entity",
        )
    return found.view.stream.format(found.key)


def _before(log: EventStore, text: str) -> int:
    """Return the position before the first event at or after a moment."""
    when = moment(text)
    if isinstance(when, datetime):
        return log.position_before(when)
    return log.head() if when is None else max(0, when - 1)


def _last(log: EventStore, text: str) -> int:
    """Return the position of the last event up to a moment."""
    when = moment(text)
    head = log.head()
    if isinstance(when, datetime):
        if times.from_datetime(when) > times.now():
            return head
        try:
            return log.position_at(when)
        except InvalidMoment:
            return 0  # nothing had happened
    return head if when is None else min(when, head)

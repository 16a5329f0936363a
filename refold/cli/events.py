"""Events as the command line shows them: one line each, or JSON."""

import re
from typing import Any

import msgspec

from refold.cli.output import COLOURS, paint, printable, shortened, time_of
from refold.eventstore.events import UnknownEvent
from refold.eventstore.recorded import Recorded

_WORDS = re.compile("|".join(COLOURS))


def data_of(recorded: Recorded) -> dict[str, Any]:
    """Return what an event tells, as the log has it."""
    event = recorded.event
    return dict(event.data) if isinstance(event, UnknownEvent) else msgspec.to_builtins(event)


def event_as_json(recorded: Recorded) -> dict[str, Any]:
    """Return an event under the names that the columns of the log have."""
    event = recorded.event
    return {
        "position": recorded.position,
        "stream": recorded.stream,
        "version": recorded.version,
        "type": recorded.type,
        "schema_version": event.version
        if isinstance(event, UnknownEvent)
        else event.schema_version,
        "data": data_of(recorded),
        "metadata": msgspec.to_builtins(recorded.metadata),
        "recorded_at": time_of(recorded.recorded_at),
    }


def event_line(recorded: Recorded, what: str | None = None) -> str:
    """Return the line that shows an event: where, when, which stream, what, who, and more.

    Args:
        recorded: the event.
        what: what to say of it; None: the fields that its stream does not tell already.
    """
    about = recorded.metadata
    what = told(recorded) if what is None else what
    cause = "" if about.cause is None else f"because of {about.cause}"
    parts = (
        f"{recorded.position:>6}",
        paint(time_of(recorded.recorded_at), dim=True),
        paint(f"{printable(recorded.stream):<12}", "cyan"),
        f"{printable(about.actor or ''):<10}",
        paint(printable(recorded.type), colour_of(recorded.type), bold=True),
        what,
        paint(cause, dim=True),
    )
    return "  ".join(part for part in parts if part)


def told(recorded: Recorded) -> str:
    """Return an event's fields in words, without what its stream tells and what is not so."""
    _, _, key = recorded.stream.rpartition("-")
    fields = data_of(recorded)
    first = next(iter(fields), None)
    if first is not None and str(fields[first]) == key:
        del fields[first]
    return ", ".join(
        f"{printable(name)} {shortened(value)}"
        for name, value in fields.items()
        if value is not None and value is not False and value not in ((), [], {}, "")
    )


def colour_of(type_name: str) -> str | None:
    """Return the colour of a type of event: that of the status to which it leads."""
    found = _WORDS.search(type_name.lower())
    return COLOURS[found[0]] if found else None

"""Events, and what became of rows, as the command line shows them, in lines."""

from typing import Any

from refold.as_json import data_of
from refold.cli.output import colour_of, paint, parsed, printable, shortened, shown
from refold.eventstore import times
from refold.eventstore.log.recorded import Recorded
from refold.projections.entities import entity_of
from refold.projections.past.changes import Change
from refold.projections.view import View


def event_line(recorded: Recorded, what: str | None = None) -> str:
    """Return the line that shows an event: where, when, which stream, what, who, and more.

    Args:
        recorded: the event.
        what: what to say of it; None: the fields that its stream does not tell already.
    """
    about = recorded.metadata
    what = fields_in_words(recorded) if what is None else what
    cause = "" if about.cause is None else f"because of {about.cause}"
    parts = (
        f"{recorded.position:>6}",
        paint(times.to_iso(times.within(recorded.recorded_at)), dim=True),
        paint(f"{printable(recorded.stream):<12}", "cyan"),
        f"{printable(about.actor or ''):<10}",
        paint(printable(recorded.type), colour_of(recorded.event.leads_to), bold=True),
        what,
        paint(cause, dim=True),
    )
    return "  ".join(part for part in parts if part)


def fields_in_words(recorded: Recorded) -> str:
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


COLOURS_OF_CHANGES = {"added": "green", "changed": "yellow", "removed": "red"}
_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def change_line(change: Change, view: View[Any]) -> str:
    """Return the line that shows a change."""
    colour = COLOURS_OF_CHANGES[change.kind]
    entity = f"{entity_of(view)} {shown(change.key)}"
    return (
        f"{paint(f'{_SIGNS[change.kind]} {entity}', colour, bold=True)}  {columns_in_words(change)}"
    )


def columns_in_words(change: Change) -> str:
    """Return the columns of a change, each before and after; of a new row, what it holds."""
    if change.kind == "removed":
        return "removed"
    words: list[str] = []
    for name, (before, after) in change.columns.items():
        if change.kind == "changed":
            words.append(f"{name} {_value(before)} -> {_value(after)}")
        elif after is not None and after != change.key:
            words.append(f"{name} {_value(after)}")
    return ", ".join(words)


def _value(value: Any) -> str:
    if value is None:
        return "null"
    value = parsed(value)
    text = shortened(f"{{{shown(value)}}}" if isinstance(value, dict) else value)
    return paint(text, colour_of(text))

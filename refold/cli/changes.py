"""What became of rows, in words and in JSON."""

from typing import Any

from refold.cli.output import COLOURS, paint, parsed, shortened, shown
from refold.projections.entities import entity_of
from refold.projections.past.change import Change
from refold.projections.view import View

COLOURS_OF_CHANGES = {"added": "green", "changed": "yellow", "removed": "red"}
_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def change_as_json(change: Change) -> dict[str, Any]:
    """Return a change with its columns, each before and after."""
    return {
        "view": change.view,
        "key": change.key,
        "kind": change.kind,
        "columns": change.columns,
    }


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
    told: list[str] = []
    for name, (before, after) in change.columns.items():
        if change.kind == "changed":
            told.append(f"{name} {_value(before)} -> {_value(after)}")
        elif after is not None and after != change.key:
            told.append(f"{name} {_value(after)}")
    return ", ".join(told)


def _value(value: Any) -> str:
    if value is None:
        return "null"
    value = parsed(value)
    text = shortened(f"{{{shown(value)}}}" if isinstance(value, dict) else value)
    return paint(text, COLOURS.get(text.lower()))

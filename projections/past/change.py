"""What becomes of a row between two moments."""

from typing import Any, Literal

import msgspec

from refold.eventstore.engine import Values
from refold.projections.view import Key, Row, View

BOOKKEEPING = frozenset(Row.__struct_fields__)
"""Columns that say when a row changed, not what changed in it."""


class Change(msgspec.Struct, frozen=True):
    """A row before and after. The columns are those of the view's table."""

    view: str
    key: Key
    before: dict[str, Any] | None
    """None: there was no such row."""
    after: dict[str, Any] | None
    """None: there is none any more."""

    @property
    def kind(self) -> Literal["added", "changed", "removed"]:
        """What became of the row."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    @property
    def columns(self) -> dict[str, tuple[Any, Any]]:
        """The columns that differ, each before and after; those that keep the books left out."""
        before, after = self.before or {}, self.after or {}
        return {
            name: (before.get(name), after.get(name))
            for name in (after or before)
            if name not in BOOKKEEPING and before.get(name) != after.get(name)
        }

    def __str__(self) -> str:
        told = ", ".join(
            f"{name} {before!r} -> {after!r}" if self.before and self.after else f"{name} {value!r}"
            for name, (before, after) in self.columns.items()
            for value in (before if after is None else after,)
        )
        return f"{self.view} {self.key} {self.kind}: {told or 'only when it was changed last'}"


def change(view: View[Any], key: Key, before: Values | None, after: Values | None) -> Change:
    """Return the change between two rows, given as the values of their columns."""
    return Change(view.name, key, _named(view, before), _named(view, after))


def _named(view: View[Any], values: Values | None) -> dict[str, Any] | None:
    return None if values is None else dict(zip(view.columns, view.typed(values), strict=True))

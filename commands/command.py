"""What someone asks for: a frozen struct that decides, from the rows, which events follow."""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import msgspec

from refold.eventstore.errors import InvalidCommand, NotFound
from refold.eventstore.events import Event
from refold.eventstore.events.codec import plain_scalar
from refold.projections.unit_of_work import Rows
from refold.projections.view import Key, R, View

# What would pass for text otherwise.
_AS_THEY_ARE = (bytes, bytearray, memoryview, datetime, date, time, timedelta, Decimal, UUID)


class Decision(msgspec.Struct, frozen=True):
    """What follows from a command."""

    events: Sequence[Event] = ()
    """What then happened; empty if the command changes nothing."""
    result: Any = None
    """What the caller gets, as JSON can hold it: an id, for example."""
    payloads: Sequence[bytes] = ()
    """Bytes whose digests the events hold."""


class Command(msgspec.Struct, frozen=True):
    """Something that is asked for. Its `decide` is pure: no I/O, no clock, no ids of its own."""

    def decide(self, rows: Rows) -> Decision:
        """Return the events that follow from the present rows.

        Raises:
            NotFound: an id that the command names has no row.
            IllegalTransition: the entity's status does not allow it.
            InvalidCommand: the arguments do not fit together.
        """
        raise NotImplementedError

    def validated(self) -> Self:
        """Return the command with its fields checked against their types.

        Raises:
            InvalidCommand: one does not fit; the message names it.
        """
        try:
            fields = msgspec.to_builtins(self, builtin_types=_AS_THEY_ARE, enc_hook=plain_scalar)
            return msgspec.convert(fields, type(self))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidCommand(f"{type(self).__name__}: {error}") from None


def existing(rows: Rows, view: View[R], key: Key, noun: str) -> R:
    """Return the row with a key.

    Raises:
        NotFound: there is none.
    """
    row = rows.get(view, key)
    if row is None:
        raise NotFound(
            f"there is no {noun} {key}: check the id (SELECT {view.key} FROM {view.name} lists "
            f"those that there are; a reset may have removed it)"
        )
    return row

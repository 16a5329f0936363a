"""What a check has found."""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from refold.eventstore.errors import DBException

FEW = 10
"""Of things of one kind, so many are named."""


class Finding(msgspec.Struct, frozen=True):
    """One thing about a store."""

    level: Literal["fact", "ok", "note", "problem"]
    """A note is something to know about; only a problem makes the answer a no."""
    about: str
    """In a word or two."""
    text: str
    advice: str | None = None
    """What to do next."""


Findings = Iterator[Finding]


def findings_of(about: str, check: Callable[[], Findings]) -> Findings:
    """Give what a check finds; that it fails is a finding too."""
    try:
        yield from check()
    except DBException as error:
        yield Finding("problem", about, str(error))

"""What is passed to a call: checked against its type, and quoted in a few words."""

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from refold.eventstore.errors import InvalidArgument, InvalidCommand

T = TypeVar("T")

# What would pass for text otherwise.
_AS_THEY_ARE = (bytes, bytearray, memoryview, datetime, date, time, timedelta, Decimal, UUID)

_excerpts = Repr()
_excerpts.maxstring = _excerpts.maxother = 80
_excerpts.maxlong = 40


def excerpt(value: object) -> str:
    """Return what a value looks like, in some 100 characters, whatever it is and raises."""
    try:
        return _excerpts.repr(value)
    except Exception:  # noqa: BLE001
        return f"a {type(value).__name__}"


def plain_scalar(value: Any) -> Any:
    """Return the plain number that a NumPy or torch one holds.

    Raises:
        TypeError: it is something else.
    """
    try:
        number = value.item()
    except (AttributeError, ValueError, RuntimeError, TypeError):
        number = None
    if isinstance(number, int | float):
        return number
    raise TypeError(f"a {type(value).__name__} has no place in JSON")


def converted(value: Any, kind: type[T]) -> T:
    """Return a value as one of a type, NumPy and torch numbers as plain ones.

    Raises:
        TypeError, ValueError: it is none.
    """
    try:
        plain = msgspec.to_builtins(value, builtin_types=_AS_THEY_ARE, enc_hook=plain_scalar)
        return msgspec.convert(plain, kind)
    except (OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def argument(
    name: str,
    value: Any,
    kind: Any,
    refuse: type[InvalidArgument] = InvalidCommand,
    advice: str | None = None,
) -> Any:
    """Return an argument of a call, checked against its type as the fields of a command are.

    Args:
        name: the parameter's, for the message.
        value: what was passed.
        kind: its type, such as `Id`.
        refuse: the error that is raised.
        advice: what to pass; by default what msgspec says.

    Raises:
        InvalidArgument: it does not fit; the message names it.
    """
    try:
        return converted(value, kind)
    except (TypeError, ValueError) as error:
        raise refuse(f"{name} is {excerpt(value)}: {advice or error}") from None


def listed(
    name: str, value: Iterable[T], refuse: type[InvalidArgument] = InvalidCommand
) -> list[T]:
    """Return what an argument iterates over.

    Raises:
        InvalidArgument: it is text, or iterates over nothing; the message names it.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise refuse(f"{name} is {excerpt(value)}: pass a list")
    return list(value)


def positions_of(value: Iterable[Any]) -> list[int]:
    """Return the positions that somebody has listed.

    Raises:
        InvalidCommand: one is none.
    """
    found: list[int] = []
    for one in listed("positions", value):
        try:
            found.append(converted(one, int))
        except (TypeError, ValueError):
            raise InvalidCommand(f"{excerpt(one)} is not a position: pass a number") from None
    return found


def unexpected(callee: str, given: Iterable[str], known: Iterable[str]) -> TypeError:
    """Return the error of keywords that a call does not know, as Python words it.

    Args:
        callee: what was called.
        given: the keywords.
        known: those that it knows.
    """
    name = next(iter(given))
    meant = get_close_matches(name, known, 1)
    hint = f"; did you mean {meant[0]!r}?" if meant else ""
    return TypeError(f"{callee} got an unexpected keyword argument {excerpt(name)}{hint}")


NAME_LENGTH = 500
"""Characters that a name, such as of a stream, a command or a row, has at most.

An index of PostgreSQL takes 2,704 bytes, and a character up to four.
"""


def is_utf8(text: str) -> bool:
    """Return whether a database can hold a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_name(what: str, name: object) -> None:
    """Refuse what not every engine can look up: the one rule for names and ids that are text.

    Args:
        what: it names, for the message.
        name: the name.

    Raises:
        ValueError: it is not text, or is empty; or see `check_text`.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{excerpt(name)} is not a valid {what}: pass text")
    check_text(what, name)


def check_text(what: str, name: str) -> None:
    """Refuse text that not every engine can look up.

    Args:
        what: it names, for the message.
        name: the text.

    Raises:
        ValueError: it is too long, or holds a NUL or a lone surrogate.
    """
    if len(name) > NAME_LENGTH:
        raise ValueError(
            f"{name[:40]!r}… is not a valid {what}: it has {len(name):,} characters, "
            f"{NAME_LENGTH} are the most; pass a digest of it"
        )
    if "\0" in name or not is_utf8(name):
        raise ValueError(
            f"{excerpt(name)} is not a valid {what}: it holds a NUL or a lone surrogate, which SQL "
            f"text cannot keep"
        )

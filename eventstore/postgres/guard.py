"""What a query of a user's own may be: one that reads."""

import re

from refold.eventstore.errors import WriteRefused

_QUERIES = {"SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN", "SHOW"}
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*(\w*)", re.DOTALL)


def refuse_writing(sql: str) -> None:
    """Refuse a statement that is no query; what a query calls, the server refuses.

    A read-only transaction lets through what changes the session or ends the transaction.

    Raises:
        WriteRefused: it would do something else than read.
    """
    match = _FIRST_WORD.match(sql)
    word = match[1].upper() if match else ""
    if word and word not in _QUERIES:
        raise WriteRefused(told(sql))


def told(sql: str) -> str:
    """Return what to say of a statement that would write."""
    return (
        f"{sql.strip()!r} would write: the views are rebuilt from events and only events change "
        f"them; use a method such as set_run_status()"
    )

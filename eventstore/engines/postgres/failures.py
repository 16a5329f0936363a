"""What errors of PostgreSQL mean, as `DBException`s."""

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import psycopg

from refold.eventstore import errors

_MEANINGS: dict[str, tuple[type[errors.DBException], str]] = {
    "08": (errors.ConnectionLost, "nothing of what was under way is kept: try again"),
    "25P03": (errors.ConnectionLost, "the server ended an idle transaction: keep batches short"),
    "25P04": (errors.ConnectionLost, "the server ended a long transaction: keep batches short"),
    "57P": (errors.ConnectionLost, "the server stops or starts: try again"),
    "40": (errors.Conflict, "another writer was in the way: try again"),
    "23505": (errors.Conflict, "another writer was first: try again"),
    "55P03": (errors.StoreBusy, "another writer holds it: try again"),
    "53300": (
        errors.StoreBusy,
        "the server has no connection left: close some, or raise its max_connections",
    ),
    "53100": (errors.StoreFull, "the server's disk is full: make room and try again"),
    "25006": (
        errors.StoreReadOnly,
        "the server can only be read, such as a replica: pass the URL of the one that writes",
    ),
    "42501": (
        errors.AccessDenied,
        "ask an administrator for the right (docs/scaling.md has the roles)",
    ),
    "28": (errors.AccessDenied, "check the user and the password in the URL"),
    "3D000": (errors.NotAStore, "create the database first, or check the URL"),
    "XX001": (errors.StoreDamaged, "the server found its own files broken: see its log"),
    "XX002": (errors.StoreDamaged, "the server found its own files broken: see its log"),
    "25P02": (
        errors.TransactionFailed,
        "the transaction failed and was rolled back: leave its block and begin anew",
    ),
    "23": (errors.RowRefused, "a rule of the table refuses the row"),
    "P0001": (errors.RowRefused, "a trigger of the table refuses the row"),
    "25": (errors.InvalidQuery, ""),
    "42": (errors.InvalidQuery, ""),
    "54": (errors.InvalidQuery, ""),
    "22": (errors.InvalidQuery, ""),
    "0A": (errors.InvalidQuery, ""),
    "21": (errors.InvalidQuery, ""),
}

LOG = ("events", "streams", "commands", "payloads", "projections")

FAILURES = (
    psycopg.Error,
    OverflowError,
    UnicodeError,
    ValueError,
    TypeError,
    AssertionError,  # psycopg asserts what an interrupt within it may have undone
)


def fail(name: str, error: Exception, sql: str = "", *, intact: bool = False) -> NoReturn:
    """Raise the `DBException` that says what an error of psycopg's or Python's means.

    Args:
        name: of the store.
        error: what was raised.
        sql: the statement that it came from.
        intact: the connection is as it was before the statement.
    """
    code = getattr(error, "sqlstate", None) or ""
    if code == "0A000" and "during recovery" in str(error):
        code = "25006"
    elif code == "23505" and _table(error) not in LOG:
        code = "23"  # of a user's own view: trying again does not change it
    elif code == "0A000" and "cached plan" in str(error):
        code = "08"  # another refold has made a table anew; a new connection knows it
    elif code == "08P01" and intact:
        code = "42"  # such as SELECT $1, for which there is no parameter
    for length in (5, 3, 2):
        if code[:length] in _MEANINGS:
            kind, advice = _MEANINGS[code[:length]]
            break
    else:
        if code or isinstance(error, AssertionError):
            kind, advice = errors.StoreFailed, "see the cause"
        elif isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not intact:
            # libpq's own: the server says nothing any more.
            kind, advice = errors.ConnectionLost, "nothing of what was under way is kept: try again"
        else:
            kind, advice = errors.InvalidQuery, ""
    said = _said(error)
    if kind is errors.InvalidQuery:
        raise kind(f"{sql.strip()!r}: {said}") from error
    raise kind(f"{name}: {said}; {advice}") from error


def raise_interrupt(error: BaseException, handled: BaseException | None) -> None:
    """Raise the interrupt, such as a Ctrl-C, that an error has come out of, if one has.

    psycopg's own clearing up may fail after an interrupt, and that error then takes its place.

    Args:
        error: what was raised.
        handled: what was being handled before; who handles an interrupt has heard it.
    """
    found = error.__context__
    while found is not None and found is not handled:
        if not isinstance(found, Exception | GeneratorExit):
            raise found.with_traceback(found.__traceback__) from None
        found = found.__context__


@contextmanager
def quietly() -> Generator[None, None, None]:
    """Have the block fail without a word; an interrupt is heard all the same."""
    handled = sys.exception()
    try:
        yield
    except FAILURES as error:
        raise_interrupt(error, handled)


# What a server or libpq says before it lets anybody in reaches us as text only.
_REFUSALS = (
    ("authentication failed", "28"),
    ("no password supplied", "28"),
    ("not permitted to log in", "28"),
    ("pg_hba.conf", "28"),
    ("permission denied for database", "28"),
    ("too many c", "53300"),  # … clients already, … connections for role
    ("connection slots are reserved", "53300"),
)
_NO_DATABASE = re.compile(r'database "[^"]*" does not exist')
_TLS = re.compile(r"\bSSL\b|certificate", re.IGNORECASE)


def fail_to_connect(name: str, error: Exception) -> NoReturn:
    """Raise the `DBException` that says why no connection could be made."""
    said = _said(error)
    code = getattr(error, "sqlstate", None) or ""
    if not code:
        code = next((code for fragment, code in _REFUSALS if fragment in said), "")
        code = "3D000" if _NO_DATABASE.search(said) else code
    for length in (5, 2):
        kind, advice = _MEANINGS.get(code[:length], (errors.ConnectionLost, ""))
        if kind is not errors.ConnectionLost:
            raise kind(f"{name}: {said}; {advice}") from error
    advice = "check the host and the port, and whether the server runs"
    if _TLS.search(said):
        advice = "check sslmode and the certificates in the URL, and whether the server has TLS on"
    raise errors.StoreUnreachable(f"{name}: {said}; {advice}") from error


_STARTING = re.compile(
    "starting up|shutting down|recovery mode|not (?:yet )?accepting|hot standby mode"
    "|session is (?:not )?read-only"
)


def is_starting(error: Exception) -> bool:
    """Return whether the server is there and will soon let us in, also after a failover."""
    return _STARTING.search(str(error)) is not None


def _table(error: Exception) -> str | None:
    return error.diag.table_name if isinstance(error, psycopg.Error) else None


def _said(error: Exception) -> str:
    return " ".join(str(error).split())

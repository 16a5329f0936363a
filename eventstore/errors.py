"""Every error that refold raises: each is a `DBException`, names the ids and says what to do.

DBException
├── Transient                    nothing was kept; the same call may succeed later
│   ├── StoreBusy                another writer holds the store longer than the timeout
│   │   └── Conflict             another writer was in the way at that moment
│   ├── StoreUnreachable         no server answers
│   └── ConnectionLost           the connection broke (also a StoreFailed)
├── NotAStore, StoreTooNew, StoreClosed, StoreReadOnly, StoreFull, StoreDamaged, AccessDenied
├── StoreFailed                  the engine reported another failure
│   ├── OutcomeUnknown           the connection broke in a commit
│   ├── RowRefused               a table of a view of your own refuses a row
│   └── TransactionFailed        a part of a transaction failed, so none of it is kept
├── InvalidArgument              what was passed can never be right
│   ├── InvalidCommand           an argument of a command, or of a call
│   ├── InvalidEvent             an event that the log cannot keep exactly
│   ├── InvalidMoment            a position or time that the log does not have
│   ├── InvalidQuery             SQL of your own
│   │   └── WriteRefused         it would write
│   ├── InvalidView              a view of your own
│   └── InvalidFile              a file to be imported
├── NotFound, CommandIdReused, WrongExpectedVersion    the state forbids it
├── IllegalTransition            the status forbids it
│   └── ClaimLost                a report on a task without its last claim
├── AlreadyJoined                somebody of that name takes part
├── MembershipLost               this process was taken for lost, or another has its name
├── UnreadableEvent              an event in the log that cannot be decoded here
│   ├── UnknownEventType         its type, or its schema version, is not known here
│   └── DamagedEvent             somebody has altered it
├── InvalidPayload               bytes that are no payload, or an object that cannot become one
│   └── PayloadRefused           unsigned, altered, or dill where that is not allowed
├── ProjectionFailed             a view raised on an event
└── MissingPackage               an extra is not installed
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Self

LONGEST = 600
"""Characters of a message: what was passed may be of any length, and stands in many of them."""


class DBException(Exception):
    """The base of all errors of refold; catch it to catch everything."""

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) <= LONGEST:
            return text
        return f"{text[: LONGEST - 200]} […] {text[-180:]}"


class Transient(DBException):
    """Nothing was kept, and the same call may succeed when it is tried again."""


# --- the store: the file or the server ------------------------------------------------------


class NotAStore(DBException):
    """The path or URL leads to something that is not a refold store."""


class StoreTooNew(DBException):
    """The store was written by a newer refold than this one."""


class StoreClosed(DBException):
    """The store was used after `close()`."""


class StoreBusy(Transient):
    """Another process held the write lock longer than the store's `timeout`."""


class Conflict(StoreBusy):
    """Another writer was in the way at that moment; nothing was kept, and trying again helps."""


class StoreReadOnly(DBException):
    """The store can be read but not written: a read-only file, folder or server."""


class StoreFull(DBException):
    """There is no room for what was to be written; nothing of it was kept."""


class StoreDamaged(DBException):
    """The engine found its own file broken."""


class StoreUnreachable(Transient):
    """No server answers at the URL, or it lets nobody in now."""


class AccessDenied(DBException):
    """The server or the file system refuses the user, the password, or what was asked."""


class StoreFailed(DBException):
    """The engine reported another failure, such as an I/O error."""


class RowRefused(StoreFailed):
    """A table refuses a row by a rule of its own, such as CHECK, UNIQUE or a trigger."""


class ConnectionLost(StoreFailed, Transient):
    """The connection to the server broke; nothing of what was under way is kept."""


class OutcomeUnknown(StoreFailed):
    """The connection broke in a commit, and the server cannot be asked whether it happened."""


class TransactionFailed(StoreFailed):
    """A part of a transaction failed half way, so none of it is kept."""


# --- what was passed --------------------------------------------------------------------------


class InvalidArgument(DBException):
    """What was passed can never be right: a wrong type, or out of range."""


class InvalidCommand(InvalidArgument):
    """A command, or a call, was given arguments of a wrong type or out of range."""


class InvalidEvent(InvalidArgument):
    """An event holds what the log cannot keep exactly; nothing was appended."""


class InvalidMoment(InvalidArgument):
    """A position or a time at which the log cannot be looked at."""


class InvalidQuery(InvalidArgument):
    """A query could not be run: an error in its SQL or its parameters."""


class WriteRefused(InvalidQuery):
    """A statement would have written; only events change the state."""


class InvalidView(InvalidArgument):
    """A view is declared in a way that no table can follow, or in another's place."""


class InvalidFile(InvalidArgument):
    """A file is not a log of refold's, or is not complete; the message names the line."""


# --- what the state forbids -------------------------------------------------------------------


class NotFound(DBException):
    """No row has the id that was named."""


class IllegalTransition(DBException):
    """The entity's present status does not allow what was asked."""


class ClaimLost(IllegalTransition):
    """A report on a task was sent without a claim on it, or with one that is no longer the last."""


class AlreadyJoined(DBException):
    """A process cannot join under a name whose holder takes part, for all that is known."""


class MembershipLost(DBException):
    """This process was declared lost, or another has taken its place: what it asks is refused."""


class CommandIdReused(DBException):
    """A command id was sent again with a different kind of command."""


class WrongExpectedVersion(DBException):
    """A stream is not at the version that the caller expected; nothing was appended."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(
            f"stream {stream!r} is at version {actual}, not at the expected {expected}: "
            f"read the stream again and decide anew"
        )
        self.stream = stream
        self.expected = expected
        self.actual = actual

    def __reduce__(self) -> tuple[type, tuple[str, int, int]]:
        return type(self), (self.stream, self.expected, self.actual)


# --- what cannot be read ----------------------------------------------------------------------


class UnreadableEvent(DBException):
    """The log holds an event that cannot be decoded; everything before it can be read."""

    position: int = 0
    """Its position; 0 if it is not of the log."""


class UnknownEventType(UnreadableEvent):
    """The log holds an event of a type, or of a schema version, that this refold does not know."""


class DamagedEvent(UnreadableEvent):
    """An event in the log can no longer be decoded."""


class InvalidPayload(DBException):
    """Bytes are not a payload, or an object cannot become one."""


class PayloadRefused(InvalidPayload):
    """A payload is unsigned, altered, or holds dill where dill is not allowed."""


class ProjectionFailed(DBException):
    """A view raised on an event of the log, or made a row of it that its table cannot hold."""

    view: str = ""
    """Its name."""
    position: int = 0
    """The event's."""
    type: str = ""
    """The event's."""
    key: int | str | None = None
    """Of the row; None: the view had not come to one yet."""

    @classmethod
    def on(
        cls,
        view: str,
        position: int,
        event: str,
        row: tuple[str, int | str] | None,
        error: Exception,
    ) -> Self:
        """Return the error of a view on an event; `error` is what it raised, and the cause.

        Args:
            view: its name.
            position: the event's.
            event: its type, and what else tells where it stands.
            row: the name of the key column and the key that the view had come to, if to any.
            error: what was raised.
        """
        at = "before it came to a row" if row is None else f"at {row[0]} {row[1]!r}"
        failed = cls(
            f"view {view} fails on event {position}, {event}, {at}: {type(error).__name__}: "
            f"{error}. Mend its code, and it goes on from there"
        )
        failed.view, failed.position = view, position
        failed.key = None if row is None else row[1]
        failed.type = event.split()[0]
        failed.__cause__ = error
        return failed


# --- packages ---------------------------------------------------------------------------------


class MissingPackage(DBException):
    """What was asked for needs a package that is not installed."""


@contextmanager
def needed_for(what: str, extra: str) -> Generator[None, None, None]:
    """Have the block import packages of an extra, and say how to get one that is not there.

    Raises:
        MissingPackage: one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"{what} needs {error.name}, which is not installed: pip install 'refold[{extra}]'"
        ) from error


class StoreWarning(UserWarning):
    """Something about a store that is not an error, and that somebody should see to."""

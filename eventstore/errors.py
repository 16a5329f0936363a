"""Every error that refold raises: each is a `DBException`, names the ids and says what to do."""


class DBException(Exception):
    """The base of all errors of refold; catch it to catch everything."""


# --- the store: the file or the server ------------------------------------------------------


class NotAStore(DBException):
    """The path or URL leads to something that is not a refold store."""


class StoreTooNew(DBException):
    """The store was written by a newer refold than this one."""


class StoreClosed(DBException):
    """The store was used after `close()`."""


class StoreBusy(DBException):
    """Another process held the write lock longer than the store's `timeout`."""


class Conflict(StoreBusy):
    """Another writer was in the way at that moment; nothing was kept, and trying again helps."""


class StoreReadOnly(DBException):
    """The store can be read but not written: a read-only file, folder or server."""


class StoreFull(DBException):
    """There is no room for what should be written; nothing of it was kept."""


class StoreDamaged(DBException):
    """The engine found its own file broken."""


class StoreUnreachable(DBException):
    """No server answers at the URL, or it lets nobody in now."""


class AccessDenied(DBException):
    """The server refuses the user, the password, or the right to do what was asked."""


class StoreFailed(DBException):
    """The engine reported another failure, such as an I/O error."""


class ConnectionLost(StoreFailed):
    """The connection to the server broke; nothing of what was under way is kept."""


class OutcomeUnknown(StoreFailed):
    """The connection broke in a commit, and the server cannot be asked whether it happened."""


class TransactionFailed(StoreFailed):
    """A part of a transaction failed half way, so none of it is kept."""


# --- the log --------------------------------------------------------------------------------


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


class InvalidEvent(DBException):
    """An event holds what the log cannot keep exactly; nothing was appended."""


class UnreadableEvent(DBException):
    """An event stands in the log that cannot be decoded; everything before it can be read."""

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


class InvalidView(DBException):
    """A view is declared in a way that no table can follow, or in another's place."""


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


# --- commands and queries -------------------------------------------------------------------


class InvalidCommand(DBException):
    """A command was given arguments of a wrong type or out of range."""


class InvalidMoment(DBException):
    """A position or a time at which the log cannot be looked at."""


class NotFound(DBException):
    """No row has the id that was named."""


class IllegalTransition(DBException):
    """The entity's present status does not allow what was asked."""


class CommandIdReused(DBException):
    """A command id was sent again with a different kind of command."""


class InvalidQuery(DBException):
    """A query could not be run: an error in its SQL or its parameters."""


class WriteRefused(InvalidQuery):
    """A statement would have written; only events change the state."""

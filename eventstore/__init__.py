"""Floor 1, what happened: events, the log, the engines, payloads and errors."""

from eventstore.errors import (
    CommandIdReused,
    DamagedEvent,
    DBException,
    IllegalTransition,
    InvalidCommand,
    InvalidEvent,
    InvalidPayload,
    InvalidQuery,
    InvalidView,
    NotAStore,
    NotFound,
    PayloadRefused,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreFailed,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
    UnknownEventType,
    WriteRefused,
    WrongExpectedVersion,
)
from eventstore.events import Digest, Event, Id, Int, Name, upcaster
from eventstore.open import open_store
from eventstore.recorded import Metadata, Recorded
from eventstore.store import EventStore
from eventstore.subscription import Subscription
from eventstore.transaction import Transaction

__all__ = [
    "CommandIdReused",
    "DBException",
    "DamagedEvent",
    "Digest",
    "Event",
    "EventStore",
    "Id",
    "IllegalTransition",
    "Int",
    "InvalidCommand",
    "InvalidEvent",
    "InvalidPayload",
    "InvalidQuery",
    "InvalidView",
    "Metadata",
    "Name",
    "NotAStore",
    "NotFound",
    "PayloadRefused",
    "Recorded",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreFailed",
    "StoreFull",
    "StoreReadOnly",
    "StoreTooNew",
    "Subscription",
    "Transaction",
    "UnknownEventType",
    "WriteRefused",
    "WrongExpectedVersion",
    "open_store",
    "upcaster",
]

"""refold: the event-sourced state store for ML experiments.

`RfDb` (training) and `RFDatabase` (inference) are its faces; `AsyncRfDb` and `AsyncRFDatabase`
the same, awaited.
"""

from os.path import dirname, isfile, join
from typing import TYPE_CHECKING, Any

if isfile(join(dirname(__file__), "eventstore")):
    raise ImportError(
        "refold/eventstore is a text file here, and should be a link to ../eventstore: this "
        "checkout was made without symbolic links. Allow them (on Windows: developer mode), then "
        "git config core.symlinks true && git checkout -- refold; or install refold by pip"
    )

from refold.copies import copy_store, fork
from refold.eventstore.errors import (
    AccessDenied,
    AlreadyJoined,
    ClaimLost,
    CommandIdReused,
    Conflict,
    ConnectionLost,
    DamagedEvent,
    DBException,
    IllegalTransition,
    InvalidArgument,
    InvalidCommand,
    InvalidEvent,
    InvalidFile,
    InvalidMoment,
    InvalidPayload,
    InvalidQuery,
    InvalidView,
    MembershipLost,
    MissingPackage,
    NotAStore,
    NotFound,
    OutcomeUnknown,
    PayloadRefused,
    ProjectionFailed,
    RowRefused,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreFailed,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
    StoreUnreachable,
    StoreWarning,
    TransactionFailed,
    Transient,
    UnknownEventType,
    UnreadableEvent,
    WriteRefused,
    WrongExpectedVersion,
)
from refold.eventstore.payloads import decode_db_payload, encode_payload
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ControllerTask,
    ExperimentStatus,
    ICOperation,
    InferenceStatus,
    PipelineOperation,
    PipelineRequestStatus,
    PipelineStatus,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    WorkerTask,
)
from refold.replay import replay, try_projection
from refold.rf_database import RFDatabase
from refold.rf_db import RfDb
from refold.rows import Unreadable

if TYPE_CHECKING:
    from refold.asynchronous import AsyncRFDatabase, AsyncRfDb

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "ActorTaskStatus",
    "AlreadyJoined",
    "AsyncRFDatabase",
    "AsyncRfDb",
    "ClaimLost",
    "CommandIdReused",
    "Conflict",
    "ConnectionLost",
    "ContextStatus",
    "ControllerTask",
    "DBException",
    "DamagedEvent",
    "ExperimentStatus",
    "ICOperation",
    "IllegalTransition",
    "InferenceStatus",
    "InvalidArgument",
    "InvalidCommand",
    "InvalidEvent",
    "InvalidFile",
    "InvalidMoment",
    "InvalidPayload",
    "InvalidQuery",
    "InvalidView",
    "MembershipLost",
    "MissingPackage",
    "NotAStore",
    "NotFound",
    "OutcomeUnknown",
    "PayloadRefused",
    "PipelineOperation",
    "PipelineRequestStatus",
    "PipelineStatus",
    "ProjectionFailed",
    "RFDatabase",
    "RfDb",
    "RowRefused",
    "RunEndedBy",
    "RunSource",
    "RunStatus",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreFailed",
    "StoreFull",
    "StoreReadOnly",
    "StoreTooNew",
    "StoreUnreachable",
    "StoreWarning",
    "TaskStatus",
    "TransactionFailed",
    "Transient",
    "UnknownEventType",
    "Unreadable",
    "UnreadableEvent",
    "WorkerTask",
    "WriteRefused",
    "WrongExpectedVersion",
    "copy_store",
    "decode_db_payload",
    "encode_payload",
    "fork",
    "replay",
    "try_projection",
]


def __getattr__(name: str) -> Any:
    # asyncio takes longer to import than all of refold, so it waits until it is asked for.
    if name in ("AsyncRfDb", "AsyncRFDatabase"):
        from refold import asynchronous

        return getattr(asynchronous, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

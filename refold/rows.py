"""Rows as people read them: plain dicts; an `Unreadable` marks what cannot be read here."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

import msgspec

from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import DBException, InvalidCommand, StoreDamaged
from refold.eventstore.payloads import PayloadCodec, check_digest
from refold.eventstore.statuses import (
    ActorTaskStatus,
    ContextStatus,
    ControllerTask,
    ExperimentStatus,
    ICOperation,
    InferenceStatus,
    PipelineStatus,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    Word,
    WorkerTask,
)
from refold.eventstore.words import give_words
from refold.projections import View
from refold.projections.entities import entity_of
from refold.projections.views import ReadableViews

Row = dict[str, Any]


class Unreadable:
    """Stands in a row for an item that cannot be read here, so that the others can be.

    `str` says what is wrong, `error` is the exception that whoever uses it gets.

    >>> from refold import RfDb
    >>> with RfDb("example.db") as db:
    ...     run_id = db.create_run(db.create_experiment("digits"), config_leaf=lambda step: 0.1)
    >>> with RfDb("example.db", allow_dill=False) as dashboard:
    ...     [row] = dashboard.get_all_runs()
    >>> row["status"], type(row["config_leaf"]).__name__
    ('NEW', 'Unreadable')
    """

    __slots__ = ("error",)

    error: DBException

    def __init__(self, error: DBException) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"<unreadable: {type(self.error).__name__}: {self.error}>"

    def __reduce__(self) -> tuple[type["Unreadable"], tuple[DBException]]:
        return Unreadable, (self.error,)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise self.error.with_traceback(None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Unreadable):
            self._refuse()
        return repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pickle, copy, notebooks: they ask what it is, not what it holds
            raise AttributeError(name)
        self._refuse()

    __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __call__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __or__ = __ror__ = _refuse
    __truediv__ = __rtruediv__ = _refuse


def whole(row: Row) -> Row:
    """Return a row all of whose items can be read.

    Raises:
        DBException: one cannot be; its own error.
    """
    for value in row.values():
        if isinstance(value, Unreadable):
            raise value.error
    return row


def read_rows(
    views: ReadableViews,
    view: View[Any],
    rest: str,
    *values: Any,
    payloads: PayloadCodec,
    config: bool = True,
) -> list[Row]:
    """Return rows of a view, what cannot be read in them as `Unreadable`.

    Args:
        views: which view, now or as of a moment.
        view: whose rows.
        rest: what follows the table in the SELECT: conditions, an order, a limit.
        values: the parameters in it.
        payloads: decodes configurations.
        config: whether configurations are decoded, or left out.
    """
    if not isinstance(config, bool):
        raise InvalidCommand(f"config is {excerpt(config)}: pass True or False")
    found = views.select(f"{_selection(view, config)} {rest}", *values)
    readers = _READERS.get(view.name, {})
    configured = config and view.name in _CONFIGURED
    for row in found:
        for name, read in readers.items():
            try:
                row[name] = read(row[name])
            except (ValueError, TypeError, msgspec.DecodeError) as error:
                row[name] = Unreadable(_damaged(view, row, name, error))
        words = row.pop("metric_words", None)
        if words is not None and not isinstance(row["metrics"], Unreadable):
            try:
                row["metrics"] = give_words(row["metrics"], _words(words))
            except msgspec.DecodeError as error:
                row["metrics"] = Unreadable(_damaged(view, row, "metric_words", error))
        if configured:
            row["config_leaf"] = _config(view, row, payloads)
            del row["config_digest"]
    return found


@cache
def _selection(view: View[Any], config: bool) -> str:
    if view.name not in _CONFIGURED:
        return f"SELECT * FROM {view.name if view.name in view.objects else view.table}"
    joined = " LEFT JOIN payloads ON digest = config_digest" if config else ""
    columns: list[str] = []
    for name in view.columns:
        if name != "config_digest":
            columns.append(name)
        elif config:
            columns += ("content AS config_leaf", name)
    return f"SELECT {', '.join(columns)} FROM {view.table}{joined}"


def _config(view: View[Any], row: Row, payloads: PayloadCodec) -> Any:
    digest, content = row["config_digest"], row["config_leaf"]
    if digest is None:
        return None
    try:
        if content is None:
            raise StoreDamaged(
                f"the payload {digest} is not there: somebody has deleted it; restore a backup"
            )
        return payloads.decode(check_digest(digest, content))
    except DBException as error:
        whose, advice = (text.format(**row) for text in _CONFIGURED[view.name])
        named = type(error)(f"config_leaf of {whose}: {error}{advice}")
        named.__cause__ = error
        return Unreadable(named)


_CONFIGURED = {
    "runs": ("run {run_id}", "; config=False leaves it out"),
    "interactive_control": (
        "request {ic_id} for run {run_id}",
        "; mark_ic_ops_failed({ic_id}) takes it away",
    ),
}
"""The views whose rows have a configuration: whose it is, and what helps if it cannot be read."""

Read = Callable[[Any], Any]


def _word(*kinds: type[Word]) -> Read:
    words = frozenset(word.value for kind in kinds for word in kind)

    def read(value: Any) -> Any:
        if value not in words:
            raise ValueError(f"{excerpt(value)} is none of {', '.join(sorted(words))}")
        return value

    return read


def _optional(read: Read) -> Read:
    return lambda value: None if value is None else read(value)


_status = _word(TaskStatus)


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


_TIMES: Mapping[str, Read] = {"created_at": _time, "updated_at": _time}

_words = msgspec.json.Decoder(dict[str, str]).decode

_READERS: Mapping[str, Mapping[str, Read]] = {
    "experiments": {"status": _word(ExperimentStatus, InferenceStatus), **_TIMES},
    "runs": {
        "status": _word(RunStatus),
        "source": _word(RunSource),
        "ended_by": _optional(_word(RunEndedBy)),
        "warm_start": bool,
        "metrics": msgspec.json.Decoder(dict[str, Any]).decode,
        **_TIMES,
    },
    "worker_task": {"status": _status, **_TIMES},
    "controller_progress": {"task": _word(ControllerTask), "status": _status, **_TIMES},
    "worker_progress": {"task": _word(WorkerTask), "status": _status, **_TIMES},
    "interactive_control": {
        "operation": _word(ICOperation),
        "status": _status,
        "warm_start": bool,
        **_TIMES,
    },
    "contexts": {"status": _word(ContextStatus), **_TIMES},
    "pipelines": {"status": _word(PipelineStatus), **_TIMES},
    "actor_tasks": {"status": _word(ActorTaskStatus), **_TIMES},
}
"""By view and column, what makes a value of the table one of the row; it raises on a damaged one.

A column of words holds one of its words, whatever events it was folded from.
"""


def _damaged(view: View[Any], row: Row, name: str, error: Exception) -> StoreDamaged:
    key = row[view.key]
    return StoreDamaged(
        f"{name} of {entity_of(view)} {key} is damaged ({error}): rebuild() makes the row anew "
        f"from the log"
    )

"""What both of RapidFire's databases have in common: the store, its exception, its SQL."""

import inspect
import json
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from threading import Lock
from typing import Any, ClassVar, Literal, cast

from msgspec import UNSET, UnsetType

from refold.commands.command import Command
from refold.commands.rapidfire import NoteExperiment, Recover, ResetTables
from refold.eventstore import errors
from refold.eventstore.errors import InvalidQuery, NotFound
from refold.eventstore.events import ExperimentDetailsRecorded
from refold.eventstore.log.store import absolute
from refold.face import Face
from refold.rapidfire import STORE
from refold.rapidfire.package import PLACE, VERSION, DBException
from refold.rf_database import time_text

Dict = dict[str, Any]

SHARDS = {
    "num_shards_visited_curr_epoch": "num_chunks_visited_curr_epoch",
    "shard_offset": "chunk_offset",
    "shard_id": "chunk_id",
    "subshard_progress": "subchunk_progress",
}
"""Names of columns and keywords of training today, and what they were in 0.16.1."""

OLDER = SHARDS if VERSION == "0.16.1" else {}
LATER = (
    {"experiment_mode", "enable_gpu", "vector_store_json"} if VERSION == "0.16.1" else set[str]()
)
"""Keys that the version which is installed does not have yet."""


def named(row: Dict) -> Dict:
    """Return a dict with the keys of the version that is installed."""
    if not OLDER:
        return row
    return {OLDER.get(name, name): value for name, value in row.items() if name not in LATER}


# --- stores -------------------------------------------------------------------------------------


class _Shared:
    """The stores that objects of this process use: one for each place, open as long as one does."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: dict[str, tuple[Face, int]] = {}

    def take(self, place: str) -> Face:
        with self._lock:
            face, users = self._open.get(place) or (Face(place, actor="rapidfire"), 0)
            self._open[place] = face, users + 1
            return face

    def give_back(self, place: str) -> None:
        with self._lock:
            face, users = self._open.pop(place)
            if users > 1:
                self._open[place] = face, users - 1
                return
        face.close()


_shared = _Shared()
# A thread of the parent may hold it just then.
os.register_at_fork(after_in_child=lambda: setattr(_shared, "_lock", Lock()))


def place_of_store() -> str:
    """Return the path or URL of the store."""
    return os.fspath(absolute(os.environ.get(STORE) or os.path.join(PLACE, "rapidfire.db")))


# --- the layer ----------------------------------------------------------------------------------

CHANGING = ("set_", "update_", "start_")
"""How the methods begin that do nothing if there is no row with the id, as an UPDATE does."""


def _told(method: Callable[..., Any], older: dict[str, str]) -> Callable[..., Any]:
    """Return a method that raises RapidFire's exception and takes its version's keywords."""
    newer = {old: new for new, old in older.items()}
    lenient = method.__name__.startswith(CHANGING)

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            if newer:
                kwargs = {newer.get(name, name): value for name, value in kwargs.items()}
            return method(*args, **kwargs)
        except NotFound as error:
            if lenient:
                return None
            raise DBException(str(error)) from error
        except errors.DBException as error:
            raise DBException(str(error)) from error

    signature = inspect.signature(method)
    parameters = [
        parameter.replace(name=older.get(name, name))
        for name, parameter in signature.parameters.items()
    ]
    call.__dict__["__signature__"] = signature.replace(parameters=parameters)
    return call


class Layer:
    """One of RapidFire's databases, kept in a store of refold's.

    Objects of one process share its store. All threads may use one object.

    Raises:
        rapidfireai.fit.utils.exceptions.DBException: whatever refold raises, with its sentence.
    """

    kind: ClassVar[Literal["fit", "evals"]]

    def __init_subclass__(cls) -> None:
        older = OLDER if cls.kind == "fit" else {}
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and (name == "__init__" or not name.startswith("_")):
                setattr(cls, name, _told(method, older))

    def __init__(self) -> None:
        place = place_of_store()
        folder = os.path.dirname(place)
        if "://" not in place and folder:
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError as error:
                raise errors.AccessDenied(f"{folder} cannot be made: {error}") from error
        self._face = _shared.take(place)
        self._leave = weakref.finalize(self, _shared.give_back, place)
        self.db = Statements(self)

    def _close(self) -> None:
        self._leave()

    def _send(self, command: Command) -> Any:
        return self._face.send(command)

    def _select(self, sql: str, *parameters: Any) -> list[Dict]:
        return self._face.views.select(sql, *parameters)

    def _encoded(self, value: Any) -> bytes | None:
        """Return a value as a payload; what is empty has none, as in RapidFire."""
        return self._face.payloads.encode(value, outlined=True) if value else None

    def _decoded(self, content: bytes | None) -> Any:
        return {} if content is None else self._face.payloads.decode(content)

    def _experiment_id(self) -> int:
        """Return the experiment to which something new belongs.

        Raises:
            NotFound: there is none.
        """
        found = self._select(
            "SELECT experiment_id FROM experiments WHERE kind = ? "
            "ORDER BY lower(status) = 'running' DESC, experiment_id DESC LIMIT 1",
            self.kind,
        )
        if not found:
            raise NotFound("there is no experiment yet: create_experiment() makes one")
        return found[0]["experiment_id"]

    def _reset_all_tables(self, experiments_table: bool) -> None:
        self._send(ResetTables(self.kind, bool(experiments_table)))

    def _recover(self) -> None:
        self._send(Recover(self.kind))


class Statements:
    """What RapidFire's code reaches as `db.db`: SQL that reads, and the one UPDATE that it does."""

    def __init__(self, layer: Layer) -> None:
        self._face = layer._face  # pyright: ignore[reportPrivateUsage]

    def execute(
        self,
        query: str,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        fetch: bool = False,
        commit: bool = False,
        **retries: Any,
    ) -> list[tuple[Any, ...]] | None:
        """Run a query and return its rows as tuples, if they are asked for.

        Raises:
            DBException: it would write something else than the id that an experiment has where
                metrics are logged.
        """
        try:
            if " ".join(query.lower().split()) == _LINK:
                metric_experiment_id, experiment_id = cast("tuple[Any, Any]", params)
                details = ExperimentDetailsRecorded(
                    experiment_id, metric_experiment_id=metric_experiment_id
                )
                self._face.send(NoteExperiment(details))
                return [] if fetch else None
            if isinstance(params, Mapping):
                raise InvalidQuery(f"{query!r}: pass the parameters as a tuple")
            rows = self._face.db.execute(query, params or ())
        except NotFound:
            return [] if fetch else None
        except errors.DBException as error:
            raise DBException(str(error)) from error
        return [tuple(row.values()) for row in rows] if fetch else None

    def optimize_periodically(self) -> None:
        """Do nothing: a store of refold's needs no such care."""

    def checkpoint(self) -> None:
        """Do nothing: a store of refold's needs no such care."""

    def close(self) -> None:
        """Do nothing: the database that it belongs to closes the store."""


_LINK = "update experiments set metric_experiment_id = ? where experiment_id = ?"


# --- values -------------------------------------------------------------------------------------


def json_of(value: Any) -> str:
    """Return a value as the JSON text that RapidFire stores."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.InvalidCommand(f"it cannot be written as JSON: {error}") from error


def given(time: Any) -> tuple[str, float | UnsetType]:
    """Return a time as text, and in seconds if it was given so."""
    if isinstance(time, int | float):
        return time_text(time), float(time)
    return time_text(time), UNSET


def whole(number: Any) -> int | UnsetType:
    """Return a number as an integer column keeps it; None: it is not told.

    Raises:
        InvalidCommand: it is not whole.
    """
    if number is None:
        return UNSET
    if int(number) != number:
        raise errors.InvalidCommand(f"{number!r} is not a whole number")
    return int(number)

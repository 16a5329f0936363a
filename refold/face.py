"""What both faces have in common: a store with its views, commands in, rows out."""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from msgspec.structs import replace

from refold.commands.command import Command, execute
from refold.commands.store import ResetAllTables, ResetExperimentStates
from refold.eventstore import Event, EventStore, Metadata, Recorded, Subscription, open_store
from refold.eventstore.arguments import argument, excerpt, listed, unexpected
from refold.eventstore.engines.engine import Durability
from refold.eventstore.engines.log_end import store_row
from refold.eventstore.errors import InvalidCommand, InvalidPayload, NotFound
from refold.eventstore.event import NO_METADATA, Id
from refold.eventstore.log.past import PastStore
from refold.eventstore.log.readable import Moment
from refold.eventstore.log.store import absolute
from refold.eventstore.payloads import PayloadCodec, is_payload, is_storing
from refold.projections import Findings, View, Views
from refold.projections.entities import ALL, entity_of, view_of
from refold.projections.experiments import experiments
from refold.projections.view import Key
from refold.projections.views import Queries
from refold.rows import read_rows, whole

if TYPE_CHECKING:
    import pyarrow

    from refold.projections.past.changes import Change
    from refold.projections.past.history import Touched, Why
    from refold.projections.past.versions import Versions
    from refold.projections.past.views import PastViews


class About(TypedDict, total=False):
    """Keywords that every method takes that changes something."""

    command_id: str
    """An id of your own: the command is carried out once, however often it is sent."""
    actor: str
    """Who acts; it defaults to the `actor` of the face."""
    correlation: str
    """What it belongs to, such as the id of a web request."""
    cause: int
    """The position of the event that led to it, such as `row["position"]` of a request."""


class Face:
    """A store of experiments.

    Args:
        path_or_url: the file, `rapidfire.db` by default, or a URL such as
            `postgresql://user@host/database?schema=name`.
        actor: who acts through this face, such as `controller`; noted with every event.
        durability: `"normal"` survives the death of any process; `"full"` a power cut too, which a
            server always does.
        timeout: seconds to wait for other writers, and to reach a server again.
        signing_key: payloads are signed with it, and unsigned or altered ones refused; by default
            the environment's `REFOLD_PAYLOAD_KEY`, if it is set.
        allow_dill: whether payloads may hold objects that only dill can carry, which can run code
            when they are read.
        projections: views of your own, kept equal to the log like the others.
        clock: returns the time in microseconds since 1970-01-01 UTC; for tests.
        create: make the store if there is none.

    Raises:
        InvalidArgument: an argument of a wrong type.
        NotAStore: nothing at that place can be a store; or there is none, and `create` is false.
        StoreUnreachable, AccessDenied: the server does not answer, or refuses.
        StoreTooNew: a newer refold wrote it.
    """

    def __init__(
        self,
        path_or_url: str | os.PathLike[str] = "rapidfire.db",
        *,
        actor: str | None = None,
        durability: Durability = "normal",
        timeout: float = 30,
        signing_key: bytes | str | None = None,
        allow_dill: bool = True,
        projections: Iterable[View[Any]] = (),
        clock: Callable[[], int] | None = None,
        create: bool = True,
    ) -> None:
        store = open_store(
            path_or_url, durability=durability, timeout=timeout, clock=clock, create=create
        )
        try:
            self.views: Views | PastViews = Views(store, projections)
        except BaseException:
            store.close()
            raise
        self._about = NO_METADATA if actor is None else Metadata(actor=actor)
        self.payloads = PayloadCodec(key=signing_key, allow_dill=allow_dill)
        self._options: dict[str, Any] = {
            "path_or_url": absolute(path_or_url),
            "actor": actor,
            "durability": durability,
            "timeout": timeout,
            "signing_key": signing_key,
            "allow_dill": allow_dill,
            "projections": self.views.views[len(ALL) :],
            "clock": clock,
        }

    def __reduce__(self) -> tuple[Callable[..., "Face"], tuple[Any, ...]]:
        """Send it to another process, which opens one of its own: a connection cannot be shared.

        Raises:
            TypeError: it would be stored, with what opens it; or a view is not found by its name.
        """
        if is_storing():
            raise TypeError("a face is a connection: store the path or URL, and open it where used")
        past = self.views.position if not isinstance(self.views, Views) else None
        return _opened, (type(self), self._options, past)

    @property
    def store(self) -> EventStore | PastStore:
        """The log."""
        return self.views.store

    @property
    def db(self) -> Queries:
        """Answers SQL of your own: `db.db.execute("SELECT …")`."""
        return Queries(self.views)

    def _on(self, views: "Views | PastViews") -> Self:
        """Return a face of the same kind, with the same actor and keys, on other views."""
        face = object.__new__(type(self))
        face.__dict__ |= self.__dict__
        face.views = views
        if isinstance(views, Views):  # of another store: it has a past of its own
            face.__dict__.pop("_versions", None)
            face._options = {**self._options, "path_or_url": absolute(views.store.engine.name)}
        return face

    @cached_property
    def _versions(self) -> "Versions":
        """Every version that a row ever had; faces as of a moment share it."""
        from refold.projections.past.versions import Versions  # only those who look back need it

        assert isinstance(self.store, EventStore)
        # Two threads that look back at the same moment may both come here, and both get one.
        return self.__dict__.setdefault("_versions", Versions(self.store, self.views.views))

    def create_tables(self) -> None:
        """Make sure that all tables are there; opening a store does so already."""
        with self.views.reading():
            pass

    def close(self) -> None:
        """Close the store; closing twice does nothing. A face as of a moment leaves it open."""
        if isinstance(self.views, Views) and "_versions" in self.__dict__:  # somebody looked back
            self._versions.close()
        self.views.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- changing -------------------------------------------------------------------------

    def send(self, command: Command, **about: Unpack[About]) -> Any:
        """Carry out a command in one transaction and return its result.

        All methods that change something end here.

        Raises:
            DBException: it is refused, or the store failed; nothing was changed.
        """
        if not isinstance(self.views, Views):
            self.views.store.refuse()
        if not isinstance(command, Command):
            raise InvalidCommand(f"{excerpt(command)} is no command: pass a commands.Command")
        named = type(command).__name__, type(command).__struct_fields__
        return execute(self.views, command, self._metadata(about, *named))

    def _metadata(self, about: About, callee: str, others: Iterable[str]) -> Metadata:
        unknown = about.keys() - About.__annotations__.keys()
        if unknown:
            raise unexpected(callee, unknown, (*others, *About.__annotations__))
        return replace(self._about, **about) if about else self._about

    def append(
        self, *events: Event, stream: str | None = None, **about: Unpack[About]
    ) -> list[Recorded]:
        """Append events of your own, all or none; the views follow.

        Args:
            events: what happened, in order.
            stream: the stream that they belong to, if not the one that each names itself.
            about: see `About`.

        Raises:
            InvalidEvent: one of them cannot be kept exactly, or names no stream.
        """
        return self.store.append(
            stream, events, metadata=self._metadata(about, "append", ("stream",))
        )

    def batch(self) -> AbstractContextManager[object]:
        """Put the commands of the block into one transaction: all of them happen or none.

        Reads within the block see what it has done so far. Other writers wait for it. A command
        that is refused leaves nothing, so its error can be caught and the block go on; an error
        that leaves a batch within the batch takes the outer one back too.

        >>> from refold import RfDb
        >>> db = RfDb("example.db")
        >>> with db.batch():
        ...     for name in ("a", "b"):
        ...         experiment_id = db.create_experiment(name)
        """
        return self.store.transaction()

    def reset_all_tables(self, experiments_table: bool = False, **about: Unpack[About]) -> None:
        """Empty the views, the experiments only if asked to; the history stays in the log."""
        self.send(ResetAllTables(experiments_table), **about)

    def reset_experiment_states(
        self, fail_runs: bool = False, **about: Unpack[About]
    ) -> dict[str, Any]:
        """Recover from a crash: what was in progress becomes failed, by one compensating event.

        Tasks that are scheduled or in progress (of workers and of actors), contexts being built
        and progress rows in progress become failed. Requests that nobody has processed stay
        pending. Runs and pipelines keep their status, so that a controller can go on from the
        last completed chunk; with `fail_runs`, new and ongoing ones fail too. If nothing was in
        progress, nothing is appended.

        Returns:
            the ids of what failed: `worker_tasks`, `actor_tasks`, `contexts`, `workers`,
            `controller`, `runs`, `pipelines`.
        """
        return self.send(ResetExperimentStates(fail_runs), **about)

    # --- the past -------------------------------------------------------------------------

    def as_of(self, moment: Moment) -> Self:
        """Return this face as it was at a moment: every read, nothing else.

        The first read of a view folds its log into a temporary file, up to twice the log in size;
        from then on reads at any moment are quick. What a batch of this thread has not committed is
        not there. `db.execute` takes SQLite's SQL, whatever engine the store has; it has the views,
        and `store.read()` the log. An event that cannot be decoded hides no moment before it.

        Args:
            moment: a position, whose event is the last that is seen; or a time with its zone.

        Raises:
            InvalidMoment: it lies in the future or before the first event, or has no zone.

        >>> from refold import RfDb
        >>> db = RfDb("example.db")
        >>> experiment_id = db.create_experiment("digits")
        >>> run_id = db.create_run(experiment_id)
        >>> before = db.store.head()
        >>> db.set_run_progress(run_id, current_chunk=3, current_epoch=0)
        >>> db.as_of(before).get_run(run_id)["current_chunk"]
        0
        """
        from refold.projections.past.views import PastViews  # only those who look back need it

        return self._on(PastViews(self._versions, self.position_at(moment)))

    def position_at(self, moment: Moment) -> int:
        """Return the position of the last event at a moment.

        Raises:
            InvalidMoment: it lies in the future or before the first event, or has no zone.
        """
        return self.store.position_at(moment)

    def history(self, entity: str, key: Key) -> "list[Touched]":
        """Return the events that touched a row, in order, each with what it changed.

        Args:
            entity: `experiment`, `run`, `task`, `worker`, `controller`, `request`, `context`,
                `pipeline`, `actor_task`, or the name of a view.
            key: its id.

        Raises:
            NotFound: no event ever touched it, or there is no such entity.

        >>> from refold import RfDb
        >>> db = RfDb("example.db", actor="controller")
        >>> run_id = db.create_run(db.create_experiment("digits"))
        >>> db.set_run_progress(run_id, current_chunk=3, current_epoch=0)
        >>> db.history("run", run_id)[-1].change.columns
        {'current_chunk': (0, 3)}
        """
        from refold.projections.past.history import history

        return history(self.store, self._versions, view_of(entity, self.views.views), key)

    def why(self, entity: str, key: Key, column: str) -> "Why":
        """Return why a column of a row holds what it does: the chain of causes; print it.

        An event's cause is what was passed as `cause` when it was caused.

        Args:
            entity: see `history`.
            key: its id.
            column: such as `status`.

        Raises:
            NotFound: there is no such row, entity or column.
        """
        from refold.projections.past.history import why

        return why(self.store, self._versions, view_of(entity, self.views.views), key, column)

    def diff(
        self, a: Moment, b: Moment, *, entities: Iterable[str] | None = None
    ) -> "list[Change]":
        """Return the rows that were added, removed or changed from one moment to another.

        Args:
            a: the one moment.
            b: the other; if it lies before `a`, the changes are what would undo the events between.
            entities: only rows of these, see `history`; None: of all views. Fewer are quicker.

        Raises:
            InvalidMoment: one lies in the future or before the first event, or has no zone.
            NotFound: there is no such entity.
        """
        from refold.projections.past.changes import diff

        words = None if entities is None else listed("entities", entities)
        wanted = None if words is None else [view_of(word, self.views.views) for word in words]
        return diff(self._versions, self.position_at(a), self.position_at(b), wanted)

    def changes_by(self, recorded: Recorded) -> "list[Change]":
        """Return the rows that an event added, removed or changed.

        Raises:
            InvalidMoment: it has not happened here, or is not committed yet.
        """
        from refold.projections.past.changes import changes_by

        if not isinstance(recorded, Recorded):
            raise InvalidCommand(f"{excerpt(recorded)} is no event of the log: pass a Recorded")
        self.position_at(recorded.position)
        return changes_by(self._versions, recorded)

    def to_arrow(self, what: str, *, at: Moment | None = None) -> "pyarrow.Table":
        """Return a view, or the log, as an Arrow table, which pandas and Polars take as it is.

        Needs `refold[arrow]`.

        Args:
            what: the name of a view, such as `runs`; or `events`.
            at: the moment as of which; None: now.

        Raises:
            NotFound: there is no such view.
            InvalidMoment: the moment lies in the future or before the first event, or has no zone.
            MissingPackage: pyarrow is not installed.
        """
        from refold.export.tables import to_arrow

        return to_arrow(self if at is None else self.as_of(at), what)

    # --- payloads -------------------------------------------------------------------------

    def put_payload(self, value: Any) -> str:
        """Store any Python object, such as a checkpoint, and return the digest that names it.

        Put the digest into an event of your own to find it again.

        Raises:
            InvalidPayload: it cannot be stored, or not so that it can be read again.
            PayloadRefused: it needs dill, and dill is not allowed.
        """
        return self.store.put_payload(self.payloads.encode(value))

    def get_payload(self, digest: str) -> Any:
        """Return the object that a digest names.

        Raises:
            NotFound: there is none.
            PayloadRefused: it is unsigned, altered, or holds dill where that is not allowed.
        """
        return self.payloads.decode(self.store.get_payload(digest))

    def _encoded(self, value: Any) -> bytes | None:
        """Return a value as payload bytes that this face can read back; bytes are a payload.

        Raises:
            InvalidPayload, PayloadRefused: it could not.
        """
        if value is None:
            return None
        if not isinstance(value, bytes):
            return self.payloads.encode(value)
        if not is_payload(value):
            raise InvalidPayload(
                "config_leaf is bytes that do not come from encode_payload: pass the object "
                "itself, or encode_payload(object)"
            )
        return self.payloads.adopt(value)

    # --- reading --------------------------------------------------------------------------

    def get_experiment(self, experiment_id: int) -> dict[str, Any]:
        """Return an experiment.

        Raises:
            NotFound: there is no such experiment.
        """
        hint = "create_experiment() returns ids"
        return self._one(experiments, experiment_id, "experiment", hint)

    def _rows(
        self, view: View[Any], rest: str, *values: Any, config: bool = True
    ) -> list[dict[str, Any]]:
        """Return rows of a view; see `read_rows`."""
        return read_rows(self.views, view, rest, *values, payloads=self.payloads, config=config)

    def _one(
        self, view: View[Any], key: Any, noun: str, hint: str, *, config: bool = True
    ) -> dict[str, Any]:
        """Return the row with a key, all of which can be read."""
        key = argument(view.key, key, Id)
        found = self._rows(view, f"WHERE {view.key} = ?", key, config=config)
        if not found:
            raise NotFound(f"there is no {noun} {key}: {hint}")
        return whole(found[0])

    def _first(self, view: View[Any], rest: str, *values: Any) -> dict[str, Any] | None:
        """Return the first of some rows, or None."""
        found = self._rows(view, f"{rest} LIMIT 1", *values)
        return whole(found[0]) if found else None

    def subscribe(
        self,
        after: int | None = 0,
        *,
        stream: str | None = None,
        types: Iterable[type[Event] | str] | None = None,
    ) -> Subscription:
        """Iterate over the events after a position, then over new ones, in order, for ever.

        Args:
            after: the position behind which to begin; None: from now on.
            stream: only the events of this stream.
            types: only events of these types, given as classes (which stand for their subclasses
                too) or names.
        """
        return self.store.subscribe(after, stream=stream, types=types)

    # --- keeping --------------------------------------------------------------------------

    def backup(self, to: str | os.PathLike[str], *, progress: bool | None = None) -> int:
        """Copy the whole store to a new file, as it is at this moment, while others go on.

        The file is a store by itself. It is there as a whole, and on the disk, or not at all.

        Args:
            to: a path where nothing is.
            progress: show a progress bar; None: only on a terminal.

        Returns:
            the position of the last event in it.

        Raises:
            InvalidCommand: something is at that path; or this is within a batch, or on a server,
                which has its own means.
            WriteRefused: the face is of the past, which a fork would copy.
            NotAStore: the path can be none of a store.
            StoreFailed: it could not be written, such as to a full disk.

        >>> from refold import RfDb
        >>> with RfDb("example.db") as db:
        ...     experiment_id = db.create_experiment("digits")
        ...     db.backup("backup.db")
        1
        """
        return self.store.backup(to, progress=progress)

    # --- replay ---------------------------------------------------------------------------

    def rebuild(self, *, progress: bool | None = None) -> int:
        """Fold the whole log into new views; readers see the old ones until these are complete.

        Args:
            progress: show a progress bar; None: only on a terminal.

        Returns:
            how many events were folded.
        """
        return self.views.rebuild(progress=progress)

    def verify(self, *, log: bool = False, payloads: bool = False) -> Findings:
        """Fold the log and return every row and column in which a view differs; empty: equal.

        What it did not look at stands in the result's `unchecked`.

        Args:
            log: check the log, too: return first what was altered in it, is missing, was inserted
                or swapped, by the digest of each event, and tables, columns and triggers that are
                not refold's.
            payloads: compare every payload with its digest, too, and look for those that rows name
                and that are missing. Nothing is decoded.

        >>> from refold import RfDb
        >>> with RfDb("example.db") as db:
        ...     print(db.verify(log=True), *db.verify(log=True).unchecked)
        [] payloads: verify(payloads=True)
        """
        found = Findings()
        unchecked: list[str] = []
        if log:
            names = [name for view in self.views.views for name in view.objects]
            found += self.store.faults(known=names)
            with self.store.reading() as connection:
                without = store_row(connection).unchecked
            if without:
                unchecked.append(f"events up to {without}: they have no digest")
        else:
            unchecked.append("the log: verify(log=True)")
        if payloads:
            found += self.store.payload_faults(self._named_payloads())
        else:
            unchecked.append("payloads: verify(payloads=True)")
        found += self.views.verify()
        found.unchecked = tuple(unchecked)
        return found

    def _named_payloads(self) -> dict[str, str]:
        """Return the digests that rows name, and which row does."""
        named: dict[str, str] = {}
        for view in self.views.views:
            for column in (name for name in view.columns if name == "config_digest"):
                rows = self.views.select(
                    f"SELECT {view.key} AS key, {column} AS digest FROM {view.table} "
                    f"WHERE {column} IS NOT NULL"
                )
                named |= {row["digest"]: f"{entity_of(view)} {row['key']}" for row in rows}
        return named


def _opened(kind: type[Face], options: dict[str, Any], past: int | None) -> Face:
    """Open a face like another process's."""
    face = kind(**options, create=False)
    return face if past is None else face.as_of(past)

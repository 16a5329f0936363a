"""What both faces have in common: a store with its views, commands in, rows out."""

import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack, cast

from msgspec import UNSET
from msgspec.structs import replace

from refold import html
from refold.commands.command import Command, execute
from refold.commands.liveness import (
    NOBODY,
    DeclareLost,
    Gone,
    Join,
    Leave,
    Membership,
    RecoverLost,
    SetRetries,
    check_membership,
)
from refold.commands.store import ResetAllTables, ResetExperimentStates
from refold.eventstore import (
    Event,
    EventStore,
    Metadata,
    Recorded,
    Subscription,
    open_store,
    times,
)
from refold.eventstore.arguments import argument, check_name, excerpt, listed, unexpected
from refold.eventstore.engines.engine import Durability
from refold.eventstore.engines.log_end import store_row
from refold.eventstore.errors import (
    AlreadyJoined,
    DBException,
    InvalidCommand,
    InvalidPayload,
    NotFound,
    Transient,
    UnreadableEvent,
)
from refold.eventstore.event import NO_METADATA, Id, Name
from refold.eventstore.events import MetricsLogged, RunCheckpointSaved
from refold.eventstore.log.past import PastStore
from refold.eventstore.log.readable import Moment
from refold.eventstore.log.store import absolute
from refold.eventstore.log.transaction import Outcome, Transaction
from refold.eventstore.payloads import PayloadCodec, is_payload, is_storing
from refold.metrics import MetricsLog, bring_in_left_over
from refold.presence import Presence, presence_in
from refold.projections import Findings, View, Views
from refold.projections.entities import ALL, entity_of, view_of
from refold.projections.experiments import experiments
from refold.projections.fit import worker_task
from refold.projections.liveness import members as members_view
from refold.projections.view import Key
from refold.projections.views import Queries
from refold.rows import read_rows, whole

if TYPE_CHECKING:
    import pyarrow

    from refold.projections.past.changes import Change
    from refold.projections.past.history import Touched, Why
    from refold.projections.past.versions import Versions
    from refold.projections.past.views import PastViews


LOOKED_EVERY = 0.02
"""Seconds from one look at the locks of others to the next."""


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
        self._presence: Presence | None = None
        self._about = NO_METADATA if actor is None else Metadata(actor=actor)
        self.payloads = PayloadCodec(key=signing_key, allow_dill=allow_dill)
        self._logs: weakref.WeakSet[MetricsLog] = weakref.WeakSet()
        bring_in_left_over(self.views, self.payloads)
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

    def __repr__(self) -> str:
        store = self.store
        if isinstance(store, PastStore):
            return f"<{type(self).__name__} of {store.engine.name} as of event {store.position}>"
        try:
            return f"<{type(self).__name__} of {store.engine.name} at event {store.head()}>"
        except DBException as error:  # such as: it was closed
            return f"<{type(self).__name__} of {store.engine.name}: {type(error).__name__}>"

    def _repr_html_(self) -> str:
        return html.text(repr(self))

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
        face._presence = None
        if isinstance(views, Views):  # of another store: it has a past of its own
            face.__dict__.pop("_versions", None)
            face._logs = weakref.WeakSet()
            face._options = {**self._options, "path_or_url": absolute(views.store.engine.name)}
        return face

    @cached_property
    def _versions(self) -> "Versions":
        """Every version that a row ever had; faces as of a moment share it."""
        from refold.projections.past.versions import Versions  # only those who look back need it

        assert isinstance(self.store, EventStore)
        # Two threads that look back at the same moment may both come here, and both get one.
        return self.__dict__.setdefault("_versions", Versions(self.store, self.views.views))

    def _present(self) -> Presence:
        """Return what this process is here; it is nothing in the past.

        Raises:
            WriteRefused: the face is of the past.
        """
        if not isinstance(self.store, EventStore):
            self.store.refuse()
        if self._presence is None:
            self._presence = presence_in(self.store)
        return self._presence

    def create_tables(self) -> None:
        """Make sure that all tables are there; opening a store does so already."""
        with self.views.reading():
            pass

    def close(self) -> None:
        """Close the store; closing twice does nothing. A face as of a moment leaves it open."""
        if isinstance(self.views, Views) and "_versions" in self.__dict__:  # somebody looked back
            self._versions.close()
        if isinstance(self.views, Views):
            for log in list(self._logs):
                log.close()
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
            raise InvalidCommand(f"{excerpt(command)} is not a command: pass a commands.Command")
        named = type(command).__name__, type(command).__struct_fields__
        metadata = self._metadata(about, *named)
        # To join anew is what helps who has been taken for lost.
        own = None if isinstance(command, Join) else self._present().membership(self._outcome())
        return execute(self.views, command, metadata, own and partial(check_membership, own))

    def _outcome(self) -> Outcome | None:
        """Return what will become of the batch that this thread is in; None: it is in none."""
        transaction = self.store.current()
        return None if transaction is None else transaction.outcome

    def _claiming(
        self, view: View[Any], command: Command, task_id: Any, about: About
    ) -> dict[str, Any] | None:
        """Send a command that may claim a task, and keep the claim.

        Args:
            view: of the task.
            command: what is sent.
            task_id: of the task; None: the result of the command tells it.
            about: see `About`.

        Returns:
            the task, if it is claimed by this very command.
        """

        def claimed(transaction: Transaction) -> dict[str, Any] | None:
            before = transaction.head
            result = self.send(command, **about)
            key = result if task_id is None else task_id
            if key is None:
                return None
            rest = f"WHERE upper(status) = 'IN_PROGRESS' AND {view.key} = ?"
            task = self._first(view, rest, key)
            # One that is sent again may be of a claim that has been lost meanwhile.
            if task is None or not (transaction.head != before or self._led_to(task, about)):
                return None
            self._present().add(view, task, transaction.outcome)
            return task

        return self.store.perform(claimed)

    def _reporting(self, view: View[Any], command: Command, task_id: int, about: About) -> None:
        """Send a report that ends a task, and with it the claim that this process holds."""

        def reported(transaction: Transaction) -> None:
            before = transaction.head
            self.send(command, **about)
            if transaction.head != before:
                self._present().give_back(view, task_id, transaction.outcome)

        self.store.perform(reported)

    def _led_to(self, task: dict[str, Any], about: About) -> bool:
        """Return whether a command with an id has led to the claim that is on a task."""
        command_id = about.get("command_id")
        if command_id is None:
            return False
        found = next(self.store.read_at([task["claim"]], unknown=True), None)
        return found is not None and found.metadata.command_id == command_id

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

        def reset(transaction: Transaction) -> dict[str, Any]:
            before = transaction.head
            failed = self.send(ResetExperimentStates(fail_runs), **about)
            if transaction.head != before:
                self._present().give_back_all(transaction.outcome)
            return failed

        return self.store.perform(reset)

    # --- who is there ---------------------------------------------------------------------

    def join(
        self, name: str, *, take_over: bool = False, wait: float = 0, **about: Unpack[About]
    ) -> None:
        """Take part as a worker, an actor or the controller, until `leave` or the process ends.

        The process holds a lock, by which others on its host see at once when it dies, however it
        dies. It is one member, through whichever faces it acts. Whoever has the name and is gone is
        declared lost.

        Args:
            name: such as `worker-0`, `actor-1` or `controller`.
            take_over: take the place of who has the name, though it may be alive: from then on it
                is refused whatever it sends, and its tasks are lost.
            wait: seconds to wait for the name, as a standby does until the other one is gone.
            about: see `About`.

        Raises:
            AlreadyJoined: another process has the name, and is alive for all that is known.
            InvalidCommand: this process has joined under another name, or the name is empty.
        """
        name = _member(name)
        deadline = time.monotonic() + argument("wait", wait, float)

        def joined(transaction: Transaction) -> None:
            own = self._present().membership(transaction.outcome)
            if own is not None and own.name != name:
                raise InvalidCommand(f"this process has joined as {own.name}: it is one member")
            before = self._first(members_view, "WHERE name = ? AND status = 'JOINED'", name)
            if own is not None and before is not None and before["joined"] == own.position:
                return
            gone = () if before is None else self._gone((before["joined"],))
            command = Join(name, self._now(), gone[0] if gone else UNSET, take_over)
            self.send(command, **about)
            row = self._first(members_view, "WHERE name = ?", name)
            assert row is not None
            self._present().joined(Membership(name, row["joined"]), transaction.outcome)

        while True:
            try:
                return self.store.perform(joined)
            except AlreadyJoined:
                if time.monotonic() >= deadline or self.store.is_held():
                    raise
            time.sleep(LOOKED_EVERY)

    def leave(self, **about: Unpack[About]) -> None:
        """End this process's part; if it has none, nothing happens."""

        def left(transaction: Transaction) -> None:
            own = self._present().membership(transaction.outcome)
            if own is not None:
                self.send(Leave(own.name), **about)
                self._present().left(transaction.outcome)

        self.store.perform(left)

    def recover(self, **about: Unpack[About]) -> dict[str, Any]:
        """Take back what belongs to the dead, and nothing else: to be called again and again.

        Who has joined, or claimed a task, and whose process is seen to be gone, is lost: its tasks
        fail with that as their cause, or are offered again, see `set_retries`. Of who is on another
        host, or before the lock file was removed, nothing is known, and nothing of it is taken.

        Returns:
            the names of the `lost`, and the ids of their tasks, by what follows: `failed_tasks`,
            `offered_tasks`, `failed_actor_tasks`, `offered_actor_tasks`.

        >>> from refold import RfDb
        >>> RfDb("example.db").recover()["lost"]
        []
        """
        gone = self._gone(self._taken_on())
        if not gone:
            return {**NOBODY}
        return self.send(RecoverLost(gone, self._now()), **about)

    def members(self) -> list[dict[str, Any]]:
        """Return the controller, the workers and the actors, and which of them are alive.

        Each has its name (`who`), what it `does` and its `status` as it has told, its tasks in
        progress (`on`), since when (`since`), when it was `heard` of last, whether it is `alive`
        (None: nothing tells), how that is known (`known_by`), the number of its `process`, and
        since when it is lost (`lost_since`).
        """
        from refold.who import who  # only those who look need it

        return who(self.views, self._present() if isinstance(self.views, Views) else None)

    def declare_lost(self, name: str, **about: Unpack[About]) -> dict[str, Any]:
        """Declare somebody lost, whatever is seen of it; what follows is that of `recover`.

        It is for a process that is stopped, or on a host that is cut off: what it reports when it
        comes back is refused.

        Raises:
            NotFound: it has not joined, and has no task in progress.
        """
        return self.send(DeclareLost(_member(name), self._now()), **about)

    def set_retries(
        self, entity: str, key: int, max_attempts: int, wait: float = 0, **about: Unpack[About]
    ) -> None:
        """Decide how often tasks are offered again whose worker was lost; otherwise they fail.

        What is decided for a run or a pipeline goes before what is for its experiment.

        Args:
            entity: `experiment`, `run` or `pipeline`.
            key: its id.
            max_attempts: in all; after the last one, the task has failed.
            wait: seconds until the second attempt; each further one waits twice as long, an hour
                at most.
            about: see `About`.

        Raises:
            NotFound: there is none with that id.
            InvalidCommand: a number is out of range.
        """
        self.send(SetRetries(cast("Any", entity), key, max_attempts, wait), **about)

    @contextmanager
    def watching(self) -> Generator[None, None, None]:
        """Have a thread call `recover` as soon as somebody dies, until the end of the block.

        It looks at the locks 50 times a second, and at the store only when something has happened.
        """
        self._present().look(())  # refuses a face of the past
        over = threading.Event()
        thread = threading.Thread(
            target=self._watch, args=(over,), name="refold-watch", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        assert isinstance(self.store, EventStore)
        with closing(self.store.engine.watch()) as news:
            known: list[int] = []
            while not over.is_set():
                try:
                    if news.wait(LOOKED_EVERY):
                        known = self._taken_on()
                    if self._gone(known):
                        self.recover()
                        known = self._taken_on()
                except Transient:
                    over.wait(1)  # the server, or another writer

    def _taken_on(self) -> list[int]:
        """Return the positions at which somebody took on what is not ended."""
        rows = self.views.select(
            "SELECT claim AS position FROM worker_task WHERE status = 'IN_PROGRESS' "
            "UNION SELECT claim FROM actor_tasks WHERE status = 'in_progress' "
            "UNION SELECT joined FROM members WHERE status = 'JOINED'"
        )
        return [row["position"] for row in rows if row["position"] is not None]

    def _gone(self, positions: Iterable[int]) -> tuple[Gone, ...]:
        """Return those whose processes are seen to be gone."""
        seen = self._present().look(positions)
        return tuple(
            Gone(position, one.process) for position, one in seen.items() if one.state == "free"
        )

    def _now(self) -> int:
        return (self._options["clock"] or times.now)()

    def _is_any_offered(self, view: View[Any]) -> bool:
        """Return whether any task is scheduled: whoever polls for all would lock out others."""
        word = "'SCHEDULED'" if view is worker_task else "'scheduled'"
        return bool(self.views.select(f"SELECT 1 FROM {view.table} WHERE status = {word} LIMIT 1"))

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
            raise InvalidCommand(f"{excerpt(recorded)} is not an event of the log: pass a Recorded")
        self.position_at(recorded.position)
        return changes_by(self._versions, recorded)

    def to_arrow(self, what: str, *, at: Moment | None = None) -> "pyarrow.Table":
        """Return a view, or the log, as an Arrow table, which pandas and Polars take as it is.

        Needs `refold[arrow]`.

        Args:
            what: the name of a view, such as `runs`; `runs_wide`, with a column for each parameter
                and metric; or `events`.
            at: the moment; None: now.

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
        """Return a configuration as a payload that this face can read back; bytes are one already.

        Raises:
            InvalidPayload, PayloadRefused: it could not.
        """
        if value is None:
            return None
        if not isinstance(value, bytes):
            return self.payloads.encode(value, outlined=True)
        if not is_payload(value):
            raise InvalidPayload(
                "config_leaf is bytes that do not come from encode_payload: pass the object "
                "itself, or encode_payload(object)"
            )
        return self.payloads.adopt(value, outlined=True)

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

        The result's `unchecked` says what it did not look at.

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
        """Return the digests that rows, points of metrics and checkpoints name, and what does."""
        named: dict[str, str] = {}
        for view in self.views.views:
            for column in (name for name in view.columns if name == "config_digest"):
                rows = self.views.select(
                    f"SELECT {view.key} AS key, {column} AS digest FROM {view.table} "
                    f"WHERE {column} IS NOT NULL"
                )
                named |= {row["digest"]: f"{entity_of(view)} {row['key']}" for row in rows}
        with suppress(UnreadableEvent):  # which `faults` names
            for recorded in self.store.read(types=[MetricsLogged, RunCheckpointSaved]):
                event = recorded.event
                digest = event.state if isinstance(event, RunCheckpointSaved) else UNSET
                digest = event.points if isinstance(event, MetricsLogged) else digest
                if digest is not UNSET:
                    named[digest] = f"event {recorded.position}"
        return named


def _member(name: str) -> str:
    """Return the name of a member, which is that of a stream, too."""
    name = argument("name", name, Name)
    try:
        check_name("name for a member", name)
    except ValueError as error:
        raise InvalidCommand(str(error)) from None
    return name


def _opened(kind: type[Face], options: dict[str, Any], past: int | None) -> Face:
    """Open a face like another process's."""
    face = kind(**options, create=False)
    return face if past is None else face.as_of(past)

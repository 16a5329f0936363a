"""Both faces against a model of plain dicts: a state machine of hypothesis."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from model import Evals, Fit, Model, Refused, State
from tables import Folding, Tables, tables
from tries import tries

from refold import (
    ActorTaskStatus,
    ContextStatus,
    ControllerTask,
    DBException,
    ExperimentStatus,
    InferenceStatus,
    PipelineStatus,
    RFDatabase,
    RfDb,
    RunEndedBy,
    RunSource,
    RunStatus,
    TaskStatus,
    WorkerTask,
)
from refold.eventstore import open_store
from refold.eventstore.events import WorkerProgressed
from refold.eventstore.statuses import TaskStatus as Status
from refold.eventstore.statuses import WorkerTask as Task
from refold.face import Face


def words(enum: Any) -> st.SearchStrategy[str]:
    return st.sampled_from([word.value for word in enum])


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


class Recent(NamedTuple):
    """An id: of an entity of a kind, the last that was created, the last but one …"""

    kind: str
    back: int

    def resolve(self, state: State) -> int:
        last = state.tables["ids"].get(self.kind, {"last": 0})["last"]
        return max(0, last - self.back)


def recent(kind: str) -> st.SearchStrategy[Recent]:
    # Few, so that calls meet; now and then one that is not there.
    return st.builds(Recent, st.just(kind), st.sampled_from([0, 0, 1, 0, 1, 2, 0, 1, 0, -1]))


EXPERIMENT, RUN, TASK, REQUEST = map(recent, ["experiment", "run", "task", "ic"])
CONTEXT, PIPELINE, ACTOR_TASK = map(recent, ["context", "pipeline", "actor_task"])
PIPELINE_REQUEST = recent("pipeline_ic")
FEW = st.integers(0, 2)
NAME = st.sampled_from(["a", "b", "ü"])
TEXT = st.sampled_from(["", "out of memory", "too late"])
TIME = st.sampled_from(["2026-01-01T00:00:00", "2026-01-01T00:00:09", "now"])
SECONDS = optional(st.sampled_from([0.0, 1.5]))
CONFIG = optional(st.sampled_from([{"lr": 0.1}, {"lr": 0.2, "layers": (64, 64)}]))
METRICS = st.sampled_from([{}, {"loss": 0.5}, {"loss": 1, "all": [1.0, None, True]}])

Arguments = dict[str, st.SearchStrategy[Any]]
BOTH: dict[str, Arguments] = {
    "reset_all_tables": {"experiments_table": st.booleans()},
    "reset_experiment_states": {"fail_runs": st.booleans()},
}
FIT: dict[str, Arguments] = {
    "create_experiment": {
        "experiment_name": NAME,
        "experiments_path": optional(NAME),
        "status": words(ExperimentStatus),
    },
    "set_experiment_status": {"experiment_id": EXPERIMENT, "status": words(ExperimentStatus)},
    "create_run": {
        "experiment_id": EXPERIMENT,
        "run_name": optional(NAME),
        "config_leaf": CONFIG,
        "status": words(RunStatus),
        "source": words(RunSource),
        "seed": optional(FEW),
        "num_chunks": optional(FEW),
        "parent_run_id": st.none() | optional(RUN),
        "warm_start": st.booleans(),
    },
    "set_run_status": {"run_id": RUN, "status": words(RunStatus)},
    "set_run_ended_by": {"run_id": RUN, "ended_by": words(RunEndedBy)},
    "log_metrics": {
        "run_id": RUN,
        "metrics": st.sampled_from([{}, {"loss": 0.5}, {"loss": 2, "acc/x": -1.5}]),
        "step": optional(st.integers(-3, 9)),
    },
    "update_run_metrics": {"run_id": RUN, "metrics": METRICS},
    "set_run_progress": {"run_id": RUN, "current_chunk": FEW, "current_epoch": FEW},
    "create_worker_task": {"run_id": RUN, "worker_id": FEW, "chunk_id": FEW, "epoch": FEW},
    "claim_next_worker_task": {"worker_id": FEW},
    "set_worker_task_status": {
        "task_id": TASK,
        "status": words(TaskStatus),
        "error": optional(TEXT),
    },
    "set_controller_task": {"task": words(ControllerTask), "status": words(TaskStatus)},
    "set_worker_progress": {
        "worker_id": FEW,
        "task": words(WorkerTask),
        "status": words(TaskStatus),
    },
    "request_clone_modify": {"run_id": RUN, "config_leaf": CONFIG, "warm_start": st.booleans()},
    "request_stop": {"run_id": RUN},
    "request_resume": {"run_id": RUN},
    "request_delete": {"run_id": RUN},
    "mark_ic_ops_in_progress": {"ic_id": REQUEST},
    "mark_ic_ops_completed": {"ic_id": REQUEST},
    "mark_ic_ops_failed": {"ic_id": REQUEST, "error": optional(TEXT)},
    "mark_ic_ops_skipped": {"ic_id": REQUEST, "error": optional(TEXT)},
}
FIT_READS: dict[str, Arguments] = {
    "get_experiment": {"experiment_id": EXPERIMENT},
    "get_running_experiment": {},
    "get_run": {"run_id": RUN},
    "get_all_runs": {},
    "get_runs_by_status": {"status": st.lists(words(RunStatus), max_size=3)},
    "get_worker_task": {"task_id": TASK},
    "get_worker_tasks": {
        "run_id": optional(RUN),
        "worker_id": optional(FEW),
        "status": optional(words(TaskStatus)),
    },
    "get_next_worker_task": {"worker_id": FEW},
    "get_controller_task": {},
    "get_worker_progress": {"worker_id": FEW},
    "get_ic_ops_request": {},
}
EVALS: dict[str, Arguments] = {
    "create_experiment": {
        "experiment_name": NAME,
        "num_shards": FEW,
        "num_actors": FEW,
        "num_cpus": optional(st.sampled_from([8, 0.5])),
        "num_gpus": optional(st.sampled_from([0.25])),
        "status": st.sampled_from([*InferenceStatus, "NEW"]),
    },
    "set_experiment_status": {"experiment_id": EXPERIMENT, "status": words(InferenceStatus)},
    "set_experiment_error": {"experiment_id": EXPERIMENT, "error": TEXT},
    "create_context": {
        "context_hash": NAME,
        "rag_config_json": optional(TEXT),
        "status": words(ContextStatus),
    },
    "set_context_status": {"context_id": CONTEXT, "status": words(ContextStatus)},
    "set_context_start_time": {"context_id": CONTEXT, "start_time": TIME},
    "set_context_end_time": {"context_id": CONTEXT, "end_time": TIME, "duration_seconds": SECONDS},
    "set_context_error": {"context_id": CONTEXT, "error": TEXT},
    "create_pipeline": {
        "experiment_id": EXPERIMENT,
        "pipeline_name": NAME,
        "pipeline_type": NAME,
        "model_config_json": optional(TEXT),
        "status": words(PipelineStatus),
        "context_id": st.none() | optional(CONTEXT),
    },
    "set_pipeline_status": {"pipeline_id": PIPELINE, "status": words(PipelineStatus)},
    "set_pipeline_progress": {
        "pipeline_id": PIPELINE,
        "current_shard_id": optional(FEW),
        "shards_completed": FEW,
        "total_samples_processed": FEW,
    },
    "set_pipeline_error": {"pipeline_id": PIPELINE, "error": TEXT},
    "create_actor_task": {
        "experiment_id": EXPERIMENT,
        "pipeline_id": PIPELINE,
        "actor_id": FEW,
        "shard_id": FEW,
    },
    "claim_next_actor_task": {"actor_id": FEW},
    "set_actor_task_status": {"task_id": ACTOR_TASK, "status": words(ActorTaskStatus)},
    "set_actor_task_start_time": {"task_id": ACTOR_TASK, "start_time": TIME},
    "set_actor_task_end_time": {
        "task_id": ACTOR_TASK,
        "end_time": TIME,
        "duration_seconds": SECONDS,
    },
    "set_actor_task_error": {"task_id": ACTOR_TASK, "error": TEXT},
    "request_stop": {"pipeline_id": PIPELINE},
    "request_resume": {"pipeline_id": PIPELINE},
    "request_delete": {"pipeline_id": PIPELINE},
    "request_clone": {"pipeline_id": PIPELINE, "request_data": optional(TEXT)},
    "mark_ic_ops_in_progress": {"ic_id": PIPELINE_REQUEST},
    "mark_ic_ops_completed": {"ic_id": PIPELINE_REQUEST},
    "mark_ic_ops_failed": {"ic_id": PIPELINE_REQUEST, "error": optional(TEXT)},
    "mark_ic_ops_skipped": {"ic_id": PIPELINE_REQUEST, "error": optional(TEXT)},
}
EVALS_READS: dict[str, Arguments] = {
    "get_experiment": {"experiment_id": EXPERIMENT},
    "get_current_experiment": {},
    "get_all_experiment_names": {},
    "get_experiment_error": {"experiment_id": EXPERIMENT},
    "get_context": {"context_id": CONTEXT},
    "get_pipeline": {"pipeline_id": PIPELINE},
    "get_all_pipelines": {"experiment_id": EXPERIMENT},
    "get_actor_task": {"task_id": ACTOR_TASK},
    "get_next_actor_task": {"actor_id": FEW},
    "get_running_actor_tasks": {"experiment_id": EXPERIMENT},
    "get_ic_ops_request": {},
}


class Call(NamedTuple):
    """A call of a face's method."""

    method: str
    arguments: dict[str, Any]
    command_id: str | None = None

    def resolve(self, state: State) -> "Call":
        """Return the call with the ids that are meant."""
        arguments = {
            name: value.resolve(state) if isinstance(value, Recent) else value
            for name, value in self.arguments.items()
        }
        return self._replace(arguments=arguments)


def calls(
    methods: dict[str, Arguments], command_ids: st.SearchStrategy[str | None]
) -> st.SearchStrategy[Call]:
    return st.one_of(
        [
            st.builds(Call, st.just(method), st.fixed_dictionaries(arguments), command_ids)
            for method, arguments in methods.items()
        ]
    )


NOW_AND_THEN = st.sampled_from([None, None, None, "x", "y"])
FIT_CALLS = calls(FIT, NOW_AND_THEN)
EVALS_CALLS = calls(EVALS, NOW_AND_THEN)
RESETS = calls(BOTH, NOW_AND_THEN)


def moves(method: str, id_name: str, ids: st.SearchStrategy[Recent], enum: Any) -> Any:
    """Return a strategy for calls that move one entity from status to status."""
    return st.builds(
        lambda entity, statuses: [
            Call(method, {id_name: entity, "status": status}) for status in statuses
        ],
        ids,
        st.lists(words(enum), min_size=1, max_size=6),
    )


FIT_MOVES = st.one_of(
    moves("set_run_status", "run_id", RUN, RunStatus),
    moves("set_worker_task_status", "task_id", TASK, TaskStatus),
    moves("set_experiment_status", "experiment_id", EXPERIMENT, ExperimentStatus),
)
EVALS_MOVES = st.one_of(
    moves("set_pipeline_status", "pipeline_id", PIPELINE, PipelineStatus),
    moves("set_context_status", "context_id", CONTEXT, ContextStatus),
    moves("set_actor_task_status", "task_id", ACTOR_TASK, ActorTaskStatus),
)

LAST = {kind: Recent(kind, 0) for kind in ("experiment", "run", "pipeline")}
FIRST_FIT_CALLS = [
    Call("create_experiment", {"experiment_name": "a", "status": "RUNNING"}),
    Call("create_run", {"experiment_id": LAST["experiment"], "config_leaf": {"lr": 0.1}}),
    Call("create_run", {"experiment_id": LAST["experiment"], "status": "ONGOING"}),
    *[
        Call("create_worker_task", {"run_id": LAST["run"], "worker_id": n, "chunk_id": 0})
        for n in (0, 0, 1)
    ],
    Call("claim_next_worker_task", {"worker_id": 0}),
    Call("request_stop", {"run_id": LAST["run"]}),
    Call("request_delete", {"run_id": LAST["run"]}),
]
FIRST_EVALS_CALLS = [
    Call("create_experiment", {"experiment_name": "b"}),
    Call("create_context", {"context_hash": "a", "status": "building"}),
    Call(
        "create_pipeline",
        {
            "experiment_id": LAST["experiment"],
            "pipeline_name": "a",
            "pipeline_type": "b",
            "status": "ongoing",
        },
    ),
    *[
        Call(
            "create_actor_task",
            {
                "experiment_id": LAST["experiment"],
                "pipeline_id": LAST["pipeline"],
                "actor_id": 0,
                "shard_id": n,
            },
        )
        for n in (0, 1)
    ],
]
BOOKKEEPING = ("created_at", "updated_at", "position", "claim", "offered_after")


def plain(value: Any) -> Any:
    """Return what a face gave without the columns that the model does not keep."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: v for name, v in value.items() if name not in BOOKKEEPING}
    return value


def shown(rows: Tables) -> Tables:
    """Return tables without those columns, and metrics as what their JSON means."""
    for row in rows["runs"]:
        row["metrics"] = msgspec.json.decode(row["metrics"])
    return {name: plain(table) for name, table in rows.items()}


class BothFaces(RuleBasedStateMachine):
    """Calls both faces and the model, and compares all that can be seen."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.state = State()
        self.seen: dict[int, Tables] = {}
        self.open()

    def open(self) -> None:
        self.fit, self.evals = RfDb(self.place), RFDatabase(self.place)

    def close(self) -> None:
        self.fit.close()
        self.evals.close()

    @initialize()
    def populate(self) -> None:
        """Create something of every kind, so that few calls go nowhere."""
        for call in FIRST_FIT_CALLS:
            self.change(self.fit, call)
        for call in FIRST_EVALS_CALLS:
            self.change(self.evals, call)

    # --- one call -------------------------------------------------------------------------

    def model(self, face: Face) -> Model:
        return Fit(self.state) if face is self.fit else Evals(self.state)

    def change(self, face: Face, call: Call) -> None:
        call = call.resolve(self.state)
        head, before = face.store.head(), self.state.copy()
        about = {} if call.command_id is None else {"command_id": call.command_id}
        method = getattr(face, call.method)
        try:
            expected = self.model(face).call(*call)
        except Refused:
            self.state = before
            with pytest.raises(DBException):
                method(**call.arguments, **about)
        else:
            assert plain(method(**call.arguments, **about)) == expected
        now = self.state.seen()
        assert (face.store.head() > head) == (now != before.seen())
        assert shown(tables(face)) == now
        self.seen[face.store.head()] = now

    def look(self, face: Face, call: Call) -> None:
        call = call.resolve(self.state)
        method = getattr(face, call.method)
        try:
            expected = self.model(face).call(*call)
        except Refused:
            with pytest.raises(DBException):
                method(**call.arguments)
        else:
            assert plain(method(**call.arguments)) == expected

    # --- steps ----------------------------------------------------------------------------

    @rule(some=FIT_MOVES | st.lists(FIT_CALLS, min_size=1, max_size=5))
    def change_fit(self, some: list[Call]) -> None:
        for call in some:
            self.change(self.fit, call)

    @rule(some=EVALS_MOVES | st.lists(EVALS_CALLS, min_size=1, max_size=5))
    def change_evals(self, some: list[Call]) -> None:
        for call in some:
            self.change(self.evals, call)

    @rule(call=RESETS, fit=st.booleans())
    def reset(self, call: Call, fit: bool) -> None:
        self.change(self.fit if fit else self.evals, call)
        self.populate()

    @rule(call=calls(FIT, st.sampled_from(["again", "and again"])))
    def retry(self, call: Call) -> None:
        """Send a command twice with an id, which an earlier one may have had already."""
        call = call.resolve(self.state)
        self.change(self.fit, call)
        self.change(self.fit, call)

    @rule(call=calls(FIT_READS, st.none()))
    def look_at_fit(self, call: Call) -> None:
        self.look(self.fit, call)

    @rule(call=calls(EVALS_READS, st.none()))
    def look_at_evals(self, call: Call) -> None:
        self.look(self.evals, call)

    @rule(batch=st.lists(FIT_CALLS | RESETS, max_size=8), abort=st.booleans())
    def batch_fit(self, batch: list[Call], abort: bool) -> None:
        self.batch(self.fit, batch, abort)

    @rule(batch=st.lists(EVALS_CALLS | RESETS, max_size=8), abort=st.booleans())
    def batch_evals(self, batch: list[Call], abort: bool) -> None:
        self.batch(self.evals, batch, abort)

    def batch(self, face: Face, batch: list[Call], abort: bool) -> None:
        state, seen, head = self.state.copy(), dict(self.seen), face.store.head()
        with suppress(KeyError), face.batch():
            for call in batch:
                self.change(face, call)
            if abort:
                raise KeyError
        if abort:
            self.state, self.seen = state, seen
            assert face.store.head() == head

    @rule(worker_id=FEW, task=st.sampled_from(Task), status=st.sampled_from(Status))
    def report_without_views(self, worker_id: int, task: Task, status: Status) -> None:
        """A worker appends its progress straight to the log."""
        with open_store(self.place) as store:
            store.append(f"worker-{worker_id}", [WorkerProgressed(worker_id, task, status)])
        Fit(self.state).set_worker_progress(worker_id, task.value, status.value)
        self.seen[self.fit.store.head()] = self.state.seen()

    @rule()
    def rebuild(self) -> None:
        before = repr(tables(self.fit))
        assert self.evals.rebuild() == self.evals.store.head()
        assert repr(tables(self.fit)) == before

    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    # --- what must hold -------------------------------------------------------------------

    @invariant()
    def views_equal_the_model_and_the_log(self) -> None:
        assert shown(tables(self.fit)) == shown(tables(self.evals)) == self.state.seen()
        assert self.fit.verify() == []

    def teardown(self) -> None:
        log = list(self.fit.store.read())
        self.close()
        folding = Folding()
        for recorded in log:
            folding.fold(recorded)
            if recorded.position in self.seen:
                assert shown(folding.tables()) == self.seen[recorded.position]


NOT_MODELLED = {
    "checkpoints",  # they change no row
    "latest_checkpoint",
    "save_checkpoint",
    "metrics",  # a block, in tests of its own
    "runs_frame",
    "metric_history",
    "search_runs",
    "append",
    "as_of",
    "backup",
    "batch",
    "changes_by",
    "close",
    "create_tables",
    "declare_lost",
    "diff",
    "members",
    "get_payload",
    "history",
    "join",
    "leave",
    "position_at",
    "put_payload",
    "rebuild",
    "recover",
    "send",
    "set_retries",
    "subscribe",
    "to_arrow",
    "verify",
    "watching",
    "why",
}


@pytest.mark.parametrize(
    ("face", "modelled"),
    [(RfDb, {**FIT, **FIT_READS, **BOTH}), (RFDatabase, {**EVALS, **EVALS_READS, **BOTH})],
)
def test_every_method_is_modelled(face: type[Face], modelled: dict[str, Arguments]) -> None:
    methods = {name for name in dir(face) if callable(getattr(face, name)) and name[0] != "_"}
    assert methods - NOT_MODELLED == set(modelled)


def run(new_place: Callable[[], str], engine: str, examples: int) -> None:
    run_state_machine_as_test(
        lambda: BothFaces(new_place()),
        settings=settings(
            tries(examples, engine), stateful_step_count=40, report_multiple_bugs=False
        ),
    )


@pytest.mark.property
def test_both_faces_do_as_the_model_does(new_place: Callable[[], str], engine: str) -> None:
    run(new_place, engine, 40)


@pytest.mark.soak
def test_both_faces_do_as_the_model_does_for_long(
    new_place: Callable[[], str], engine: str
) -> None:
    run(new_place, engine, 3_000)

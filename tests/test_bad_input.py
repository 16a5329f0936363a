"""What callers get wrong is refused by a `DBException` that tells it, and nothing is changed."""

import inspect
import math
import threading
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
import torch
from face_methods import METHODS, VALID, Faces, parameters, taking
from ids import told
from postgres import drop_schema, new_schema

from refold import (
    DBException,
    IllegalTransition,
    InvalidCommand,
    InvalidPayload,
    InvalidQuery,
    NotFound,
    RFDatabase,
    RfDb,
)
from refold.face import Face


@pytest.fixture(scope="module")
def left():
    """What is needed to go on with a store that a test has left as it was, by engine."""
    left = {}
    yield left
    for _, store in left.values():
        store.close()


@pytest.fixture
def faces(engine, left, request, tmp_path_factory):
    """Both faces of a filled store: that of the test before, unless it was changed."""
    faces, store = left.pop(engine, None) or fill(engine, request, tmp_path_factory)
    before = faces.kept()
    yield faces
    assert faces.fit.verify() == []
    if faces.kept() == before:
        left[engine] = faces, store
    else:
        store.close()


def fill(engine, request, tmp_path_factory):
    store = ExitStack()
    if engine == "postgres":
        place = new_schema(request.getfixturevalue("postgres_url"))
        store.callback(drop_schema, place)
    else:
        place = tmp_path_factory.mktemp("store") / "store.db"
    return Faces(*(store.enter_context(face(place)) for face in (RfDb, RFDatabase))), store


# --- what is tried --------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "face"), [("RfDb", RfDb), ("RFDatabase", RFDatabase)])
def test_every_method_that_takes_arguments_is_tried(kind, face):
    methods = dict(inspect.getmembers(face, inspect.isfunction))
    public = {name for name in methods if not name.startswith("_") and parameters(kind, name)}
    past = {"as_of", "position_at", "history", "why", "diff", "changes_by", "to_arrow"}
    apart = {
        "append",
        "send",
        "rebuild",
        "subscribe",
        "verify",
        "backup",
        "metrics",
        "leave",
        "recover",
    } | past  # in tests of their own
    common = {name for name in Face.__dict__ if name in VALID["RfDb"]}
    assert public - apart - common == set(VALID[kind]) - common


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_with_the_right_arguments_every_method_succeeds(faces, kind, name):
    with suppress(NotFound):  # of get_payload, which has nothing to find
        faces.call(kind, name)


# --- ids that nobody has --------------------------------------------------------------------

IDS = {
    "run_id": "no run 99:",
    "parent_run_id": "no run 99:",
    "experiment_id": "no experiment 99:",
    "task_id": " task 99:",
    "ic_id": "no request 99:",
    "context_id": "no context 99:",
    "pipeline_id": "no pipeline 99:",
}
LISTS = ("get_all_pipelines", "get_running_actor_tasks", "get_worker_tasks")


@taking("int", *IDS)
def test_unknown_ids(faces, kind, name, parameter):
    if name in LISTS:
        assert faces.call(kind, name, **{parameter: 99}) == []
        return
    call = lambda: faces.call(kind, name, **{parameter: 99})  # noqa: E731
    faces.refused(call, NotFound, "there is no", IDS[parameter])


def test_workers_that_nobody_heard_of(faces):
    assert faces.fit.get_next_worker_task(99) is None
    assert faces.fit.claim_next_worker_task(99) is None
    assert faces.fit.get_worker_progress(99) is None
    assert faces.fit.get_worker_tasks(worker_id=99) == []
    assert faces.evals.get_next_actor_task(99) is None
    assert faces.evals.claim_next_actor_task(99) is None


def test_a_pipeline_of_another_experiment(faces):
    faces.refused(
        lambda: faces.evals.create_actor_task(1, 1, 0, 0),
        InvalidCommand,
        "pipeline 1 belongs to experiment 2, not to 1",
    )


# --- moves that cannot be -------------------------------------------------------------------


def test_illegal_moves(faces):
    fit, evals = faces.fit, faces.evals
    fit.set_run_status(1, "KILLED")
    fit.set_worker_task_status(1, "FAILED")
    fit.mark_ic_ops_completed(1)
    evals.set_context_status(1, "ready")
    evals.set_pipeline_status(1, "deleted")
    evals.set_actor_task_status(1, "failed")
    for call, *message in (
        (lambda: fit.set_experiment_status(1, "NEW"), "experiment 1 is RUNNING", "COMPLETED"),
        (lambda: fit.set_run_status(1, "ONGOING"), "run 1 is KILLED", "nothing can follow"),
        (lambda: fit.request_stop(1), "run 1 is KILLED", "create a new run"),
        (lambda: fit.request_clone_modify(1, {"lr": 1.0}), "run 1 is KILLED"),
        (lambda: fit.set_worker_task_status(1, "COMPLETED"), "worker task 1 is FAILED"),
        (lambda: fit.set_worker_task_status(1, "PENDING"), "worker task 1 is FAILED"),
        (lambda: fit.mark_ic_ops_failed(1), "request 1 is COMPLETED"),
        (lambda: evals.set_context_status(1, "pending"), "context 1 is ready", "building"),
        (lambda: evals.set_pipeline_status(1, "ongoing"), "pipeline 1 is deleted"),
        (lambda: evals.set_actor_task_status(1, "completed"), "actor task 1 is failed"),
    ):
        faces.refused(call, IllegalTransition, *message)


# --- words that are none --------------------------------------------------------------------


@taking("str", "status", "source", "ended_by", "task")
def test_unknown_words(faces, kind, name, parameter):
    for word in ("", "GONE", "NEW ", 1, "NEW\0", "\ud800", b"NEW", ["x"]):
        call = lambda w=word: faces.call(kind, name, **{parameter: w})  # noqa: E731
        faces.refused(call, InvalidCommand, "one of")


def test_an_experiment_of_inference_is_never_new(faces):
    faces.refused(
        lambda: faces.evals.create_experiment("qwen", 5, 4, status="new"),
        InvalidCommand,
        "running, completed, failed",
    )


# --- numbers that are none ------------------------------------------------------------------

NO_NUMBERS = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_durations_and_resources_that_are_no_numbers(faces, number):
    evals = faces.evals
    for call in (
        lambda: evals.set_context_end_time(1, "9:00", number),
        lambda: evals.set_actor_task_end_time(1, "9:00", number),
        lambda: evals.create_experiment("qwen", 5, 4, num_cpus=number),
        lambda: evals.create_experiment("qwen", 5, 4, num_gpus=number),
        lambda: evals.set_context_start_time(1, number),
        lambda: evals.set_actor_task_start_time(1, number),
    ):
        faces.refused(call, DBException)


@pytest.mark.parametrize("number", NO_NUMBERS)
@taking("Mapping", "rag_config_json", "prompt_config_json", "model_config_json")
def test_configurations_with_what_is_no_number(faces, kind, name, parameter, number):
    # As JSON it would become null without a word.
    call = lambda: faces.call(kind, name, **{parameter: {"temperature": number}})  # noqa: E731
    faces.refused(call, DBException, "NaN")


# --- metrics of another kind ----------------------------------------------------------------

NO_JSON = ["{", "[1]", "", "7", "\ud800", "\0"]


@pytest.mark.parametrize("text", NO_JSON, ids=ascii)
def test_metrics_that_are_no_json(faces, text):
    faces.refused(lambda: faces.fit.update_run_metrics(1, text), InvalidCommand, "run 1")


@pytest.mark.parametrize(
    "metrics", [None, 1, [("loss", 1)], {1: 2}, {"x": {"y": {"z": {"deep": {}}}}}]
)
def test_metrics_of_a_wrong_shape(faces, metrics):
    faces.refused(lambda: faces.fit.update_run_metrics(1, metrics), InvalidCommand, "metrics")


@pytest.mark.parametrize(
    "value",
    [
        object(),
        len,
        b"loss",
        1 + 2j,
        datetime(2026, 1, 1),
        timedelta(seconds=1),
        UUID(int=1),
        np.zeros(2),
        torch.zeros(2),
        np.longdouble("0.5"),
        np.datetime64("2026-01-01"),
        np.void(b"loss"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_metrics_of_a_wrong_type(faces, value):
    for metrics in ({"loss": value}, {"losses": [value]}, {"losses": {"a": value}}):
        faces.refused(
            lambda m=metrics: faces.fit.update_run_metrics(1, m), DBException, "UpdateRunMetrics"
        )


@taking("str", "experiment_name", "run_name", "context_hash", "pipeline_name", "error")
def test_text_of_a_wrong_type(faces, kind, name, parameter):
    for value in (1, True, b"x", Decimal("0.5"), datetime(2026, 1, 1), UUID(int=1), ["x"]):
        call = lambda v=value: faces.call(kind, name, **{parameter: v})  # noqa: E731
        faces.refused(call, InvalidCommand, "str")


def test_what_is_nested_too_deeply(faces):
    deep = []
    for _ in range(10_000):
        deep = [deep]
    for call in (
        lambda: faces.fit.create_run(1, config_leaf=deep),
        lambda: faces.fit.create_run(1, run_name=deep),
        lambda: faces.fit.put_payload({"deep": deep}),
        lambda: faces.fit.update_run_metrics(1, {"deep": deep}),
        lambda: faces.fit.request_stop(1, actor=deep),
        lambda: faces.evals.create_context("c3d4", {"deep": deep}),
    ):
        faces.refused(call, DBException)


# --- text that cannot be kept ---------------------------------------------------------------


@taking("str")
def test_nul_and_lone_surrogates(faces, kind, name, parameter):
    for text in ("\0", "a\0b", "\ud800", "a\udfffb"):
        call = lambda x=text: faces.call(kind, name, **{parameter: x})  # noqa: E731
        faces.refused(call, DBException)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=ascii)
def test_nul_and_lone_surrogates_within(faces, text):
    for call in (
        lambda: faces.fit.update_run_metrics(1, {"note": text}),
        lambda: faces.fit.update_run_metrics(1, {text: 1}),
        lambda: faces.fit.update_run_metrics(1, {"notes": [{"a": text}]}),
        lambda: faces.evals.create_context("c3d4", {"path": text}),
        lambda: faces.evals.create_pipeline(2, "hot", "vllm", {text: 1}),
    ):
        faces.refused(call, DBException)


@pytest.mark.parametrize(
    "text", ["\\u0000", "\\", "'; DROP TABLE events; --", "\n\t\x7f", "ü𝄞\uffff"]
)
def test_other_text_is_kept_as_it_is(faces, text):
    faces.evals.set_experiment_error(2, text)
    assert faces.evals.get_experiment_error(2) == text


# --- integers beyond 64 bits ----------------------------------------------------------------


@taking("int")
def test_integers_beyond_64_bits(faces, kind, name, parameter):
    for number in (2**63, -(2**63) - 1, 10**400):
        call = lambda n=number: faces.call(kind, name, **{parameter: n})  # noqa: E731
        faces.refused(call, DBException)


def test_integers_beyond_64_bits_in_metrics(faces):
    for metrics in ({"n": 2**63}, {"n": [-(2**63) - 1]}, {"n": {"m": 10**400}}):
        faces.refused(lambda m=metrics: faces.fit.update_run_metrics(1, m), InvalidCommand)
    faces.fit.update_run_metrics(1, {"n": [2**63 - 1, -(2**63)]})
    assert faces.fit.get_run(1)["metrics"] == {"n": [2**63 - 1, -(2**63)]}


# --- empty names ----------------------------------------------------------------------------


@taking("str", "experiment_name", "run_name", "context_hash", "pipeline_name", "pipeline_type")
def test_empty_names(faces, kind, name, parameter):
    call = lambda: faces.call(kind, name, **{parameter: ""})  # noqa: E731
    faces.refused(call, InvalidCommand, "length >= 1", parameter)


@taking("str", "start_time", "end_time")
def test_empty_times(faces, kind, name, parameter):
    call = lambda: faces.call(kind, name, **{parameter: ""})  # noqa: E731
    faces.refused(call, InvalidCommand, "length >= 1")


def test_an_empty_command_id(faces):
    # All that is sent with it would pass for a retry of the first.
    faces.refused(lambda: faces.fit.request_stop(1, command_id=""), DBException, "command_id")


# --- payloads and queries -------------------------------------------------------------------


def test_what_cannot_be_stored(faces):
    def numbers():
        yield 1

    for call in (
        lambda: faces.fit.put_payload(numbers()),
        lambda: faces.fit.put_payload([threading.local()]),
        lambda: faces.fit.create_run(1, config_leaf={"data": numbers()}),
        lambda: faces.fit.request_clone_modify(1, numbers()),
        lambda: faces.fit.create_run(1, config_leaf=b"no payload"),
    ):
        faces.refused(call, InvalidPayload)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "Z" * 64, "../../etc/passwd"])
def test_digests_of_nothing(faces, digest):
    faces.refused(lambda: faces.fit.get_payload(digest), NotFound, repr(digest))


@pytest.mark.parametrize(
    "value",
    [
        object(),
        2**63,
        -(2**63) - 1,
        "\ud800",
        [1],
        (1,),
        {},
        {1},
        1 + 2j,
        Decimal("0.5"),
        datetime(2026, 1, 1),
        timedelta(seconds=1),
        UUID(int=1),
        np.int64(1),
        range(3),
        RfDb,
    ],
    ids=lambda value: type(value).__name__,
)
def test_parameters_of_a_query_that_cannot_be_bound(faces, value):
    faces.refused(lambda: faces.fit.db.execute("SELECT ?", (value,)), InvalidQuery, "SELECT ?")


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"durability": "none"},
        {"durability": "FULL "},
        {"durability": None},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": "30"},
        {"timeout": None},
        {"actor": 5},
        {"actor": "\0"},
        {"signing_key": ""},
        {"signing_key": 5},
    ],
    ids=told,
)
def test_options_that_cannot_be(place, options):
    def use():
        with RfDb(place, **options) as db:
            db.create_experiment("digits")

    with pytest.raises(DBException):
        use()
    with RfDb(place) as db:
        assert db.store.head() == 0

"""One item that cannot be read here is named, and hides nothing else."""

import copy
import json
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from raw import raw

from refold import (
    DBException,
    InvalidPayload,
    PayloadRefused,
    RFDatabase,
    RfDb,
    StoreDamaged,
    Unreadable,
    encode_payload,
)


def set_column(place: str, table: str, column: str, value: str) -> None:
    with raw(place) as connection:
        connection.execute(f"UPDATE {table} SET {column} = '{value}'")


def set_payload(place: str, digest: str, content: bytes | None) -> None:
    """Put other bytes in the place of a payload, or take it away."""
    on = " ON payloads" if "://" in place else ""
    mark = "%s" if "://" in place else "?"
    with raw(place) as connection:
        connection.execute(f"DROP TRIGGER IF EXISTS payloads_are_never_updated{on}")
        connection.execute(f"DROP TRIGGER IF EXISTS payloads_are_never_deleted{on}")
        change = (
            "DELETE FROM payloads" if content is None else f"UPDATE payloads SET content = {mark}"
        )
        values = (digest,) if content is None else (content, digest)
        connection.execute(f"{change} WHERE digest = {mark}", values)  # pyright: ignore


# --- configurations ---------------------------------------------------------------------------


@pytest.fixture
def two(db: RfDb) -> tuple[int, int]:
    """Two runs, the second of which only dill can read."""
    experiment = db.create_experiment("digits")
    plain = db.create_run(experiment, config_leaf={"lr": 0.1})
    return plain, db.create_run(experiment, config_leaf={"schedule": lambda step: 0.1})


def test_a_list_holds_what_cannot_be_read_as_such(
    db: RfDb, place: str, two: tuple[int, int]
) -> None:
    with RfDb(place, allow_dill=False) as board:
        for rows in (
            board.get_all_runs(),
            board.get_runs_by_status("NEW"),
            board.as_of(board.store.head()).get_all_runs(),
        ):
            assert [row["run_id"] for row in rows] == [*two]
            assert rows[0]["config_leaf"] == {"lr": 0.1}
            config = rows[1]["config_leaf"]
            assert isinstance(config, Unreadable)
            assert "config_leaf of run 2" in str(config)
            assert isinstance(config.error, PayloadRefused)


def test_a_stop_behind_a_clone_that_cannot_be_read_is_heard(
    db: RfDb, place: str, two: tuple[int, int]
) -> None:
    db.request_clone_modify(two[0], lambda step: 0.1)
    db.request_stop(two[0])
    with RfDb(place, allow_dill=False) as other:
        clone, stop = other.get_ic_ops_request()
        assert stop["operation"] == "STOP"
        with pytest.raises(PayloadRefused, match=r"request 1 for run 1.*mark_ic_ops_failed\(1\)"):
            clone["config_leaf"]["lr"]


def test_one_run_alone_is_refused_unless_its_configuration_is_left_out(
    db: RfDb, place: str, two: tuple[int, int]
) -> None:
    with RfDb(place, allow_dill=False) as board:
        with pytest.raises(PayloadRefused, match=r"run 2.*config=False"):
            board.get_run(two[1])
        assert board.get_run(two[1], config=False)["status"] == "NEW"


def test_configurations_can_be_left_out(db: RfDb, two: tuple[int, int]) -> None:
    db.request_clone_modify(two[0], {"lr": 1})
    for with_it, without in (
        (db.get_all_runs(), db.get_all_runs(config=False)),
        (db.get_runs_by_status("new"), db.get_runs_by_status("new", config=False)),
        (db.get_ic_ops_request(), db.get_ic_ops_request(config=False)),
        ([db.get_run(1)], [db.get_run(1, config=False)]),
    ):
        for row in with_it:
            del row["config_leaf"]
        assert with_it == without


USES: dict[str, Callable[[Any], object]] = {
    "an item": lambda value: value["lr"],
    "an attribute": lambda value: value.lr,
    "a call": lambda value: value(1),
    "truth": bool,
    "length": len,
    "iteration": list,
    "membership": lambda value: "lr" in value,
    "equality": lambda value: value == {"lr": 0.1},
    "inequality": lambda value: value != "ONGOING",
    "order": lambda value: value < 1,
    "a number": float,
    "a sum": lambda value: 1 + value,
    "unpacking": lambda value: {**value},
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_whoever_uses_it_gets_the_error(use: Callable[[Any], object]) -> None:
    with pytest.raises(StoreDamaged, match=r"of run 1"):
        use(Unreadable(StoreDamaged("metrics of run 1 is damaged")))


def test_it_can_be_shown_copied_and_sent() -> None:
    value = Unreadable(StoreDamaged("metrics of run 1 is damaged"))
    assert f"{value}" == str(value) == repr(value)
    assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
    assert len({value, copy.copy(value)}) == 1
    assert not hasattr(value, "_repr_html_")
    with pytest.raises(TypeError):
        json.dumps(value)


# --- rows that somebody has altered -----------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("metrics", "{oops"),
        ("metrics", "[1]"),
        ("status", "NEV"),
        ("ended_by", "NOBODY"),
        ("updated_at", "yesterday"),
    ],
)
def test_a_damaged_run(db: RfDb, place: str, column: str, value: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    set_column(place, "runs_folded", column, value)
    with RfDb(place) as other:
        [row] = other.get_all_runs()
        assert row["config_leaf"] == {"lr": 0.1}
        assert isinstance(row[column], Unreadable)
        with pytest.raises(StoreDamaged, match=f"{column} of run {run_id}.*rebuild"):
            other.get_run(run_id)
        assert other.verify()
        other.rebuild()
        assert other.get_run(run_id)["status"] == "NEW"
        assert other.verify() == []


@pytest.mark.parametrize("column", ["status", "updated_at"])
def test_nothing_is_decided_on_a_damaged_row(db: RfDb, place: str, column: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    set_column(place, "runs_folded", column, "NEV")
    with RfDb(place) as other, pytest.raises(StoreDamaged, match=r"NEV.*rebuild"):
        other.set_run_status(run_id, "ONGOING")


def use(rows: list[dict[str, Any]]) -> None:
    assert rows[0]["status"]


def test_damaged_statuses_of_other_entities(db: RfDb, evals: RFDatabase, place: str) -> None:
    def anew(kind: type[Any], do: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        """By a face that remembers no row."""

        def done() -> Any:
            with kind(place) as face:
                return do(face, *arguments)

        return done

    experiment = evals.create_experiment("evals")
    run_id = db.create_run(db.create_experiment("digits"))
    db.create_worker_task(run_id, 0, 0)
    db.set_worker_progress(0, "IDLE")
    pipeline = evals.create_pipeline(experiment, "p", "vllm")
    context = evals.create_context("hash")
    task = evals.create_actor_task(experiment, pipeline, 0, 0)
    for table, reads in {
        "worker_task": (db.get_worker_tasks, anew(RfDb, RfDb.set_worker_task_status, 1, "FAILED")),
        "worker_progress": (lambda: [db.get_worker_progress(0)],),
        "pipelines": (
            lambda: evals.get_all_pipelines(experiment),
            anew(RFDatabase, RFDatabase.set_pipeline_status, pipeline, "ongoing"),
        ),
        "contexts": (lambda: [evals.get_context(context)],),
        "actor_tasks": (lambda: [evals.get_actor_task(task)],),
        "experiments": (lambda: [db.get_experiment(experiment)],),
    }.items():
        set_column(place, table, "status", "NEV")
        for read in reads:
            with pytest.raises(StoreDamaged, match="NEV"):
                use(read())


# --- payloads that are not what their digests say ---------------------------------------------


@pytest.fixture
def digest(db: RfDb) -> str:
    db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    return db.put_payload({"lr": 0.1})


def test_an_altered_payload_is_refused_wherever_it_is_read(
    db: RfDb, place: str, digest: str
) -> None:
    set_payload(place, digest, encode_payload({"lr": 99.0}))
    with RfDb(place) as other:
        [row] = other.get_all_runs()
        for read in (
            lambda: other.get_payload(digest),
            lambda: other.store.get_payload(digest),
            lambda: other.get_run(1),
            lambda: other.as_of(2).get_run(1),
            lambda: row["config_leaf"]["lr"],
        ):
            with pytest.raises(PayloadRefused, match=digest):
                read()
        found = other.verify(log=True, payloads=True)
        assert [str(one) for one in found if digest in str(one)]


def test_a_payload_of_another_run_signed_by_the_same_key(place: str) -> None:
    with RfDb(place, signing_key="a key") as db:
        a, b = db.put_payload(1), db.put_payload(2)
        content = db.store.get_payload(b)
    set_payload(place, a, content)
    with RfDb(place, signing_key="a key") as db:
        with pytest.raises(PayloadRefused, match=a):
            db.get_payload(a)
        assert db.get_payload(b) == 2


def test_a_payload_that_is_gone_is_not_none(db: RfDb, place: str, digest: str) -> None:
    set_payload(place, digest, None)
    with RfDb(place) as other:
        [row] = other.get_all_runs()
        assert isinstance(row["config_leaf"], Unreadable)
        with pytest.raises(StoreDamaged, match=r"run 1.*not there"):
            other.get_run(1)
        assert "run 1 names it" in str(other.verify(payloads=True))


def test_verify_says_what_it_did_not_look_at(db: RfDb, digest: str) -> None:
    assert db.verify().unchecked == ("the log: verify(log=True)", "payloads: verify(payloads=True)")
    found = db.verify(log=True, payloads=True)
    assert (found, found.unchecked) == ([], ())


# --- what could not be read back --------------------------------------------------------------


class ShardError(Exception):
    def __init__(self, message: str, shard: int) -> None:
        super().__init__(message)
        self.shard = shard


def test_what_cannot_be_read_back_is_not_written(db: RfDb, place: str) -> None:
    experiment = db.create_experiment("digits")
    with pytest.raises(InvalidPayload, match=r"not unpickled"):
        db.create_run(experiment, config_leaf={"resume_after": ShardError("disk gone", 3)})
    with RfDb(place, allow_dill=False) as plain, pytest.raises(PayloadRefused, match="dill"):
        plain.create_run(experiment, config_leaf=lambda step: 0.1)
    assert db.get_all_runs() == []


def test_bytes_of_others_on_a_face_with_a_key(place: str) -> None:
    with RfDb(place, signing_key="a key") as db:
        experiment = db.create_experiment("digits")
        plain = db.create_run(experiment, config_leaf=encode_payload({"lr": 0.1}))
        assert db.get_run(plain)["config_leaf"] == {"lr": 0.1}  # signed, as the object would be
        refused = (
            encode_payload(lambda step: 0.1),
            encode_payload({"lr": 0.1}, key="another"),
            encode_payload({"lr": 0.1})[:-1],
        )
        for content in refused:
            with pytest.raises(InvalidPayload):
                db.create_run(experiment, config_leaf=content)
        assert len(db.get_all_runs()) == 1


def test_every_error_of_a_row_is_one_of_refold(db: RfDb, place: str) -> None:
    run_id = db.create_run(db.create_experiment("digits"))
    for column in ("metrics", "status", "source", "created_at"):
        set_column(place, "runs_folded", column, "\\u0001")
        with RfDb(place) as other:
            for row in other.get_all_runs():
                if isinstance(row[column], Unreadable):
                    assert isinstance(row[column].error, DBException)
            with pytest.raises(DBException):
                other.get_run(run_id)


@pytest.mark.soak
def test_of_two_thousand_flipped_bits_none_is_believed(db: RfDb, place: str, seed: int) -> None:
    values = [{"lr": 0.1}, np.arange(100), lambda step: 0.1]
    digests = [db.put_payload(value) for value in values]
    contents = {digest: db.store.get_payload(digest) for digest in digests}
    drawn = random.Random(seed)
    for number in range(2_000):
        digest = digests[number % len(digests)]
        altered = bytearray(contents[digest])
        bit = drawn.randrange(8 * len(altered))
        altered[bit // 8] ^= 1 << bit % 8
        set_payload(place, digest, bytes(altered))
        with pytest.raises(PayloadRefused, match=digest):
            db.get_payload(digest)
        set_payload(place, digest, contents[digest])
        assert db.store.get_payload(digest) == contents[digest]

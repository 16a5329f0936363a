"""Views that somebody changed in the database: they are found out, and folded again."""

import pytest
from raw import raw
from tables import tables

from refold import RFDatabase, RfDb
from refold.eventstore.events import (
    ActorTaskStartTimeRecorded,
    ContextDetailsRecorded,
    ExperimentDetailsRecorded,
    PipelineDetailsRecorded,
    RetriesSet,
    RunDetailsRecorded,
    TaskDetailsRecorded,
    WorkerJoined,
)
from refold.projections import ALL


@pytest.fixture
def filled(db: RfDb, evals: RFDatabase) -> RfDb:
    """A store with a row at least in every view."""
    experiment_id = db.create_experiment("digits")
    for n in range(3):
        run_id = db.create_run(experiment_id, config_leaf={"lr": n}, seed=n)
        db.create_worker_task(run_id, 0, n)
        db.request_clone_modify(run_id, {"lr": 0.5 + n}, warm_start=True)
    db.set_controller_task("RUN_FIT")
    db.set_worker_progress(0, "TRAIN_VAL")
    experiment_id = evals.create_experiment("test", num_shards=4, num_actors=2, num_gpus=0.5)
    context_id = evals.create_context("hash")
    evals.set_context_end_time(context_id, 0.0, 1.5)
    pipeline_id = evals.create_pipeline(experiment_id, "p", "vllm", context_id=context_id)
    evals.create_actor_task(experiment_id, pipeline_id, 0, 0)
    evals.request_stop(pipeline_id)
    let_rapidfire_note(db)
    db.log_metrics(1, {"loss": 0.5})
    db.append(WorkerJoined("worker-0"), RetriesSet("run-1", 3, 0.5))
    assert all(tables(db).values())
    return db


def let_rapidfire_note(db: RfDb) -> None:
    """Have RapidFire's own layer note something of everything."""
    db.append(
        ExperimentDetailsRecorded(1, current_task="Idle"),
        RunDetailsRecorded(1, completed_steps=2),
        TaskDetailsRecorded(1, 0, "Train Validation"),
        ContextDetailsRecorded(1, enable_gpu=True),
        PipelineDetailsRecorded(1, metric_run_id="abc"),
        ActorTaskStartTimeRecorded(1, "8:00", 1.5),
    )


CHANGES = {
    "UPDATE worker_task SET status = 'COMPLETED' WHERE task_id = 2": (
        "worker_task 2: status is 'COMPLETED', the log makes it 'SCHEDULED'",
    ),
    "UPDATE runs_folded SET seed = NULL, metrics = '{\"a\":1}' WHERE run_id = 3": (
        "runs 3: seed is None, the log makes it 2",
        "runs 3: metrics is '{\"a\":1}', the log makes it '{}'",
    ),
    "UPDATE contexts SET duration_seconds = 1.25": (
        "contexts 1: duration_seconds is 1.25, the log makes it 1.5",
    ),
    "UPDATE ids SET last = 1 WHERE kind = 'run'": ("ids run: last is 1, the log makes it 3",),
    "DELETE FROM pipelines": ("pipelines 1: the row is missing",),
    "DELETE FROM interactive_control_folded WHERE ic_id > 1": (
        "interactive_control 2: the row is missing",
        "interactive_control 3: the row is missing",
    ),
    "INSERT INTO worker_progress VALUES (7, 'IDLE', 'FAILED', '', '', 1)": (
        "worker_progress 7: the log has no such row",
    ),
    "UPDATE worker_task SET task_id = 9 WHERE task_id = 1": (
        "worker_task 9: the log has no such row",
        "worker_task 1: the row is missing",
    ),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.items(), ids=CHANGES.keys())
def test_verify_names_every_difference_and_a_rebuild_mends_it(
    filled: RfDb, place: str, change: str, expected: tuple[str, ...]
) -> None:
    before = repr(tables(filled))
    with raw(place) as connection:
        connection.execute(change)
    assert repr(tables(filled)) != before
    assert [str(difference) for difference in filled.verify()] == list(expected)
    filled.rebuild()
    assert filled.verify() == []
    assert repr(tables(filled)) == before


def test_a_difference_can_be_used_by_programs(filled: RfDb, place: str) -> None:
    with raw(place) as connection:
        connection.execute("UPDATE runs_folded SET run_name = 'x' WHERE run_id = 1")
    [difference] = filled.verify()
    assert (difference.view, difference.key, difference.column) == ("runs", 1, "run_name")
    assert (difference.expected, difference.actual) == ("run_1", "x")


def test_deleting_every_row_of_the_views_loses_nothing(filled: RfDb, place: str) -> None:
    before = tables(filled)
    with raw(place) as connection:
        for view in ALL:
            connection.execute(f"DELETE FROM {view.table}")
    assert not any(tables(filled).values())
    missing = {(d.view, d.key) for d in filled.verify()}
    assert missing == {(v.name, row[v.key]) for v in ALL for row in before[v.name]}
    filled.rebuild()
    assert repr(tables(filled)) == repr(before)


def test_views_that_were_dropped_are_there_again_when_opened(filled: RfDb, place: str) -> None:
    before = repr(tables(filled))
    filled.close()
    with raw(place) as connection:
        for view in ALL:
            for name in reversed(view.objects):
                kind = "TABLE" if name == view.table else "VIEW"
                connection.execute(f"DROP {kind} {name}")
        connection.execute("DELETE FROM projections")
    with RfDb(place) as db:
        assert repr(tables(db)) == before
        assert db.verify() == []


def test_views_of_an_older_version_are_rebuilt_under_an_open_store(
    filled: RfDb, place: str
) -> None:
    before = repr(tables(filled))
    with raw(place) as connection:
        connection.execute("UPDATE projections SET version = 0 WHERE name = 'runs'")
        connection.execute("DROP VIEW runs")
        connection.execute("DROP TABLE runs_folded")
        connection.execute("CREATE TABLE runs (run_id INTEGER)")
    assert filled.get_run(3)["seed"] == 2
    assert repr(tables(filled)) == before
    assert filled.verify() == []


SCHEMA = {
    "sqlite": "SELECT name, sql FROM sqlite_master ORDER BY name",
    "postgres": """
        SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, attcollation,
               CASE WHEN relkind = 'i' THEN pg_get_indexdef(pg_class.oid) END,
               CASE WHEN relkind = 'v' THEN pg_get_viewdef(pg_class.oid) END
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = current_schema()::regnamespace AND attnum > 0
        ORDER BY relname, attnum""",
}


def test_a_rebuild_makes_the_same_schema(filled: RfDb, place: str, engine: str) -> None:
    def schema() -> list[tuple[object, ...]]:
        with raw(place) as connection:
            return connection.execute(SCHEMA[engine]).fetchall()

    before = schema()
    assert {"events", "runs", "runs_folded"} <= {row[0] for row in before}
    filled.rebuild()
    assert schema() == before

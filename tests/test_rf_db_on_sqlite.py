"""The seed documents: "Debugging Database Issues", with the shell of SQLite."""

import sqlite3

from test_rf_db import FIT_COLUMNS

from refold import TaskStatus, decode_db_payload


def test_inspect_directly_with_sqlite3(db, place):
    run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    first = db.create_worker_task(run_id, worker_id=0, chunk_id=0)
    db.create_worker_task(run_id, worker_id=1, chunk_id=0)
    db.set_worker_task_status(first, TaskStatus.IN_PROGRESS)

    sqlite3_cli = sqlite3.connect(place)
    sqlite3_cli.row_factory = sqlite3.Row
    schema = "\n".join(
        row["sql"] or "" for row in sqlite3_cli.execute("SELECT * FROM sqlite_schema")
    )
    runs = sqlite3_cli.execute("SELECT * FROM runs;").fetchall()
    tasks = sqlite3_cli.execute(
        "SELECT * FROM worker_task WHERE status = 'IN_PROGRESS';"
    ).fetchall()
    sqlite3_cli.close()

    for table in FIT_COLUMNS:
        assert f" {table} " in schema
    assert [dict(run) for run in runs] == db.db.execute("SELECT * FROM runs")
    assert decode_db_payload(runs[0]["config_leaf"]) == {"lr": 0.1}
    assert [dict(task) for task in tasks] == [db.get_worker_task(first)]

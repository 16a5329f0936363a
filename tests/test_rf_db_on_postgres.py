"""The seed documents: "Debugging Database Issues", with any client of PostgreSQL."""

from psycopg.rows import dict_row
from raw import raw
from test_rf_db import FIT_COLUMNS

from refold import TaskStatus, decode_db_payload


def test_inspect_directly_with_psycopg(db, place):
    run_id = db.create_run(db.create_experiment("digits"), config_leaf={"lr": 0.1})
    first = db.create_worker_task(run_id, worker_id=0, chunk_id=0)
    db.create_worker_task(run_id, worker_id=1, chunk_id=0)
    db.set_worker_task_status(first, TaskStatus.IN_PROGRESS)

    with raw(place) as connection, connection.cursor(row_factory=dict_row) as cursor:
        tables = cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        ).fetchall()
        runs = cursor.execute("SELECT * FROM runs;").fetchall()
        tasks = cursor.execute("SELECT * FROM worker_task WHERE status = 'IN_PROGRESS';").fetchall()

    assert set(FIT_COLUMNS) <= {table["table_name"] for table in tables}
    assert runs == db.db.execute("SELECT * FROM runs")
    assert decode_db_payload(runs[0]["config_leaf"]) == {"lr": 0.1}
    assert tasks == [db.get_worker_task(first)]

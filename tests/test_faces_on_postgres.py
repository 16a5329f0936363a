"""What the faces do on PostgreSQL alone: its own statements."""

import pytest
from querying import alone_and_in_a_batch, check_refused, querying

from refold import InvalidQuery, RfDb

WRITES = [
    "BEGIN READ WRITE",
    "START TRANSACTION",
    "END",
    "ABORT",
    "ROLLBACK TO SAVEPOINT before_query",
    "RELEASE SAVEPOINT before_query",
    "PREPARE TRANSACTION 'mine'",
    "SET TRANSACTION READ WRITE",
    "SET search_path = pg_catalog",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET ROLE NONE",
    "RESET ALL",
    "DISCARD ALL",
    "DEALLOCATE ALL",
    "PREPARE mine AS SELECT 1",
    "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "LISTEN mine",
    "NOTIFY mine",
    "LOCK TABLE events",
    "TRUNCATE events",
    "TRUNCATE runs_folded",
    "MERGE INTO runs_folded USING (VALUES (1)) AS one (n) ON run_id = n WHEN MATCHED THEN DELETE",
    "COPY runs_folded FROM STDIN",
    "COPY runs_folded TO STDOUT",
    "COPY runs_folded TO PROGRAM 'true'",
    "DO $$ BEGIN DELETE FROM runs_folded; END $$",
    "CALL pg_catalog.pg_sync_replication_slots()",
    "CREATE SCHEMA mine",
    "CREATE TABLE mine AS SELECT 1",
    "SELECT 1 AS x INTO mine",
    "SELECT * FROM runs_folded FOR UPDATE",
    "SELECT nextval('event_positions')",
    "SELECT setval('event_positions', 1)",
    "SELECT lo_create(0)",
    "EXPLAIN ANALYZE DELETE FROM worker_task",
    "WITH gone AS (DELETE FROM worker_task RETURNING *) SELECT * FROM gone",
    "VACUUM",
    "ANALYZE",
    "REINDEX TABLE events",
    "CLUSTER",
    "GRANT ALL ON events TO PUBLIC",
    "SECURITY LABEL ON TABLE events IS NULL",
    "COMMENT ON TABLE events IS NULL",
]


@alone_and_in_a_batch
@pytest.mark.parametrize("statement", WRITES)
def test_a_statement_that_would_write_is_refused(db, statement, batch):
    with querying(db, batch):
        check_refused(db, statement)


@alone_and_in_a_batch
def test_what_a_query_sets_is_gone_with_it(db, batch):
    settings = (
        "SELECT current_setting('search_path') AS path, "
        "current_setting('transaction_read_only') AS read_only, current_setting('role') AS role, "
        "current_setting('lock_timeout') AS timeout, current_setting('TimeZone') AS zone"
    )
    with querying(db, batch):
        before = db.db.execute(settings)
        for query in (
            "SELECT set_config('search_path', 'pg_catalog', false)",
            "SELECT set_config('lock_timeout', '1', false)",
            "SELECT set_config('TimeZone', 'Asia/Tokyo', false)",
            "SELECT set_config('role', 'pg_monitor', false)",
        ):
            assert len(db.db.execute(query)) == 1
            assert db.db.execute(settings) == before
        assert len(db.get_all_runs()) == 1
        db.create_experiment("and everything goes on")
    assert db.verify() == []


@alone_and_in_a_batch
def test_a_query_cannot_set_itself_free(db, batch):
    with querying(db, batch):
        look = "SELECT last_value FROM event_positions"
        before = db.db.execute(look)
        free = "set_config('transaction_read_only', 'off', false)"
        with pytest.raises(InvalidQuery):
            db.db.execute(f"SELECT {free}, nextval('event_positions')")
        assert db.db.execute(look) == before
        db.create_experiment("and everything goes on")


@alone_and_in_a_batch
def test_question_marks_and_percent_signs_within_a_query(db, batch):
    with querying(db, batch):
        [row] = db.db.execute(
            """SELECT '?' AS "what?", '%s' AS "100%", E'it\\'s ?' AS escaped, $$ ? %s $$ AS quoted,
                      $mark$ ? $$ $mark$ AS marked, 7 % ? AS rest -- ? and %
                      /* ? %(name)s /* nested ? */ ? */""",
            (4,),
        )
    assert row == {
        "what?": "?",
        "100%": "%s",
        "escaped": "it's ?",
        "quoted": " ? %s ",
        "marked": " ? $$ ",
        "rest": 3,
    }


@alone_and_in_a_batch
@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("SELECT $1", ()),
        ("SELECT $2 + ?", (1,)),
        ("SELECT 1", (1,)),
        (f"SELECT 1 IN ({', '.join('?' * 70_000)})", [1] * 70_000),
        (f"SELECT {'(' * 20_000}1{')' * 20_000}", ()),
    ],
    ids=["no parameter", "one too few", "one too many", "by far too many", "too deep"],
)
def test_what_the_protocol_does_not_allow_is_an_invalid_query(db, query, values, batch):
    with querying(db, batch):
        with pytest.raises(InvalidQuery):
            db.db.execute(query, values)
        db.create_experiment("and everything goes on")
    assert db.verify() == []


@alone_and_in_a_batch
def test_locks_that_a_query_takes_are_gone_with_it(db, batch):
    with querying(db, batch):
        db.db.execute("SELECT pg_advisory_lock(7), pg_advisory_lock_shared(8)")
        with pytest.raises(InvalidQuery):
            db.db.execute("SELECT pg_advisory_lock(9) IS NULL OR 1 / 0 = 0")
        held = "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND objid IN (7, 8, 9)"
        assert db.db.execute(held) == []
    assert db.db.execute(held) == []


def test_two_faces_of_one_database_do_not_meet(new_place):
    with RfDb(new_place()) as one, RfDb(new_place()) as other:
        one.create_experiment("digits")
        with one.batch():
            one.create_experiment("second")
            assert other.create_experiment("of another schema") == 1
        assert other.store.head() == 1

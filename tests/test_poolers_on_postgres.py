"""A store behind a real PgBouncer in transaction mode, whose sessions are lent to everybody."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator

import numpy as np
import psycopg
import pytest
from command_line import refold
from pgbouncer import MISSING, PgBouncer, connect

from refold import RFDatabase, RfDb
from refold.eventstore import Event, Id, open_store
from refold.eventstore.engines.postgres.server import address_of
from refold.eventstore.events import RunCreated, RunProgressed
from refold.projections import Row, View

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason=MISSING)

SESSIONS = 3


class Small(Row, frozen=True, kw_only=False):
    run_id: int


class Large(Row, frozen=True, kw_only=False):
    run_id: int
    name: str


class Happened(Event, frozen=True):
    run_id: Id


@pytest.fixture
def pooled(postgres_url: str) -> Iterator[Callable[[str], str]]:
    """Yield a function that returns the URL of a place by way of the pooler."""
    with PgBouncer(postgres_url, sessions=SESSIONS) as pooler:
        yield pooler.url


def test_messages_go_into_their_own_stores(
    pooled: Callable[[str], str], new_place: Callable[[], str]
) -> None:
    places = [new_place(), new_place()]
    stores = [RfDb(pooled(place), timeout=5 + n) for n, place in enumerate(places)]
    for db in stores:
        db.create_run(db.create_experiment("digits"))
    for step in range(1, 21):
        for n, db in enumerate(stores):
            db.set_run_progress(1, step, n)
    for n, (db, place) in enumerate(zip(stores, places, strict=True)):
        with RfDb(place) as direct, psycopg.connect(address_of(place).conninfo) as raw:
            steps = [(1, step, n) for step in range(1, 21)]
            events = [r.event for r in direct.store.read() if isinstance(r.event, RunProgressed)]
            assert [(e.run_id, e.current_chunk, e.current_epoch) for e in events] == steps
            assert direct.verify(log=True) == []
            schema = address_of(place).schema
            names = raw.execute(
                "SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace(%s)", (schema,)
            ).fetchall()
            assert any(name.startswith("one_message_") for (name,) in names)
        db.close()


def test_every_command_goes_into_its_own_store(
    pooled: Callable[[str], str], new_place: Callable[[], str]
) -> None:
    places = {name: new_place() for name in ("digits", "letters")}
    stores = {name: RfDb(pooled(place)) for name, place in places.items()}
    for name, db in stores.items():
        db.create_experiment(name)
    for n in range(20):
        for name, db in stores.items():
            db.create_run(1, run_name=f"{name}-{n}")
    for name, db in stores.items():
        with RfDb(places[name]) as direct:
            for face in (db, direct):
                names = [run["run_name"] for run in face.get_all_runs()]
                assert names == [f"{name}-{n}" for n in range(20)]
                [experiment] = face.db.execute("SELECT experiment_name FROM experiments")
                assert experiment["experiment_name"] == name
                assert face.verify(log=True) == []
        db.close()


def test_all_that_a_face_does(pooled: Callable[[str], str], place: str) -> None:
    small = View("sizes", Small, version=1)
    small.put_by(RunCreated, lambda _, event: Small(event.run_id), key=lambda e: e.run_id)
    large = View("sizes", Large, version=2)
    large.put_by(RunCreated, lambda _, e: Large(e.run_id, "x"), key=lambda e: e.run_id)
    way = pooled(place)
    with RfDb(way, projections=[small]) as db, RFDatabase(way) as evals:
        db.create_experiment("digits")
        with db.batch():
            runs = [db.create_run(1, config_leaf={"lr": n}) for n in range(300)]
            [row] = db.db.execute("SELECT count(*) AS n FROM runs WHERE status = ?", ("NEW",))
            assert row == {"n": 300}
        for run_id in runs[:20]:
            db.set_run_progress(run_id, 1, 0)
            db.create_worker_task(run_id, 0, 1)
            assert db.claim_next_worker_task(0) is not None
            assert db.get_run(run_id)["current_chunk"] == 1
        db.append(Happened(1), stream="elsewhere")
        assert db.get_payload(db.put_payload(np.arange(3))).tolist() == [0, 1, 2]
        assert evals.create_context("hash") == 1
        with db.store.snapshot():
            assert len(db.get_all_runs()) == 300
            RfDb(way).create_run(1)
            assert len(db.get_all_runs()) == 300
        db.rebuild()
        assert db.verify() == []
    with RfDb(way, projections=[large]) as db:
        assert db.db.execute("SELECT * FROM sizes WHERE run_id = 301")[0]["name"] == "x"
        assert db.verify(log=True) == []


def test_a_subscription_looks_for_what_it_is_not_told(
    pooled: Callable[[str], str], place: str
) -> None:
    with (
        open_store(pooled(place)) as store,
        open_store(place) as other,
        store.subscribe() as events,
    ):
        assert events.wait(0.05) == []
        other.append("run-1", [RunProgressed(1, 1, 0)])
        assert next(events).position == 1


def test_nothing_of_ours_stays_in_a_session(pooled: Callable[[str], str], place: str) -> None:
    look = "SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name"
    left = (
        "SELECT (SELECT count(*) FROM pg_prepared_statements), "
        "(SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')"
    )
    with RfDb(pooled(place)) as db:
        db.create_run(db.create_experiment("digits"))
        for n in range(20):
            db.set_run_progress(1, n, 0)
            db.get_run(1)
            db.db.execute("SELECT set_config('work_mem', '1MB', false), pg_advisory_lock(1)")
        others = [connect(pooled(place.partition("?")[0])) for _ in range(SESSIONS)]
        entered = threading.Barrier(SESSIONS)

        def look_in_another(raw: "psycopg.Connection[tuple[object, ...]]") -> None:
            with raw.transaction():
                entered.wait(30)
                found.append((raw.execute(look).fetchall(), raw.execute(left).fetchall()))

        found: list[object] = []
        threads = [threading.Thread(target=look_in_another, args=(raw,)) for raw in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == SESSIONS
        for settings, leftovers in found:
            # What a client itself has said, or begun.
            assert {name for name, _ in settings} <= {
                "application_name",
                "client_encoding",
                "transaction_read_only",
            }
            assert leftovers == [(0, 0)]
        for raw in others:
            raw.close()


def test_doctor_says_what_a_pooler_costs(pooled: Callable[[str], str], place: str) -> None:
    with RfDb(place) as db:
        db.create_experiment("digits")
    for way, expected in ((place, 0), (pooled(place), 1)):
        done = refold("--store", way, "doctor", "--json")
        notes = [each for each in json.loads(done.out) if each["about"] == "pooler"]
        assert len(notes) == expected
        assert done.code == 0

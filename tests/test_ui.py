"""The window's server: what it tells, whom it lets in, and how it ends."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from clippings import GradientClipped
from command_line import TOP, here, record
from places import ENGINES, new_places
from windows import Served

from refold import RfDb
from refold.as_json import change_as_json, event_as_json
from refold.eventstore.errors import PayloadRefused
from refold.projections.entities import ENTITIES
from refold.ui.window import Window, encoded, thinned

Rows = dict[str, dict[Any, dict[str, Any]]]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The fixed log in a file: for what is the same on every engine."""
    place = str(tmp_path / "store.db")
    record(place)
    return place


@pytest.fixture(scope="module", params=ENGINES)
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Served]]:
    """The fixed log, and one server of it for all tests that only add to it."""
    files = tmp_path_factory.mktemp("ui") / "store"
    with new_places(request.param, request, files) as new_place:
        place = new_place()
        record(place)
        with Served(place) as served:
            yield place, served.let_in()


def by_key(state: dict[str, Any]) -> Rows:
    return {
        entity: {row[ENTITIES[entity].key]: row for row in rows}
        for entity, rows in state["rows"].items()
    }


def moved_to(rows: Rows, told: dict[str, Any]) -> Rows:
    """Return what rows of one moment become by the answer for another one."""
    changed = by_key(told)
    return {
        entity: {
            key: row
            for key, row in (rows[entity] | changed[entity]).items()
            if key not in told["gone"][entity]
        }
        for entity in rows
    }


def columns(db: RfDb, entity: str) -> dict[Any, dict[str, Any]]:
    """Return the rows of an entity as SQL has them, but for times and what JSON decodes."""
    view = ENTITIES[entity]
    left_out = {"created_at", "updated_at", "config_digest", "metrics", "metric_words"}
    names = [name for name in view.columns if name not in left_out]
    rows = db.db.execute(f"SELECT {', '.join(names)} FROM {view.table}")
    return {row[view.key]: row for row in rows}


def test_every_moment_is_told_as_it_was(recorded: tuple[str, Served]) -> None:
    place, served = recorded
    with RfDb(place) as db:
        head = db.store.head()
        now = by_key(served.get("state"))
        before = (0, by_key(served.get("state", at=0)))
        for position in [*range(0, head, 10), head]:
            told = served.get("state", at=position)
            assert told["position"] == position
            rows = by_key(told)
            past = db.as_of(position)
            for entity in ENTITIES:
                expected = columns(past, entity)
                assert rows[entity].keys() == expected.keys()
                for key, row in expected.items():
                    # True is 1 in SQL.
                    assert {name: rows[entity][key][name] for name in row} == row
            runs = past.get_all_runs()
            assert [run["metrics"] for run in runs] == [
                rows["run"][run["run_id"]]["metrics"] for run in runs
            ]
            # What differs from another moment leads to it, and back.
            for at, since, there, here in (
                (position, *before, rows),
                (before[0], position, rows, before[1]),
            ):
                moved = served.get("state", at=at, since=since)
                assert not moved["whole"]
                assert moved_to(there, moved) == here
            before = (position, rows)
            # What has changed since makes it what it is now.
            changed = by_key(served.get("state", since=position))
            assert {entity: rows[entity] | changed[entity] for entity in rows} == now
        assert now["run"][1]["params"] == {"learning_rate": 0.1, "layers": "[64,32]"}


def test_rows_that_a_reset_took_away_are_gone(place: str) -> None:
    record(place)
    with RfDb(place) as db, closing(Window(place)) as window:
        head = db.store.head()
        before = window.state()
        assert not window.state(since=head - 1)["whole"]
        db.reset_all_tables()
        told = window.state(since=head)
        assert told["whole"]
        assert told["rows"]["experiment"]
        assert not told["rows"]["run"]
        assert window.state(at=head)["rows"] == before["rows"]


def test_reasons_histories_and_events_are_those_of_the_face(recorded: tuple[str, Served]) -> None:
    place, served = recorded
    with RfDb(place) as db:
        cells = [("run", run, name) for run in (1, 2, 4) for name in ("status", "current_chunk")]
        cells += [("request", 1, "status"), ("task", 3, "error"), ("worker", 0, "status")]
        cells += [("pipeline", 1, "shards_completed")]
        for entity, key, column in cells:
            reason = db.why(entity, key, column)
            told = served.get("why", entity=entity, key=key, column=column)
            assert told["value"] == reason.value
            events = [as_told(event_as_json(link.recorded)) for link in reason.links]
            assert [link["event"] for link in told["links"]] == events
        told = served.get("why", entity="run", key=2, column="status", at=20)
        assert told["value"] == db.as_of(20).why("run", 2, "status").value == "ONGOING"

        expected = [as_told(change_as_json(one.change)) for one in db.history("run", 2)]
        told = served.get("history", entity="run", key=2)
        assert [event["change"] for event in reversed(told)] == expected

        changes = [as_told(change_as_json(change)) for change in db.diff(20, 30)]
        known = {view.name for view in ENTITIES.values()}
        assert served.get("diff", a=20, b=30) == [
            change for change in changes if change["view"] in known and change["columns"]
        ]

        events = [as_told(event_as_json(one)) for one in db.store.read(unknown=True)]
        assert served.get("log", limit=1000)["events"] == events[::-1]
        page = served.get("log", limit=5, at=30)
        assert [event["position"] for event in page["events"]] == [30, 29, 28, 27, 26]
        assert page["until"] == 25
        by_ada = served.get("log", actor="ada")["events"]
        assert by_ada
        assert by_ada == [e for e in events[::-1] if e["metadata"].get("actor") == "ada"]
        stopped = served.get("log", type=["RunStopped", "StopRequested"])["events"]
        assert [event["type"] for event in stopped] == ["RunStopped", "StopRequested"]
        assert {e["stream"] for e in served.get("log", stream="run-2")["events"]} == {"run-2"}

        assert served.get("found", where="loss < 0.4") == [2]
        [first] = db.store.read(types=["RunMetricsRecorded"], limit=1)
        assert served.get("found", where="loss < 0.4", at=first.position) == []
        points = db.metric_history(2, "loss")
        told = served.get("curve", run=2, metric="loss")
        assert told["count"] == len(points)
        assert [point[1] for point in told["points"]] == [point["value"] for point in points]


def as_told(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_what_happens_is_told_at_once(recorded: tuple[str, Served]) -> None:
    place, served = recorded
    with RfDb(place) as db:
        stream = served.stream()
        first = stream.next()
        assert first is not None
        assert (first["event"], int(first["id"])) == ("news", db.store.head())
        db.set_run_progress(1, current_chunk=3, current_epoch=0)
        stream.until(db.store.head())
        told = served.get("state", since=first["id"])
        assert [row["current_chunk"] for row in told["rows"]["run"]] == [3]
        # An event of a type that the server does not know is news as well.
        [clipped] = db.append(GradientClipped(1, 2.5), actor="worker-1")
        stream.until(clipped.position)
        db.set_run_progress(1, current_chunk=4, current_epoch=0)
        stream.until(clipped.position + 1)
        later = served.stream()  # a browser that was away
        told = later.next()
        assert told is not None
        assert int(told["id"]) == db.store.head()
        for one in (stream, later):
            one.close()


def test_what_is_asked_of_a_run_is_a_request_in_the_store(recorded: tuple[str, Served]) -> None:
    place, served = recorded
    with RfDb(place) as db:
        seen = db.store.head()

        def ask(operation: str, run_id: int, command_id: str, **more: Any) -> Any:
            body = {"seen": seen, "actor": "grace", "command_id": command_id, **more}
            return served.post(f"runs/{run_id}/{operation}", body)

        made = [ask(word, 1, f"c-{word}").body for word in ("stop", "resume", "delete")]
        changes = {"learning_rate": 0.5, "layers": [8]}
        made.append(ask("clone", 1, "c-clone", changes=changes, warm_start=True).body)
        *_, stop, resume, delete, clone = requests = db.get_ic_ops_request()
        assert made == [{"ic_id": one["ic_id"]} for one in requests[-4:]]
        assert ask("stop", 1, "c-stop").body == made[0]  # sent again: nothing more
        assert db.get_ic_ops_request() == requests
        operations = [one["operation"] for one in (stop, resume, delete, clone)]
        assert operations == ["STOP", "RESUME", "DELETE", "CLONE_MODIFY"]
        assert clone["config_leaf"] == {"learning_rate": 0.5, "layers": (8,)}
        assert clone["warm_start"]
        [event] = db.store.read(limit=1, backwards=True)
        assert event.metadata.actor == "grace"

        db.set_run_progress(1, current_chunk=2, current_epoch=0)
        assert ask("stop", 1, "c-2").status == 200  # progress is no reason to ask again
        db.set_run_status(1, "STOPPED", actor="controller")
        after = db.store.head()
        refused = ask("delete", 1, "c-3")
        assert (refused.status, refused.body["error"]) == (409, "ChangedSince")
        assert f"run 1 is STOPPED since event {after}" in refused.body["message"]
        wrong = ask("clone", 4, "c-4", changes={"layers.first": 1})
        assert (wrong.status, wrong.body["message"]) == (
            400,
            "the configuration has no 'layers.first'",
        )
        assert ask("stop", 99, "c-5").status == 404
        assert ask("stop", 2, "c-6", actor=" ").status == 400
        assert ask("fly", 2, "c-7").status == 404
        assert db.store.head() == after


def test_nothing_is_unpickled(file: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (trace,)

    with RfDb(file) as db, closing(Window(file)) as window:
        run_id = db.create_run(1, config_leaf={"trap": Trap()})
        seen = db.store.head()
        trace.unlink(missing_ok=True)
        [run] = [run for run in window.state()["rows"]["run"] if run["run_id"] == run_id]
        assert "dill" in run["unreadable"]
        assert run["params"] == {}
        about = {"seen": seen, "actor": "ada", "command_id": "c"}
        with pytest.raises(PayloadRefused):
            window.request("clone", run_id, changes={"trap": 1}, **about)
        assert window.request("clone", run_id, changes={}, **about) == 4
    assert not trace.exists()


def test_numbers_that_javascript_lacks_travel_as_text(file: str) -> None:
    with RfDb(file) as db, closing(Window(file)) as window:
        run_id = db.create_run(1, config_leaf={"salt": 2**60}, seed=2**53 + 1)
        db.log_metrics(run_id, {"loss": float("nan"), "gain": float("-inf")})
        told = json.loads(encoded(window.state(since=db.store.head() - 2)))
        [run] = told["rows"]["run"]
        assert (run["seed"], run["params"]["salt"]) == (str(2**53 + 1), str(2**60))
        assert run["metrics"] == {"loss": "nan", "gain": "-inf"}
        [[_, value, *_]] = json.loads(encoded(window.curve(run_id, "loss")))["points"]
        assert value == "nan"


def test_a_curve_keeps_its_extremes() -> None:
    points = [(float(n), float(n % 7), n, n) for n in range(10_000)]
    points[1234] = (1234.0, 99.0, 1234, 1234)
    points[5678] = (5678.0, -99.0, 5678, 5678)
    points[42] = (42.0, float("inf"), 42, 42)
    some = thinned(points, 100)
    assert len(some) <= 4 * 100 + 1
    assert {points[0], points[42], points[1234], points[5678], points[-1]} <= set(some)
    assert some == sorted(some)
    assert thinned(points[:400], 100) == points[:400]


# --- who may look -----------------------------------------------------------------------------


def test_whoever_has_no_access_is_refused_and_told_why(file: str) -> None:
    with Served(file) as served, RfDb(file) as db:
        head = db.store.head()
        shell = served.ask("GET", "/")
        assert shell.status == 200
        assert "store.db" not in shell.body
        for answer in (shell, served.ask("GET", "/page/page.js"), served.ask("GET", "/nothing")):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
            assert "require-trusted-types-for 'script'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert served.ask("GET", "/nothing").status == 404

        def refused(status: int, message: str, method: str, path: str, *rest: Any) -> None:
            answer = served.ask(method, path, *rest)
            assert (answer.status, answer.body["error"]) == (status, "Refused")
            assert message in answer.body["message"]

        own = {"Origin": served.origin}
        refused(401, "no access", "GET", "/api/state")
        refused(401, "no access", "GET", "/api/news")
        refused(401, "no access", "POST", "/api/runs/1/stop", {}, own)
        refused(403, "the token is not", "POST", "/session", {"token": "guess"}, own)
        refused(400, "not as it should be", "POST", "/session", b"[", own)
        refused(403, "names no Origin", "POST", "/session", {"token": served.token})
        served.let_in()
        name = served.cookie.partition("=")[0]
        with Served(file).let_in() as other:  # on another port, whose cookies the browser sends too
            assert other.cookie.partition("=")[0] != name
            refused(401, "no access", "GET", "/api/state", None, {"Cookie": other.cookie})
        let_in = {"Cookie": f"a=b; {served.cookie}"}
        evil = {**let_in, "Host": "evil.example:80"}
        refused(403, "--allow-host evil.example", "GET", "/api/state", None, evil)
        for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
            foreign = {**let_in, "Origin": origin}
            refused(403, "not from this server's own", "POST", "/api/runs/1/stop", {}, foreign)
            refused(403, "not from this server's own", "GET", "/api/state", None, foreign)
        for host in (f"localhost:{served.port}", "[::1]:1", "127.0.0.1"):
            assert served.ask("GET", "/api/head", None, {**let_in, "Host": host}).status == 200
        # By way of a port that is forwarded to this one.
        there = {**let_in, "Host": "localhost:9", "Origin": "http://localhost:9"}
        assert served.ask("GET", "/api/head", None, there).status == 200

        both = {**let_in, **own}
        path = "/api/runs/1/stop"
        refused(400, "not as it should be", "POST", path, {"seen": "now"}, both)
        refused(413, "1,000,000 bytes", "POST", path, b" " * 1_000_001, both)
        chunked = {**both, "Transfer-Encoding": "chunked"}
        refused(411, "how long it is", "POST", path, b"0\r\n\r\n", chunked)
        for asked in ("state?at=x", "state?at=-1", "diff?a=1", "why?entity=run", "curve?run=1"):
            assert served.ask("GET", f"/api/{asked}", None, let_in).status == 400
        missing = served.try_get("why", entity="run", key="7", column="status")
        assert (missing.status, missing.body["error"]) == (404, "NotFound")
        assert served.try_get("why", entity="run", key="x", column="status").status == 400
        assert served.try_get("why", entity="cat", key="1", column="status").status == 404
        future = served.try_get("state", at=99)
        assert (future.status, future.body["error"]) == (400, "InvalidMoment")
        assert served.try_get("found", where="loss <").status == 400
        assert db.store.head() == head


def test_a_window_for_reading_only_has_no_way_to_ask(file: str) -> None:
    with Served(file, "--read-only", "--allow-host", "lab.example").let_in() as served:
        assert served.get("session")["read_only"]
        body = {"seen": 54, "actor": "ada", "command_id": "c"}
        assert served.post("runs/1/stop", body).status == 404
        host = {"Host": "lab.example", "Origin": "https://lab.example", "Cookie": served.cookie}
        assert served.ask("GET", "/api/head", None, host).body == {"position": 54}


# --- its end and its beginning ----------------------------------------------------------------


def test_ctrl_c_ends_it_with_streams_open(place: str) -> None:
    record(place)
    with Served(place).let_in() as served, ExitStack() as streams:
        opened = [served.stream() for _ in range(10)]
        for stream in opened:
            streams.callback(stream.close)
            assert stream.next() is not None
        code, told = served.interrupt()
        assert (code, told) == (130, "Ctrl-C ends it\n")
        assert [stream.next() for stream in opened] == [None] * 10


def test_what_cannot_be_served_is_told(tmp_path: Path, file: str) -> None:
    done = here("ui", "--no-browser", "--store", str(tmp_path / "none.db"))
    assert (done.out, done.code) == ("", 3)
    assert "there is no store" in done.err
    with Served(file) as served:
        done = here("ui", "--no-browser", "--store", file, "--port", served.port)
        assert done.code == 3
        assert "pass another one with --port" in done.err


def test_the_bundle_is_made_of_the_sources() -> None:
    digest = hashlib.sha256()
    for source in sorted((TOP / "page" / "src").iterdir()):
        digest.update(source.read_bytes())
    bundle = (TOP / "refold" / "ui" / "page" / "page.js").read_text("utf-8")
    found = re.match(r"/\* licences: LICENSES\.txt; sources (\w+) \*/", bundle)
    assert found is not None
    assert found[1] == digest.hexdigest(), "the sources of the page have changed: make page"

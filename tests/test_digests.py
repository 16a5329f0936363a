"""Log format 2: every event is chained to the one before it, and what was altered is found."""

import hashlib
import hmac
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from children import Parent, call
from command_line import refold
from hypothesis import given
from hypothesis import strategies as st
from logs import log
from places import Place
from raw import raw
from strategies import any_command
from tries import LONGER, tries

from refold import DBException, RfDb, copy_store, fork
from refold.commands import execute
from refold.eventstore import AccessDenied, Event, InvalidFile, StoreTooNew, Transaction, open_store
from refold.eventstore.engines.sqlite import file
from refold.eventstore.events import RunProgressed
from refold.export import json_lines

STORED = Path(__file__).parent / "stored_logs" / "0.1.0.db"


def fill(place: str, runs: int = 3) -> None:
    with RfDb(place, actor="filler") as db:
        experiment_id = db.create_experiment("digits ü")
        for n in range(runs):
            run_id = db.create_run(experiment_id, config_leaf={"lr": n})
            db.set_run_progress(run_id, n + 1, 0)


def faults(place: str, **options: Any) -> list[str]:
    with RfDb(place, **options) as db:
        return [str(fault) for fault in db.verify(log=True)]


@contextmanager
def unprotected(place: str) -> Iterator[Any]:
    """Open the store as somebody who alters the log does, and takes care to leave no trace."""
    with raw(place) as connection:
        if "://" in place:
            connection.execute("SET session_replication_role = replica")
            connection.execute("ALTER TABLE events DROP CONSTRAINT events_have_digests")
            yield connection
            connection.execute(
                "ALTER TABLE events ADD CONSTRAINT events_have_digests CHECK (position <= 0 OR "
                "(digest IS NOT NULL AND length(digest) = 16)) NOT VALID"
            )
            return
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for _, sql in triggers:
            connection.execute(sql)


# --- what the digest is -----------------------------------------------------------------------


def by_the_book(row: Any, before: bytes, key: bytes | None = None) -> bytes:
    """Make a digest as the design says, in the plainest way."""
    position, stream, version, _, kind, schema, data, metadata, recorded_at, _ = row
    told = before + b"".join(n.to_bytes(8, "big") for n in (position, version, recorded_at))
    told += schema.to_bytes(4, "big")
    for text in (stream, kind, data, metadata):
        told += len(text.encode()).to_bytes(4, "big") + text.encode()
    made = hashlib.sha256(told) if key is None else hmac.new(key, told, "sha256")
    return made.digest()[:16]


@pytest.mark.parametrize("key", [None, "a key ü"])
def test_each_event_has_the_digest_that_the_design_says(
    place: str, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    if key is not None:
        monkeypatch.setenv("REFOLD_LOG_KEY", key)
    fill(place)
    with RfDb(place) as db, db.batch():  # several at once, of old streams and new ones
        db.append(*(RunProgressed(n, 5, n) for n in (1, 2, 1, 9)))
    last: dict[str, bytes] = {}
    found = log(place)
    for row in found["events"]:
        before = last.get(row.stream, bytes(16))
        last[row.stream] = by_the_book(row, before, None if key is None else key.encode())
        assert row.digest == last[row.stream]
    assert {stream: digest for stream, *_, digest in found["streams"]} == last


def test_whatever_happens_the_log_is_without_faults(new_place: Place, engine: str) -> None:
    @tries(16, engine)
    @given(st.lists(any_command, max_size=12))
    def check(commands: list[Any]) -> None:
        with RfDb(new_place()) as db:
            for command in commands:
                with suppress(DBException):
                    execute(db.views, command)
            assert db.verify(log=True) == []

    check()


# --- what is found ----------------------------------------------------------------------------

ALTERED: dict[str, tuple[str, str]] = {
    "data": ("UPDATE events SET data = replace(data, '2', '3') WHERE position = 5", "event 5"),
    "metadata": ("UPDATE events SET metadata = '{}' WHERE position = 5", "event 5"),
    "time": ("UPDATE events SET recorded_at = recorded_at + 1 WHERE position = 5", "event 5"),
    "type": ("UPDATE events SET type = 'RunStarted' WHERE position = 5", "event 5"),
    "schema version": ("UPDATE events SET schema_version = 2 WHERE position = 5", "event 5"),
    "beyond 32 bits": ("UPDATE events SET schema_version = 2147483648 * 4 - 1", "event 1"),
    "stream": ("UPDATE events SET stream = 'run-3' WHERE position = 5", "event 5"),
    "version": ("UPDATE events SET version = 7 WHERE position = 5", "event 5"),
    "previous": ("UPDATE events SET previous = 1 WHERE position = 5", "event 5"),
    "position": ("UPDATE events SET position = 70 WHERE position = 5", "event 70"),
    "digest": ("UPDATE events SET digest = digest || digest WHERE position = 5", "event 5"),
    "no digest": ("UPDATE events SET digest = NULL WHERE position = 5", "event 5"),
    "missing": ("DELETE FROM events WHERE position = 4", "event 5"),
    "the last is missing": ("DELETE FROM events WHERE position = 7", "stream run-3"),
    "swapped": (
        "UPDATE events SET data = (SELECT data FROM events o WHERE o.position = 8 - "
        "events.position) WHERE position IN (3, 5)",
        "event 3",
    ),
    "inserted": (
        "INSERT INTO events SELECT 8, stream, version + 1, position, type, schema_version, data, "
        "metadata, recorded_at, digest FROM events WHERE position = 7",
        "event 8",
    ),
    "head": ("UPDATE streams SET version = 9 WHERE stream = 'run-1'", "stream run-1"),
    "no head": ("DELETE FROM streams WHERE stream = 'run-1'", "stream run-1"),
}


@pytest.mark.parametrize(("change", "about"), ALTERED.values(), ids=ALTERED.keys())
def test_what_was_altered_is_named(place: str, change: str, about: str) -> None:
    if "2147483648" in change and "://" in place:
        change = change.replace("2147483648 * 4 - 1", "2147483647")  # it has no more bits there
    fill(place)
    assert faults(place) == []
    with unprotected(place) as connection:
        connection.execute(change)
    with open_store(place) as store:
        found = [str(fault) for fault in store.faults()]
    assert any(text.startswith(f"{about}:") for text in found), found


def test_a_missing_position_is_named_where_none_can_be(tmp_path: Path, postgres_url: str) -> None:
    place = str(tmp_path / "store.db")
    fill(place)
    with unprotected(place) as connection:
        connection.execute("DELETE FROM events WHERE stream = 'run-2'")
        connection.execute("DELETE FROM streams WHERE stream = 'run-2'")
    with open_store(place) as store:
        assert [str(fault) for fault in store.faults()] == ["event 4 to 5: it is missing"]


@pytest.mark.loop
def test_2000_flipped_bits_are_all_found(
    tmp_path: Path, moments: random.Random, record_property: Callable[[str, Any], None]
) -> None:
    place = str(tmp_path / "store.db")
    fill(place, runs=20)
    columns = "position stream version previous type schema_version data metadata recorded_at"
    names = [*columns.split(), "digest"]
    believed: list[Any] = []
    with open_store(place) as store, unprotected(place) as connection:
        rows = connection.execute(f"SELECT {', '.join(names)} FROM events").fetchall()
        flips = 2_000 * LONGER
        for _ in range(flips):
            row, at = moments.choice(rows), moments.randrange(len(names))
            value = row[at]
            if value is None:
                altered: Any = 1 << moments.randrange(40)
            elif isinstance(value, int):
                altered = value ^ (1 << moments.randrange(62))
            else:
                content = bytearray(value if isinstance(value, bytes) else value.encode())
                content[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
                altered = bytes(content)
            kind = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
            connection.execute("SAVEPOINT flip")
            connection.execute(
                f"UPDATE OR REPLACE events SET {names[at]} = {kind} WHERE position = ?",
                (altered, row[0]),
            )
            connection.execute("RELEASE flip")
            connection.commit()
            if not any(
                fault.about.startswith(("event", "stream", "log")) for fault in store.faults()
            ):
                believed.append((row[0], names[at], value, altered))
            connection.execute("DELETE FROM events")
            marks = ", ".join("?" * len(names))
            connection.executemany(f"INSERT INTO events VALUES ({marks})", rows)
            connection.commit()
    record_property("counts", f"{flips} bits flipped, believed {len(believed)}")
    assert believed == []


FOREIGN: dict[str, tuple[str, str, str]] = {
    "a table": ("CREATE TABLE notes (a INTEGER)", "", "table notes: it is not refold's"),
    "a column": (
        "ALTER TABLE streams ADD COLUMN colour TEXT",
        "",
        "table streams: refold has no column colour there",
    ),
    "a trigger": (
        "CREATE TRIGGER later AFTER INSERT ON events BEGIN SELECT 1; END",
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; "
        "CREATE TRIGGER later AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION later()",
        "trigger later: it is not refold's",
    ),
    "a trigger is missing": (
        "DROP TRIGGER events_are_never_deleted",
        "DROP TRIGGER events_are_never_deleted ON events",
        "trigger events_are_never_deleted: it is missing",
    ),
    "no trigger for digests": (
        "DROP TRIGGER events_have_digests",
        "ALTER TABLE events DROP CONSTRAINT events_have_digests",
        "trigger events_have_digests: it is missing",
    ),
}


@pytest.mark.parametrize(("on_file", "on_server", "text"), FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_not_refolds_is_pointed_out(
    place: str, on_file: str, on_server: str, text: str
) -> None:
    fill(place)
    with raw(place) as connection:
        connection.execute((on_server or on_file) if "://" in place else on_file)
    [found] = faults(place)
    assert found.startswith(text)


def test_an_altered_trigger_is_pointed_out(tmp_path: Path) -> None:
    place = str(tmp_path / "store.db")
    fill(place)
    with raw(place) as connection:
        connection.execute("DROP TRIGGER events_are_never_deleted")
        connection.execute(
            "CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events BEGIN SELECT 1; END"
        )
    [found] = faults(place)
    assert found.startswith("trigger events_are_never_deleted: it was altered")


def test_the_command_line_says_so(place: str) -> None:
    fill(place)
    done = refold("verify", "--log", "--payloads", "--store", place)
    assert (done.code, done.err) == (0, "")
    with unprotected(place) as connection:
        connection.execute("UPDATE events SET metadata = '{}' WHERE position = 5")
    for command in (("verify", "--log"), ("doctor",)):
        done = refold(*command, "--store", place)
        assert done.code == 1
        assert "event 5: its digest is not that of what it holds: it was altered" in done.out


def test_an_event_without_a_digest_is_refused_by_the_database(place: str) -> None:
    fill(place)
    with pytest.raises(Exception, match="digest"), raw(place) as connection:
        connection.execute(
            "INSERT INTO events SELECT 8, stream, version + 1, position, type, schema_version, "
            "data, metadata, recorded_at, NULL FROM events WHERE position = 7"
        )


# --- a key ------------------------------------------------------------------------------------


def test_with_a_key_who_has_it_not_can_neither_append_nor_rewrite(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(place, runs=1)
    monkeypatch.setenv("REFOLD_LOG_KEY", "secret")
    fill(place, runs=2)
    assert faults(place) == []
    before = log(place)
    for key in ("", "another"):
        monkeypatch.setenv("REFOLD_LOG_KEY", key)
        with RfDb(place) as db:
            assert len(db.get_all_runs()) == 3
            with pytest.raises(AccessDenied, match=r"signed with a key.*set REFOLD_LOG_KEY"):
                db.create_run(1)
            [unsaid] = db.verify(log=True)
            assert "events after 3 are signed, and were not checked" in str(unsaid)
    assert log(place) == before
    # Somebody rewrites the last event together with its digest and its stream's head.
    *_, row = before["events"]
    forged = row._replace(data=row.data.replace('"current_chunk":2', '"current_chunk":9'))
    assert forged != row
    previous = next(one for one in before["events"] if one.position == row.previous)
    digest = by_the_book(forged, previous.digest)
    with unprotected(place) as connection:
        mark = "%s" if "://" in place else "?"
        connection.execute(
            f"UPDATE events SET data = {mark}, digest = {mark} WHERE position = {row.position}",
            (forged.data, digest),
        )
        connection.execute(
            f"UPDATE streams SET digest = {mark} WHERE position = {row.position}", (digest,)
        )
    monkeypatch.setenv("REFOLD_LOG_KEY", "secret")
    with open_store(place) as store:
        assert [fault.position for fault in store.faults()] == [row.position]


# --- copies, forks, files ---------------------------------------------------------------------


def store_row(place: str) -> dict[str, Any]:
    """What log it is; the tags are of its file."""
    with RfDb(place) as db:
        [row] = db.db.execute("SELECT * FROM store")
    return {name: value for name, value in row.items() if name != "tags"}


def exported(place: str) -> bytes:
    with RfDb(place) as db:
        json_lines.write(db, lines := io.BytesIO())
    return lines.getvalue()


@pytest.mark.parametrize("key", [None, "a key"])
def test_copies_keep_the_id_and_forks_remember_it(
    new_place: Place, new_target: Place, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    if key is not None:
        monkeypatch.setenv("REFOLD_LOG_KEY", key)
    place, copy, other, read = new_place(), new_target(), new_target(), new_target()
    fill(place)
    copy_store(place, copy)
    json_lines.read(io.BytesIO(exported(place)), read)
    with RfDb(place) as db, fork(db, at=4, to=other) as forked:
        assert forked.verify(log=True) == []
        forked.create_run(1)
    said = store_row(place)
    for same in (copy, read):
        assert store_row(same) == said | {"gaps": store_row(same)["gaps"]}
    assert store_row(other)["origin"] == said["id"] != store_row(other)["id"]
    for found in (copy, read, other):
        assert faults(found) == []
    fill(copy)
    with open_store(copy) as store:

        def fails(transaction: Transaction) -> None:
            transaction.append([RunProgressed(1, 7, 7)])
            raise ZeroDivisionError  # a position that a server has drawn is lost

        with pytest.raises(ZeroDivisionError):
            store.perform(fails)
    fill(copy)
    assert faults(copy) == []


def test_a_file_that_was_altered_is_refused(place: str, target: str) -> None:
    fill(place)
    lines = exported(place).replace(b'"current_chunk":3', b'"current_chunk":4')
    with pytest.raises(InvalidFile, match="line 8: the digest of event 7 is not that"):
        json_lines.read(io.BytesIO(lines), target)


def test_a_file_of_format_1_is_read(place: str, target: str) -> None:
    fill(place)
    old: list[bytes] = []
    for line in exported(place).splitlines():
        told = json.loads(line)
        told.pop("digest", None) if told["kind"] == "event" else told.pop("store", None)
        if told["kind"] == "log":
            told["format"] = 1
        old.append(json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode())
    assert json_lines.read(io.BytesIO(b"\n".join(old)), target) == 7
    assert log(target)["events"] == log(place)["events"]
    assert faults(target) == []


# --- stores of format 1 -----------------------------------------------------------------------


def make_older(place: str) -> None:
    """Turn a store on a server into one of format 1."""
    with raw(place) as connection:
        connection.execute("ALTER TABLE events DROP CONSTRAINT events_have_digests")
        connection.execute("ALTER TABLE events DROP COLUMN digest")
        connection.execute("ALTER TABLE streams DROP COLUMN digest")
        connection.execute("DROP TABLE store")
        connection.execute("COMMENT ON TABLE events IS 'refold, log format 1'")


@pytest.fixture
def old(place: str, tmp_path: Path) -> str:
    """A store of format 1."""
    if "://" not in place:
        return str(shutil.copy(STORED, place))
    copy_store(shutil.copy(STORED, tmp_path / "stored.db"), place)  # opened, it would be altered
    make_older(place)
    return place


def test_a_store_of_format_1_is_brought_to_format_2(old: str, target: str) -> None:
    with RfDb(old) as db:
        events = list(db.store.read(unknown=True))
        head = db.store.head()
        assert db.verify(log=True) == []
        assert store_row(old)["unchecked"] == head
        run_id = db.create_run(db.create_experiment("later"))
        db.set_run_progress(run_id, 1, 0)
        db.append(RunProgressed(1, 9, 9))  # follows in a stream of before
    done = refold("doctor", "--store", old)
    assert f"events up to {head} have no digest" in done.out
    rows = log(old)["events"]
    assert [row.digest is None for row in rows] == [row.position <= head for row in rows]
    with RfDb(old) as db:
        assert list(db.store.read(until=head, unknown=True)) == events
        assert db.verify(log=True) == []
    copy_store(old, target)
    assert log(target)["events"] == rows
    assert faults(target) == []
    with unprotected(target) as connection:
        connection.execute(
            f"UPDATE events SET metadata = '{{}}', data = data || ' ' WHERE position = {head + 2}"
        )
    with open_store(target) as store:
        assert f"event {head + 2}" in [fault.about for fault in store.faults()]


def test_what_can_only_be_read_stays_of_format_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(shutil.copy(STORED, tmp_path / "old.db"))
    before = Path(place).read_bytes()
    monkeypatch.setattr("refold.eventstore.engines.sqlite.engine.is_immutable", lambda _: True)
    with open_store(place) as store:
        assert list(store.read(unknown=True))
        assert store.faults() == []
        lines = io.BytesIO()
        json_lines.write(store, lines)
    assert Path(place).read_bytes() == before
    monkeypatch.undo()
    target = str(tmp_path / "new.db")
    json_lines.read(io.BytesIO(lines.getvalue()), target)
    assert faults(target) == []
    assert file.LOG_FORMAT == 2


# --- releases side by side --------------------------------------------------------------------


def of_tomorrow(_: Parent, place: str, level: int) -> None:
    """Write an event as a later release does, whose level is higher."""

    class RunAdopted(Event, frozen=True):
        store_level: ClassVar[int] = level
        run_id: int

    with open_store(place) as store:
        store.append("run-1", [RunAdopted(1)])


def test_an_event_of_a_higher_level_is_not_shown_as_if_it_were_nothing(place: str) -> None:
    with RfDb(place) as db:
        run_id = db.create_run(db.create_experiment("digits"))
        call(of_tomorrow, place, 2)
        assert db.get_run(run_id)["status"] == "NEW"
        call(of_tomorrow, place, 3)
        for use in (lambda: db.get_run(run_id), lambda: db.create_run(1)):
            with pytest.raises(StoreTooNew, match=r"level 3.*upgrade refold"):
                use()
    with pytest.raises(StoreTooNew, match="level 3"), RfDb(place) as db:
        db.get_run(run_id)

"""A log as JSON Lines, and back to an equal log; views and events as CSV and Parquet."""

import csv as python_csv
import hashlib
import io
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pytest
from children import Child, Parent
from hypothesis import given
from hypothesis import strategies as st
from logs import LOG, Rows, append_rows, log
from places import Place
from random_logs import OWN, VIEWS, Step, append_row, log_of, steps
from strategies import any_command
from tables import tables
from test_damaged_events import DAMAGE, damage
from tries import tries

from refold import DBException, NotFound, ProjectionFailed, RfDb
from refold.commands import Command, execute
from refold.eventstore import DamagedEvent, Metadata, NotAStore, UnknownEventType, open_store
from refold.eventstore.engines.log_end import EventRow
from refold.eventstore.events import ExperimentErrorRecorded, RunProgressed
from refold.eventstore.paging import KEYS, PAGE, PARCEL
from refold.export import json_lines
from refold.export.json_lines import InvalidFile
from refold.export.tables import write_csv, write_parquet
from refold.projections import Row, View

NOTHING: dict[str, Rows] = {name: [] for name in LOG}


def views(place: str) -> str:
    """Return the rows of all views, as text that tells 1 from 1.0 and True."""
    with RfDb(place, projections=OWN) as db:
        assert db.verify() == []
        return repr(tables(db))


def exported(place: str, *, at: int | None = None, **options: Any) -> bytes:
    """Return the JSON Lines of a log."""
    file = io.BytesIO()
    with RfDb(place, projections=OWN) as db:
        json_lines.write(db if at is None else db.as_of(at), file, **options)
    return file.getvalue()


def imported(lines: bytes, place: str) -> int:
    return json_lines.read(io.BytesIO(lines), place, projections=OWN)


def fill(place: str, runs: int = 3) -> None:
    """Append what refers to payloads and what was sent with ids."""
    with RfDb(place, actor="filler") as db:
        experiment_id = db.create_experiment("digits")
        for n in range(runs):
            run_id = db.create_run(experiment_id, config_leaf={"lr": n}, command_id=f"run {n}")
            db.set_run_progress(run_id, n + 1, 0)


# --- an equal log ----------------------------------------------------------------------------


def send(db: RfDb, commands: list[Command]) -> dict[str, tuple[Command, Any]]:
    """Send commands, each with an id, and return their results."""
    results: dict[str, tuple[Command, Any]] = {}
    for n, command in enumerate(commands):
        try:
            results[f"ü {n}"] = command, execute(db.views, command, Metadata(command_id=f"ü {n}"))
        except DBException:
            continue
    return results


@pytest.mark.property
def test_an_import_gives_an_equal_log(engine: str, new_place: Place, new_target: Place) -> None:
    @tries(8, engine)
    @given(st.lists(steps, max_size=6), st.lists(any_command, max_size=6))
    def check(happens: list[Step], commands: list[Command]) -> None:
        place, target = new_place(), new_target()
        with log_of(place, happens) as source:
            results = send(source.db, commands)
            source.db.put_payload(len(happens))  # which no event names
        lines = exported(place)
        assert imported(lines, target) == len(log(place)["events"])
        assert log(target) == log(place)
        assert views(target) == views(place)
        assert (
            exported(target).splitlines()[1:] == lines.splitlines()[1:]
        )  # gaps may be legal there
        with RfDb(target, projections=OWN) as db:
            head = db.store.head()
            for command_id, (command, result) in results.items():
                assert execute(db.views, command, Metadata(command_id=command_id)) == result
            assert db.store.head() == head
            # Life goes on there.
            version = db.store.version("run-1")
            db.store.append("run-1", [RunProgressed(1, 7, 0)], expected_version=version)
            assert db.store.head() == head + 1
            assert db.verify() == []

    check()


def test_whatever_the_log_holds_comes_back_to_the_letter(place: str, target: str) -> None:
    texts = [
        '{"b" : 1.50, "b":-0.0,\t"a":12345678901234567890123, "e":1E5}',
        '{"ü":"\\u00e9 \\n \\u2028 \u2028 \\u0000","":{"x":[[]]}}',
        "{}",
    ]
    times = [-5, 0, 2**60, 2**63 - 1, 1_706_702_400_000_001]
    positions = [2, 3, 7, 1_000, 2**53 + 1]
    abouts = ['{"actor":"ü"}', "{}", '{ "cause":1, "of_tomorrow":[1,{}]}']
    rows = [
        EventRow(
            position,
            "bird-ü\n1",
            n + 1,
            positions[n - 1] if n else None,
            "BirdSung",
            99 - n,
            texts[n % 3],
            abouts[n % 3],
            times[n],
        )
        for n, position in enumerate(positions)
    ]
    with open_store(place) as store, store.transaction() as transaction:
        append_rows(transaction, rows)
    assert imported(exported(place), target) == 5
    assert log(target) == log(place)
    assert [row[:-1] for row in log(target)["events"]] == [row[:-1] for row in rows]


def test_each_event_is_one_line_that_a_person_can_read(place: str) -> None:
    fill(place, runs=1)
    first, *lines, command, payload, last = exported(place).splitlines()
    head = json.loads(first)
    assert head.pop("store").keys() == {"id", "created_at", "level"} | (
        {"gaps"} if "://" in place else set()
    )
    assert head == {"kind": "log", "format": 2, "until": 3, "payloads": True}
    with RfDb(place) as db:
        events = list(db.store.read())
        digest = db.db.execute("SELECT config_digest FROM runs_folded")[0]["config_digest"]
    for line, event in zip(lines, events, strict=True):
        told = json.loads(line)
        assert told.pop("data")
        assert len(told.pop("digest")) == 32
        assert told == {
            "kind": "event",
            "position": event.position,
            "stream": event.stream,
            "version": event.version,
            "type": event.type,
            "schema_version": 1,
            "recorded_at": event.time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "metadata": {"actor": "filler"}
            | ({"command_id": "run 0"} if event.metadata.command_id else {}),
        }
    assert json.loads(command)["command_id"] == "run 0"
    assert json.loads(payload)["digest"] == digest
    assert json.loads(last) == {"kind": "end", "events": 3, "commands": 1, "payloads": 1}


def test_a_long_log_with_many_payloads_and_commands(place: str, target: str) -> None:
    with RfDb(place) as db:
        experiment_id = db.create_experiment("digits")
        with db.batch():
            for n in range(KEYS + 1):
                db.create_run(experiment_id, config_leaf=n, command_id=f"run {n}")
                db.create_experiment("digits", command_id=f"experiment {n}")
        db.append(*[RunProgressed(n % 700, n, 0) for n in range(PAGE + 1)])
    lines = exported(place)
    imported(lines, target)
    assert log(target) == log(place)
    assert exported(target).splitlines()[1:] == lines.splitlines()[1:]  # gaps may be legal there
    with open_store(target) as store:
        version = store.version("run-1")
        store.append("run-1", [RunProgressed(1, 0, 1)], expected_version=version)
        assert len(list(store.read(stream="run-1"))) == version + 1


def test_an_empty_log(place: str, target: str) -> None:
    RfDb(place).close()
    assert exported(place).count(b"\n") == 2
    assert imported(exported(place), target) == 0
    assert log(target) == NOTHING
    fill(place)
    assert imported(exported(place), target) == 7
    assert log(target) == log(place)


def test_what_comes_in_meanwhile_is_left_out(place: str) -> None:
    fill(place)

    class Growing(io.BytesIO):
        def write(self, line: Any) -> int:
            db.set_run_progress(1, db.store.head(), 0)
            return super().write(line)

    with RfDb(place) as db:
        file = Growing()
        assert json_lines.write(db, file) == 7
        assert db.store.head() > 7
    assert json.loads(file.getvalue().splitlines()[-1])["events"] == 7


# --- as of a moment --------------------------------------------------------------------------


def test_the_log_up_to_a_moment_brings_what_its_events_need(
    place: str, target: str, new_target: Place
) -> None:
    with RfDb(place) as db:
        experiment_id = db.create_experiment("digits", command_id="first")
        db.create_run(experiment_id, config_leaf={"lr": 1})
        digest = db.put_payload("named within a text")
        append_row(place, "run-1", "CheckpointMade", {"where": f'{{"digest":"a{digest}"}}'})
        db.put_payload("named by nothing")
        head = db.store.head()
        db.create_run(experiment_id, config_leaf={"lr": 2}, command_id="second")
        db.set_run_status(1, "NEW", command_id="without an event")
        assert db.store.head() == head + 1
        before = repr(tables(db.as_of(head)))
    imported(exported(place, at=head), target)
    whole, part = log(place), log(target)
    assert part["events"] == whole["events"][:head]
    assert [command_id for command_id, *_ in part["commands"]] == ["first"]
    with RfDb(target) as db:
        assert repr(tables(db)) == before
        assert db.get_run(1)["config_leaf"] == {"lr": 1}
        assert db.get_payload(digest) == "named within a text"
        assert len(part["payloads"]) == 2
    imported(exported(place, at=whole["events"][-1].position), end := new_target())
    assert log(end)["commands"] == whole["commands"]
    assert len(log(end)["payloads"]) == len(whole["payloads"]) - 1


# --- payloads --------------------------------------------------------------------------------


def test_payloads_can_be_left_out_but_then_it_is_no_log(place: str, target: str) -> None:
    fill(place)
    for at in (None, 5):
        lines = exported(place, at=at, payloads=False)
        assert b'"kind":"payload"' not in lines
        with pytest.raises(InvalidFile, match="line 1: the payloads were left out of this file"):
            imported(lines, target)


def test_large_payloads_are_not_in_memory_all_at_once(tmp_path: Path) -> None:
    place, path = str(tmp_path / "store.db"), tmp_path / "log.jsonl"
    with RfDb(place) as db:
        for n in range(20):
            db.put_payload(bytes([n]) * (PARCEL // 4))
        tracemalloc.start()
        with open(path, "wb") as file:
            json_lines.write(db, file)
        with open(path, "rb") as file:
            json_lines.read(file, tmp_path / "target.db")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 4 * PARCEL < 5 * PARCEL < path.stat().st_size
    assert log(str(tmp_path / "target.db")) == log(place)


# --- what cannot be written ------------------------------------------------------------------


@pytest.mark.parametrize("data", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_event_is_named_and_what_comes_before_can_be_had(
    place: str, target: str, data: str
) -> None:
    fill(place)
    damage(place, 5, data)
    with pytest.raises(DamagedEvent, match=r"event 5 .* as of position 4") as caught:
        exported(place)
    assert caught.value.position == 5
    assert imported(exported(place, at=4), target) == 4
    assert log(target)["events"] == log(place)["events"][:4]


@pytest.mark.parametrize(
    ("column", "text"), [("metadata", '{"cause":-1}'), ("data", "{}\n"), ("data", " {}")]
)
def test_what_was_altered_is_not_written(place: str, column: str, text: str) -> None:
    with open_store(place) as store:
        append_row(place, "bird-1", "BirdSung", {})
        damage(place, 1, text, column=column)
        with pytest.raises(DamagedEvent, match="event 1"):
            json_lines.write(store, io.BytesIO())


def test_what_only_a_newer_refold_can_read_is_not_written(place: str) -> None:
    append_row(place, "run-1", "RunStarted", {"run": 1}, schema_version=99)
    with open_store(place) as store, pytest.raises(UnknownEventType, match="event 1"):
        json_lines.write(store, io.BytesIO())


# --- what cannot be read ---------------------------------------------------------------------

Lines = list[dict[str, Any]]
GOOD_DIGEST = hashlib.sha256(b"good").hexdigest()


def _without(*numbers: int) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        for number in sorted(numbers, reverse=True):
            del lines[number - 1]

    return change


def _with(number: int, **fields: Any) -> Callable[[Lines], None]:
    return lambda lines: lines[number - 1].update(fields)


def _swapped(a: int, b: int) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        lines[a - 1], lines[b - 1] = lines[b - 1], lines[a - 1]

    return change


def _repeated(number: int) -> Callable[[Lines], None]:
    return lambda lines: lines.insert(number, lines[number - 1])


# Of a log with 7 events in lines 2 to 8, 3 commands in 9 to 11, 3 payloads in 12 to 14.
WRONG: dict[str, tuple[Callable[[Lines], None], str]] = {
    "another format": (_with(1, format=3), r"line 1: the file has format 3, .* upgrade refold"),
    "no first line": (_without(1), r"line 1 is not .*its kind is event"),
    "an unknown field": (_with(3, colour="red"), "line 3: .*unknown field `colour`"),
    "an unknown kind": (_with(3, kind="fact"), "line 3: .*'fact'"),
    "a field is missing": (lambda lines: lines[2].pop("stream"), "line 3: .*`stream`"),
    "an empty stream": (_with(3, stream=""), r"line 3: .*stream"),
    "a NUL": (_with(3, stream="run\0"), r"line 3: .*stream"),
    "no position": (_with(2, position=0), r"line 2: .*position"),
    "a position beyond 64 bits": (_with(8, position=2**63), r"line 8: .*position"),
    "a position again": (_with(4, position=2), "line 4: event 2 follows event 2"),
    "positions descend": (_swapped(4, 5), "line 5: event 3 follows event 4"),
    "an event twice": (_repeated(5), "line 6: event 4 follows event 4"),
    "an event is missing": (
        _without(3),
        "line 3: version 2 of stream 'run-1' follows version 0",
    ),
    "the last event is missing": (
        _without(8),
        "the last line counts 7 events, .* holds 6 events, 3 .* missing",
    ),
    "a version is left out": (_with(4, version=3), "line 4: version 3 of stream 'run-1' follows"),
    "a version again": (_with(4, version=1), "line 4: version 1 of stream 'run-1' follows version"),
    "a later event than told": (_with(1, until=6), "line 1 says that the log ends at 6"),
    "a time without a zone": (
        _with(3, recorded_at="2026-01-31T12:00:00"),
        r"line 3: .*recorded_at",
    ),
    "data of a wrong type": (_with(3, data=[1]), "line 3: event 2 .*cannot be decoded"),
    "data without a field": (_with(3, data={"run_id": 1}), "line 3: event 2 .*experiment_id"),
    "unknown data of a wrong type": (_with(3, data=[1], type="BirdSung"), "line 3: event 2"),
    "a newer schema": (_with(3, schema_version=99), r"line 3: event 2: .* newer refold"),
    "metadata of a wrong type": (_with(3, metadata={"cause": "x"}), "line 3: event 2 .*cause"),
    "a command twice": (_repeated(9), "line 10: command id 'run 0' is here twice"),
    "a command without an end": (_with(9, last=None), "line 9: the first event is 2, the last 0"),
    "a command turned round": (_with(9, first=4), "line 9: the first event is 4, the last 2"),
    "a command beyond": (_with(10, last=8), "line 10: the command names event 8, which is not"),
    "a command is missing": (_without(9), "lines are missing"),
    "another payload": (_with(12, digest=GOOD_DIGEST), "line 12: the payload is not the one"),
    "a payload in no Base64": (_with(12, content="ä"), r"line 12: .*content"),
    "a payload is missing": (_without(13), "lines are missing"),
    "another log follows": (
        lambda lines: lines.extend(lines[:]),
        "line 16: nothing can follow the last line",
    ),
    "another log within": (_repeated(1), "line 2: another log begins"),
    "no last line": (_without(15), r"the file ends after line 14, .* cut off"),
}


def compact(line: dict[str, Any]) -> bytes:
    """Write a line as refold does: the digest of an event is of the very text of its data."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.fixture(scope="module")
def good_lines(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = str(tmp_path_factory.mktemp("good") / "store.db")
    fill(place)
    return exported(place)


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_line_is_named_and_nothing_is_kept(
    good_lines: bytes, tmp_path: Path, change: Callable[[Lines], None], message: str
) -> None:
    lines = [json.loads(line) for line in good_lines.splitlines()]
    change(lines)
    wrong = b"".join(compact(line) + b"\n" for line in lines)
    check_refused(wrong, str(tmp_path / "store.db"), message)


def test_a_file_whose_last_line_is_wrong_leaves_an_empty_store(
    good_lines: bytes, place: str
) -> None:
    check_refused(good_lines.replace(b'"events":7', b'"events":8'), place, "lines are missing")
    assert imported(good_lines, place) == 7


def check_refused(lines: bytes, place: str, message: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        imported(lines, place)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    assert log(place) == NOTHING


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "line 1 is not"),
    "CSV": (lambda _: b"run_id,experiment_id\n1,1\n", "line 1 is not .*`refold export`"),
    "one long line": (lambda _: b"[" * 10_000, "line 1 is not"),
    "a trace": (lambda _: b'{"traceEvents":[]}\n', "line 1 is not"),
    "a byte order mark": (lambda good: b"\xef\xbb\xbf" + good, "line 1 is not"),
    "cut within a line": (lambda good: good[: good.index(b"run-2")], "line 5: the file ends in"),
    "cut at the first": (lambda good: good[: good.index(b"\n") + 1], "ends after line 1, without"),
    "an empty line": (lambda good: good.replace(b"\n", b"\n\n", 3), "line 2"),
    "no JSON": (lambda good: good.replace(b'"version":1', b'"version":1.', 1), "line 2"),
    "no UTF-8 in a name": (lambda good: good.replace(b"run-1", b"run-\xff", 1), "line 3"),
    "no UTF-8 in data": (lambda good: good.replace(b'"digits"', b'"\xff"', 1), "line 2"),
    "a lone surrogate": (lambda good: good.replace(b"run-1", b"\\ud800", 1), "line 3"),
    "deeply nested": (
        lambda good: good.replace(b'"data":{', b'"data":{"x":' + b"[" * 100_000, 1),
        "line 2",
    ),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_and_nothing_is_kept(
    good_lines: bytes, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    check_refused(change(good_lines), str(tmp_path / "store.db"), message)


def test_every_cut_is_noticed(good_lines: bytes, tmp_path: Path) -> None:
    # The last character alone is only a line's end.
    for end in [*range(0, len(good_lines) - 1, 97), len(good_lines) - 2]:
        check_refused(good_lines[:end], str(tmp_path / "store.db"), "line")
    assert imported(good_lines[:-1], str(tmp_path / "store.db")) == 7


def test_another_file_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile):
        imported(b"\0" * 100, str(tmp_path / "store.db"))
    assert list(tmp_path.iterdir()) == []


def test_only_an_empty_place_will_do(good_lines: bytes, new_place: Place) -> None:
    held: list[tuple[str, Callable[[RfDb], Any]]] = [
        ("events", lambda db: db.create_experiment("digits")),
        ("payloads", lambda db: db.put_payload("first")),
    ]
    for table, put in held:
        place = new_place()
        with RfDb(place) as db:
            put(db)
        before = log(place)
        with pytest.raises(NotAStore, match=f"is not empty, it holds {table}: pass a place of its"):
            imported(good_lines, place)
        assert log(place) == before


def test_a_place_that_is_something_else_is_refused(good_lines: bytes, tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(NotAStore):
        imported(good_lines, str(place))
    assert place.read_text().startswith("not a database")


# --- interruptions ---------------------------------------------------------------------------


class Stalling(io.BytesIO):
    """Stops in the middle of a file."""

    def __init__(self, lines: bytes, parent: Parent) -> None:
        super().__init__(lines)
        self._parent = parent

    def __next__(self) -> bytes:
        line = super().__next__()
        if b'"kind":"end"' in line:
            self._parent.tell("all but the end is there")
            self._parent.hear()
        return line


def import_and_stall(parent: Parent, lines: bytes, place: str) -> None:
    json_lines.read(Stalling(lines, parent), place)


def test_an_import_that_is_killed_leaves_nothing(good_lines: bytes, place: str) -> None:
    with Child(import_and_stall, good_lines, place) as child:
        child.hear()
        child.kill()
    assert log(place) == NOTHING
    assert imported(good_lines, place) == 7


class Odd(Row, frozen=True, kw_only=False):
    run_id: int


def raising(*_: Any) -> Any:
    raise ArithmeticError("odd")


odd = View("odd_runs", Odd, version=1)
odd.put_by(RunProgressed, raising, key=lambda e: e.run_id)


def test_a_view_that_raises_stays_behind(good_lines: bytes, place: str) -> None:
    assert json_lines.read(io.BytesIO(good_lines), place, projections=[odd]) == 7
    with RfDb(place, projections=[odd]) as db, pytest.raises(ProjectionFailed, match=odd.name):
        db.db.execute(f"SELECT * FROM {odd.table}")


# --- CSV and Parquet -------------------------------------------------------------------------

NAMES = ["events", *(view.name for view in VIEWS), "runs_folded", "interactive_control_folded"]


def read_csv(file: BinaryIO, schema: pyarrow.Schema) -> pyarrow.Table:
    """Read CSV with Arrow, which tells an empty field from an empty text."""
    import pyarrow.csv  # pyright: ignore

    texts = [
        pyarrow.field(
            field.name, pyarrow.string() if pyarrow.types.is_binary(field.type) else field.type
        )
        for field in schema
    ]
    return pyarrow.csv.read_csv(
        file,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=pyarrow.schema(texts),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def decoded(table: pyarrow.Table, schema: pyarrow.Schema) -> list[dict[str, Any]]:
    """Return the rows of a CSV with Base64 decoded."""
    from base64 import b64decode

    binary = [field.name for field in schema if pyarrow.types.is_binary(field.type)]
    return [
        {
            name: b64decode(value) if name in binary and value is not None else value
            for name, value in row.items()
        }
        for row in table.to_pylist()
    ]


@pytest.mark.property
def test_csv_and_parquet_hold_what_the_views_hold(engine: str, new_place: Place) -> None:
    import pyarrow.parquet  # pyright: ignore

    @tries(8, engine)
    @given(st.lists(steps, max_size=6), st.data())
    def check(happens: list[Step], data: st.DataObject) -> None:
        with log_of(new_place(), happens) as log:
            at = data.draw(st.sampled_from([None, *log.positions]))
            name = data.draw(st.sampled_from(NAMES))
            face = log.db if at is None else log.db.as_of(at)
            expected = face.to_arrow(name)
            file = io.BytesIO()
            assert write_csv(face, name, file) == expected.num_rows
            file.seek(0)
            found = read_csv(file, expected.schema)
            assert repr(decoded(found, expected.schema)) == repr(expected.to_pylist())
            file = io.BytesIO()
            assert write_parquet(face, name, file) == expected.num_rows
            file.seek(0)
            assert pyarrow.parquet.read_table(file).equals(expected)

    check()


def test_csv_to_the_letter(db: RfDb) -> None:
    experiment_id = db.create_experiment('a "b", c\nd')
    db.create_run(experiment_id, config_leaf=None, warm_start=True, command_id="x")
    file = io.BytesIO()
    assert write_csv(db, "experiments", file) == 1
    lines = file.getvalue().decode()
    assert lines.startswith(
        "experiment_id,experiment_name,kind,status,experiments_path,num_shards,num_actors,"
        'num_cpus,num_gpus,error,created_at,updated_at,position\n1,"a ""b"", c\nd",fit,NEW,,,,,,,'
    )
    assert lines.endswith(",1\n")
    # NULL, and an empty text.
    db.append(ExperimentErrorRecorded(experiment_id, ""))
    file = io.BytesIO()
    write_csv(db, "experiments", file)
    assert ',fit,NEW,,,,,,"",20' in file.getvalue().decode()
    [header, row] = python_csv.reader(io.StringIO(lines))
    assert dict(zip(header, row, strict=True))["experiment_name"] == 'a "b", c\nd'
    file = io.BytesIO()
    write_csv(db, "runs", file)
    assert ",true,,,,0,0,{}," in file.getvalue().decode()


def test_the_events_as_csv(db: RfDb) -> None:
    db.append(*[RunProgressed(1, n, 0) for n in range(PAGE + 1)])
    file = io.BytesIO()
    assert write_csv(db.as_of(PAGE), "events", file) == PAGE
    rows = list(python_csv.DictReader(io.StringIO(file.getvalue().decode())))
    assert [int(row["position"]) for row in rows] == list(range(1, PAGE + 1))
    assert json.loads(rows[-1]["data"])["current_chunk"] == PAGE - 1


@pytest.mark.parametrize("write", [write_csv, write_parquet], ids=["csv", "parquet"])
def test_a_view_that_is_not_there_is_refused(db: RfDb, write: Callable[..., int]) -> None:
    with pytest.raises(NotFound, match="there is no view 'rnus': take one of experiments, runs,"):
        write(db, "rnus", io.BytesIO())


def test_csv_of_altered_events_is_refused(tmp_path: Path) -> None:
    place = str(tmp_path / "store.db")
    fill(place)
    damage(place, 5, "x", column="recorded_at")
    with RfDb(place) as db:
        for write in (write_csv, write_parquet):
            with pytest.raises(DamagedEvent, match="one of the events 1 to 7 was altered"):
                write(db, "events", io.BytesIO())

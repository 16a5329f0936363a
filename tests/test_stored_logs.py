"""Stores written by every release, kept for ever: they must open, decode and fold."""

import json
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from refold import RfDb, __version__, copy_store
from refold.eventstore.events import RunCreated
from refold.projections import ALL, Row, View
from tools import stored_logs
from tools.stored_logs import (
    Refused,
    grown,
    logs,
    own_types,
    read_folds,
    stored_types,
    write_log,
)


@pytest.mark.parametrize("log", logs(), ids=lambda log: log.stem)
def test_a_stored_log_opens_and_folds(log: Path, place: str, tmp_path: Path) -> None:
    if "://" in place:
        copy_store(str(shutil.copy(log, tmp_path / "copy.db")), place)
    else:
        shutil.copy(log, place)
    with RfDb(place) as db:

        def rows() -> list[Any]:
            return [db.db.execute(f"SELECT * FROM {view.name} ORDER BY {view.key}") for view in ALL]

        assert db.verify() == []
        before = rows()
        db.rebuild()
        assert rows() == before
        db.create_experiment("goes on")
        assert db.verify() == []


def test_every_event_type_is_in_a_stored_log() -> None:
    missing = own_types() - stored_types()
    assert not missing, "run `make generate` (tools/stored_logs.py) to store a log with them"


def test_a_view_that_changes_has_a_new_version() -> None:
    noted = read_folds()
    assert grown(noted) == noted, "run `make generate` (tools/stored_logs.py) to record it for good"


# --- what the tool refuses ------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the folder of stored logs."""
    return Path(shutil.copytree(stored_logs.FOLDER, tmp_path / "stored_logs"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nothing_is_written_if_nothing_is_new(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(folder)
    stored_logs.main(folder=folder)
    assert capsys.readouterr().out == "stored logs: nothing is new\n"
    assert content(folder) == before


def test_a_log_is_written_once(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    stored_logs.main("first", folder)
    assert [log.name for log in logs(folder)] == ["first.db"]
    assert stored_types(folder) >= own_types()
    written = content(folder)
    stored_logs.main("second", folder)
    with pytest.raises(Refused, match=r"first\.db is there.*tools/stored_logs\.py first-2"):
        write_log(folder / "first.db")
    assert content(folder) == written


def test_a_log_that_is_there_is_not_written_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / f"{__version__}.db").touch()
    before = content(folder)
    types = {*own_types(), ("RunAdopted", 1)}
    monkeypatch.setattr(stored_logs, "own_types", lambda: types)
    with pytest.raises(Refused, match=r"is there.*raise the version .*or choose another name"):
        stored_logs.main(folder=folder)
    assert content(folder) == before


def test_a_log_that_lacks_a_new_type_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(folder)
    types = {*own_types(), ("RunAdopted", 1)}
    monkeypatch.setattr(stored_logs, "own_types", lambda: types)
    with pytest.raises(Refused, match=r"let RunAdopted \(schema version 1\) happen"):
        stored_logs.main("next", folder)
    assert content(folder) == before


def starts(version: int, by: int) -> View[Any]:
    view = View("starts", Starts, version=version)
    view.created_by(RunCreated, lambda e: Starts(e.run_id, by))
    return view


class Starts(Row, frozen=True):
    run_id: int
    starts: int


def test_a_version_of_a_view_keeps_its_folds(folder: Path) -> None:
    first = grown({}, folder, [starts(1, by=1)])
    noted = deepcopy(first)
    assert grown(noted, folder, [starts(1, by=1)]) == first
    with pytest.raises(Refused, match=r"view starts folds .*\.db differently .* raise its version"):
        grown(noted, folder, [starts(1, by=2)])
    second = grown(noted, folder, [starts(2, by=2)])
    assert second["starts"]["1"] == first["starts"]["1"] != second["starts"]["2"]
    with pytest.raises(Refused, match=r"view starts was at version 2 and is at 1.* raise it to 3"):
        grown(second, folder, [starts(1, by=1)])
    assert noted == first


def test_a_schema_that_changes_needs_a_new_version(folder: Path) -> None:
    noted = grown({}, folder, [starts(1, by=1)])
    view = View("starts", Starts, version=1, table="begins")
    view.created_by(RunCreated, lambda e: Starts(e.run_id, 1))
    with pytest.raises(Refused, match="view starts has another schema than is recorded"):
        grown(noted, folder, [view])


def test_a_new_log_is_noted_beside_the_others(folder: Path) -> None:
    noted = grown({}, folder, [starts(1, by=1)])
    log, *_ = noted["starts"]["1"]["rows"]
    shutil.copy(folder / f"{log}.db", folder / "next.db")
    both = grown(noted, folder, [starts(1, by=1)])["starts"]["1"]["rows"]
    assert both == {**noted["starts"]["1"]["rows"], "next": both[log]}
    (folder / f"{log}.db").unlink()
    with pytest.raises(Refused, match=r"\.db is gone"):
        grown(noted, folder, [starts(1, by=1)])


def test_the_command_says_why_it_refuses(tmp_path: Path, folder: Path) -> None:
    """In a checkout of its own, whose `folds.json` says something else of the runs."""
    top = Path(stored_logs.__file__).parents[1]
    shutil.copytree(top / "tools", tmp_path / "tools")
    (tmp_path / "refold").symlink_to(top / "refold")
    (tmp_path / "tests").mkdir()
    folder = folder.rename(tmp_path / "tests" / "stored_logs")
    folds = read_folds(folder)
    [*_, fold] = folds["runs"].values()
    fold["rows"] = dict.fromkeys(fold["rows"], "0" * 16)
    (folder / "folds.json").write_text(json.dumps(folds))
    before = content(folder)
    done = subprocess.run(
        [sys.executable, tmp_path / "tools" / "stored_logs.py"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("view runs folds ")
    assert "Traceback" not in done.stderr
    assert content(folder) == before

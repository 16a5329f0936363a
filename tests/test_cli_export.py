"""`refold export`, `import` and `plot` as processes."""

import doctest
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import command_line
import pyarrow.parquet
import pytest
from command_line import TOP, Done, command, environment, record, refold
from raw import raw
from test_damaged_events import damage
from test_export import NOTHING, log
from test_trace import checked

from refold import RfDb
from refold.cli import app

PAGE = TOP / "docs" / "export.md"


@pytest.fixture
def recorded(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The place of the fixed log, which `REFOLD_STORE` names; the folder is an empty one."""
    record(place)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fixed log in rapidfire.db, which no test changes."""
    folder = tmp_path_factory.mktemp("folder")
    record(str(folder / "rapidfire.db"))
    return folder


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Work in an empty folder; return the environment that names the store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REFOLD_STORE", str(folder / "rapidfire.db"))
    return {"REFOLD_STORE": str(folder / "rapidfire.db")}


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Yield a function that runs a command in this process, which takes less time."""

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["refold", *map(str, words)])
        code = app.run()
        told = capfd.readouterr()
        return Done(told.out, told.err, code)

    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        yield run


# --- the page ----------------------------------------------------------------------------------


def test_every_command_of_the_page_prints_what_it_says(recorded: str, engine: str) -> None:
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.M)
    examples = [
        example
        for block in blocks
        for example in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
    ]
    assert {line.split()[1] for line, _ in examples} == {"export", "import", "plot"}
    different: list[str] = []
    for line, printed in examples:
        program, *words = shlex.split(line)
        assert program == "refold"
        # A process each on one engine is enough.
        run = refold if engine == "sqlite" else command_line.here
        done = run(*words, env={"REFOLD_STORE": recorded})
        told = done.out + done.err
        told = re.sub(r"(?m)^refold: \S+(?= is not empty)", "refold: rapidfire.db", told)
        if not doctest.OutputChecker().check_output(printed, told, doctest.ELLIPSIS):
            different.append(f"$ {line}\n{told}\ninstead of\n{printed}")
    assert not different, "\n".join(different)
    assert log("copy.db") == log(recorded)
    with RfDb("copy.db") as copy, RfDb(recorded) as db:
        assert copy.verify() == []
        assert copy.get_all_runs() == db.get_all_runs()
    checked(Path("trace.json").read_bytes())
    assert pyarrow.parquet.read_table("events.parquet").num_rows == 20


def test_the_blocks_of_the_page_run() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", TOP / ".ci" / "quickstart", PAGE],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- export and import -------------------------------------------------------------------------


def test_through_a_pipe_to_the_other_end(recorded: str, engine: str) -> None:
    with (
        subprocess.Popen(
            command("export", "-"),
            env=environment(REFOLD_STORE=recorded),
            stdout=subprocess.PIPE,
        ) as source,
        subprocess.Popen(
            command("import", "-", "--store", "copy.db", "--json"),
            env=environment(),
            stdin=source.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as target,
    ):
        out, err = target.communicate(timeout=60)
    assert (source.returncode, target.returncode, err) == (0, 0, b"")
    assert json.loads(out) == {"file": "-", "events": 54}
    assert log("copy.db") == log(recorded)


def test_a_reader_that_has_had_enough(here: dict[str, str]) -> None:
    with RfDb(here["REFOLD_STORE"]) as db:
        assert db.store.head() == 54
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            command("export", "-"),
            env=environment(**here),
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_formats_by_their_names_and_by_the_end_of_the_file(here: dict[str, str], run: Run) -> None:
    begin = {
        "x.ndjson": b'{"kind":"log"',
        "x.JSON": b'{"displayTimeUnit"',
        "x.csv": b"position,stream,",
        "x.parquet": b"PAR1",
    }
    for (name, first), word in zip(
        begin.items(), ("jsonl", "trace", "csv", "parquet"), strict=True
    ):
        done = run("export", name, "--json")
        assert (done.code, done.err) == (0, "")
        told = json.loads(done.out)
        assert (told["file"], told["format"]) == (name, word)
        assert told["count"] == (84 if name == "x.JSON" else 54)
        assert Path(name).read_bytes().startswith(first)
        assert run("export", "x", "-f", word, "--yes").code == 0
        assert Path("x").read_bytes() == Path(name).read_bytes()
    with open("x", "wb") as out:
        words = command("export", "-", "-f", "parquet")
        subprocess.run(words, env=environment(**here), stdout=out, check=True, timeout=60)
    assert Path("x").read_bytes() == Path("x.parquet").read_bytes()


def test_as_of_a_moment_and_views_of_ones_own(here: dict[str, str], run: Run) -> None:
    done = run("export", "-", "-f", "csv", "--view", "runs", "--at", 4)
    assert [line.split(",")[4] for line in done.out.splitlines()[1:]] == ["NEW"] * 3
    run("export", "x.jsonl", "--at", "2024-01-31T12:00:01Z", "--no-payloads")
    lines = Path("x.jsonl").read_text("utf-8").splitlines()
    positions = [json.loads(line)["position"] for line in lines[1:-1]]
    assert positions == list(range(1, positions[-1] + 1))
    assert 5 < positions[-1] < 20
    done = run("import", "x.jsonl", "--store", "x.db")
    assert done.code == 3
    assert "line 1: the payloads were left out" in done.err
    run("export", "y.jsonl")
    done = run("import", "y.jsonl", "--store", "x.db", "--import", "clippings")
    assert (done.code, done.err) == (0, "54 events imported from y.jsonl\n")
    words = ("export", "-", "-f", "csv", "--view", "clippings", "--store", "x.db")
    assert run(*words, "--import", "clippings").out.startswith("run_id,norm,")


def test_a_log_that_no_view_can_fold_can_be_saved(run: Run, tmp_path: Path) -> None:
    place = str(tmp_path / "store.db")
    record(place)
    damage(place, 30, "{")
    with raw(place) as connection:
        connection.execute("UPDATE projections SET version = 0")  # as of an older release
    path = tmp_path / "log.jsonl"
    assert "event 30" in run("runs", "--store", place).err
    done = run("export", path, "--store", place)
    assert done.code == 3
    assert "Export the log as of position 29" in done.err
    assert not path.exists()
    done = run("export", path, "--at", 29, "--store", place)
    assert done.err == f"29 events written to {path}\n"
    assert run("import", path, "--store", tmp_path / "copy.db").code == 0


# --- what is refused ---------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[object], int, str]] = {
    "no format": (["export", "log"], 2, "does not say what it shall be"),
    "an unknown format": (["export", "x.csv", "-f", "xml"], 2, "xml"),
    "a view of the log": (["export", "x.jsonl", "--view", "runs"], 2, "only CSV and Parquet"),
    "a view on a timeline": (["export", "x.json", "--view", "runs"], 2, "only CSV and Parquet"),
    "no payloads in CSV": (["export", "x.csv", "--no-payloads"], 2, "only JSON Lines"),
    "two outputs": (["export", "-", "--json"], 2, "the file itself"),
    "a folder": (["export", ".", "-f", "csv"], 2, "is a folder"),
    "no folder": (["export", "no/x.csv"], 3, "no/x.csv: No such file"),
    "a full disk": (["export", "/dev/full", "-f", "csv"], 3, "/dev/full: No space left"),
    "an unknown view": (["export", "x.csv", "--view", "rnus"], 3, "there is no view 'rnus'"),
    "the future": (["export", "x.csv", "--at", "99"], 3, "there is no position 99"),
    "the future of a log": (["export", "x.jsonl", "--at", "99"], 3, "there is no position 99"),
    "a time without zone": (["export", "x.json", "--at", "2024-01-31"], 2, "has no zone"),
    "no store": (["export", "x.csv", "--store", "no.db"], 3, "no.db: there is no store"),
    "no file": (["import", "no.jsonl", "--store", "x.db"], 2, "no.jsonl: No such file"),
    "a folder to import": (["import", ".", "--store", "x.db"], 2, "Is a directory"),
    "nothing to import": (["import", "-", "--store", "x.db"], 3, "line 1 is not"),
    "no metric": (["plot", "run", "1"], 2, "say which runs and which metric"),
    "no run": (["plot", "loss"], 2, "such as run 5 loss"),
    "no id": (["plot", "run", "one", "loss"], 2, "'one' is not a run's id"),
    "no such run": (["plot", "run", "9", "loss"], 3, "there is no run 9"),
    "no such metric": (["plot", "runs", "x\x1b[1m"], 3, r"\x1b[1m"),
    "no such axis": (["plot", "run", "1", "loss", "--over", "x"], 2, "'position', 'time'"),
    "no picture": (["plot", "run", "1", "loss", "--out", "x.gif"], 3, "ends with .png, .svg"),
}


@pytest.mark.parametrize(("words", "code", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(
    here: dict[str, str],
    run: Run,
    tmp_path: Path,
    words: list[object],
    code: int,
    message: str,
) -> None:
    done = run(*words)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_the_store_itself_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    record(str(place))
    before = log(str(place))
    (tmp_path / "link.csv").symlink_to(place)
    for words in (("export", place, "-f", "jsonl"), ("export", tmp_path / "link.csv")):
        done = run(*words, "--yes", "--store", f"sqlite:///{place}")
        assert done.code == 2
        assert "is the store itself" in done.err
    assert log(str(place)) == before


def test_a_file_that_is_there_is_asked_about(here: dict[str, str], run: Run) -> None:
    path = Path("x.csv")
    path.write_text("mine")
    done = run("export", path)
    assert done.code == 2
    assert "Overwrite x.csv, which is there already? Nobody is there to answer: pass --yes" in (
        done.err
    )
    # An error leaves what was there.
    assert run("export", path, "--yes", "--view", "rnus").code == 3
    assert path.read_text() == "mine"
    assert on_a_terminal("export", "x.csv", said="n", env=here) == 1
    assert path.read_text() == "mine"
    assert on_a_terminal("export", "x.csv", said="y", env=here) == 0
    assert path.read_text().startswith("position,")
    path.write_text("mine")
    assert run("export", path, "--yes").code == 0
    assert path.read_text().startswith("position,")
    assert list(Path().iterdir()) == [path]


def on_a_terminal(*words: str, said: str, env: dict[str, str]) -> int:
    """Run a command on a terminal on which somebody answers; return its exit code."""
    mine, its = pty.openpty()
    with subprocess.Popen(
        command(*words), env=environment(**env), stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        told = b""
        while b"[y/N]" not in told:
            told += os.read(mine, 1024)
        os.write(mine, f"{said}\n".encode())
        try:
            while os.read(mine, 1024):
                pass
        except OSError:  # it has gone
            pass
        os.close(mine)
        return process.wait(60)


def test_ctrl_c_leaves_no_half_file(tmp_path: Path) -> None:
    place = str(tmp_path / "store.db")
    record(place)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # It waits for a reader of the pipe, then for lines that never come.
    with (
        subprocess.Popen(
            command("import", fifo, "--store", tmp_path / "copy.db"),
            env=environment(),
            stderr=subprocess.PIPE,
        ) as process,
        open(fifo, "wb") as lines,
    ):
        head, *_ = refold("export", "-", env={"REFOLD_STORE": place}).out.splitlines()
        lines.write(f"{head}\n".encode())
        lines.flush()
        while not (tmp_path / "copy.db").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    assert log(str(tmp_path / "copy.db")) == NOTHING


# --- plot --------------------------------------------------------------------------------------


def test_a_plot_here_and_as_a_picture(
    here: dict[str, str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "16")
    done = run("plot", "run", 1, 2, "loss")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) == 15
    assert {len(line) for line in lines} == {60}
    assert "• run 1" in done.out
    assert "\x1b" not in done.out
    assert run("plot", "runs", "loss").out == done.out
    done = run("plot", "run", 1, "loss", "-o", "x.svg")
    assert (done.code, done.out, done.err) == (0, "", "run 1: loss: saved as x.svg\n")
    assert "<svg" in Path("x.svg").read_text("utf-8")
    words = ("plot", "run", 1, 2, "accuracy", "--over", "time", "--at", 20)
    done = run(*words, "--out", "x.svg", "--yes", "--json")
    assert json.loads(done.out) == [
        {"run_id": 1, "metric": "accuracy", "time": [2.75], "values": [0.5]},
        {"run_id": 2, "metric": "accuracy", "time": [4.5], "values": [0.5]},
    ]
    assert "accuracy" in Path("x.svg").read_text("utf-8")


def test_without_the_extra_it_says_what_to_install(here: dict[str, str], tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("plotext", "pyarrow"):
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError(name={name!r})")
    env = environment(**here)
    env["PYTHONPATH"] = os.pathsep.join([str(hidden), env["PYTHONPATH"]])
    for words, package, extra in (
        (("plot", "run", 1, "loss"), "plotext", "plot"),
        (("export", "x.parquet"), "pyarrow", "arrow"),
    ):
        done = subprocess.run(command(*words), env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 3
        assert f"needs {package}, which is not installed: pip install 'refold[{extra}]'" in (
            done.stderr
        )
    assert not Path("x.parquet").exists()

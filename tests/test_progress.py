"""Progress bars: seen on a terminal or when asked for, and without any trace otherwise."""

import io
import subprocess
import sys
import threading

import pytest

from refold import RfDb
from refold.eventstore import progress
from refold.eventstore.progress import ProgressBar


def test_a_bar_that_is_asked_for_is_drawn_and_taken_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(progress, "INTERVAL", 0)
    with ProgressBar("copying events", 10, shown=True) as bar:
        bar.update(4)
        bar.update(3)
    assert bar.n == 7
    drawn = capsys.readouterr().err
    assert "copying events" in drawn
    assert "7/10" in drawn
    assert drawn.endswith("\x1b[2K")  # the line is empty again
    bar.update(1)
    assert capsys.readouterr().err == ""


def test_a_bar_is_drawn_while_views_are_built(
    db: RfDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)
    db.create_experiment("digits")
    db.rebuild()
    assert capsys.readouterr().err == ""  # this is no terminal
    threads = set(threading.enumerate())
    db.rebuild(progress=True)
    assert "folding events into views" in capsys.readouterr().err
    assert set(threading.enumerate()) == threads


def test_what_is_not_shown_takes_no_library_and_no_thread(place: str) -> None:
    code = f"""
import sys, threading
from refold import RfDb
with RfDb({place!r}) as db:
    db.create_experiment("digits")
    db.rebuild()
    db.rebuild(progress=False)
print("rich" in sys.modules, "multiprocessing" in sys.modules, threading.active_count())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "False", "1"]


class Odd:
    """What somebody has put in the place of the standard error."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


@pytest.mark.parametrize("closed", [False, True])
def test_a_standard_error_of_any_kind_is_no_terminal(
    place: str, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    error = io.StringIO()
    error.close()
    monkeypatch.setattr(sys, "stderr", error if closed else Odd())
    with RfDb(place) as db:
        db.create_experiment("digits")
        db.rebuild()


def test_a_standard_error_that_nobody_reads_takes_nothing_along(place: str) -> None:
    code = f"""
import os
from refold import RfDb
from refold.eventstore import progress
progress.DELAY = progress.INTERVAL = 0
reader, writer = os.pipe()
os.dup2(writer, 2); os.close(writer); os.close(reader)
with RfDb({place!r}) as db:
    db.create_experiment("digits")
    print(db.rebuild(progress=True), flush=True)
print("here", flush=True)
os._exit(0)  # Python itself would complain of what it cannot write there
"""
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1", "here"]

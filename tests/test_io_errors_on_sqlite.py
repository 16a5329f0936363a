"""Calls to the operating system that fail: nothing acknowledged is lost, and the error says so."""

import ctypes
import errno
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from children import Parent, call
from raw_sqlite import raw
from tries import LONGER

from refold import RfDb
from refold.eventstore import DBException

SOURCE = Path(__file__).with_name("failing_calls.c")

STEP = 1 if LONGER > 1 else 7
"""`make test` has every so manieth call fail; `make soak` each."""


@pytest.fixture
def preloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the processes that the test starts use the library whose calls can be made to fail."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = str(tmp_path / "failing_calls.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    monkeypatch.setenv("LD_PRELOAD", library)


def command(db: RfDb, n: int) -> None:
    db.set_run_progress(1, n, 0)


def batch(db: RfDb, n: int) -> None:
    with db.batch():
        db.create_run(1, config_leaf={"n": n, "weights": bytes(20_000)})
        db.set_run_progress(1, n, 0)


def checkpoint(db: RfDb, n: int) -> None:
    """The last connection to be closed writes the log back into the file."""
    with RfDb(db.store.engine.name, durability="full") as alone:
        db.close()
        alone.set_run_progress(1, n, 0)


def fail_each_call(_: Parent, place: str, error: int) -> dict[str, int]:
    library = ctypes.CDLL(None)
    counts: Counter[str] = Counter()
    works: list[Callable[[RfDb, int], None]] = [command, batch, checkpoint]
    acknowledged = 0
    n = 0
    for work in works:
        for nth in count(1, STEP):
            n += 1
            db = RfDb(place, durability="full")
            library.fail_call(ctypes.c_long(nth), error)
            try:
                work(db, n)
                acknowledged = n
            except DBException:
                counts["errors"] += 1
            failed = not library.calls_left()
            library.fail_call(0, 0)
            db.close()
            counts["failed calls"] += failed
            with RfDb(place) as other:
                seen = other.get_run(1)["current_chunk"]
                assert seen in (acknowledged, n), (work, nth)
                acknowledged = seen
                other.set_run_progress(1, seen, nth)
            if not failed:
                break
    return dict(counts)


@pytest.mark.loop
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_each_call_fails_once(
    preloaded: None, place: str, error: int, record_property: Callable[[str, Any], None]
) -> None:
    with RfDb(place) as db:
        db.create_run(db.create_experiment("digits"))
    counts = call(fail_each_call, place, error)
    record_property("counts", f"{os.strerror(error)}: {counts}, lost 0")
    assert counts["failed calls"] > 5
    with RfDb(place) as db, raw(place) as connection:
        assert db.verify() == []
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

"""Command lines, files and payloads at random: what comes out is documented, nothing breaks."""

import io
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import here, record
from tries import LONGER

from refold import DBException, InvalidPayload, RfDb
from refold.cli.app import Commands
from refold.eventstore.payloads import PayloadCodec
from refold.export import json_lines

pytestmark = pytest.mark.loop
Property = Callable[[str, Any], None]

# --- command lines ----------------------------------------------------------------------------

ELSEWHERE = {"rapidfire", "demo", "ui"}
"""They run programs or servers of their own."""

ENDLESS = {"--follow", "--store", "--import"}
"""It has no end; the place is ours; modules run code."""

SUBJECTS = ["run 1", "run 2", "experiment 1", "task 1", "request 1", "event 2", "1", "3", "9", "x"]
VALUES = [
    *(
        "run-1",
        "run:1",
        "1-3",
        "0",
        "1",
        "2",
        "5",
        "9",
        "-1",
        "1e400",
        "99999999999999999999",
        "nan",
    ),
    *("5m", "2026-01-31T12:00Z", "10000-01-01", "2024-01-31", "yesterday"),
    *("NEW", "failed", "loss", "loss < 1", "learning_rate = 0.1", "(", "status", "RunCreated"),
    *("ada", "worker-0", "a\0b", "\ud800", "", "é", "-", "--", "x" * 700, "\n", "\x1b[31m", "%s"),
    *("out.csv", "out.jsonl", "out.json", "out.db", "store.db", "/", ".", "no/such/folder"),
]
CODES = {0: "done", 1: "no", 2: "wrong usage", 3: "failed", 4: "refused"}


def drawn(moments: random.Random, name: str, command: Any) -> list[str]:
    """Return a command line whose options the command has, and whose values it may have."""
    words = [name]
    options = [one for one in command.params if one.opts[0].startswith("--")]
    for option in moments.sample(options, min(len(options), moments.randrange(4))):
        if option.opts[0] not in ENDLESS:
            words.append(option.opts[0])
            if not option.is_flag:
                words.append(moments.choice(VALUES))
    for _ in range(len(command.params) - len(options)):
        # Mostly something that there is.
        words += moments.choice(moments.choice([SUBJECTS, SUBJECTS, VALUES])).split(" ")
    return words


def test_command_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moments: random.Random,
    record_property: Property,
) -> None:
    """The exit code is a documented one, nothing is traced back, and the store stays whole."""
    monkeypatch.chdir(tmp_path)
    place = str(tmp_path / "store.db")
    record(place)
    commands = {name: one for name, one in Commands().items() if name not in ELSEWHERE}
    codes = Counter[int]()
    for _ in range(300 * LONGER):
        name = moments.choice([*commands])
        words = drawn(moments, name, commands[name])
        done = here(*words, env={"REFOLD_STORE": place, "REFOLD_ACTOR": "ada"})
        codes[done.code] += 1
        assert done.code in CODES, (words, done)
        assert "Traceback" not in done.err, (words, done)
        assert done.code in (0, 1) or done.err, words
    with RfDb(place) as db:
        assert db.verify(log=True, payloads=True) == []
    record_property("counts", f"{codes.total()} command lines, exit codes {dict(codes)}")


# --- altered bytes ----------------------------------------------------------------------------


TOKENS = [b"0", b"-1", b'"', b"null", b"{}", b"\n", b"9" * 20, b"\0", b"NaN", b"-0.0", b"1e400"]


def altered(moments: random.Random, data: bytes) -> bytes:
    """Return bytes of which some are others, or missing, or there twice."""
    changed = bytearray(data)
    for _ in range(moments.choice([1, 1, 1, 2, 5])):
        at = moments.randrange(len(changed) + 1)
        till = at + moments.choice([0, 1, 1, 2, 8, 100])
        changed[at:till] = moments.choice(
            [
                moments.randbytes(till - at),
                b"",
                data[at:till] * 2,
                moments.choice(
                    [b"0", b"-1", b'"', b"null", b"{}", b"\n", b"9" * 20, b"\0", b"NaN"]
                ),
            ]
        )
    return bytes(changed)


def without_digests(file: bytes) -> bytes:
    """Return a file as a release of log format 1 has written it, in which nothing is proved."""
    old: list[bytes] = []
    for line in file.splitlines():
        told = json.loads(line)
        told.pop({"event": "digest", "log": "store"}.get(told["kind"]), None)
        told |= {"format": 1} if told["kind"] == "log" else {}
        old.append(json.dumps(told).encode() + b"\n")
    return b"".join(old)


def test_files_to_be_imported(
    tmp_path: Path, moments: random.Random, record_property: Property
) -> None:
    """A file is refused as a whole, or makes a store that is right in itself."""
    place = str(tmp_path / "store.db")
    record(place)
    with RfDb(place) as db:
        json_lines.write(db, file := io.BytesIO())
    files = [file.getvalue(), without_digests(file.getvalue())]
    ended = Counter[str]()
    for n in range(100 * LONGER):
        whole = moments.choice(files)
        if moments.random() < 0.3:
            lines = whole.splitlines(keepends=True)
            shuffled = moments.sample(lines, moments.choice([len(lines) - 1, len(lines)]))
            data = b"".join(shuffled if moments.random() < 0.5 else [lines[0], *shuffled])
        else:
            data = altered(moments, whole)
        target = str(tmp_path / f"{n}.db")
        try:
            json_lines.read(io.BytesIO(data), target, progress=False)
        except DBException as error:
            ended[type(error).__name__] += 1
            continue
        ended["imported"] += 1
        with RfDb(target) as db:
            assert [one for one in db.verify() if "payload" not in str(one)] == []
            for run in db.get_all_runs():
                str(run)
    record_property("counts", f"{ended.total()} files, {dict(ended)}")


VALUE = {
    "lr": 0.1,
    "layers": (64, 32),
    "names": {"a", "b"},
    "weight": torch.arange(12, dtype=torch.float16).reshape(3, 4).T,
    "array": np.zeros(6, dtype=[("x", "<f4"), ("y", "|u1")]),
    "scalar": np.float32(0.5),
}


def double(number: float) -> float:
    """A function, which only dill carries."""
    return 2 * number


def test_payloads(moments: random.Random, record_property: Property) -> None:
    """Altered bytes are refused, or make some other value; signed ones are always refused."""
    safe, signed = PayloadCodec(allow_dill=False), PayloadCodec(key="k")
    plain = {name: VALUE[name] for name in ("lr", "layers", "names")}
    encoded = [safe.encode(one) for one in ({"lr": 0.1}, plain, VALUE)]
    sealed = signed.encode([VALUE, double])
    ended = Counter[str]()
    for n in range(2_000 * LONGER):
        codec, data = (signed, sealed) if n % 4 == 3 else (safe, encoded[n % 4])
        changed = altered(moments, data)
        try:
            codec.decode(changed)
        except InvalidPayload as error:
            ended[type(error).__name__] += 1
        else:
            assert codec is safe or changed == data
            ended["decoded"] += 1
    record_property("counts", f"{ended.total()} payloads, {dict(ended)}")

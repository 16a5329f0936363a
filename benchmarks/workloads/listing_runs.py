"""All runs with their configurations, beside the CRUD layer, which unpickles each."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec

from benchmarks.measure import figures, seconds
from benchmarks.peers.bare_connection import connect, dicts
from benchmarks.peers.crud import Crud
from benchmarks.places import Places
from benchmarks.results import Section, at_least, ratio
from refold import RfDb

RUNS = 5_000
TABLE = """
    CREATE TABLE runs (
        run_id INTEGER PRIMARY KEY, status TEXT NOT NULL, config_leaf TEXT,
        current_chunk INTEGER NOT NULL, current_epoch INTEGER NOT NULL)"""


def measure(places: Places) -> list[Section]:
    """Measure `get_all_runs` on SQLite."""
    with (
        RfDb(places.store("sqlite")) as db,
        closing(connect(places.file())) as bare,
        closing(Crud(places.file())) as crud,
    ):
        configurations = [configuration(run) for run in range(RUNS)]
        with db.batch():
            experiment_id = db.create_experiment("benchmark")
            for each in configurations:
                db.create_run(experiment_id, config_leaf=each)
        bare.execute(TABLE)
        bare.execute("BEGIN")
        for each in configurations:
            text = msgspec.json.encode(each).decode()
            bare.execute("INSERT INTO runs VALUES (NULL, 'NEW', ?, 0, 0)", (text,))
            crud.create_run(each)
        bare.execute("COMMIT")

        def bare_engine() -> list[dict[str, Any]]:
            runs = dicts(bare.execute("SELECT * FROM runs ORDER BY run_id"))
            for run in runs:
                run["config_leaf"] = msgspec.json.decode(run["config_leaf"])
            return runs

        contenders = {
            "refold": db.get_all_runs,
            "bare engine": bare_engine,
            "CRUD layer": crud.get_all_runs,
        }
        for get_all_runs in contenders.values():
            assert [run["config_leaf"] for run in get_all_runs()] == configurations
        found = figures(
            f"runs of {RUNS:,}, each with 50 parameters",
            "/s",
            {name: _rate(get_all_runs) for name, get_all_runs in contenders.items()},
            rounds=15,
        )
    ours, engine, layer = found.values()
    return [
        Section(
            "Listing runs on SQLite",
            __doc__ or "",
            [*found.values()],
            [at_least(5, ours, layer, "10"), ratio(ours, engine)],
            notes=[
                "CRUD layer: a SELECT of all rows, then base64 and dill.loads of each "
                "configuration; its rows have 5 columns, refold's 18.",
                "Bare engine: the CRUD layer's table with the configurations as JSON.",
            ],
        )
    ]


def configuration(run: int) -> dict[str, Any]:
    """Return 50 parameters of the usual types, of which no two runs have the same."""
    numbers = {f"rate_{n}": 1 / (1 + run + n) for n in range(20)}
    sizes = {f"size_{n}": run + n for n in range(15)}
    names = {f"name_{n}": f"choice {run % 7} of {n}" for n in range(10)}
    switches = {f"switch_{n}": (run + n) % 2 == 0 for n in range(3)}
    lists = {"layers": [64, 32, run], "target_modules": ["q_proj", "v_proj"]}
    return {**numbers, **sizes, **names, **switches, **lists}


def _rate(get_all_runs: Callable[[], object]) -> Callable[[], float]:
    return lambda: RUNS / seconds(get_all_runs)

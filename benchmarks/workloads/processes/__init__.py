"""Eight workers report on their runs without rest, while a controller gives each its next task as
soon as it has begun one, a dashboard reads all runs five times a second, and a follower reads the
log. Beside it one worker alone, which schedules its tasks itself; and the CRUD layer under the same
load, whose controller and follower look a hundred times a second, as often as refold does."""

import json
from collections.abc import Sequence

from benchmarks.peers.crud_tasks import TIMEOUT, CrudTasks
from benchmarks.places import Places
from benchmarks.results import Section, at_least, ratio, within
from benchmarks.workloads.processes.crew import Crew
from benchmarks.workloads.processes.load import COMMANDS, DASHBOARD, FOLLOWER, Load, in_turn
from benchmarks.workloads.processes.roles import RUNS, Order
from refold import RfDb

TOGETHER = Order(seconds=1.2)
ALONE = Order(seconds=1.2, alone=True)
HOT = Order(seconds=1.2, hot=True)
PATIENCE = 20
"""Milliseconds that a command may take."""
CONFIG = {"learning_rate": 1e-4, "batch_size": 32, "optimizer": "adamw", "lora_rank": 16}


def measure(places: Places) -> list[Section]:
    """Measure on SQLite, beside the CRUD layer, and on PostgreSQL."""
    return [_on_sqlite(places), _on_postgres(places)]


def _on_sqlite(places: Places) -> Section:
    store, crud = places.store("sqlite"), places.file()
    _fill(store)
    with CrudTasks(crud) as layer:
        for _ in range(RUNS):
            layer.create_run(json.dumps(CONFIG))
    with Crew(RfDb, store) as ours, Crew(CrudTasks, crud) as theirs:
        eight = Load("refold, eight", ours.together, TOGETHER)
        crud_eight = Load("CRUD layer, eight", theirs.together, TOGETHER)
        one = Load("refold, one", ours.alone, ALONE)
        crud_one = Load("CRUD layer, one", theirs.alone, ALONE)
        hot = Load("refold, eight on hot runs", ours.together, HOT)
        loads = [eight, crud_eight, one, crud_one, hot]
        in_turn(loads, rounds=5)
    rates = {load.contender: load.throughput() for load in loads}
    waits = {load.contender: load.waits("a command", COMMANDS, "p99") for load in loads}
    slowest = waits["refold, eight"]
    return Section(
        "Eight processes on SQLite",
        __doc__ or "",
        [
            *rates.values(),
            *waits.values(),
            *(load.waits("a look at all runs", DASHBOARD, "p50") for load in (eight, crud_eight)),
            eight.waits("an event's way to the follower", FOLLOWER, "p50"),
        ],
        [
            eight.failures("8a"),
            within(PATIENCE, slowest, "8b"),
            at_least(0.6, rates["refold, eight"], rates["refold, one"], "8c"),
            eight.fairness("8d"),
            ratio(rates["CRUD layer, eight"], rates["CRUD layer, one"]),
            ratio(rates["refold, eight"], rates["CRUD layer, eight"]),
            ratio(slowest, waits["CRUD layer, eight"]),
            crud_eight.fairness(),
            hot.fairness(),
            crud_eight.failures(),
            hot.failures(),
        ],
        notes=[
            f"Writers of both wait up to {TIMEOUT} s for one another.",
            "On hot runs tasks are of all runs, by Zipf's law; else each worker has its own.",
            *_errors(loads),
        ],
    )


def _on_postgres(places: Places) -> Section:
    store = places.store("postgres")
    _fill(store)
    with Crew(RfDb, store) as crew:
        eight = Load("refold, eight", crew.together, TOGETHER)
        one = Load("refold, one", crew.alone, ALONE)
        hot = Load("refold, eight on hot runs", crew.together, HOT)
        loads = [eight, one, hot]
        in_turn(loads, rounds=3)
    rates = {load.contender: load.throughput() for load in loads}
    return Section(
        "Eight processes on PostgreSQL",
        __doc__ or "",
        [
            *rates.values(),
            *(load.waits("a command", COMMANDS, "p99") for load in loads),
            eight.waits("a look at all runs", DASHBOARD, "p50"),
            eight.waits("an event's way to the follower", FOLLOWER, "p50"),
        ],
        [
            ratio(rates["refold, eight"], rates["refold, one"]),
            ratio(rates["refold, eight on hot runs"], rates["refold, one"]),
            *(load.fairness() for load in (eight, hot)),
            *(load.failures() for load in (eight, hot)),
        ],
        notes=_errors(loads),
    )


def _fill(place: str) -> None:
    with RfDb(place) as db:
        experiment_id = db.create_experiment("benchmark")
        for _ in range(RUNS):
            db.create_run(experiment_id, config_leaf=CONFIG, num_chunks=64)


def _errors(loads: Sequence[Load]) -> list[str]:
    return [
        f"{load.contender}: {len(load.errors)} errors, such as {load.errors[0]}"
        for load in loads
        if load.errors
    ]

"""A metric of a run, and a study loaded with all its runs, beside Optuna's storages."""

from collections.abc import Callable
from contextlib import ExitStack, closing

from benchmarks.measure import figures, latencies, seconds
from benchmarks.peers.optuna_study import OptunaStudy
from benchmarks.places import Places
from benchmarks.results import Figure, Ratio, Section, ratio
from refold import RfDb

RUNS = 100
"""Runs that train side by side, each of which records a metric in turn."""
FEW, MANY = 1_000, 10_000
PARAMETERS = [f"parameter_{n}" for n in range(10)]
METRICS = [0.5, 0.4, 0.3, 0.2, 0.1]


def measure(places: Places) -> list[Section]:
    """Measure `update_run_metrics` and `get_all_runs`."""
    return [_recording(places), _loading(places)]


def _recording(places: Places) -> Section:
    with ExitStack() as afterwards:
        recorders = {
            "refold": _refold(afterwards.enter_context(RfDb(places.file()))),
            "refold, durability full": _refold(
                afterwards.enter_context(RfDb(places.file(), durability="full"))
            ),
            "Optuna, journal": _optuna(
                afterwards.enter_context(closing(OptunaStudy.journal(places.file("journal.log"))))
            ),
            "Optuna, RDB": _optuna(
                afterwards.enter_context(closing(OptunaStudy.rdb(places.file())))
            ),
        }
        found = latencies("recording one metric", recorders, calls=120)
    ours, durable, journal, rdb = found.values()
    return Section(
        "Recording a metric, beside Optuna",
        f"`update_run_metrics` against `set_trial_intermediate_value`: one metric, of {RUNS} runs "
        "in turn.",
        [*found.values()],
        [ratio(ours, rdb), ratio(durable, journal)],
        notes=[
            "Optuna's RDBStorage has SQLite's WAL and synchronous=NORMAL, as refold has.",
            "Its JournalStorage calls fsync for every record, which cannot be turned off: so it "
            "stands beside refold with durability='full', which does so too.",
            "refold keeps every value in its log, and the latest in the run's row.",
        ],
    )


def _refold(db: RfDb) -> Callable[[int], None]:
    experiment_id = db.create_experiment("benchmark")
    with db.batch():
        runs = [db.create_run(experiment_id) for _ in range(RUNS)]

    def record(number: int) -> None:
        db.update_run_metrics(runs[number % RUNS], {"loss": 1 / number, "step": number})

    return record


def _optuna(study: OptunaStudy) -> Callable[[int], None]:
    trials = [study.start_trial() for _ in range(RUNS)]

    def record(number: int) -> None:
        study.report(trials[number % RUNS], number, 1 / number)

    return record


def _loading(places: Places) -> Section:
    few = figures(
        f"loading {FEW:,} runs",
        "ms",
        {
            "refold": _loading_refold(places.file(), FEW),
            "Optuna, journal": _loading_optuna(
                OptunaStudy.journal, places.file("journal.log"), FEW
            ),
            "Optuna, RDB": _loading_optuna(OptunaStudy.rdb, places.file(), FEW),
        },
        rounds=5,
    )
    many = figures(
        f"loading {MANY:,} runs",
        "ms",
        {
            "refold": _loading_refold(places.file(), MANY),
            "Optuna, journal": _loading_optuna(
                OptunaStudy.journal, places.file("journal.log"), MANY
            ),
        },
        rounds=5,
    )
    return Section(
        "Loading a study, beside Optuna",
        "A new face and `get_all_runs`, against a new storage and `get_all_trials`, in the "
        f"same process. Each run has {len(PARAMETERS)} parameters and {len(METRICS)} metrics.",
        [*few.values(), *many.values()],
        [*_over_peers(few), *_over_peers(many)],
        notes=[
            "Optuna is asked for its trials with deepcopy=False.",
            f"Trials are slow to add to RDBStorage, so it holds {FEW:,} only.",
        ],
    )


def _over_peers(found: dict[str, Figure]) -> list[Ratio]:
    ours, *peers = found.values()
    return [ratio(ours, peer) for peer in peers]


def _parameters(number: int, of: int) -> dict[str, float]:
    return dict.fromkeys(PARAMETERS, number / of)


def _loading_refold(path: str, runs: int) -> Callable[[], float]:
    with RfDb(path) as db, db.batch():
        experiment_id = db.create_experiment("benchmark")
        for number in range(runs):
            run_id = db.create_run(experiment_id, config_leaf=_parameters(number, runs))
            metrics = {f"step_{step}": value for step, value in enumerate(METRICS)}
            db.update_run_metrics(run_id, metrics)

    def load() -> float:
        with ExitStack() as afterwards:

            def opened() -> None:
                found = afterwards.enter_context(RfDb(path)).get_all_runs()
                assert len(found) == runs

            return 1e3 * seconds(opened)

    return load


def _loading_optuna(
    study: Callable[[str], OptunaStudy], path: str, trials: int
) -> Callable[[], float]:
    with closing(study(path)) as filled:
        for number in range(trials):
            filled.add_trial(_parameters(number, trials), METRICS)

    def load() -> float:
        with ExitStack() as afterwards:

            def opened() -> None:
                found = afterwards.enter_context(closing(study(path))).trials()
                assert len(found) == trials

            return 1e3 * seconds(opened)

    return load

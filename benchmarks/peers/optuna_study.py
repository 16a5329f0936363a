"""Optuna's storages: a study is what an experiment is to refold, a trial is a run."""

import sqlite3
from collections.abc import Callable

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial

from benchmarks.peers.bare_sqlite import SETTINGS

STUDY = "benchmark"

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaStudy:
    """A study in a storage, new or again."""

    def __init__(self, storage: BaseStorage, close: Callable[[], object]) -> None:
        self.storage = storage
        self.close = close
        try:
            self.study_id = storage.get_study_id_from_name(STUDY)
        except KeyError:
            self.study_id = storage.create_new_study([StudyDirection.MINIMIZE], STUDY)

    @classmethod
    def journal(cls, path: str) -> "OptunaStudy":
        return cls(JournalStorage(JournalFileBackend(path)), lambda: None)

    @classmethod
    def rdb(cls, path: str) -> "OptunaStudy":
        def connection() -> sqlite3.Connection:
            made = sqlite3.connect(path, check_same_thread=False)
            made.executescript(SETTINGS)
            return made

        storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"creator": connection})
        return cls(storage, storage.engine.dispose)

    def start_trial(self) -> int:
        return self.storage.create_new_trial(self.study_id)

    def add_trial(self, parameters: dict[str, float], metrics: list[float]) -> None:
        """Add a whole trial at once, which is the fastest way there is."""
        trial = create_trial(
            value=metrics[-1],
            params=parameters,
            distributions=dict.fromkeys(parameters, FloatDistribution(0, 1)),
            intermediate_values=dict(enumerate(metrics)),
        )
        self.storage.create_new_trial(self.study_id, template_trial=trial)

    def report(self, trial_id: int, step: int, value: float) -> None:
        self.storage.set_trial_intermediate_value(trial_id, step, value)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials as the storage holds them, without the copies it makes by default."""
        return self.storage.get_all_trials(self.study_id, deepcopy=False)

"""RapidFire AI's own training from start to end, models and GPUs stubbed: a process of its own.

Usage: rapidfire_training.py own|PLACE FOLDER [again]

Real are its Experiment, controller, scheduler, worker processes, dispatcher and interactive
control. It prints, as JSON, where everything stood at the end; or, again after it was killed, where
everything stands once its Experiment has been made anew.
"""

import json
import os
import sys
import threading
import time
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

PLACE, FOLDER = sys.argv[1], Path(sys.argv[2])
os.environ |= {
    "RF_HOME": str(FOLDER),
    "RF_MLFLOW_ENABLED": "false",
    "RF_TENSORBOARD_ENABLED": "false",
    "RF_TRACKIO_ENABLED": "false",
}

FOLDER.mkdir(exist_ok=True)
(FOLDER / "rf_mode.txt").write_text("fit")

if PLACE != "own":
    import refold.rapidfire

    refold.rapidfire.use(PLACE)

import torch  # noqa: E402

SHARDS, SAMPLES, PATIENCE = 4, 8, 120


# --- what is stubbed ----------------------------------------------------------------------------


class Trainer:
    """Trains nothing: counts steps, waits where the story wants it to, fails where it must."""

    def __init__(self, config: Any) -> None:
        self.config = config
        name = config.config_leaf["model_name"]
        self.model = SimpleNamespace(
            config=SimpleNamespace(_name_or_path=name, quantization_config=None)
        )
        self.tokenizer = None
        self.state = SimpleNamespace(global_step=0)

    def train(self) -> None:
        """Do the steps of one shard."""
        run_id, done = self.config.run_id, self.config.completed_steps
        if run_id == 4 and done:
            raise RuntimeError("out of memory")
        # Who trains the second shard of these waits until the user has asked what he asks.
        if done and run_id in (1, 2, 3):
            wait_for(lambda: (FOLDER / f"asked-{run_id}").exists())
        self.state.global_step = SAMPLES // SHARDS


ABSENT = ["transformers", "mlflow", "trackio", "tensorboard", "datasets"]
"""Packages for models and for logging metrics, which need not be there."""


class Absent(MetaPathFinder, Loader):
    """Stands for a package that is not installed: whatever is taken from it does nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Find the package and all that is below it."""
        mine = fullname.split(".")[0] == self.name
        return ModuleSpec(fullname, self, is_package=True) if mine else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with what does nothing."""
        module.__dict__["__getattr__"] = lambda _: nothing
        if module.__name__ == "transformers":
            module.__dict__["logging"] = SimpleNamespace(set_verbosity_error=nothing)


def stub(name: str, **contents: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(contents)
    sys.modules[name] = module


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


class Metrics:
    """Logs no metrics: no server for them need be there."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    @staticmethod
    def get_default_metric_loggers(experiment_name: str) -> dict[str, Any]:
        """Return none."""
        return {}

    def create_run(self, run_name: str) -> str:
        """Return the id of a run."""
        return f"metrics-{run_name}"

    def __getattr__(self, _: str) -> Any:
        return nothing


class Samples(torch.utils.data.Dataset):
    """Some samples."""

    def __init__(self, samples: list[int]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> int:
        return self.samples[index]

    def select(self, indices: Any) -> "Samples":
        """Return some of them."""
        return type(self)([self.samples[index] for index in indices])


stub(
    "rapidfireai.fit.ml.checkpoint_utils",
    **dict.fromkeys(
        [
            "save_checkpoint_to_disk",
            "save_checkpoint_to_shared_memory",
            "save_model_to_shared_memory",
            "flush_cuda_cache",
            "purge_model_kv_caches",
            "_move_optimizer_state_to_cpu",
        ],
        nothing,
    ),
    __getattr__=lambda _: nothing,
)
stub(
    "rapidfireai.fit.ml.trainer",
    create_trainer_instance=lambda config, *_, **__: (
        Trainer(config),
        config.config_leaf["model_name"],
    ),
)
stub("rapidfireai.utils.metric_rfmetric_manager", RFMetricLogger=Metrics)
for name in ABSENT:
    if find_spec(name) is None:
        sys.meta_path.append(Absent(name))
torch.cuda.device_count = lambda: 2


# --- the story ----------------------------------------------------------------------------------


def wait_for(there: Any) -> None:
    """Look until something is there."""
    end = time.monotonic() + PATIENCE
    while not there():
        if time.monotonic() > end:
            raise TimeoutError(there)
        time.sleep(0.05)


def ask(client: Any, path: str, **body: Any) -> None:
    """Ask the dispatcher, as the window does."""
    answer = client.post(f"/dispatcher/{path}", json=body)
    assert answer.status_code == 200, answer.get_data(as_text=True)


def user(failures: list[BaseException]) -> None:
    """Do what a user does while runs train."""
    try:
        from rapidfireai.fit.db.rf_db import RfDb
        from rapidfireai.fit.dispatcher.dispatcher import Dispatcher

        db, client = RfDb(), Dispatcher().app.test_client()

        def stands(run_id: int, **columns: Any) -> bool:
            run = db.get_all_runs().get(run_id)
            return run is not None and all(run[name] == value for name, value in columns.items())

        step = SAMPLES // SHARDS
        wait_for(lambda: stands(3, completed_steps=step))
        ask(client, "delete-run", run_id=3)
        (FOLDER / "asked-3").touch()
        wait_for(lambda: stands(2, completed_steps=step))
        ask(client, "stop-run", run_id=2)
        (FOLDER / "asked-2").touch()
        wait_for(lambda: db.get_all_runs()[2]["status"].value == "Stopped")
        wait_for(lambda: stands(1, completed_steps=step))
        config = {**db.get_run(1)["config_leaf"], "lr": 0.5}
        ask(client, "clone-modify-run", run_id=1, config=config, warm_start=True)
        (FOLDER / "asked-1").touch()
        wait_for(lambda: len(db.get_all_runs()) == 5)
        ask(client, "resume-run", run_id=2)
    except BaseException as failure:  # noqa: BLE001 - told by the main thread
        failures.append(failure)
        for run_id in (1, 2, 3):
            (FOLDER / f"asked-{run_id}").touch()


def shown(runs: dict[int, Any]) -> list[Any]:
    """Return what must be the same on both layers."""
    left_out = ("estimated_runtime", "metric_run_id")
    return [
        {
            name: getattr(value, "value", value)
            for name, value in run.items()
            if name not in left_out
        }
        | {"error": run["error"].splitlines()[:1]}
        for _, run in sorted(runs.items())
    ]


def again() -> None:
    """Make the experiment anew: RapidFire gives up what was in progress."""
    from rapidfireai.experiment import Experiment

    experiment = Experiment("digits", mode="fit", experiment_path=str(FOLDER))
    tasks = experiment.db.get_all_worker_tasks().values()
    told = {
        "name": experiment.experiment_name,
        "runs": [run["status"].value for run in experiment.db.get_all_runs().values()],
        "tasks": sorted({task["status"].value for task in tasks}),
    }
    print(json.dumps(told))


def main() -> None:
    """Train, end, begin again under the same name, cancel."""
    from rapidfireai.experiment import Experiment

    def create_model() -> None:
        """Create no model."""

    def config(lr: float) -> dict[str, Any]:
        return {
            "model_name": "none",
            "trainer_type": "SFT",
            "lr": lr,
            "betas": (0.9, 0.999),
            "training_args": {"per_device_train_batch_size": 1, "num_train_epochs": 1},
        }

    told: dict[str, Any] = {}
    experiment = Experiment("digits", mode="fit", experiment_path=str(FOLDER))
    failures: list[BaseException] = []
    thread = threading.Thread(target=user, args=(failures,), daemon=True)
    thread.start()
    configs = [config(lr / 10) for lr in range(1, 5)]
    samples = Samples(list(range(SAMPLES)))
    experiment.run_fit(configs, create_model, samples, None, SHARDS)
    thread.join()
    if failures:
        raise failures[0]
    told["runs"] = shown(experiment.db.get_all_runs())
    told["requests"] = experiment.db.get_scheduled_ic_ops_tasks()
    told["task"] = experiment.db.get_experiment_current_task().value
    experiment.end()
    told["ended"] = experiment.db.get_experiment_status().value
    told["runs after the end"] = shown(experiment.db.get_all_runs())

    again = Experiment("digits", mode="fit", experiment_path=str(FOLDER))
    told["names"] = again.db.get_all_experiment_names()
    words = sys.modules["rapidfireai.fit.utils.constants"]
    again.db.create_run(config(1), words.RunStatus.NEW)
    again.cancel_current()
    told["cancelled"] = shown(again.db.get_all_runs())
    print(json.dumps(told))


if __name__ == "__main__":
    again() if sys.argv[3:] else main()

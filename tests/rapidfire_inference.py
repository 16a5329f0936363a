"""RapidFire AI's own inference from start to end, Ray and models stubbed: a process of its own.

Usage: rapidfire_inference.py own|PLACE FOLDER

Real are its controller, scheduler, aggregation and interactive control. It prints, as JSON, where
everything stood at the end.
"""

import json
import os
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

PLACE, FOLDER = sys.argv[1], Path(sys.argv[2])
FOLDER.mkdir(exist_ok=True)
os.environ |= {"RF_HOME": str(FOLDER), "RF_MLFLOW_ENABLED": "false"}

if PLACE != "own":
    import refold.rapidfire

    refold.rapidfire.use(PLACE)

SHARDS, SAMPLES, PATIENCE = 4, 16, 60
WAITS = {1: SHARDS - 1, 2: 1, 3: 1}
"""By pipeline, the shard that is not processed before the user has asked what he asks."""


# --- what is stubbed ----------------------------------------------------------------------------


class Anything:
    """Does nothing, whatever is asked of it."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, _: str) -> Any:
        return Anything()

    def __call__(self, *_: Any, **__: Any) -> Any:
        return Anything()

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        return (object,)


class Absent(MetaPathFinder, Loader):
    """Stands for packages that are not installed: for models, indexes and metrics."""

    names = (
        "faiss",
        "langchain_community",
        "langchain_core",
        "langchain_pinecone",
        "langchain_postgres",
        "mlflow",
        "openai",
        "pinecone",
        "scipy",
        "transformers",
        "vllm",
    )

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Find one of the packages, and all that is below it."""
        mine = fullname.split(".")[0] in self.names
        return ModuleSpec(fullname, self, is_package=True) if mine else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with what does nothing."""
        module.__dict__["__getattr__"] = lambda _: Anything()


sys.meta_path.append(Absent())


class Method:
    """A method of an actor, which answers with a future."""

    def __init__(self, actor: "Actor", name: str) -> None:
        self.actor, self.name = actor, name

    def remote(self, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call it on the actor's own thread."""
        method = getattr(self.actor.itself, self.name)
        return self.actor.thread.submit(method, *args, **kwargs)


class Actor:
    """An object on a thread of its own, as Ray has them in processes."""

    def __init__(self, itself: Any) -> None:
        self.itself, self.thread = itself, ThreadPoolExecutor(1)

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)


class Remote:
    """A class of actors."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls

    def options(self, **_: Any) -> "Remote":
        """Return the same: there are no resources to be had."""
        return self

    def remote(self, *args: Any, **kwargs: Any) -> Actor:
        """Make an actor."""
        return Actor(self.cls(*args, **kwargs))


def ray_get(what: Any, timeout: float | None = None) -> Any:
    """Return what a future, or each of some, has come to."""
    if isinstance(what, list):
        return [ray_get(one) for one in what]
    return what.result(timeout) if isinstance(what, Future) else what


def ray_wait(
    futures: list[Any], num_returns: int = 1, timeout: float | None = None, **_: Any
) -> tuple[list[Any], list[Any]]:
    """Return those that are done, at most so many, and the others."""
    if not futures:
        return [], []
    done, _others = wait(futures, timeout, FIRST_COMPLETED)
    ready = [future for future in futures if future in done][:num_returns]
    return ready, [future for future in futures if future not in ready]


def stub(name: str, **contents: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(contents)
    sys.modules[name] = module


stub(
    "ray",
    remote=Remote,
    get=ray_get,
    wait=ray_wait,
    put=lambda value: value,
    kill=Anything(),
    __getattr__=lambda _: Anything(),
)


class QueryActor:
    """Generates nothing: waits where the story wants it to, fails where it must."""

    def __init__(self, **_: Any) -> None:
        self.pipeline_id, self.batches = 0, 0

    def initialize_for_pipeline(self, pipeline_id: int = 0, **_: Any) -> None:
        """Turn to a pipeline."""
        self.pipeline_id = pipeline_id

    def process_batch(self, batch: list[int], **_: Any) -> tuple[Any, dict[str, Any]]:
        """Process one batch of a shard."""
        if self.pipeline_id == 4:
            raise RuntimeError("Error processing batch: out of memory")
        shard = batch[0] // (SAMPLES // SHARDS)
        if shard >= WAITS.get(self.pipeline_id, SHARDS):
            (FOLDER / f"begun-{self.pipeline_id}").touch()
            wait_for(lambda: (FOLDER / f"asked-{self.pipeline_id}").exists())
        count = {"value": len(batch), "is_algebraic": False}
        return {"n": batch}, {"Samples Processed": count}

    def cleanup(self) -> None:
        """Do nothing."""


stub(
    "rapidfireai.evals.actors.query_actor",
    QueryProcessingActor=Remote(QueryActor),
    QueryActor=QueryActor,
)
stub("rapidfireai.evals.actors.doc_actor", DocProcessingActor=Anything())
stub("rapidfireai.evals.actors.rate_limiter_actor", RateLimiterActor=Anything())
stub(
    "rapidfireai.evals.actors.inference_engines",
    **dict.fromkeys(["InferenceEngine", "VLLMInferenceEngine", "OpenAIInferenceEngine"], object),
    __getattr__=lambda _: object,
)


class Pipeline:
    """A pipeline without a model."""

    rag = prompt_manager = None
    model_name = "none"

    def get_engine_class(self) -> type:
        """Return no engine's class."""
        return object

    def get_engine_kwargs(self) -> dict[str, Any]:
        """Return nothing for it."""
        return {}


# --- the story ----------------------------------------------------------------------------------


def wait_for(there: Any) -> None:
    """Look until something is there."""
    end = time.monotonic() + PATIENCE
    while not there():
        if time.monotonic() > end:
            raise TimeoutError(there)
        time.sleep(0.05)


def user(failures: list[BaseException]) -> None:
    """Do what a user does while pipelines run."""
    try:
        from rapidfireai.evals.db import RFDatabase

        db = RFDatabase()

        def done(pipeline_id: int, shards: int = 1) -> bool:
            row = db.get_pipeline(pipeline_id, include_decoded_config=False)
            return row is not None and row["shards_completed"] >= shards

        def ends(request: int) -> bool:
            return db.get_ic_operation(request)["status"] in ("completed", "failed")

        def ask(operation: str, pipeline_id: int) -> None:
            request = db.create_ic_operation(operation, pipeline_id)
            wait_for(lambda: ends(request))

        # Each while a shard is being processed.
        for pipeline_id, operation in ((3, "delete"), (2, "stop")):
            wait_for((FOLDER / f"begun-{pipeline_id}").exists)
            ask(operation, pipeline_id)
            (FOLDER / f"asked-{pipeline_id}").touch()
            if pipeline_id == 2:
                wait_for(lambda: done(2, 2))
                ask("resume", 2)
        (FOLDER / "asked-1").touch()  # until then, something is left to be done
    except BaseException as failure:  # noqa: BLE001 - told by the main thread
        failures.append(failure)
        for pipeline_id in WAITS:
            (FOLDER / f"asked-{pipeline_id}").touch()


def main() -> None:
    """Run four pipelines over the shards, then end the experiment."""
    from rapidfireai.evals.db import RFDatabase
    from rapidfireai.evals.scheduling.controller import Controller
    from rapidfireai.evals.utils.constants import ExperimentStatus

    db = RFDatabase()
    experiment_id = db.create_experiment("rag", 4, num_shards=SHARDS)
    failures: list[BaseException] = []
    thread = threading.Thread(target=user, args=(failures,), daemon=True)
    thread.start()
    config: dict[str, Any] = {
        "batch_size": 2,
        "preprocess_fn": None,
        "postprocess_fn": None,
        "compute_metrics_fn": None,
        "accumulate_metrics_fn": None,
    }
    configs = [{**config, "pipeline": Pipeline(), "pipeline_name": f"p{n}"} for n in range(4)]
    controller = Controller("rag", str(FOLDER), metric_manager=None)
    controller.run_multi_pipeline_inference(
        experiment_id=experiment_id,
        config_group=configs,
        dataset=list(range(SAMPLES)),
        num_shards=SHARDS,
        num_actors=4,  # one more than ever wait: else older versions process no requests
        num_gpus_per_actor=0.0,
        num_cpus_per_actor=1.0,
    )
    thread.join()
    if failures:
        raise failures[0]
    kept = ("pipeline_id", "status", "shards_completed", "total_samples_processed", "error")
    told: dict[str, Any] = {
        "pipelines": [{name: row[name] for name in kept} for row in db.get_all_pipelines()],
        "requests": [
            (row["operation"], row["pipeline_id"], row["status"], row["error"])
            for row in db.get_all_ic_operations()
        ],
    }
    db.set_experiment_status(experiment_id, ExperimentStatus.COMPLETED)
    db.reset_all_tables()
    told["ended"] = db.get_experiment(experiment_id)["status"]
    told["pipelines after the end"] = db.get_all_pipeline_ids()
    print(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)  # actors that have nothing to do any more


if __name__ == "__main__":
    main()

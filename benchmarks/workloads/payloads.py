"""Objects to bytes and back, beside what the seeds do: dill and base64."""

import base64
import os
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import dill
import torch

from benchmarks.measure import figures, latencies, seconds
from benchmarks.peers.payload_table import PayloadTable
from benchmarks.places import Places
from benchmarks.results import Curve, Figure, Ratio, Section, at_most, ratio
from refold import RfDb
from refold.eventstore.payloads import decode_db_payload, encode_payload

CONFIG: dict[str, Any] = {
    "model_name": "Qwen/Qwen2.5-3B-Instruct",
    "torch_dtype": "bfloat16",
    "attn_implementation": "flash_attention_2",
    "use_cache": False,
    "trust_remote_code": False,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "lora_bias": "none",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "cosine",
    "lr_scheduler_kwargs": {"num_cycles": 0.5},
    "warmup_ratio": 0.03,
    "warmup_steps": 0,
    "weight_decay": 0.01,
    "optim": "adamw_torch_fused",
    "adam_betas": (0.9, 0.999),
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "num_train_epochs": 3,
    "max_steps": -1,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 16,
    "gradient_accumulation_steps": 4,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "max_seq_length": 2048,
    "packing": True,
    "padding_side": "right",
    "eval_strategy": "steps",
    "eval_steps": 100,
    "save_strategy": "steps",
    "save_steps": 500,
    "save_total_limit": 2,
    "logging_steps": 10,
    "report_to": "none",
    "bf16": True,
    "fp16": False,
    "tf32": None,
    "seed": 42,
    "data_seed": None,
    "dataloader_num_workers": 4,
    "dataloader_pin_memory": True,
    "group_by_length": False,
    "label_smoothing_factor": 0.0,
    "neftune_noise_alpha": 5,
}
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
BYTES_OF_A_NUMBER = 9
"""In MessagePack, and in a pickle before its base64."""


def measure(places: Places) -> list[Section]:
    """Measure a configuration, a hundred megabytes of tensors, and sizes in between, on SQLite."""
    return [_configuration(), _tensors(places), _sizes(places)]


def _by_dill(value: object) -> bytes:
    return base64.b64encode(dill.dumps(value))  # pyright: ignore[reportUnknownMemberType]


def _from_dill(text: bytes) -> Any:
    return dill.loads(base64.b64decode(text))  # pyright: ignore[reportUnknownMemberType]


def _configuration() -> Section:
    ours, theirs = encode_payload(CONFIG), _by_dill(CONFIG)
    encode = latencies(
        f"encode {len(CONFIG)} keys",
        {
            "refold": lambda _: encode_payload(CONFIG),
            "dill + base64": lambda _: _by_dill(CONFIG),
        },
    )
    decode = latencies(
        f"decode {len(CONFIG)} keys",
        {
            "refold": lambda _: decode_db_payload(ours),
            "dill + base64": lambda _: _from_dill(theirs),
        },
    )
    return Section(
        "Payloads: a configuration",
        __doc__ or "",
        [*encode.values(), *decode.values()],
        [
            at_most(0.1, encode["refold"], encode["dill + base64"], "9a"),
            at_most(0.1, decode["refold"], decode["dill + base64"], "9b"),
        ],
        notes=[
            "Two keys hold a dict, one a list and one a tuple; the others single values.",
            f"refold's payload has {len(ours)} bytes, dill's {len(theirs)}.",
        ],
    )


def _state() -> dict[str, torch.Tensor]:
    """Return 100 MB of weights."""
    shapes = {"up.weight": (1024, 1024), "up.bias": (1024,), "down.weight": (1024, 1024)}
    generator = torch.Generator().manual_seed(1)
    return {
        f"layers.{layer}.{name}": torch.randn(shape, generator=generator)
        for layer in range(12)
        for name, shape in shapes.items()
    }


def _tensors(places: Places) -> Section:
    state = _state()
    content, old = encode_payload(state), _by_dill(state)
    copied = _timed(lambda: _copy(content))
    encode = figures(
        "encode 100 MB",
        "ms",
        {
            "refold": _timed(lambda: encode_payload(state)),
            "memcpy": copied,
            "dill + base64": _timed(lambda: _by_dill(state)),
        },
        rounds=5,
    )
    decode = figures(
        "decode 100 MB",
        "ms",
        {
            "refold": _timed(lambda: decode_db_payload(content)),
            "memcpy": copied,
            "dill + base64": _timed(lambda: _from_dill(old)),
        },
        rounds=5,
    )
    put, get = _kept(places, state, content)
    return Section(
        "Payloads: tensors",
        __doc__ or "",
        [*encode.values(), *decode.values(), *put.values(), *get.values()],
        [
            at_most(2, put["refold"], put["memcpy + file"], "9c"),
            *(ratio(encode["refold"], encode[base]) for base in ("memcpy", "dill + base64")),
            *(ratio(decode["refold"], decode[base]) for base in ("memcpy", "dill + base64")),
            *(ratio(put["refold"], put[base]) for base in ("bare engine", "file")),
            *(ratio(get["refold"], get[base]) for base in ("bare engine", "file")),
        ],
        notes=[
            f"{len(state)} float32 tensors, {len(content) / 1e6:.1f} MB.",
            "memcpy: bytes() of the encoded state, which copies it once into memory that is new.",
            "put: encode, hash and commit a new state; get: look it up and decode it. The bare "
            "engine and the file are given the bytes, and give them back.",
            "file: written and fsynced, as SQLite does at the checkpoint that so large a commit "
            "brings about. memcpy + file: they are copied first, and the copy is written.",
        ],
    )


def _copy(content: bytes) -> bytes:
    return bytes(memoryview(content))  # bytes() of bytes would copy nothing


def _kept(
    places: Places, state: dict[str, torch.Tensor], content: bytes
) -> tuple[dict[str, Figure], dict[str, Figure]]:
    digests: list[str] = []
    rows: list[int | None] = []
    files: list[Path] = []

    def another() -> dict[str, torch.Tensor]:
        state["layers.0.up.bias"][0] = len(digests)  # refold stores the same one only once
        return state

    def write(content: bytes) -> None:
        files.append(Path(places.file("tensors")))
        with files[-1].open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    with RfDb(places.store("sqlite")) as db, closing(PayloadTable(places.file())) as bare:
        put = figures(
            "put 100 MB",
            "ms",
            {
                "refold": _timed(lambda: digests.append(db.put_payload(another()))),
                "bare engine": _timed(lambda: rows.append(bare.put(content))),
                "file": _timed(lambda: write(content)),
                "memcpy + file": _timed(lambda: write(_copy(content))),
            },
            rounds=5,
        )
        get = figures(
            "get 100 MB",
            "ms",
            {
                "refold": _timed(lambda: db.get_payload(digests[-1])),
                "bare engine": _timed(lambda: bare.get(rows[-1])),
                "file": _timed(lambda: files[-1].read_bytes()),
            },
            rounds=5,
        )
    return put, get


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    return lambda: 1e3 * seconds(work)


def _sizes(places: Places) -> Section:
    lines: dict[str, list[tuple[float, float]]] = {}
    found: list[Figure] = []
    ratios: list[Ratio] = []
    with (
        RfDb(places.store("sqlite")) as db,
        closing(PayloadTable(places.file())) as bare,
        closing(PayloadTable(places.file())) as crud,
    ):
        for size in SIZES:
            rng = random.Random(size)
            value = {
                "number": 0,
                "values": [rng.random() for _ in range(size // BYTES_OF_A_NUMBER)],
            }
            content = encode_payload(value)

            def refold(number: int, value: dict[str, Any] = value) -> Any:
                value["number"] = number  # refold stores the same one only once
                return db.get_payload(db.put_payload(value))

            def crud_layer(_: int, value: dict[str, Any] = value) -> Any:
                return _from_dill(crud.get(crud.put(_by_dill(value))))

            def bare_engine(_: int, content: bytes = content) -> bytes:
                return bare.get(bare.put(content))

            each = latencies(
                f"keep {size:,} bytes",
                {"refold": refold, "bare engine": bare_engine, "dill + base64": crud_layer},
                rounds=5,
                calls=max(5, 100_000 // size),
            )
            found += each.values()
            ratios += [ratio(each["refold"], each[base]) for base in list(each)[1:]]
            for name, figure in each.items():
                lines.setdefault(name, []).append((size, figure.median))
    return Section(
        "Payloads of any size",
        __doc__ or "",
        found,
        ratios,
        [Curve("Encode, commit, look up and decode", "bytes", "us", lines, logarithmic=True)],
        ["Lists of numbers. The bare engine is given the bytes, and gives them back."],
    )

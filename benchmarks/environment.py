"""On what, and with which settings, it was measured."""

import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psycopg

from benchmarks.places import Places

PACKAGES = [
    "refold",
    "msgspec",
    "psycopg",
    "eventsourcing",
    "optuna",
    "sqlalchemy",
    "dill",
    "torch",
]
SETTINGS = ["server_version", "fsync", "synchronous_commit", "wal_sync_method", "shared_buffers"]


def environment(places: Places) -> dict[str, str]:
    """Return what someone must know to measure it again."""
    with psycopg.connect(places.server, autocommit=True) as server:
        postgres = {
            f"PostgreSQL {name}": str(
                (server.execute(f"SHOW {name}".encode()).fetchone() or [""])[0]
            )
            for name in SETTINGS
        }
    return {
        "machine": f"{os.cpu_count()} x {_processor()}, {_memory():.0f} GiB",
        "system": platform.platform(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "SQLite durability": "WAL, synchronous=NORMAL, for every contender",
        **postgres,
        **{package: _version(package) for package in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not there"

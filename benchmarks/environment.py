"""On what, and with which settings, it was measured."""

import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psycopg

from benchmarks.places import Places
from refold.eventstore import open_store

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
LEVELS = ["OFF", "NORMAL", "FULL", "EXTRA"]
"""Of SQLite's `synchronous`, which tells its number."""
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
        "SQLite as refold opens it": _sqlite(places),
        **postgres,
        **{package: _version(package) for package in PACKAGES},
    }


def _sqlite(places: Places) -> str:
    """Return what refold's own connection says of its durability."""
    with open_store(places.store("sqlite")) as store, store.reading() as connection:
        ((mode,),) = connection.execute("PRAGMA journal_mode")
        ((level,),) = connection.execute("PRAGMA synchronous")
    return f"journal_mode={mode}, synchronous={LEVELS[level]}, unless a section says otherwise"


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

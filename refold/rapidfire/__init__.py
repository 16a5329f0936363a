"""RapidFire AI, as its package is installed, keeps its state in refold.

>>> import refold.rapidfire
>>> refold.rapidfire.use("rapidfire.db")  # doctest: +SKIP
>>> from rapidfireai import Experiment  # doctest: +SKIP
"""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from refold.eventstore.errors import InvalidCommand, MissingPackage
from refold.eventstore.log.store import absolute
from refold.rapidfire.hook import PLACES, install

__all__ = ["KNOWN", "STORE", "environment", "use"]

KNOWN = ("0.16.1", "0.16.2")
"""The versions of rapidfireai whose database layer refold offers."""

STORE = "REFOLD_RAPIDFIRE"
"""The environment variable that names the store: a path, or a URL of PostgreSQL."""

STARTUP = str(Path(__file__).parent / "startup")
"""A folder with a `sitecustomize.py`, which makes other processes do what `use` does in this."""


def use(path_or_url: str | os.PathLike[str] | None = None) -> None:
    """Have RapidFire AI keep its state in a store of refold's, in this process and its children.

    Call it before rapidfireai is imported. It sets environment variables, so that processes which
    this one starts use the same store.

    Args:
        path_or_url: the store; None: what the environment names, or else `rapidfire.db` in the
            folder where RapidFire has its databases.

    Raises:
        MissingPackage: rapidfireai is not installed, or in a version that is not known.
        InvalidCommand: rapidfireai has opened a database of its own already.
    """
    check_version()
    loaded = [name for name in PLACES if name in sys.modules]
    if loaded and not all(hasattr(sys.modules[name], "replaced_by_refold") for name in loaded):
        raise InvalidCommand(
            f"{', '.join(loaded)} has been imported, so objects of RapidFire's own layer may be in "
            f"use: call refold.rapidfire.use() first, before `from rapidfireai import …`; in a "
            f"notebook, restart the kernel"
        )
    os.environ.update(environment(path_or_url))
    install()


def environment(path_or_url: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Return the environment variables with which a process of RapidFire's uses a store.

    Args:
        path_or_url: see `use`.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in paths if path and path != STARTUP]
    changed = {"PYTHONPATH": os.pathsep.join([STARTUP, *others])}
    if path_or_url is not None:
        changed[STORE] = os.fspath(absolute(path_or_url))
    return changed


def check_version() -> str:
    """Return the version of rapidfireai.

    Raises:
        MissingPackage: it is not installed, or in a version that is not known.
    """
    try:
        found = version("rapidfireai")
    except PackageNotFoundError:
        raise MissingPackage(
            "rapidfireai is not installed in this environment: pip install rapidfireai"
        ) from None
    if found not in KNOWN:
        raise MissingPackage(
            f"rapidfireai {found} is not known to this refold, which could store its state "
            f"wrongly: install one of {', '.join(KNOWN)}, or a refold that knows it"
        )
    return found

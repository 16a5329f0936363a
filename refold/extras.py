"""Packages that only some need, and that `pip install refold` leaves out."""

from collections.abc import Generator
from contextlib import contextmanager

from refold.eventstore.errors import DBException


class MissingPackage(DBException):
    """What was asked for needs a package that is not installed."""


@contextmanager
def needed_for(what: str, extra: str) -> Generator[None, None, None]:
    """Have the block import packages of an extra, and say how to get one that is not there.

    Raises:
        MissingPackage: one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"{what} needs {error.name}, which is not installed: pip install 'refold[{extra}]'"
        ) from error

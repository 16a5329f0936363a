"""Places for stores, on every engine."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest
from postgres import drop_schema, new_schema

ENGINES = ["sqlite", "postgres"]
OTHER = dict(zip(ENGINES, reversed(ENGINES), strict=True))

Place = Callable[[], str]


@contextmanager
def new_places(
    engine: str, request: pytest.FixtureRequest, files: Path
) -> Generator[Place, None, None]:
    """Give a function that names a place where no store is yet, anew at each call.

    Args:
        engine: that the stores will be on.
        request: the fixture's; a server is started only if it takes one.
        files: the path with which those of files begin.
    """
    numbers = count(1)

    def path() -> str:
        return f"{files}-{next(numbers)}.db"

    def url() -> str:
        url = new_schema(request.getfixturevalue("postgres_url"))
        afterwards.callback(drop_schema, url)
        return url

    with ExitStack() as afterwards:
        yield url if engine == "postgres" else path

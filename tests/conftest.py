"""Stores to test on: every behavioural test runs on every engine through these fixtures."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from postgres import PostgresServer, drop_schema, new_schema

from eventstore import EventStore, open_store
from refold import RFDatabase, RfDb

pytest.register_assert_rewrite("given", "face_methods")

ENGINES = ["sqlite", "postgres"]

# A shell has what it starts in the background ignore Ctrl-C, and so would all our children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# In CI the same examples each time: what it refuses must be the change, not the dice. `make test`
# by hand and `make soak` look for new ones.
settings.register_profile(
    "default",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests on every engine; those in a file `..._on_sqlite.py` on that one only."""
    if "engine" in metafunc.fixturenames:
        module = metafunc.definition.path.stem
        only = [engine for engine in ENGINES if module.endswith(f"_on_{engine}")]
        metafunc.parametrize("engine", only or ENGINES, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The name of the engine that the test runs on."""
    return request.param


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database for all tests: the one that `REFOLD_TEST_POSTGRES` names, or our own."""
    if url := os.environ.get("REFOLD_TEST_POSTGRES"):
        yield url
        return
    with PostgresServer(settings={"fsync": "off"}) as server:  # the machine is not what is killed
        yield server.url()


@pytest.fixture
def new_place(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], str]]:
    """Yield a function that names a place where no store is yet, anew at each call."""
    made = 0

    def path() -> str:
        nonlocal made
        made += 1
        return str(tmp_path / f"store-{made}.db")

    def url() -> str:
        url = new_schema(request.getfixturevalue("postgres_url"))
        afterwards.callback(drop_schema, url)
        return url

    with ExitStack() as afterwards:
        yield url if engine == "postgres" else path


@pytest.fixture
def place(new_place: Callable[[], str]) -> str:
    """The path or URL of a store that is not there yet."""
    return new_place()


@pytest.fixture
def store(place: str) -> Iterator[EventStore]:
    """A bare event store, without views."""
    with open_store(place) as store:
        yield store


@pytest.fixture
def db(place: str) -> Iterator[RfDb]:
    """The face of training."""
    with RfDb(place) as db:
        yield db


@pytest.fixture
def evals(place: str) -> Iterator[RFDatabase]:
    """The face of inference, on the same store as `db`."""
    with RFDatabase(place) as evals:
        yield evals

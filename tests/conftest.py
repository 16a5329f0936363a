"""Stores to test on: every behavioural test runs on every engine through these fixtures."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, is_hypothesis_test, settings
from hypothesis.internal.conjecture import providers
from places import ENGINES, OTHER, Place, new_places
from postgres import PostgresServer
from tries import LEAST, LONGER, SEED

from refold import RFDatabase, RfDb
from refold.eventstore import EventStore, open_store

pytest.register_assert_rewrite("face_methods")

# A shell has what it starts in the background ignore Ctrl-C, and so would all our children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples for everyone, every day: what a test refuses must be the change, not the dice.
# A failure does not wait for a smaller example: `make soak` looks for new ones, and shrinks them.
settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=max(100 * LONGER, LEAST),
    phases=[Phase.explicit, Phase.generate, Phase.target],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
settings.register_profile(
    "soak",
    settings.get_profile("default"),
    derandomize=False,
    phases=list(Phase),
    print_blob=True,
)
settings.load_profile("default")
if LONGER == 1 and not LEAST:
    # Hypothesis draws constants of the source code, too: of those modules that are loaded by then.
    # So the examples would depend on the order of the tests.
    providers._get_local_constants = lambda: providers._local_constants


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of hypothesis; no timer interrupts one, since hypothesis would report that."""
    for item in items:
        if isinstance(item, pytest.Function) and is_hypothesis_test(item.function):
            item.add_marker("property")
        if any(map(item.get_closest_marker, ("property", "soak", "loop"))):
            item.add_marker(pytest.mark.timeout(0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the counts that the long tests have noted."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "counts" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {value}")


@pytest.fixture
def seed() -> int:
    """Return what chooses the moments at which a test intervenes; `make soak` draws it."""
    return SEED


@pytest.fixture
def moments(seed: int) -> random.Random:
    """Return what chooses them: the same ones, as far as a race can be repeated."""
    return random.Random(seed)


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
    with PostgresServer() as server:
        yield server.url()


@pytest.fixture
def new_place(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Yield a function that names a place where no store is yet, anew at each call."""
    with new_places(engine, request, tmp_path / "store") as new_place:
        yield new_place


@pytest.fixture
def place(new_place: Place) -> str:
    """The path or URL of a store that is not there yet."""
    return new_place()


@pytest.fixture
def new_target(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Likewise, on the other engine: for what goes from one store to another."""
    with new_places(OTHER[engine], request, tmp_path / "target") as new_target:
        yield new_target


@pytest.fixture
def target(new_target: Place) -> str:
    """The path or URL of one on the other engine."""
    return new_target()


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

"""Stores to test on: every behavioural test runs on every engine through these fixtures."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from eventstore import EventStore, open_store
from refold import RFDatabase, RfDb

pytest.register_assert_rewrite("given", "face_methods")

ENGINES = ["sqlite"]

# In CI the same examples each time: what it refuses must be the change, not the dice. `make test`
# by hand and `make soak` look for new ones.
settings.register_profile(
    "default",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


@pytest.fixture(params=ENGINES)
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Return a function that names a place where no store is yet, anew at each call."""
    made = 0

    def place() -> str:
        nonlocal made
        made += 1
        return str(tmp_path / f"store-{made}.db")

    return place


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

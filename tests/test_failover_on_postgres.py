"""A primary is killed under load and its synchronous standby takes over: callers only wait."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from postgres import Pair, new_schema
from test_failures_on_postgres import killed_under_load

from refold import RfDb


@contextmanager
def followed(place: str) -> Iterator[None]:
    """Have somebody follow the log during the block, who is given each event once, in order."""
    positions: list[int] = []
    with RfDb(place, timeout=120) as db:
        last = db.create_experiment("followed"), db.store.head()
        done = threading.Event()

        def follow() -> None:
            with db.subscribe() as events:
                while not (done.is_set() and positions and positions[-1] >= db.store.head()):
                    positions.extend(recorded.position for recorded in events.wait(0.1))

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        assert last == (1, 1)
        assert positions == [recorded.position for recorded in db.store.read()]


def fail_over_under_load(moments: random.Random, commands: int, kills: int) -> None:
    with Pair() as pair:
        place = new_schema(pair.url())
        with followed(place):
            killed_under_load(
                pair.fail_over, place, moments, writers=3, commands=commands, kills=kills
            )
        # The one that was killed has all of it too, and can be read.
        assert pair.standby is not None
        standby = place.replace("read-write", "standby")
        with RfDb(standby) as one, RfDb(place) as other:
            other.create_experiment("last")
            assert other.verify(log=True) == []
            assert one.verify(log=True) == []


def test_a_standby_takes_over(moments: random.Random) -> None:
    fail_over_under_load(moments, commands=60, kills=1)


@pytest.mark.soak
def test_standbys_take_over_ten_times(moments: random.Random) -> None:
    fail_over_under_load(moments, commands=1_500, kills=10)

"""Large payloads and long names: what one engine takes, the other takes too."""

import os
from typing import Any

import pytest

from refold import InvalidArgument, RFDatabase, RfDb, copy_store
from refold.eventstore import Event, EventStore, Id
from refold.eventstore.errors import InvalidEvent, InvalidPayload


class Said(Event, frozen=True):
    run_id: Id
    text: str = ""


LONGEST = 500


def test_large_things_come_back_and_go_along(db: RfDb, place: str, target: str) -> None:
    content, text = os.urandom(3_000_000), os.urandom(1_500_000).hex()
    run_id = db.create_run(db.create_experiment("large"), config_leaf={"weights": content})
    with db.batch():
        digest = db.put_payload(content)
        db.append(Said(run_id, text), stream="said")
        db.set_run_progress(run_id, 1, 0)
        assert db.get_payload(digest) == content
    assert db.get_run(run_id)["current_chunk"] == 1
    assert db.verify(log=True) == []
    copy_store(place, target)
    with RfDb(target) as copy:
        assert copy.get_payload(digest) == content
        assert copy.verify(log=True) == []


@pytest.mark.soak
def test_a_checkpoint_of_six_hundred_megabytes(store: EventStore) -> None:
    content = os.urandom(1_000_000) * 600
    assert store.get_payload(store.put_payload(content)) == content


class _Long(bytes):
    def __len__(self) -> int:
        return 1_000_000_001


def test_a_payload_that_no_engine_holds_is_refused_by_name(store: EventStore) -> None:
    with pytest.raises(InvalidPayload, match="1,000,000,001 bytes is too large"):
        store.put_payload(_Long(b"as if"))


def test_an_event_that_is_too_large_is_refused_by_name(store: EventStore) -> None:
    with pytest.raises(InvalidEvent, match=r"100,000,022 bytes of JSON.* 100,000,000 at most"):
        store.append("said", [Said(1, "a" * 100_000_000)])
    assert store.head() == 0


def test_long_names(db: RfDb) -> None:
    # Of characters of several bytes each, which do not compress either.
    fits = os.urandom(LONGEST // 2).hex()
    wide = "ü" * LONGEST
    for name in (fits, wide):
        first = db.create_experiment("named", command_id=name)
        assert db.create_experiment("named", command_id=name) == first
        db.append(Said(1), stream=name)
    before = db.store.head()
    for name in (fits + "a", wide + "ü"):
        for refused in (
            lambda name=name: db.create_experiment("other", command_id=name),
            lambda name=name: db.append(Said(1), stream=name),
            lambda name=name: db.store.append("run-1", [Said(1)], command_id=name),
        ):
            with pytest.raises(InvalidArgument, match="500"):
                refused()
    for odd in (5, b"bytes"):
        with pytest.raises(InvalidArgument, match="command_id"):
            db.create_experiment("other", command_id=odd)  # pyright: ignore
    assert db.store.head() == before
    assert db.verify(log=True) == []


def test_a_hash_may_be_a_whole_configuration(evals: RFDatabase, place: str, target: Any) -> None:
    whole = os.urandom(5_000).hex()
    assert evals.create_context(whole) == evals.create_context(whole) == 1
    copy_store(place, target)
    with RFDatabase(target) as copy:
        assert copy.create_context(whole) == 1
        assert copy.verify() == []

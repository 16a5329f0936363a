"""Payloads of older releases are read, wherever what they name stands by now."""

from pathlib import Path

from refold import NotFound, RunStatus, decode_db_payload
from refold.commands import RequestStop
from refold.eventstore.events import RunStarted
from refold.projections import Row

FOLDER = Path(__file__).parent / "stored_payloads"


def test_a_payload_of_the_time_when_the_rooms_were_packages_of_their_own() -> None:
    """Written by 0.1.0, from a script with a class, an enum and a function of its own."""
    value = decode_db_payload((FOLDER / "0.1.0.bin").read_bytes())
    assert value["status"] is RunStatus.ONGOING
    assert type(value["error"]) is NotFound
    assert str(value["error"]) == "no run 5"
    assert value["event"] == RunStarted(5)
    assert value["command"] == RequestStop(5)
    assert value["row"] is Row
    assert value["point"].twice() == 8
    assert value["colour"].name == "RED"
    assert value["scale"](2) == 6

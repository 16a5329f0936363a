"""Payloads of older releases are read, wherever what they name stands by now."""

from pathlib import Path

from refold import (
    MissingPackage,
    NotFound,
    RunStatus,
    copy_store,
    decode_db_payload,
    fork,
    replay,
    try_projection,
)
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


def test_what_refold_itself_gave_out_then_is_read() -> None:
    """Changes, history, rows, errors and functions of 0.1.0, from the modules that it had."""
    value = decode_db_payload((FOLDER / "0.1.0-values.bin").read_bytes())
    assert [change.view for change in value["changes"]] == ["experiments", "runs", "ids", "ids"]
    assert [str(one.change.kind) for one in value["history"]] == ["added", "changed"]
    assert "RunStarted" in str(value["why"])
    assert [recorded.position for recorded in value["recorded"]] == [1, 2, 3]
    assert type(value["missing"]) is MissingPackage
    assert value["functions"] == [fork, copy_store, replay, try_projection]
    assert [cls.__name__ for cls in value["rows"]] == [
        *("Run", "Request", "Task", "Pipeline", "Context", "Experiment", "LastId"),
    ]
    assert value["unknown"].data == {"a": 1}
    assert value["difference"].column == "status"
    assert value["metadata"].actor == "a"

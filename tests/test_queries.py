"""What `db.db.execute` takes, and how it says what is wrong; no database."""

from types import SimpleNamespace
from typing import Any

import pytest

from refold.eventstore.errors import InvalidQuery
from refold.projections.views import Queries

SQL = "SELECT ? AS value"


def queries() -> tuple[Queries, list[Any]]:
    """Return queries on views that only note what they are asked, and what that is."""
    asked: list[Any] = []
    views: Any = SimpleNamespace(
        query=lambda sql, parameters: [{"asked": asked.append((sql, parameters))}],
        close=lambda: asked.append("close"),
    )
    return Queries(views), asked


@pytest.mark.parametrize(
    "value",
    [
        *(0, -(2**63), 2**63 - 1, True, 0.5, 1e300, "text", None),
        *(b"bytes", bytearray(b"bytes"), memoryview(b"bytes")),
    ],
    ids=type,
)
def test_a_parameter(value: object) -> None:
    on, asked = queries()
    assert on.execute(SQL, [value]) == [{"asked": None}]
    assert asked == [(SQL, (value,))]


def test_there_need_be_no_parameters() -> None:
    on, asked = queries()
    on.execute("SELECT 1")
    on.execute("SELECT 1", commit=True, fetch=False)
    assert asked == [("SELECT 1", ())] * 2


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**63, {}, (), object], ids=repr)
def test_what_is_no_value_of_sql(value: object) -> None:
    on, asked = queries()
    with pytest.raises(InvalidQuery) as caught:
        on.execute(SQL, (1, value))
    assert str(caught.value) == (
        f"{SQL!r}: parameter {value!r} is not a value that SQL has: pass int (64 bits), float, "
        f"str, bytes, bool or None"
    )
    assert asked == []


@pytest.mark.parametrize(
    ("query", "parameters"),
    [(5, ()), (None, ()), (SQL, "text"), (SQL, ""), (SQL, {1: 2}), (SQL, {1}), (SQL, 5)],
    ids=repr,
)
def test_what_is_no_query(query: Any, parameters: Any) -> None:
    on, asked = queries()
    with pytest.raises(InvalidQuery) as caught:
        on.execute(query, parameters)
    assert str(caught.value) == (
        f"{query!r} with {parameters!r}: pass SQL text, and a tuple or list of parameters"
    )
    assert asked == []


def test_closing() -> None:
    on, asked = queries()
    on.close()
    assert asked == ["close"]

"""Anything at all, passed to every method: only a `DBException` may come out."""

from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
import torch
from face_methods import METHODS, VALID, Faces, parameters
from hypothesis import given
from hypothesis import strategies as st
from tries import LONGER, tries

from refold import DBException, InvalidQuery, RunStatus

oddities = st.sampled_from(
    [
        2**63,
        -(2**63) - 1,
        10**400,
        "\ud800",
        "a\0b",
        "NEW",
        "failed",
        "{}",
        1 + 2j,
        Decimal("NaN"),
        datetime(2026, 1, 1),
        timedelta.max,
        UUID(int=1),
        RunStatus,
        RunStatus.NEW,
        object(),
        int,
        len,
        ...,
        range(3),
        bytearray(b"x"),
        memoryview(b"x"),
        Exception("x"),
        np.float32(0.5),
        np.float64("nan"),
        np.int64(1),
        np.bool_(True),
        np.str_("x"),
        np.longdouble(1),
        np.datetime64("2026-01-01"),
        np.void(b"abc"),
        np.zeros(2),
        np.zeros(()),
        torch.tensor(0.5),
        torch.zeros(2),
    ]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=5),  # lone surrogates are among them
    st.binary(max_size=5),
    oddities,
)
keys = st.one_of(st.text(st.characters(), max_size=3), st.integers(), st.none())
garbage = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=4,
)


def arguments(kind, name):
    """Arguments of a method: some right, some garbage, some left out."""
    valid = VALID[kind][name]
    return st.fixed_dictionaries(
        {parameter: st.one_of(st.just(value), garbage) for parameter, value in valid.items()},
        optional={p: garbage for p in parameters(kind, name) if p not in valid},
    )


@pytest.fixture
def faces(db, evals):
    faces = Faces(db, evals)
    yield faces
    assert db.verify() == []


@pytest.mark.property
@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_anything_at_all(faces, engine, kind, name, record_property):
    counts = Counter()

    @tries(25, engine)
    @given(arguments(kind, name))
    def check(drawn):
        before = faces.kept()
        try:
            faces.call(kind, name, **drawn)
            counts["accepted"] += 1
        except DBException:
            assert faces.kept() == before
            counts["refused"] += 1

    check()
    if LONGER > 1:
        record_property("counts", f"{kind}.{name}: {dict(counts)}")


@tries(100)
@given(garbage, garbage)
def test_queries_of_anything_at_all(faces, query, params):
    before = faces.kept()
    for q, p in ((query, ()), (query, params), ("SELECT ?", params)):
        with suppress(InvalidQuery):
            faces.fit.db.execute(q, p)
    assert faces.kept() == before

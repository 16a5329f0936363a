"""A view is tried on the real log, and told from the live one, before it ships."""

import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from random_logs import VIEWS, Step, log_of, steps
from raw import raw
from tables import tables
from tries import tries

from refold import RfDb, try_projection
from refold.eventstore import (
    DamagedEvent,
    Id,
    InvalidCommand,
    InvalidMoment,
    ProjectionFailed,
    open_store,
)
from refold.eventstore.events import RunEvent, RunMetricsRecorded, RunProgressed, TablesReset
from refold.projections import Row, View

Place = Callable[[], str]


class LossSpiked(RunEvent, frozen=True):
    loss: float
    runs: tuple[Id, ...] = ()


class Spike(Row, frozen=True, kw_only=False):
    run_id: int
    loss: float
    first: bool = True


def spikes_of(version: int = 1, **options: Any) -> View[Spike]:
    """Return the view as it is live."""
    view = View("spikes", Spike, version=version, **options)
    view.created_by(LossSpiked, lambda e: Spike(e.run_id, e.loss))
    view.cleared_by(TablesReset)
    return view


class BetterSpike(Row, frozen=True, kw_only=False):
    run_id: int
    highest: float
    loss: float


def better_spikes() -> View[BetterSpike]:
    """Return the view as it is to be: another column, one less, and other rows."""
    view = View("spikes", BetterSpike, version=2)

    def evolve(row: BetterSpike | None, event: LossSpiked) -> BetterSpike | None:
        if event.loss < 0:
            return None
        highest = event.loss if row is None else max(row.highest, event.loss)
        return BetterSpike(event.run_id, highest, round(event.loss, 1))

    view.put_by(LossSpiked, evolve, key=lambda e: e.run_id)
    return view


@pytest.fixture
def spiked(place: str) -> Iterator[RfDb]:
    """A store in which losses have spiked, with the view live."""
    with RfDb(place, projections=[spikes_of()]) as db:
        db.append(LossSpiked(1, 2.5), LossSpiked(2, 3.55), LossSpiked(1, 2.0), LossSpiked(3, -1.0))
        yield db


def everything(db: RfDb) -> Any:
    """Return what the store holds, and how often something was committed to it."""
    with db.store.reading() as connection:
        kept = [
            connection.execute(f"SELECT * FROM {name} ORDER BY 1")
            for name in ("events", "streams", "payloads", "commands", "projections")
        ]
    return kept, tables(db)


def told(trial: object) -> list[str]:
    return re.sub(r"in \d+\.\d\d s", "in 0.00 s", str(trial)).splitlines()


# --- what it tells ---------------------------------------------------------------------------


def test_the_live_view_is_equal_to_itself(spiked: RfDb) -> None:
    trial = try_projection(spiked, spikes_of())
    assert not trial.differs
    assert (trial.position, trial.events, len(trial.rows)) == (4, 4, 3)
    assert told(trial) == [
        "spikes: 3 rows from 4 events in 0.00 s, as of position 4",
        "equal to the live view",
    ]


def test_what_a_changed_view_changes_is_told(spiked: RfDb) -> None:
    before = everything(spiked)
    trial = try_projection(spiked, better_spikes())
    assert everything(spiked) == before
    assert trial.differs
    assert (trial.columns_added, trial.columns_removed) == (("highest",), ("first",))
    assert [change.key for change in trial.removed] == [3]
    assert trial.added == []
    assert {change.key: change.columns for change in trial.changed} == {
        1: {"highest": (None, 2.5)},
        2: {"highest": (None, 3.55), "loss": (3.55, 3.5)},
    }
    assert [row["run_id"] for row in trial.rows] == [1, 2]
    assert told(trial) == [
        "spikes: 2 rows from 4 events in 0.00 s, as of position 4",
        "columns added: highest",
        "columns removed: first",
        "1 row removed",
        "2 rows changed: highest in 2, loss in 1",
        "  spikes 1 changed: highest None -> 2.5",
        "  spikes 2 changed: highest None -> 3.55, loss 3.55 -> 3.5",
        "  spikes 3 removed: run_id 3, loss -1.0, first True",
    ]


def test_a_new_view_gives_its_rows(db: RfDb) -> None:
    db.append(*[LossSpiked(n, n / 2) for n in range(7)])
    before = everything(db)
    trial = try_projection(db, spikes_of())
    assert everything(db) == before
    assert trial.is_new
    assert trial.differs
    assert [row["loss"] for row in trial.rows] == [n / 2 for n in range(7)]
    assert [row["position"] for row in trial.rows] == list(range(1, 8))
    assert trial.rows[0]["first"] is True
    assert [change.after for change in trial.added] == trial.rows
    assert told(trial) == [
        "spikes: 7 rows from 7 events in 0.00 s, as of position 7",
        "a new view",
        *(f"  spikes {n} added: run_id {n}, loss {n / 2}, first True" for n in range(5)),
        "  … and 2 rows more",
    ]


def test_rows_that_only_moved_are_told(spiked: RfDb) -> None:
    spiked.append(RunProgressed(1, 1, 0))
    view = spikes_of()
    view.on(RunProgressed, lambda row, _: replace(row))
    trial = try_projection(spiked, view)
    assert [change.key for change in trial.changed] == [1]
    [_, kinds, row] = told(trial)
    assert kinds == "1 row changed: updated_at in 1, position in 1"
    assert row.endswith(", position 3 -> 5")


def test_events_that_the_live_view_does_not_know_add_rows(spiked: RfDb) -> None:
    spiked.append(RunMetricsRecorded(9, {"loss": 1.0}))
    view = spikes_of()
    view.created_by(RunMetricsRecorded, lambda e: Spike(e.run_id, 1.0))
    trial = try_projection(spiked, view)
    assert [change.key for change in trial.added] == [9]
    assert trial.events == 5


def check_trials(place: str, happens: list[Step], data: st.DataObject) -> None:
    with log_of(place, happens) as log, pytest.MonkeyPatch.context() as patch:
        pages = data.draw(st.integers(1, 4), label="events at a time")
        patch.setattr("refold.eventstore.paging.KEYS", pages)
        position = data.draw(st.integers(0, log.db.store.head()), label="position")
        past = log.db.as_of(position)
        before = everything(log.db)
        for view in VIEWS:
            for trial in (
                try_projection(log.db, view),
                try_projection(log.db, view, at=position),
                try_projection(past, view),
            ):
                assert not trial.differs, str(trial)
        assert everything(log.db) == before


@pytest.mark.property
def test_what_is_live_is_what_a_trial_makes(new_place: Place, engine: str) -> None:
    @tries(12, engine)
    @given(st.lists(steps, max_size=6), st.data())
    def check(happens: list[Step], data: st.DataObject) -> None:
        check_trials(new_place(), happens, data)

    check()


# --- moments, and live views that the face does not know -------------------------------------


def test_a_moment_is_compared_as_of_then(spiked: RfDb) -> None:
    for trial in (
        try_projection(spiked, better_spikes(), at=2),
        try_projection(spiked.as_of(2), better_spikes()),
    ):
        assert (trial.position, trial.events) == (2, 2)
        assert {change.key: change.columns for change in trial.changes} == {
            1: {"highest": (None, 2.5)},
            2: {"highest": (None, 3.55), "loss": (3.55, 3.5)},
        }
    with pytest.raises(InvalidMoment):
        try_projection(spiked, better_spikes(), at=5)


def test_the_code_of_the_live_view_need_not_be_known(spiked: RfDb, place: str) -> None:
    with RfDb(place) as db:
        trial = try_projection(db, better_spikes())
        *most, removed = told(try_projection(spiked, better_spikes()))
        assert told(trial) == [*most, removed.replace("True", "1")]  # no code says what 1 is
        assert not try_projection(db, spikes_of()).differs
        with pytest.raises(InvalidCommand, match="without its code"):
            try_projection(db, better_spikes(), at=2)
        with pytest.raises(InvalidCommand, match="is not in the table spikes_folded"):
            try_projection(db, spikes_of(table="spikes_folded"))
        assert db.get_all_runs() == []  # and the connection is of use still


def test_a_live_view_that_is_behind_is_compared_where_it_stands(spiked: RfDb, place: str) -> None:
    with open_store(place) as bare:
        bare.append(None, [LossSpiked(1, 9.0)])
    with RfDb(place) as db:
        trial = try_projection(db, spikes_of())
        assert (trial.position, trial.differs) == (4, False)
    assert spiked.verify() == []
    with RfDb(place) as db:
        assert try_projection(db, spikes_of()).position == 5


def test_a_live_view_without_rows_has_no_columns_to_compare(place: str) -> None:
    RfDb(place, projections=[spikes_of()]).close()
    with RfDb(place) as db:
        trial = try_projection(db, better_spikes())
        assert (trial.is_new, trial.differs, trial.rows) == (False, False, [])


def test_a_batch_is_seen_as_far_as_it_has_come(spiked: RfDb) -> None:
    with spiked.batch():
        spiked.append(LossSpiked(7, 7.0))
        trial = try_projection(spiked, spikes_of())
        assert (trial.differs, len(trial.rows)) == (False, 4)


def test_what_is_no_view_is_refused(db: RfDb) -> None:
    with pytest.raises(InvalidCommand, match="is not a view"):
        try_projection(db, Spike)  # type: ignore[arg-type]


# --- failures --------------------------------------------------------------------------------


class Wrong(Exception):
    pass


def fail(*_: Any) -> Any:
    raise Wrong("no such luck")


def fails_in_create(view: View[Spike]) -> None:
    view.created_by(LossSpiked, lambda e: fail() if e.loss == 2.0 else Spike(e.run_id, e.loss))


def fails_in_evolve(view: View[Spike]) -> None:
    view.on(RunProgressed, fail)


def fails_in_put(view: View[Spike]) -> None:
    view.put_by(RunProgressed, fail, key=lambda e: e.run_id)


def fails_in_key(view: View[Spike]) -> None:
    view.put_by(RunProgressed, lambda *_: None, key=fail)


def fails_in_keys(view: View[Spike]) -> None:
    def keys(event: LossSpiked) -> Any:
        yield event.run_id
        raise Wrong

    view.on(LossSpiked, lambda row, _: row, keys=keys)


def fails_on_the_second_key(view: View[Spike]) -> None:
    view.on(
        RunProgressed,
        lambda row, _: fail() if row.run_id == 2 else Spike(row.run_id, 0.0),
        keys=lambda _: (1, 2, 3),
    )


def fails_in_clearing(view: View[Spike]) -> None:
    view.cleared_by(RunProgressed, when=fail)


def makes_what_is_no_row(view: View[Spike]) -> None:
    view.created_by(LossSpiked, lambda e: (e.run_id, e.loss) if e.run_id == 2 else Spike(0, 0.0))  # type: ignore[arg-type,return-value]


def makes_what_no_column_holds(view: View[Spike]) -> None:
    view.on(
        RunProgressed,
        lambda row, _: Spike(row.run_id, [1] if row.run_id == 2 else 1.0),  # type: ignore[arg-type]
        keys=lambda _: (1, 2, 3),
    )


def makes_what_a_constraint_forbids(view: View[Spike]) -> None:
    view.on(RunProgressed, lambda row, _: Spike(row.run_id, None))  # type: ignore[arg-type]


STRICT = (
    "CREATE TABLE spikes (run_id INTEGER PRIMARY KEY, loss REAL NOT NULL, first INTEGER, "
    "created_at TEXT, updated_at TEXT, position INTEGER);"
)

FAILURES: list[tuple[Callable[[View[Spike]], None], int, Any, str]] = [
    (fails_in_create, 3, 1, "LossSpiked"),
    (fails_in_evolve, 6, 2, "RunProgressed"),
    (fails_in_put, 6, 2, "RunProgressed"),
    (fails_in_key, 6, None, "RunProgressed"),
    (fails_in_keys, 1, 1, "LossSpiked"),
    (fails_on_the_second_key, 6, 2, "RunProgressed"),
    (fails_in_clearing, 6, None, "RunProgressed"),
    (makes_what_is_no_row, 2, 2, "LossSpiked"),
    (makes_what_no_column_holds, 6, 2, "RunProgressed"),
    (makes_what_a_constraint_forbids, 6, 2, "RunProgressed"),
]


@pytest.mark.parametrize("at_a_time", [1, 100])
@pytest.mark.parametrize(
    ("spoil", "position", "key", "event"),
    FAILURES,
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_view_that_fails_names_the_event_and_the_row(
    spiked: RfDb,
    spoil: Callable[[View[Spike]], None],
    position: int,
    key: Any,
    event: str,
    at_a_time: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("refold.eventstore.paging.KEYS", at_a_time)
    spiked.append(LossSpiked(4, 1.0), RunProgressed(2, 1, 0), RunProgressed(3, 1, 0))
    view = spikes_of(schema=STRICT)
    spoil(view)
    before = everything(spiked)
    with pytest.raises(ProjectionFailed) as caught:
        try_projection(spiked, view)
    failed = caught.value
    assert (failed.view, failed.position, failed.type, failed.key) == (
        "spikes",
        position,
        event,
        key,
    )
    row = "before it came to a row" if key is None else f"at run_id {key}"
    assert f"view spikes fails on event {position}, {event} in run-" in str(failed)
    assert row in str(failed)
    cause = failed.__cause__
    assert cause is not None
    assert f"{type(cause).__name__}: {cause}" in str(failed)
    assert isinstance(cause, Wrong) == spoil.__name__.startswith("fails")
    again = pickle.loads(pickle.dumps(failed))
    assert (str(again), again.position, again.key) == (str(failed), position, key)
    assert everything(spiked) == before


def test_a_view_that_fails_now_and_then_says_what_it_raised(spiked: RfDb) -> None:
    first = iter([True])
    view = spikes_of()
    view.created_by(LossSpiked, lambda e: fail() if next(first, False) else Spike(e.run_id, e.loss))
    with pytest.raises(Wrong):
        try_projection(spiked, view)


def test_a_damaged_event_is_named(spiked: RfDb, place: str) -> None:
    with raw(place) as connection:
        of_the_table = " ON events" if "://" in place else ""
        connection.execute(f"DROP TRIGGER events_are_never_updated{of_the_table}")
        connection.execute("UPDATE events SET data = '{' WHERE position = 3")
    with pytest.raises(DamagedEvent, match="event 3"):
        try_projection(spiked, spikes_of())
    assert not try_projection(spiked, spikes_of(), at=2).differs
    view = View("progressed", Spike, version=1)
    view.created_by(RunProgressed, lambda e: Spike(e.run_id, 0.0))
    assert try_projection(spiked, view).rows == []  # it does not fold such events

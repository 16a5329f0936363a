"""When views are brought up to date, who waits for that, and how often it is looked for."""

from types import SimpleNamespace
from typing import Any

import pytest

from refold import RFDatabase, RfDb
from refold.eventstore import Event, EventStore, paging
from refold.eventstore.engines.engine import NotExclusive
from refold.eventstore.errors import AccessDenied, InvalidView, StoreReadOnly, StoreTooNew
from refold.eventstore.events import RunCreated, RunProgressed
from refold.projections import ALL, Row, UnitOfWork, View, unit_of_work
from refold.projections import views as module
from refold.projections.fit import runs
from refold.projections.past import versions as past

RUN = RunCreated(1, 1, "run_1")
SQL = "SELECT run_id FROM runs"
UP_TO_DATE = {view.name: (view.version, None) for view in ALL}


class Stopped(Exception):
    """Tells that something was called."""


def stopped(*_: Any) -> None:
    raise Stopped


class Transaction(SimpleNamespace):
    """What views look at in a transaction."""

    def __init__(self, **changed: Any) -> None:
        usual = {"fresh": False, "lock": None, "be_exclusive": stopped, "writer": None}
        super().__init__(**{**usual, "projections": UP_TO_DATE, "flush": stopped, **changed})


def begun(db: RfDb, **changed: Any) -> UnitOfWork:
    """Return the unit of work of a transaction, as the store has it begun."""
    transaction: Any = Transaction(**changed)
    return db.store._follow(transaction)


# --- the rows that are kept from one transaction to the next -------------------------------------


def test_rows_are_kept_as_long_as_nobody_else_writes(
    db: RfDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_of_work, "ROWS_REMEMBERED", 2)
    unit = begun(db)
    assert begun(db) is unit
    for key in (1, 2):
        unit.put(runs, key, None)
    assert begun(db) is unit
    unit.put(runs, 3, None)
    other = begun(db)
    assert other is not unit
    assert len(other) == 0
    assert begun(db, fresh=True) is not other


def test_a_transaction_beside_others_is_done_again_exclusively_to_find_rows(db: RfDb) -> None:
    assert begun(db, fresh=True).find(runs) == []
    with pytest.raises(NotExclusive):
        begun(db, fresh=True, lock=stopped).find(runs)


def test_a_query_comes_after_what_the_transaction_has_to_write(db: RfDb) -> None:
    unit = begun(db, fresh=True, writer=SimpleNamespace())
    with pytest.raises(Stopped):
        unit.find(runs)


# --- views that are behind ------------------------------------------------------------------------


@pytest.mark.parametrize("known", [None, (0, None), (1, 7)])
def test_who_brings_views_up_to_date_is_exclusive(db: RfDb, known: tuple[int, int] | None) -> None:
    behind: dict[str, Any] = {**UP_TO_DATE, "runs": known}
    if known is None:
        del behind["runs"]
    assert begun(db, fresh=True) is not None
    with pytest.raises(Stopped):
        begun(db, fresh=True, projections=behind, flush=pytest.fail)


def test_views_of_a_newer_release(db: RfDb) -> None:
    with pytest.raises(StoreTooNew, match="view runs is at version 1000, this refold has"):
        begun(db, fresh=True, projections={**UP_TO_DATE, "runs": (1000, None)})


def test_what_a_store_folds_itself_is_never_behind(db: RfDb, store: EventStore) -> None:
    def positions() -> set[int | None]:
        with store.reading() as connection:
            return {at for (at,) in connection.execute("SELECT position FROM projections")}

    db.create_experiment("digits")
    assert positions() == {None}
    store.append(None, [RUN])
    assert positions() == {1}
    db.create_experiment("digits")
    assert positions() == {None}


def test_what_another_face_folds_too_is_not_folded_again(
    db: RfDb, evals: RFDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.create_experiment("digits")
    evals.create_experiment("test")
    monkeypatch.setattr(db.views, "_refold", stopped)
    assert db.create_experiment("digits") == 3


@pytest.mark.parametrize("kind", [AccessDenied, StoreReadOnly])
def test_who_may_not_write_learns_what_to_do(
    db: RfDb, store: EventStore, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> None:
        raise kind("no")

    monkeypatch.setattr(db.store, "perform", refused)
    with db.views.reading():
        pass
    store.append(None, [RUN])
    with pytest.raises(kind) as caught, db.views.reading():
        pass
    assert str(caught.value) == (
        f"{db.store.engine.name}: the views are behind the log, or of an older release, and "
        f"cannot be brought up to date from here: open the store once with the right to write (no)"
    )


# --- looking --------------------------------------------------------------------------------------


class Looks:
    """Counts how often it is looked whether views are behind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_itself = self.together = 0
        projections_of, by_name = module.projections_of, module.by_name

        def by_itself(connection: Any) -> Any:
            self.by_itself += 1
            return projections_of(connection)

        def together(rows: Any) -> Any:
            self.together += 1
            return by_name(rows)

        monkeypatch.setattr(module, "projections_of", by_itself)
        monkeypatch.setattr(module, "by_name", together)

    def since(self) -> tuple[int, int]:
        """Return how often since the last time: by itself, and together with a query."""
        count = (self.by_itself, self.together)
        self.by_itself = self.together = 0
        return count


def test_it_is_looked_for_once_after_somebody_else_wrote(
    db: RfDb, evals: RFDatabase, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch)

    def read() -> None:
        with db.views.reading() as connection:
            assert connection.select(SQL) == []

    def select() -> None:
        assert db.views.select(SQL) == []

    for look, by_itself, together in ((read, 1, 0), (select, 0, 1)):
        evals.store.put_payload(look.__name__.encode())
        look()
        assert looks.since() == (by_itself, together)
        look()  # SQLite's number of changes may rise once more when they are read
        looks.since()
        look()
        # A server does not tell who has committed.
        assert looks.since() == ((0, 0) if engine == "sqlite" else (by_itself, together))
    evals.store.put_payload(b"while a snapshot is held")
    with db.store.snapshot():
        select()
        assert looks.since() == (1, 0)


def test_a_query_settles_what_is_behind(db: RfDb, store: EventStore) -> None:
    store.append(None, [RUN])
    assert db.views.select(SQL) == [{"run_id": 1}]
    store.append(None, [RunProgressed(1, 7, 0)])
    assert db.views.query("SELECT current_chunk FROM runs", ()) == [{"current_chunk": 7}]


def test_within_a_transaction_a_query_sees_what_it_wrote(db: RfDb) -> None:
    with db.store.transaction() as transaction:
        transaction.append([RUN])
        assert db.views.query(SQL, ()) == db.views.select(SQL) == [{"run_id": 1}]
        assert unit_of_work.unit_of(transaction) is transaction.fold
    assert db.views.query(SQL, ()) == [{"run_id": 1}]


def test_within_a_transaction_nothing_is_left_to_be_settled(
    db: RfDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.store.transaction():
        monkeypatch.setattr(db.store, "perform", stopped)
        with db.views.reading() as connection:
            assert connection.select(SQL) == []


# --- folding anew ---------------------------------------------------------------------------------


class OfNoView(Event, frozen=True):
    stream = "elsewhere"


class Bar:
    """A progress bar that notes where it stood."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int, bool | None]] = []
        self.at: list[int] = []
        self.n = 0

    def __call__(self, what: str, total: int, shown: bool | None) -> "Bar":
        self.made.append((what, total, shown))
        return self

    def __enter__(self) -> None:
        self.n = 0

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        self.n += count
        self.at.append(self.n)


def test_a_bar_shows_how_far_folding_is(
    db: RfDb, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = Bar()
    monkeypatch.setattr(module, "ProgressBar", bar)
    monkeypatch.setattr(paging, "PAGE", 2)
    db.append(RUN, *[RunProgressed(1, n, 0) for n in range(3)], OfNoView())
    assert db.views.rebuild(progress=False) == 5
    assert bar.made == [("folding events into views", 5, False)]
    assert [*dict.fromkeys(bar.at)] == [2, 4, 5]
    bar.at.clear()
    store.append(None, [RunProgressed(1, n, 0) for n in range(3)])
    assert db.get_run(1)["current_chunk"] == 2
    assert bar.made[1:] == [("folding events into views", 3, None)]
    assert [*dict.fromkeys(bar.at)] == [2, 3]


def test_a_transaction_sees_what_was_folded_anew_within_it(db: RfDb) -> None:
    db.append(RUN)
    with db.store.transaction() as transaction:
        transaction.writer.run("UPDATE runs_folded SET seed = 7")
        unit = unit_of_work.unit_of(transaction)
        unit.forget()
        wrong = unit.get(runs, 1)
        assert wrong is not None
        assert wrong.seed == 7
        db.views.rebuild()
        right = unit.get(runs, 1)
        assert right is not None
        assert right.seed is None


def test_verify_waits_for_what_somebody_else_appended(
    db: RfDb, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = db.store.snapshot
    late = [RunProgressed(1, 7, 0), RUN]

    def snapshot_later() -> Any:
        if late:
            store.append(None, [late.pop()])
        return snapshot()

    monkeypatch.setattr(db.store, "snapshot", snapshot_later)
    assert db.views.verify() == []
    assert late == []


# --- names, and the end ---------------------------------------------------------------------------


class Own(Row, frozen=True):
    key: int


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (View("events", Own, version=1), "the name events belongs to the log"),
        (View("Runs", Own, version=1), "the name runs belongs to view runs"),
        (View("runs_folded", Own, version=1, table="mine"), "runs_folded belongs to view runs"),
        (View("mine", Own, version=1, table="runs_folded"), "runs_folded belongs to view runs"),
        (
            View("mine", Own, version=1, table="runs_folded", schema="CREATE TABLE a (b INTEGER);"),
            "the name runs_folded belongs to view runs",
        ),
        (
            View("mine", Own, version=1, schema="CREATE TABLE streams (b INTEGER);"),
            "the name streams belongs to the log",
        ),
        (View("sqlite_mine", Own, version=1), "the name sqlite_mine belongs to SQLite"),
    ],
    ids=lambda value: value.name if isinstance(value, View) else "-",
)
def test_a_name_that_is_taken(place: str, view: View[Any], reason: str) -> None:
    with pytest.raises(InvalidView) as caught:
        RfDb(place, projections=[view])
    assert f"view {view.name}: " in str(caught.value)
    assert f"{reason}: take another name" in str(caught.value)


def test_the_past_is_looked_into_through_one_object(db: RfDb) -> None:
    db.append(RUN)
    assert db._versions is db._versions is db.as_of(1)._versions


def test_two_threads_that_look_back_at_once_get_one_object(
    db: RfDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (SimpleNamespace(close=lambda: None) for _ in range(2))

    def made_meanwhile(*_: object) -> object:
        db.__dict__["_versions"] = first
        return second

    monkeypatch.setattr(past, "Versions", made_meanwhile)
    assert db._versions is first


def test_closing(db: RfDb, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(db.views.store, "close", lambda: closed.append("store"))
    db.close()
    assert closed == ["store"]
    looked_back = SimpleNamespace(close=lambda: closed.append("past"))
    monkeypatch.setitem(db.__dict__, "_versions", looked_back)
    db.close()
    assert closed == ["store", "past", "store"]

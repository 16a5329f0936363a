"""The unit of work against a connection that only notes what is asked of it; no database."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from refold.eventstore.engines.engine import NotExclusive
from refold.eventstore.events import (
    RunCreated,
    RunProgressed,
    TablesReset,
    TaskScheduled,
    TaskStarted,
    WorkerProgressed,
)
from refold.eventstore.paging import KEYS
from refold.eventstore.statuses import TaskStatus, WorkerTask
from refold.projections import Row, UnitOfWork, View
from refold.projections.fit import Task, worker_progress, worker_task

ROW = Task(7, 5, 1, 2, 3, "SCHEDULED", created_at=1_000_000, updated_at=2_000_000, position=4)
SELECT = worker_task.select
START, PROGRESS = TaskStarted(7), WorkerProgressed(3, WorkerTask.IDLE, TaskStatus.PENDING)

Asked = tuple[str, Any, Any]


class Noting:
    """A connection to a table of tasks."""

    def __init__(self, *rows: Task) -> None:
        self.rows = rows
        self.asked: list[Asked] = []

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self.asked.append(("execute", sql, tuple(parameters)))
        if not sql.startswith(SELECT):
            return []
        if "WHERE task_id" not in sql:
            return [worker_task.dump(row) for row in self.rows]
        return [worker_task.dump(row) for row in self.rows if row.task_id in parameters]

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        self.asked.append(("run", sql, tuple(parameters)))

    def executemany(self, sql: str, rows: Any) -> None:
        self.asked.append(("executemany", sql, rows))

    def insert(self, table: str, columns: Any, rows: Any, on_conflict: str) -> None:
        assert (columns, on_conflict) == (worker_task.columns, worker_task.on_conflict)
        self.asked.append(("insert", table, rows))

    def lock(self, names: Iterable[str]) -> None:
        self.asked.append(("lock", tuple(names), ()))


def unit_on(*rows: Task, shared: bool = False) -> tuple[UnitOfWork, list[Asked]]:
    """Return a unit of work on a table of these tasks, and what it asks."""
    connection: Any = Noting(*rows)
    lock = connection.lock if shared else None
    return UnitOfWork([worker_task, worker_progress], connection, lock), connection.asked


# --- one row ----------------------------------------------------------------------------------


def test_a_row_is_loaded_once() -> None:
    unit, asked = unit_on(ROW)
    assert unit.get(worker_task, 7) == unit.get(worker_task, 7) == ROW
    assert asked == [("execute", f"{SELECT} WHERE task_id = ?", (7,))]
    assert (len(unit), unit.rows(worker_task)) == (1, [ROW])


def test_that_there_is_none_is_asked_once() -> None:
    unit, asked = unit_on(ROW)
    assert unit.get(worker_task, 8) is unit.get(worker_task, 8) is None
    assert asked == [("execute", f"{SELECT} WHERE task_id = ?", (8,))]
    assert (len(unit), unit.rows(worker_task)) == (1, [])


def test_beside_others_a_row_is_locked() -> None:
    unit, asked = unit_on(ROW, shared=True)
    assert unit.get(worker_task, 7) == ROW
    assert asked == [("execute", f"{SELECT} WHERE task_id = ? ORDER BY task_id FOR UPDATE", (7,))]


def test_beside_others_what_may_become_a_row_is_locked_and_looked_for_again() -> None:
    unit, asked = unit_on(ROW, shared=True)
    assert unit.get(worker_task, 8) is None
    look = ("execute", f"{SELECT} WHERE task_id = ? ORDER BY task_id FOR UPDATE", (8,))
    assert asked == [look, ("lock", ("worker_task 8",), ()), look]


def test_in_a_view_that_was_emptied_there_is_none() -> None:
    unit, asked = unit_on(ROW, shared=True)
    assert unit.get(worker_task, 7) == ROW
    asked.clear()
    unit.clear(worker_task)
    assert unit.get(worker_task, 7) is None
    assert asked == []


def test_without_a_connection_there_is_what_was_put() -> None:
    unit = UnitOfWork([worker_task])
    assert unit.get(worker_task, 7) is None
    unit.put(worker_task, 7, ROW)
    assert unit.get(worker_task, 7) is ROW
    unit.put(worker_task, 7, None)
    assert unit.get(worker_task, 7) is None
    assert unit.rows(worker_task) == []
    unit.flush()
    unit.expect([START, TaskStarted(8)])


def test_rows_that_are_let_go_are_loaded_again() -> None:
    unit, asked = unit_on(ROW)
    unit.get(worker_task, 7)
    unit.forget()
    assert len(unit) == 0
    assert unit.get(worker_task, 7) == ROW
    assert len(asked) == 2


# --- rows by their columns ------------------------------------------------------------------------


def test_rows_are_found_by_words_and_values() -> None:
    unit, asked = unit_on(ROW)
    before: list[int] = []
    unit.before_query = lambda: before.append(len(asked))
    words = (TaskStatus.SCHEDULED, TaskStatus.IN_PROGRESS)
    assert unit.find(worker_task, status=words, worker_id=1) == [ROW]
    assert before == [0]
    where = "WHERE (status = 'SCHEDULED' OR status = 'IN_PROGRESS') AND (worker_id = ?)"
    assert asked == [("execute", f"{SELECT} {where} ORDER BY task_id", (1,))]
    assert unit.get(worker_task, 7) == ROW
    assert len(asked) == 1


def test_all_rows_are_found() -> None:
    unit, asked = unit_on(ROW)
    assert unit.find(worker_task) == [ROW]
    assert asked == [("execute", f"{SELECT} ORDER BY task_id", ())]


def test_beside_others_only_the_first_can_be_looked_for() -> None:
    unit, asked = unit_on(ROW, shared=True)
    with pytest.raises(NotExclusive):
        unit.find(worker_task)
    assert asked == []
    assert unit.first(worker_task) == ROW
    assert asked == [("execute", f"{SELECT} ORDER BY task_id LIMIT 1 FOR UPDATE", ())]


def test_there_may_be_no_first() -> None:
    assert unit_on()[0].first(worker_task) is None
    assert UnitOfWork([worker_task]).first(worker_task) is None


def test_no_value_is_had_by_no_row() -> None:
    unit, asked = unit_on(ROW)
    assert unit.find(worker_task, status=(), worker_id=1) == []
    assert asked == []


def test_in_memory_rows_are_found_in_the_order_of_their_keys() -> None:
    unit = UnitOfWork([worker_task])
    rows = [replace(ROW, task_id=n, chunk_id=n % 2) for n in (3, 1, 2, 5)]
    for row in rows:
        unit.put(worker_task, row.task_id, row)
    assert [row.task_id for row in unit.find(worker_task)] == [1, 2, 3, 5]
    assert [row.task_id for row in unit.find(worker_task, chunk_id=(1, 7))] == [1, 3, 5]
    assert [row.task_id for row in unit.find(worker_task, chunk_id=1, status="?")] == []
    assert unit.first(worker_task, chunk_id=0) == rows[2]


# --- before events --------------------------------------------------------------------------------


def test_the_rows_of_events_are_loaded_together() -> None:
    unit, asked = unit_on(ROW)
    unit.expect([TaskStarted(8), START, TaskScheduled(9, 5, 0, 0), PROGRESS])
    assert asked == [
        ("execute", f"{SELECT} WHERE task_id IN (?, ?)", (7, 8)),
        ("execute", f"{worker_progress.select} WHERE worker_id = ?", (3,)),
    ]
    asked.clear()
    unit.expect([TaskStarted(8), START])
    assert asked == []


def test_the_rows_of_events_are_loaded_each_time() -> None:
    unit, asked = unit_on(ROW)
    for event in (START, PROGRESS, TaskStarted(8)):
        unit.expect([event])
    assert [keys for _, _, keys in asked] == [(7,), (3,), (8,)]


def test_beside_others_they_are_locked_before_and_what_is_created_too() -> None:
    unit, asked = unit_on(ROW, shared=True)
    unit.expect([TaskStarted(8), START, TaskScheduled(9, 5, 0, 0), PROGRESS])
    tasks = "WHERE task_id IN (?, ?, ?) ORDER BY task_id FOR UPDATE"
    workers = "WHERE worker_id = ? ORDER BY worker_id FOR UPDATE"
    assert asked == [
        ("lock", ("worker_task 7", "worker_task 8", "worker_task 9"), ()),
        ("execute", f"{SELECT} {tasks}", (7, 8, 9)),
        ("lock", ("worker_progress 3",), ()),
        ("execute", f"{worker_progress.select} {workers}", (3,)),
    ]
    asked.clear()
    unit.expect([TaskStarted(8), START])
    assert asked == []


def test_who_empties_a_view_is_exclusive() -> None:
    with pytest.raises(NotExclusive):
        unit_on(shared=True)[0].expect([TablesReset(False)])
    unit, asked = unit_on()
    unit.expect([TablesReset(False)])
    assert asked == []


def test_who_leaves_a_view_as_it_is_need_not_be_exclusive() -> None:
    kept = View("kept", Task, version=1)
    kept.cleared_by(TablesReset, when=lambda e: e.experiments)
    connection: Any = Noting()
    UnitOfWork([kept], connection, connection.lock).expect([TablesReset(False)])
    with pytest.raises(NotExclusive):
        UnitOfWork([kept], connection, connection.lock).expect([TablesReset(True)])


def test_nothing_is_loaded_of_a_view_that_was_emptied() -> None:
    unit, asked = unit_on(ROW)
    unit.clear(worker_task)
    unit.expect([START, PROGRESS])
    assert asked == [("execute", f"{worker_progress.select} WHERE worker_id = ?", (3,))]
    unit, asked = unit_on(ROW, shared=True)
    unit.clear(worker_task)
    unit.expect([START, PROGRESS])
    assert [sql for kind, sql, _ in asked if kind == "lock"] == [("worker_progress 3",)]
    unit, asked = unit_on(ROW)
    unit.clear(worker_task)
    unit.clear(worker_progress)
    unit.expect([START, PROGRESS])
    assert asked == []


def test_many_rows_are_loaded_part_by_part() -> None:
    count = 2 * KEYS + 1
    unit, asked = unit_on(*[replace(ROW, task_id=n) for n in range(count)])
    unit.expect([TaskStarted(n) for n in reversed(range(count))])
    assert [len(keys) for kind, _, keys in asked if kind == "execute"] == [KEYS, KEYS, 1]
    assert [row.task_id for row in unit.rows(worker_task)] == [*range(count)]


# --- events ------------------------------------------------------------------------------------


def test_an_event_of_no_view_changes_nothing() -> None:
    unit, asked = unit_on(ROW)
    unit.take_in(5, RunProgressed(5, 1, 0), 3_000_000)
    unit.flush()
    assert asked == []


def test_a_row_that_an_event_leaves_is_not_written() -> None:
    same = View("worker_task", Task, version=1)
    same.on(TaskStarted, lambda row, _: row)
    connection: Any = Noting(ROW)
    unit = UnitOfWork([same], connection)
    unit.take_in(5, START, 3_000_000)
    unit.flush()
    assert unit.get(same, 7) == ROW
    assert [kind for kind, _, _ in connection.asked] == ["execute"]


def test_an_event_may_delete_a_row() -> None:
    ended = View("worker_task", Task, version=1)
    ended.on(TaskStarted, lambda row, _: None)
    ended.put_by(TaskScheduled, lambda row, _: None, key=lambda e: e.task_id)
    connection: Any = Noting(ROW)
    unit = UnitOfWork([ended], connection)
    unit.take_in(5, START, 3_000_000)
    unit.take_in(6, TaskScheduled(8, 5, 0, 0), 3_000_000)
    assert unit.get(ended, 7) is None
    unit.flush()
    assert connection.asked[-1] == (
        "executemany",
        "DELETE FROM worker_task WHERE task_id = ?",
        [(7,)],
    )


def test_an_event_touches_rows_of_several_views_and_all_that_it_names() -> None:
    class Both(Row, frozen=True):
        run_id: int
        seen: int

    first, second = View("first", Both, version=1), View("second", Both, version=1)
    first.created_by(RunCreated, lambda e: Both(e.run_id, 0))
    second.created_by(RunCreated, lambda e: Both(e.run_id + 1, 1), key=lambda e: e.run_id + 1)
    unit = UnitOfWork([first, second])
    unit.take_in(5, RunCreated(1, 1, "run_1"), 3)
    set_by_fold = {"created_at": 3, "updated_at": 3, "position": 5}
    assert unit.rows(first) == [Both(1, 0, **set_by_fold)]
    assert unit.rows(second) == [Both(2, 1, **set_by_fold)]
    assert unit.get(second, 2) == Both(2, 1, **set_by_fold)


def test_what_is_remembered_is_what_will_be_loaded() -> None:
    class Best(Row, frozen=True):
        run_id: int
        loss: float

    best = View("best", Best, version=1)
    best.created_by(RunProgressed, lambda e: Best(e.run_id, e.current_chunk))
    unit = UnitOfWork([best])
    unit.take_in(5, RunProgressed(7, 1, 0), 3)
    assert [repr(row.loss) for row in unit.rows(best)] == ["1.0"]


# --- writing -------------------------------------------------------------------------------------


def test_one_row_is_upserted() -> None:
    unit, asked = unit_on(ROW)
    unit.take_in(5, START, 3_000_000)
    asked.clear()
    unit.flush()
    started = {"claim": 5, "attempts": 1, "position": 5}
    after = replace(ROW, status="IN_PROGRESS", updated_at=3_000_000, **started)
    assert asked == [("run", worker_task.upsert, worker_task.dump(after))]
    unit.flush()
    assert len(asked) == 1


def test_several_rows_are_inserted_in_the_order_of_their_keys() -> None:
    unit, asked = unit_on()
    rows = [replace(ROW, task_id=n) for n in (3, 1, 2)]
    for row in rows:
        unit.put(worker_task, row.task_id, row)
    unit.put(worker_task, 9, None)
    unit.put(worker_task, 8, None)
    unit.flush()
    assert asked == [
        ("insert", "worker_task", [worker_task.dump(rows[n]) for n in (1, 2, 0)]),
        ("executemany", worker_task.delete, [(8,), (9,)]),
    ]


def test_a_view_is_emptied_before_rows_are_written() -> None:
    unit, asked = unit_on(ROW)
    unit.put(worker_task, 7, ROW)
    unit.clear(worker_task)
    unit.put(worker_task, 8, replace(ROW, task_id=8))
    unit.flush()
    assert [(kind, sql) for kind, sql, _ in asked] == [
        ("run", "DELETE FROM worker_task"),
        ("run", worker_task.upsert),
    ]
    asked.clear()
    unit.flush()
    assert asked == []
    assert unit.get(worker_task, 7) == ROW  # as the table has it


def test_a_query_sees_what_was_written_before_it() -> None:
    unit, asked = unit_on(ROW)
    unit.put(worker_task, 7, ROW)
    unit.find(worker_task)
    assert [kind for kind, _, _ in asked] == ["run", "execute"]

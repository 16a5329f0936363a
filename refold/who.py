"""Who takes part: what each does, when it was heard of last, and whether it is alive."""

from collections.abc import Iterable
from typing import Any

from refold.eventstore import times
from refold.eventstore.event import decode_metadata
from refold.eventstore.log.past import PastStore
from refold.eventstore.log.store import EventStore
from refold.presence import Presence
from refold.projections.past.views import PastViews
from refold.projections.views import Views
from refold.rows import Row

RECENT = 10_000
"""How many of the last events are looked at for who acted."""

TASKS = (
    "SELECT 'worker-' || worker_id AS name, claim, updated_at, 'task ' || task_id || ': run ' || "
    "run_id || ', epoch ' || epoch || ', chunk ' || chunk_id AS does FROM worker_task "
    "WHERE status = 'IN_PROGRESS' ORDER BY task_id",
    "SELECT 'actor-' || actor_id AS name, claim, updated_at, 'task ' || task_id || ': pipeline ' "
    "|| pipeline_id || ', shard ' || shard_id AS does FROM actor_tasks "
    "WHERE status = 'in_progress' ORDER BY task_id",
)
PROGRESS = (
    "SELECT 'controller' AS name, task, status, updated_at FROM controller_progress",
    "SELECT 'worker-' || worker_id AS name, task, status, updated_at FROM worker_progress "
    "ORDER BY worker_id",
)
MEMBERS = (
    "SELECT name, status, joined, known_by, process, heard_at, updated_at FROM members "
    "WHERE status <> 'LEFT' ORDER BY name"
)


def who(views: Views | PastViews, presence: Presence | None) -> list[Row]:
    """Return the controller, the workers and the actors of which something is known.

    Each has its name (`who`), what it `does` and its `status`, as it has told; its tasks in
    progress (`on`); since when it does so (`since`) and when it was heard of last (`heard`);
    whether it is `alive` (None: nothing tells), how that is known (`known_by`: `lock`, `person`,
    `successor` or `nothing`; None: it does nothing, or it is the past), and the number of its
    `process`; and since when it is lost (`lost_since`).

    Args:
        views: of the store, now or as of a moment.
        presence: of this process; None: it is about the past, whose locks nobody knows.
    """
    found: dict[str, Row] = {}
    positions: dict[str, list[int]] = {}

    def entry(name: str, at: str) -> Row:
        new: Row = {
            "who": name,
            "does": None,
            "status": None,
            "on": None,
            "since": at,
            "heard": at,
            "alive": None,
            "known_by": None,
            "process": None,
            "lost_since": None,
        }
        row = found.setdefault(name, new)
        row["heard"] = max(row["heard"], at)
        return row

    for sql in PROGRESS:
        for told in views.select(sql):
            row = entry(told["name"], told["updated_at"])
            row |= {"does": told["task"], "status": told["status"]}
    for sql in TASKS:
        for task in views.select(sql):
            row = entry(task["name"], task["updated_at"])
            row["on"] = f"{row['on']}; {task['does']}" if row["on"] else task["does"]
            row["status"] = row["status"] or "IN_PROGRESS"
            positions.setdefault(task["name"], []).append(task["claim"])
    for member in views.select(MEMBERS):
        row = entry(member["name"], member["updated_at"])
        row["status"] = row["status"] or member["status"]
        if member["status"] == "JOINED":
            positions.setdefault(member["name"], []).append(member["joined"])
        elif member["name"] not in positions:  # else it has claimed something since
            row |= {
                "alive": False,
                "known_by": member["known_by"],
                "process": member["process"],
                "lost_since": member["updated_at"],
                "heard": times.to_text(times.within(member["heard_at"])),
            }
    for name, at in _heard(views.store).items():
        if name in found:
            found[name]["heard"] = max(found[name]["heard"], at)
    if presence is not None:
        for name, some in positions.items():
            found[name] |= _alive(presence, some)
    return list(found.values())


def _alive(presence: Presence, positions: Iterable[int]) -> Row:
    """Return what the locks of somebody show: that it is alive if one is held."""
    seen = presence.look(positions).values()
    for state, alive in (("held", True), ("free", False)):
        for one in seen:
            if one.state == state:
                return {"alive": alive, "known_by": "lock", "process": one.process}
    return {"known_by": "nothing"}


def _heard(store: EventStore | PastStore) -> dict[str, str]:
    """Return when each actor acted last, among the recent events."""
    head = store.head()
    with store.reading() as connection:
        found: list[tuple[str, Any]] = [
            (text, at)
            for text, at in connection.execute(
                "SELECT metadata, max(recorded_at) FROM events "
                "WHERE position > ? AND position <= ? GROUP BY metadata",
                (head - RECENT, head),
            )
        ]
    heard: dict[str, int] = {}
    for text, at in found:
        actor = decode_metadata(text).actor
        if actor is not None:
            heard[actor] = max(heard.get(actor, 0), at)
    return {actor: times.to_text(times.within(at)) for actor, at in heard.items()}

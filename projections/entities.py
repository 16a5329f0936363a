"""All views, and the entities that their rows are about, by the words that people use."""

from collections.abc import Iterable
from typing import Any

from refold.eventstore.arguments import argument, excerpt
from refold.eventstore.errors import InvalidCommand, NotFound
from refold.projections.evals import actor_tasks, contexts, pipeline_requests, pipelines
from refold.projections.experiments import experiments, ids
from refold.projections.fit import (
    controller_progress,
    interactive_control,
    run_metrics,
    runs,
    worker_progress,
    worker_task,
)
from refold.projections.liveness import members, retries
from refold.projections.rapidfire import RAPIDFIRE
from refold.projections.view import Key, View

ENTITIES: dict[str, View[Any]] = {
    "experiment": experiments,
    "run": runs,
    "task": worker_task,
    "controller": controller_progress,
    "worker": worker_progress,
    "request": interactive_control,
    "context": contexts,
    "pipeline": pipelines,
    "actor_task": actor_tasks,
    "pipeline_request": pipeline_requests,
    "member": members,
}

ALL: tuple[View[Any], ...] = (*ENTITIES.values(), run_metrics, retries, ids, *RAPIDFIRE)
"""The views of refold itself."""


def own_views(views: Iterable[View[Any]]) -> tuple[View[Any], ...]:
    """Return those that are not refold's but a user's own: one that fails hinders no other."""
    return tuple(view for view in views if view not in ALL)


def entity_of(view: View[Any]) -> str:
    """Return the word for what a view's rows are about; for a view of one's own, its name."""
    return next((word for word, known in ENTITIES.items() if known.name == view.name), view.name)


def key_of(view: View[Any], key: Any) -> Key:
    """Return the key of a row that somebody has named, NumPy's numbers as plain ones.

    Raises:
        InvalidCommand: it can be none: it is of a wrong type, too large or too long.
    """
    key = argument(view.key, key, view.key_type)
    try:
        view.check_key(key)
    except ValueError as error:
        raise InvalidCommand(f"{view.name}: {error}") from None
    return key


def check_column(view: View[Any], column: str) -> None:
    """Refuse a column whose history is not known: that a row does not hold, as folded from events.

    Raises:
        NotFound: it is none, or is joined in by an SQL view, as `config_leaf` is.
    """
    if column not in view.columns:
        raise NotFound(
            f"the rows of {view.name}, as they are folded, have no column {excerpt(column)}: take "
            f"one of {', '.join(view.columns)}"
        )


def view_of(entity: str, views: Iterable[View[Any]]) -> View[Any]:
    """Return the view whose rows are about an entity; the name of a view is taken too.

    Raises:
        NotFound: there is no such entity.
    """
    known = {view.name: view for view in views}
    view = ENTITIES.get(entity) if isinstance(entity, str) else None
    entity = entity if isinstance(entity, str) else excerpt(entity)
    found = known.get(entity) if view is None else known.get(view.name)
    if found is None:
        raise NotFound(
            f"there is no entity {excerpt(entity)}: take one of {', '.join((*ENTITIES, *known))}"
        )
    return found

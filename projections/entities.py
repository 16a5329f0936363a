"""All views, and the entities that their rows are about, by the words that people use."""

from collections.abc import Iterable
from typing import Any

import msgspec

from refold.eventstore.errors import InvalidCommand, NotFound
from refold.eventstore.log.transaction import is_utf8
from refold.projections.evals import actor_tasks, contexts, pipeline_requests, pipelines
from refold.projections.experiments import experiments, ids
from refold.projections.fit import (
    controller_progress,
    interactive_control,
    runs,
    worker_progress,
    worker_task,
)
from refold.projections.rapidfire import RAPIDFIRE
from refold.projections.view import View

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
}

ALL: tuple[View[Any], ...] = (*ENTITIES.values(), ids, *RAPIDFIRE)
"""The views of refold itself."""


def entity_of(view: View[Any]) -> str:
    """Return the word for what a view's rows are about; for a view of one's own, its name."""
    return next((word for word, known in ENTITIES.items() if known.name == view.name), view.name)


def check_key(view: View[Any], key: Any) -> None:
    """Refuse what can be no key of a view.

    Raises:
        InvalidCommand: it is of a wrong type, or too large.
    """
    try:
        msgspec.convert(key, view.key_type)
    except msgspec.ValidationError as error:
        raise InvalidCommand(f"{view.name}: {key!r} is no {view.key}: {error}") from None
    if isinstance(key, str) and not is_utf8(key):
        raise InvalidCommand(f"{view.name}: {key!r} is no {view.key}: it holds a lone surrogate")
    if isinstance(key, int) and not -(2**63) <= key < 2**63:
        raise InvalidCommand(f"{view.name}: {key} is no {view.key}: it has more than 64 bits")


def check_column(view: View[Any], column: str) -> None:
    """Refuse a column whose history is not known: that a row does not hold, as folded from events.

    Raises:
        NotFound: it is none, or is joined in by an SQL view, as `config_leaf` is.
    """
    if column not in view.columns:
        raise NotFound(
            f"the rows of {view.name}, as they are folded, have no column {column!r}: take one of "
            f"{', '.join(view.columns)}"
        )


def view_of(entity: str, views: Iterable[View[Any]]) -> View[Any]:
    """Return the view whose rows are about an entity; the name of a view is taken too.

    Raises:
        NotFound: there is no such entity.
    """
    known = {view.name: view for view in views}
    view = ENTITIES.get(entity) if isinstance(entity, str) else None
    found = known.get(str(entity) if view is None else view.name)
    if found is None:
        raise NotFound(
            f"there is no entity {entity!r}: take one of {', '.join((*ENTITIES, *known))}"
        )
    return found

"""The words for what rows are about, and which keys and columns a view has."""

import pytest

from refold.eventstore import Id
from refold.eventstore.errors import InvalidCommand, NotFound
from refold.projections import ALL, Row, View
from refold.projections.entities import ENTITIES, check_column, entity_of, key_of, view_of
from refold.projections.experiments import ids
from refold.projections.fit import runs
from refold.projections.rapidfire import RAPIDFIRE


class Own(Row, frozen=True):
    name: str
    size: Id | None = None


own = View("own", Own, version=1)
VIEWS = [*ALL, own]

WORDS = {
    "experiment": "experiments",
    "run": "runs",
    "task": "worker_task",
    "controller": "controller_progress",
    "worker": "worker_progress",
    "request": "interactive_control",
    "context": "contexts",
    "pipeline": "pipelines",
    "actor_task": "actor_tasks",
    "pipeline_request": "pipeline_requests",
    "member": "members",
}


def test_every_view_has_its_word() -> None:
    assert {word: view.name for word, view in ENTITIES.items()} == WORDS
    others = {"ids", "retries", "run_metrics", *(view.name for view in RAPIDFIRE)}
    assert {view.name for view in ALL} == {*WORDS.values(), *others}


@pytest.mark.parametrize(("word", "name"), WORDS.items())
def test_a_view_is_found_by_its_word_and_by_its_name(word: str, name: str) -> None:
    view = ENTITIES[word]
    assert view_of(word, VIEWS) is view_of(name, VIEWS) is view
    assert entity_of(view) == word
    assert entity_of(View(name, view.row, version=2)) == word


def test_a_view_without_a_word_goes_by_its_name() -> None:
    assert view_of("own", VIEWS) is own
    assert entity_of(own) == "own"
    assert entity_of(ids) == "ids"


@pytest.mark.parametrize("entity", ["runs_folded", "own2", "", 5, None, ["run"]])
def test_no_such_entity(entity: str) -> None:
    with pytest.raises(NotFound) as caught:
        view_of(entity, VIEWS)
    assert str(caught.value) == (
        f"there is no entity {str(entity)!r}: take one of "
        f"{', '.join([*WORDS, *(view.name for view in VIEWS)])}"
    )


def test_a_view_that_a_store_lacks_is_not_found() -> None:
    with pytest.raises(NotFound, match="there is no entity 'run': take one of"):
        view_of("run", [own])


@pytest.mark.parametrize(
    ("view", "key"),
    [(runs, 5), (runs, -(2**63)), (runs, 2**63 - 1), (own, "a"), (own, ""), (own, "ü")],
)
def test_a_key(view: View[Row], key: object) -> None:
    assert key_of(view, key) == key


@pytest.mark.parametrize(
    ("view", "key", "reason"),
    [
        (runs, "5", "run_id is '5': Expected `int`, got `str`"),
        (runs, None, "run_id is None: Expected `int`, got `null`"),
        (runs, -(2**63) - 1, f"runs: {-(2**63) - 1} is no run_id: it has more than 64 bits"),
        (runs, 2**63, f"runs: {2**63} is no run_id: it has more than 64 bits"),
        (own, 5, "name is 5: Expected `str`, got `int`"),
        (
            own,
            "\ud800",
            r"own: '\ud800' is not a valid name: it holds a NUL or a lone surrogate, which SQL "
            "text cannot keep",
        ),
    ],
)
def test_no_key(view: View[Row], key: object, reason: str) -> None:
    with pytest.raises(InvalidCommand) as caught:
        key_of(view, key)
    assert str(caught.value) == reason


def test_a_column() -> None:
    for column in runs.columns:
        check_column(runs, column)


@pytest.mark.parametrize("column", ["config_leaf", "", "run_name "])
def test_no_column(column: str) -> None:
    with pytest.raises(NotFound) as caught:
        check_column(own, column)
    assert str(caught.value) == (
        f"the rows of own, as they are folded, have no column {column!r}: take one of "
        f"name, size, created_at, updated_at, position"
    )

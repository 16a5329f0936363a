"""The models: nothing is wrong in them, and what must not be is found."""

import shutil

import pytest

from tools.proof import MUTANTS, NEEDED, ONCE, ONCE_MUTANTS, WHOLE, search

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("gcc") is None, reason=NEEDED
)


def test_no_state_of_the_model_is_wrong() -> None:
    found = search(WHOLE[0])
    assert found.wrong is None
    assert found.states > 10_000


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_model_is_caught(mutant: str) -> None:
    assert search((*WHOLE[0], mutant)).wrong is not None


def test_a_message_is_carried_out_once() -> None:
    assert search(ONCE, model="once").wrong is None


@pytest.mark.parametrize("mutant", ONCE_MUTANTS)
def test_a_mutant_of_messages_is_caught(mutant: str) -> None:
    assert search((*ONCE, mutant), model="once").wrong is not None

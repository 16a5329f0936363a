"""Every example in the documentation runs."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import refold

TOP = Path(__file__).parent.parent
PAGES = [
    TOP / "README.md",
    TOP / "docs" / "how-to.md",
    TOP / "docs" / "liveness.md",
    TOP / "docs" / "ui.md",
]

# Those that import rapidfireai, where it is not installed: make rapidfire.
RAPIDFIRE = {f"refold.rapidfire.{name}" for name in ("evals", "fit", "layer", "package")}
ABSENT = RAPIDFIRE if find_spec("rapidfireai") is None else set[str]()


def modules() -> Iterator[ModuleType]:
    yield refold
    for info in pkgutil.walk_packages(refold.__path__, "refold."):
        if info.name != "refold.__main__" and info.name not in ABSENT:
            yield importlib.import_module(info.name)


EXAMPLES = [
    example
    for module in modules()
    for example in doctest.DocTestFinder(exclude_empty=True).find(module)
    if example.examples
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_in_order(page: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", TOP / ".ci" / "quickstart", page],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_example_in_a_docstring_runs(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert tried
    assert not failed


@pytest.mark.parametrize("name", refold.__all__)
def test_every_public_name_is_in_the_docs(name: str) -> None:
    api = (TOP / "docs" / "api.md").read_text("utf-8")
    assert f"refold.{name}\n" in api or hasattr(refold.eventstore.errors, name)

"""`docs/reference.md` lists what the code defines."""

from tools.reference import PAGE, reference


def test_the_reference_is_true() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run `make generate` (tools/reference.py)"

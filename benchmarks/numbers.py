"""Numbers as people read them."""

from collections.abc import Sequence


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    return f"{number(min(values))} – {number(max(values))}"

"""The numbers among a run's metrics."""

from typing import Any, cast


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers; those of groups by names such as `validation.loss`.

    >>> numbers({"loss": 0.25, "validation": {"loss": 0.5, "best": True}, "note": "warm"})
    {'loss': 0.25, 'validation.loss': 0.5}
    """
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            inner = numbers(cast("dict[str, Any]", value))
            found |= {f"{name}.{within}": number for within, number in inner.items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found

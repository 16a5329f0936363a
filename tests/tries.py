"""How many examples a property is tried with."""

import os

from hypothesis import settings

LONGER = int(os.environ.get("REFOLD_SOAK", "1"))
"""How many times as many examples as in `make test` are tried; `make soak` sets it."""

LEAST = int(os.environ.get("REFOLD_EXAMPLES", "0"))
"""How many examples each property is tried with at least; `make soak EXAMPLES=n` sets it."""

SEED = int(os.environ.get("REFOLD_SEED", "0"))
"""What chooses the moments of kills and the like; `make soak` draws it."""


def tries(count: int, engine: str = "sqlite") -> settings:
    """Try so many examples, and a quarter of them on PostgreSQL, where each waits for a server."""
    return settings(max_examples=max((count if engine == "sqlite" else count // 4) * LONGER, LEAST))

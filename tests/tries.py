"""How many examples a property is tried with: fewer where each waits for a server."""

from hypothesis import settings


def tries(engine: str, count: int) -> settings:
    """Try so many examples on SQLite, and a quarter of them on PostgreSQL."""
    return settings(max_examples=count if engine == "sqlite" else count // 4)

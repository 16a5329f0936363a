"""The engine for several machines: a PostgreSQL server. Needs `refold[postgres]`."""

from refold.eventstore.postgres.engine import PostgresEngine

__all__ = ["PostgresEngine"]

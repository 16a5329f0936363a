"""The engine for several machines: a PostgreSQL server. Needs `refold[postgres]`."""

from eventstore.postgres.engine import PostgresEngine

__all__ = ["PostgresEngine"]

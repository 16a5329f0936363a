"""The embedded engine: one SQLite file."""

from eventstore.sqlite.engine import Durability, SqliteEngine

__all__ = ["Durability", "SqliteEngine"]

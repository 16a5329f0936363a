"""The embedded engine: one SQLite file."""

from eventstore.sqlite.engine import SqliteEngine

__all__ = ["SqliteEngine"]

"""The embedded engine: one SQLite file."""

from refold.eventstore.sqlite.engine import SqliteEngine

__all__ = ["SqliteEngine"]

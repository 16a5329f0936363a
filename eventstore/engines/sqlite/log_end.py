"""The end of the log in a file."""

from collections.abc import Callable

from refold.eventstore.engines.engine import Writer
from refold.eventstore.engines.log_end import ExclusiveEnd, projections_of


class SqliteEnd(ExclusiveEnd):
    """What a store knows of the log's end; true as long as nobody else has committed."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock)
        self._changes: int | None = None

    def look(self, writer: Writer) -> None:
        """Bring everything up to date, at the start of a transaction."""
        changes = writer.changes()
        self.fresh = self._changes is None or writer is not self.writer or changes != self._changes
        if not self.fresh:
            return
        self.forget()
        last = writer.execute(
            "SELECT position, recorded_at FROM events ORDER BY position DESC LIMIT 1"
        )
        self.position, self._recorded_at = last[0] if last else (0, 0)
        self.projections = projections_of(writer)
        self.writer, self._changes = writer, changes

    def forget(self) -> None:
        """Know nothing, so that the next transaction looks."""
        self._changes = None
        self._streams.clear()
        self._changed.clear()

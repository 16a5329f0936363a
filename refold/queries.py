"""SQL of one's own on the views: `db.db.execute("SELECT …")`."""

from collections.abc import Sequence
from typing import Any

from refold.eventstore.errors import InvalidQuery
from refold.projections.views import ReadableViews

_PARAMETERS = (int, float, str, bytes, bytearray, memoryview, type(None))


class Queries:
    """Answers SELECTs as dicts and refuses everything that would write."""

    def __init__(self, views: ReadableViews) -> None:
        self._views = views

    def execute(
        self,
        query: str,
        params: Sequence[Any] = (),
        commit: bool = False,
        fetch: bool = True,
    ) -> list[dict[str, Any]]:
        """Run a query with `?` parameters and return its rows as dicts.

        `commit` and `fetch` are taken for the sake of older callers and change nothing.

        Raises:
            WriteRefused: the statement would write: the views are rebuilt from events.
            InvalidQuery: the SQL or the parameters are wrong.

        >>> from refold import RfDb
        >>> RfDb("example.db").db.execute("SELECT count(*) AS n FROM runs")
        [{'n': 0}]
        """
        if (
            not isinstance(query, str)
            or isinstance(params, str)
            or not isinstance(params, Sequence)
        ):
            raise InvalidQuery(
                f"{query!r} with {params!r}: pass SQL text, and a tuple or list of parameters"
            )
        for value in params:
            if not isinstance(value, _PARAMETERS) or (
                isinstance(value, int) and not -(2**63) <= value < 2**63
            ):
                raise InvalidQuery(
                    f"{query!r}: parameter {value!r} is no value of SQL: pass int (64 bits), "
                    f"float, str, bytes, bool or None"
                )
        return self._views.query(query, tuple(params))

    def close(self) -> None:
        """Close the store."""
        self._views.close()

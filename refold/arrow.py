"""Views and the log as Arrow tables, for pandas, Polars, DuckDB and Parquet."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from refold.eventstore.pages import Page
from refold.export.columns import Column, columns_of, misfit
from refold.extras import needed_for
from refold.face import Face

if TYPE_CHECKING:
    import pyarrow


def to_arrow(face: Face, what: str) -> "pyarrow.Table":
    """Return a view, or the log, as an Arrow table; see `Face.to_arrow`.

    Raises:
        NotFound: there is no such view.
        MissingPackage: pyarrow is not installed.
    """
    return batches(face, what).read_all()


def batches(face: Face, what: str) -> "pyarrow.RecordBatchReader":
    """Return the same as a reader of record batches: the events are never in memory all at once.

    Raises:
        NotFound: there is no such view.
        MissingPackage: pyarrow is not installed.
        DamagedEvent, InvalidView: when a batch is reached that holds what its columns do not allow.
    """
    with needed_for("an Arrow table", "arrow"):
        import pyarrow
    columns, pages = columns_of(face, what)
    schema = pyarrow.schema([(column.name, _type(column)) for column in columns])

    def made() -> "Iterator[pyarrow.RecordBatch]":
        for rows in pages:
            yield _batch(what, rows, schema)

    return pyarrow.RecordBatchReader.from_batches(schema, made())


def _type(column: Column) -> "pyarrow.DataType":
    import pyarrow

    types: dict[Any, pyarrow.DataType] = {
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        bool: pyarrow.bool_(),
        str: pyarrow.string(),
        bytes: pyarrow.binary(),
        datetime: pyarrow.timestamp("us", tz="UTC"),
    }
    return types[column.type]


def _batch(what: str, rows: Page, schema: "pyarrow.Schema") -> "pyarrow.RecordBatch":
    import pyarrow

    types: list[Any] = schema.types
    columns = zip(*rows, strict=True) if rows else [()] * len(types)
    try:
        arrays: list[Any] = [
            pyarrow.array(values, of) for values, of in zip(columns, types, strict=True)
        ]
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise misfit(what, rows, error) from error
    return pyarrow.record_batch(arrays, schema=schema)  # pyright: ignore[reportUnknownMemberType]

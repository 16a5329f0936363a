"""A view, or the events, as Parquet."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from refold.eventstore.errors import needed_for
from refold.eventstore.log.reading import Page
from refold.export.columns import Column, Source, columns_of, misfit

if TYPE_CHECKING:
    import pyarrow


def to_arrow(face: Source, what: str) -> "pyarrow.Table":
    """Return a view, or the log, as an Arrow table; see `Face.to_arrow`.

    Raises:
        NotFound: there is no such view.
        MissingPackage: pyarrow is not installed.
    """
    return batches(face, what).read_all()


def batches(face: Source, what: str) -> "pyarrow.RecordBatchReader":
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


def write(face: Source, what: str, file: BinaryIO) -> int:
    """Write a view, or the events, as Parquet, with the types that `to_arrow` gives them.

    Args:
        face: of a store, or of one as of a moment.
        what: the name of a view, such as `runs`; or `events`.
        file: open for writing bytes.

    Returns:
        how many rows were written.

    Raises:
        NotFound: there is no such view.
        MissingPackage: pyarrow is not installed.
        DamagedEvent, InvalidView: when a row is reached that is not what its columns say.

    >>> from refold import RfDb
    >>> from refold.export import arrow
    >>> with RfDb("example.db") as db, open("experiments.parquet", "wb") as file:
    ...     experiment_id = db.create_experiment("digits")
    ...     arrow.write(db, "experiments", file)
    1
    """
    with needed_for("Parquet", "arrow"):
        from pyarrow.parquet import ParquetWriter
    rows = batches(face, what)
    count = 0
    with ParquetWriter(file, rows.schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(batch)
            count += batch.num_rows
    return count

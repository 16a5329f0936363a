"""Views and the log as tables for other programs: CSV, Arrow, Parquet."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from refold.eventstore import times
from refold.eventstore.errors import needed_for
from refold.eventstore.paging import Page
from refold.export.columns import Column, Kind, Source, columns_of, misfit, wide

if TYPE_CHECKING:
    import pyarrow


def write_csv(face: Source, what: str, file: BinaryIO) -> int:
    """Write a view, or the events, as CSV in UTF-8, the names of the columns first.

    Times are as in `2026-01-31T12:00:00.000000Z`, bytes in Base64. NULL is an empty field, and an
    empty text is `""`. Text that a spreadsheet would take for a formula has a `'` before it.

    Args:
        face: of a store, or of one as of a moment.
        what: the name of a view, such as `runs`; or `events`.
        file: open for writing bytes.

    Returns:
        how many rows were written.

    Raises:
        NotFound: there is no such view.
        DamagedEvent, InvalidView: when a row is reached that is not what its columns say.

    >>> from refold import RfDb
    >>> from refold.export.tables import write_csv
    >>> with RfDb("example.db") as db, open("experiments.csv", "wb") as file:
    ...     experiment_id = db.create_experiment("digits")
    ...     write_csv(db, "experiments", file)
    1
    """
    columns, pages = columns_of(face, what)
    file.write(_line(_quoted(column.name) for column in columns))
    writers = [_WRITERS[column.type] for column in columns]
    count = 0
    for rows in pages:
        try:
            lines = [
                _line(
                    "" if value is None else write_cell(value)
                    for value, write_cell in zip(row, writers, strict=True)
                )
                for row in rows
            ]
        except (TypeError, ValueError, OverflowError) as error:
            raise misfit(what, rows, error) from error
        file.writelines(lines)
        count += len(rows)
    return count


def _line(fields: Iterable[str]) -> bytes:
    return (",".join(fields) + "\n").encode()


def _quoted(text: str) -> str:
    if text and not _SPECIAL.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _harmless(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: one may run programs."""
    return f"'{text}" if text[:1] in _FORMULA else text


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_SPECIAL = re.compile('[",\r\n]')


_WRITERS: dict[Kind, Callable[[Any], str]] = {
    int: str,
    float: repr,
    bool: lambda flag: "true" if flag else "false",
    str: lambda text: _quoted(_harmless(text)),
    bytes: lambda content: b64encode(content).decode(),
    datetime: times.to_iso,
}


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


def write_parquet(face: Source, what: str, file: BinaryIO) -> int:
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
    >>> from refold.export.tables import write_parquet
    >>> with RfDb("example.db") as db, open("experiments.parquet", "wb") as file:
    ...     experiment_id = db.create_experiment("digits")
    ...     write_parquet(db, "experiments", file)
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


# --- data frames ----------------------------------------------------------------------------

Library = Literal["pandas", "polars"]


def runs_frame(face: Source, ids: Sequence[int], library: Library | None) -> Any:
    """Return runs with a column for each parameter and metric as a data frame.

    Args:
        face: of a store, or of one as of a moment.
        ids: which runs, in order.
        library: whose; None: pandas' if it is installed, else polars'.

    Raises:
        MissingPackage: it is not installed.
    """
    if library is None:
        library = "polars" if find_spec("pandas") is None and find_spec("polars") else "pandas"
    with needed_for("a data frame", "frames"):
        made: Any = import_module(library)
    columns, pages = wide(face, ids)
    rows = [row for page in pages for row in page]
    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    make = _pandas if library == "pandas" else _polars
    return made.DataFrame(
        {
            column.name: make(made, list(some), column.type)
            for column, some in zip(columns, values, strict=True)
        }
    )


def _pandas(pandas: Any, values: list[Any], kind: Kind) -> Any:
    if kind is datetime:
        return pandas.to_datetime(pandas.Series(values, dtype="Int64"), unit="us", utc=True)
    # Those that know of missing values.
    names: dict[Any, str] = {int: "Int64", float: "float64", bool: "boolean", str: "object"}
    return pandas.Series(values, dtype=names[kind])


def _polars(polars: Any, values: list[Any], kind: Kind) -> Any:
    if kind is datetime:
        return polars.Series(values, dtype=polars.Datetime("us", "UTC"))
    names: dict[Any, str] = {int: "Int64", float: "Float64", bool: "Boolean", str: "String"}
    return polars.Series(values, dtype=getattr(polars, names[kind]))

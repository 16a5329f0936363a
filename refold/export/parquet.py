"""A view, or the events, as Parquet."""

from typing import BinaryIO

from refold.arrow import batches
from refold.extras import needed_for
from refold.face import Face


def write(face: Face, what: str, file: BinaryIO) -> int:
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
    >>> from refold.export import parquet
    >>> with RfDb("example.db") as db, open("experiments.parquet", "wb") as file:
    ...     experiment_id = db.create_experiment("digits")
    ...     parquet.write(db, "experiments", file)
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

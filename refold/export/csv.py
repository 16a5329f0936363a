"""A view, or the events, as CSV."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, BinaryIO

from refold.eventstore.log.recorded import EPOCH, MICROSECOND
from refold.export.columns import Kind, Source, columns_of, misfit


def write(face: Source, what: str, file: BinaryIO) -> int:
    """Write a view, or the events, as CSV in UTF-8, the names of the columns first.

    Times are as in `2026-01-31T12:00:00.000000Z`, bytes in Base64. NULL is an empty field, and an
    empty text is `""`.

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
    >>> from refold.export import csv
    >>> with RfDb("example.db") as db, open("experiments.csv", "wb") as file:
    ...     experiment_id = db.create_experiment("digits")
    ...     csv.write(db, "experiments", file)
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


_SPECIAL = re.compile('[",\r\n]')


def _time(microseconds: int) -> str:
    time = (EPOCH + microseconds * MICROSECOND).replace(tzinfo=None)
    return f"{time.isoformat(timespec='microseconds')}Z"


_WRITERS: dict[Kind, Callable[[Any], str]] = {
    int: str,
    float: repr,
    bool: lambda flag: "true" if flag else "false",
    str: lambda text: _quoted(str(text)),
    bytes: lambda content: b64encode(content).decode(),
    datetime: _time,
}

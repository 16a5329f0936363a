"""A backup of a store: one file, consistent, made while others read and write."""

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from refold.eventstore import errors
from refold.eventstore.engines.sqlite.connection import SqliteConnection, fail
from refold.eventstore.engines.sqlite.file import place_of
from refold.eventstore.engines.sqlite.identity import new_tag
from refold.eventstore.progress import ProgressBar

PAGES = 4096
"""How many are copied at a time: 16 MiB, in some 10 ms, after which an interrupt is heard."""


def back_up(source: SqliteConnection, to: str | os.PathLike[str], progress: bool | None) -> None:
    """Copy a database to a new file, which is there as a whole or not at all.

    Args:
        source: in a transaction, so that all of it is of one moment.
        to: a path where nothing is.
        progress: show a progress bar; None: only on a terminal.

    Raises:
        InvalidCommand: something is there.
        NotAStore: nothing can be there.
        StoreFailed: it cannot be written, such as to a full disk.
    """
    path = place_of(to).absolute()
    taken = errors.InvalidCommand(f"{path} is there already: pass the path of a new file")
    if path.exists():
        raise taken
    [(count,)] = source.execute("PRAGMA page_count")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with (
            closing(sqlite3.connect(draft, isolation_level=None)) as target,
            ProgressBar("backing up", count, progress, unit="page") as bar,
        ):
            source.raw.backup(
                target, pages=PAGES, progress=lambda _, left, of: bar.update(of - left - bar.n)
            )
            copy = SqliteConnection(target, str(path))
            # So that no write-ahead log of the store is taken for one of the backup.
            copy.execute("UPDATE store SET tags = ?", (new_tag(copy),))
        _sync(draft)
        try:
            os.link(draft, path)  # which, unlike a rename, does not take the place of another
        except FileExistsError:
            raise taken from None
        except OSError:  # a file system without links
            os.rename(draft, path)
        _sync(path.parent)
    except sqlite3.Error as error:
        fail(str(path), error)
    except OSError as error:
        raise errors.StoreFailed(f"{path}: no backup could be written: {error}") from error
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{draft}{end}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

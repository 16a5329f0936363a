"""The file of a store: where and how large it is, how SQLite keeps it, whether it is sound."""

import os
import shutil
import sqlite3
from pathlib import Path

from refold.cli.checkup import FEW, Finding, Findings
from refold.cli.output import size
from refold.eventstore.engines.engine import Reader

FAR = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "lustre"})
"""File systems of other machines, over most of which SQLite's locks do not work."""

LARGE_WAL = 256 * 2**20


def check_file(path: Path) -> Findings:
    """Look at the file from outside."""
    wal = Path(f"{path.resolve()}-wal")
    wal_size = wal.stat().st_size if wal.exists() else 0
    free = shutil.disk_usage(path.parent).free
    yield Finding("fact", "engine", f"SQLite {sqlite3.sqlite_version}")
    yield Finding(
        "fact",
        "file",
        f"{path}: {size(path.stat().st_size)}, write-ahead log {size(wal_size)}, "
        f"{size(free)} free on the disk",
    )
    if (names := path.stat().st_nlink) > 1:
        yield Finding(
            "note",
            "file",
            f"it is one of {names} names of the same file (hard links), each with a write-ahead "
            f"log of its own",
            "open it by this name only; of a link that was made as a backup, make a copy: "
            "refold backup",
        )
    if wal_size > LARGE_WAL:
        yield Finding(
            "note",
            "write-ahead log",
            f"it has grown to {size(wal_size)}: some process has been reading for long",
            "end readers that hang; it shrinks with the next commit",
        )
    if free < 100 * 2**20:
        yield Finding("problem", "disk", f"only {size(free)} are free", "make room")
    kind = _file_system(path.resolve())
    if kind in FAR:
        yield Finding(
            "problem",
            "disk",
            f"the file is on a network file system ({kind}), where locks may not work: two "
            "machines can damage it",
            "move it to a local disk, or: refold copy to a PostgreSQL",
        )
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        yield Finding("note", "rights", "it can only be read from here")


def _file_system(path: Path) -> str | None:
    """Return the kind of file system that holds a path, where the system tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    found = (line.split()[1:3] for line in mounts)
    holding = [(where, kind) for where, kind in found if path.is_relative_to(where)]
    return max(holding, key=lambda mount: len(mount[0]), default=(None, None))[1]


def check_settings(connection: Reader) -> Findings:
    """Look at how SQLite keeps the file."""
    names = ("journal_mode", "page_size", "user_version")
    mode, page, log_format = (connection.execute(f"PRAGMA {name}")[0][0] for name in names)
    yield Finding("fact", "settings", f"journal {mode}, pages of {page} B, log format {log_format}")
    if mode != "wal":
        yield Finding(
            "problem",
            "settings",
            f"the journal mode is {mode}: readers and writers wait for each other",
            "sqlite3 FILE 'PRAGMA journal_mode = WAL', with no process using the file",
        )


def check_integrity(connection: Reader, *, thorough: bool) -> Findings:
    """Have SQLite look for damage in its own file."""
    pragma = "integrity_check" if thorough else "quick_check"
    said = [text for (text,) in connection.execute(f"PRAGMA {pragma}")]
    if said == ["ok"]:
        yield Finding("ok", "integrity", f"the file is sound ({pragma})")
        return
    for text in said[:FEW]:
        yield Finding(
            "problem",
            "integrity",
            text,
            "keep a copy of the file and of its -wal; then: sqlite3 FILE .recover",
        )

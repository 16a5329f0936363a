"""What a query of a user's own may do: read."""

import sqlite3

_TELLING_PRAGMAS = {  # of what their argument names
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
}
_SETTING_PRAGMAS = {  # which an argument would change
    "application_id",
    "compile_options",
    "data_version",
    "database_list",
    "freelist_count",
    "journal_mode",
    "page_count",
    "page_size",
    "user_version",
}
_READING_ACTIONS = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


def only_reads(action: int, name: str | None, value: str | None, *_: str | None) -> int:
    """Allow or deny a step of a statement, as SQLite asks while it compiles it."""
    if action == sqlite3.SQLITE_PRAGMA:
        reads = name in _TELLING_PRAGMAS or (name in _SETTING_PRAGMAS and value is None)
    else:
        reads = action in _READING_ACTIONS
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY

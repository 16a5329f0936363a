"""What SQL of `tables.sql` and of queries is called in PostgreSQL, and what a query may be."""

import re
from collections.abc import Collection
from functools import lru_cache
from itertools import count

from refold.eventstore.errors import InvalidQuery, WriteRefused

_QUERIES = {"SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN", "SHOW"}
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*(\w*)", re.DOTALL)


def refuse_writing(sql: str) -> None:
    """Refuse a statement that is no query; what a query calls, the server refuses.

    A read-only transaction lets through what changes the session or ends the transaction.

    Raises:
        WriteRefused: it would do something else than read.
    """
    match = _FIRST_WORD.match(sql)
    word = match[1].upper() if match else ""
    if word and word not in _QUERIES:
        raise WriteRefused(would_write(sql))


def would_write(sql: str) -> str:
    """Return what to say of a statement that would write."""
    return (
        f"{sql.strip()!r} would write: the views are rebuilt from events and only events change "
        f"them; use a method such as set_run_status()"
    )


_TEXT = (
    r"\b[eE]'(?:[^'\\]|\\.|'')*'"  # an escape string
    r"""|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w*)\$.*?\$\1\$"""
    r"|--[^\n]*|/\*(?:/\*.*?\*/|.)*?\*/"
)
_MARKS = re.compile(rf"{_TEXT}|\?|%", re.DOTALL)

_TYPES = {
    "INTEGER": "BIGINT",
    "REAL": "DOUBLE PRECISION",
    "BLOB": "BYTEA",
    # Ordered by bytes, as in SQLite, whatever the database's own order is.
    "TEXT": 'TEXT COLLATE "C"',
}
# A type stands behind the name of its column; the same word may be a name itself.
_DIFFERENT = re.compile(
    rf"{_TEXT}|(?<=[\w\"])(?P<space>[ \t]+)(?P<type>{'|'.join(_TYPES)})\b"
    rf"|(?P<rowid>\)\s*WITHOUT\s+ROWID)",
    re.DOTALL | re.IGNORECASE,
)

_REFUSAL = re.compile(
    r"CREATE TRIGGER IF NOT EXISTS (\w+) BEFORE (UPDATE|DELETE) ON (\w+)\s+"
    r"BEGIN\s+SELECT RAISE\(ABORT, ('[^']*')\);\s+END;"
)
_BYTES = re.compile(r"\bx'([0-9A-F]*)'")
_PLACE = re.compile(r"instr\((substr\(\w+, \d+\)), (x'\w+')\)")
_AS_TEXT = re.compile(r"CAST\((substr\(\w+, \d+(?:, position\(.*?\) - 1)?\)) AS TEXT\)")
# An INSERT that replaces a row is a thing of SQLite.
_REPLACEMENT = re.compile(r"CREATE TRIGGER IF NOT EXISTS \w+ BEFORE INSERT ON \w+\s+WHEN ")


# Our own statements name a table right behind one of these words; no user's statement comes here.
_NAMED = re.compile(
    rf"{_TEXT}|\b(?:FROM|JOIN|INTO|(?<!DO )(?<!FOR )UPDATE|ALTER TABLE)\s+(?P<table>\w+)(?![\w.])"
    r"(?P<call>\()?",
    re.DOTALL,
)
_NAMED_HERE = re.compile(
    r"\b(\w+)\s*(?:\([\w, ]*\)\s*)?AS\s+(?:MATERIALIZED\s+)?\(\s*(?:SELECT|INSERT)"
)

# What a user has written, a query or a definition, names the store's tables as the docs do.
PATH = "SELECT set_config('search_path', quote_ident(?) || ', pg_temp', true)"

POSITIONS = "event_positions"
"""The sequence that positions are drawn from."""


def quoted(name: str) -> str:
    """Return a name as a statement writes it, whatever it is made of."""
    return '"' + name.replace('"', '""') + '"'


def whole(schema: str, name: str, temporary: Collection[str] = ()) -> str:
    """Return the whole name of something in a schema; see `qualified`."""
    return f"{'pg_temp' if name in temporary else quoted(schema)}.{name}"


# A hash may be a whole configuration, which is too long for an index that has an order.
_BY_HASH = re.compile(r"(CREATE INDEX \w+ ON \w+) \((\w+_hash)\)")


@lru_cache(maxsize=4096)
def qualified(sql: str, schema: str, temporary: frozenset[str] = frozenset()) -> str:
    """Return a statement of ours with the whole names of its tables and of the sequence.

    So it means the same on every connection, also on one that a pooler has lent to others before.

    Args:
        sql: the statement.
        schema: the store's.
        temporary: tables that temporary ones of the same name take the place of.
    """
    here = set(_NAMED_HERE.findall(sql))

    def named(found: re.Match[str]) -> str:
        table = found["table"]
        if table is None:
            if found[0] != f"'{POSITIONS}'":
                return found[0]
            return "'" + whole(schema, POSITIONS).replace("'", "''") + "'"
        if found["call"] or table in here or table.startswith("pg_"):
            return found[0]
        before = found[0][: found.start("table") - found.start()]
        return before + whole(schema, table, temporary)

    return _NAMED.sub(named, sql)


@lru_cache(maxsize=4096)
def query(sql: str) -> bytes:
    """Return a statement with `?` for parameters as psycopg takes it.

    Raises:
        InvalidQuery: the text cannot be sent.
    """
    try:
        if "\0" in sql:
            raise ValueError("it holds a NUL character")
        sql.encode()
    except ValueError as error:
        raise InvalidQuery(f"{sql.strip()!r}: {error}") from None

    def translated(token: re.Match[str]) -> str:
        return "%s" if token[0] == "?" else token[0].replace("%", "%%")

    return _MARKS.sub(translated, sql).encode()


@lru_cache(maxsize=16)
def numbered(sql: str) -> bytes:
    """Return a statement of ours with `?` for parameters as libpq takes it: `$1`, `$2` …"""
    numbers = count(1)
    return _MARKS.sub(
        lambda token: f"${next(numbers)}" if token[0] == "?" else token[0], sql
    ).encode()


def digests_needed(unchecked: int) -> str:
    """Return the statement that refuses events without a digest behind a position."""
    # Events that are there already are not looked at.
    return (
        f"ALTER TABLE events ADD CONSTRAINT events_have_digests "
        f"CHECK (position <= {unchecked} OR (digest IS NOT NULL AND length(digest) = 16)) NOT VALID"
    )


def definition(sql: str) -> list[str]:
    """Return the statements that define here what a statement of `tables.sql` defines."""
    if "TRIGGER IF NOT EXISTS events_have_digests" in sql:
        return []  # see `digests_needed`
    if _REPLACEMENT.match(sql):
        return []
    refusal = _REFUSAL.match(sql)
    if refusal is not None:
        name, verb, table, message = refusal.groups()
        verbs = "DELETE OR TRUNCATE" if verb == "DELETE" else verb
        return [
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION {message}; END $$",
            f"CREATE TRIGGER {name} BEFORE {verbs} ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()",
        ]

    sql = _PLACE.sub(r"position(\2 IN \1)", sql)
    sql = _BYTES.sub(r"'\\x\1'::bytea", sql)
    sql = _AS_TEXT.sub(r"convert_from(\1, 'UTF8')", sql)
    sql = _BY_HASH.sub(r"\1 USING hash (\2)", sql)

    def here(found: re.Match[str]) -> str:
        if found["type"]:
            return found["space"] + _TYPES[found["type"].upper()]
        return ")" if found["rowid"] else found[0]

    return [_DIFFERENT.sub(here, sql)]

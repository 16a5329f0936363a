"""A change in one message: a function of the server writes what was decided from memory.

The function lies in the store's schema. Its name bears its own version and those of the views, so
releases that know others stand beside each other. The store's owner makes it at its first use.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import OperationalError
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from refold.eventstore import times
from refold.eventstore.engines.engine import Moved, Placed, Projections, Table
from refold.eventstore.engines.log_end import LEVEL, EventRow
from refold.eventstore.engines.postgres import dialect
from refold.eventstore.engines.postgres.server import Raw

VERSION = 1
"""Of the function's text."""

# What is the same for all stores. In the order of `SharedEnd`: lock what the decision was made on,
# then the stream, which gives the transaction its id, and only then draw the position. The block
# with an exception clause is a subtransaction, whose id is later than the position: see settled.py.
#
# Plans are made once for a session, without looking at how large tables are: all rows are looked up
# by their keys, so with `enable_seqscan` off a plan is right for any size.
FUNCTION = """
CREATE FUNCTION {name}(
    _lock bigint, _projections text, _clock bigint, _stream text, _type text,
    _schema_version integer, _data text, _metadata text,
    _tables integer[], _keys text[], _positions bigint[], _rows text[],
    _id_lock integer[], _command_id text, _command text, _result text)
RETURNS bigint[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $function$
#variable_conflict use_variable
DECLARE
    _seen CONSTANT integer := cardinality(_tables);
    _row text[];
    _position bigint;
    _version bigint;
    _recorded_at bigint;
    _previous bigint;
    _digest bytea;
    _time text;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(_lock);
    IF (SELECT max(s.level) FROM {store} AS s) > {level}
       OR (SELECT string_agg(concat_ws(' ', p.name, p.version, p.position), ',' ORDER BY p.name)
           FROM {projections} AS p) IS DISTINCT FROM _projections THEN
        RETURN ARRAY[0];
    END IF;
    IF _command_id IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(_id_lock[1], _id_lock[2]);
        IF EXISTS (SELECT FROM {commands} AS c WHERE c.command_id = _command_id) THEN
            RETURN ARRAY[0];
        END IF;
    END IF;
    FOR _i IN 1 .. _seen LOOP
        CASE _tables[_i]
{checks}
        END CASE;
        IF NOT FOUND THEN
            RETURN ARRAY[_i];
        END IF;
    END LOOP;
    SELECT s.version, s.position, s.digest INTO _version, _previous, _digest
    FROM {streams} AS s WHERE s.stream = _stream FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO {streams} AS s (stream, version, position) VALUES (_stream, 0, 0)
        ON CONFLICT (stream) DO UPDATE SET version = s.version
        RETURNING s.version, s.position, s.digest INTO _version, _previous, _digest;
    END IF;
    _recorded_at := greatest(
        coalesce(_clock, {now}),
        (SELECT e.recorded_at FROM {events} AS e ORDER BY e.position DESC LIMIT 1));
    IF _recorded_at NOT BETWEEN {first} AND {last} THEN
        RETURN ARRAY[0];
    END IF;
    _version := _version + 1;
    _position := nextval({sequence});
    _digest := substr(sha256(
        coalesce(_digest, decode(repeat('00', 16), 'hex'))
        || int8send(_position) || int8send(_version) || int8send(_recorded_at)
        || int4send(_schema_version)
        || int4send(octet_length(_stream)) || convert_to(_stream, 'UTF8')
        || int4send(octet_length(_type)) || convert_to(_type, 'UTF8')
        || int4send(octet_length(_data)) || convert_to(_data, 'UTF8')
        || int4send(octet_length(_metadata)) || convert_to(_metadata, 'UTF8')), 1, 16);
    _time := to_char(
        timestamp '1970-01-01' + _recorded_at / 1000000 * interval '1 second'
        + _recorded_at % 1000000 * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US');
    BEGIN
        INSERT INTO {events} ({event_columns})
        VALUES (_position, _stream, _version, nullif(_previous, 0), _type, _schema_version, _data,
                _metadata, _recorded_at, _digest);
        UPDATE {streams} AS s SET version = _version, position = _position, digest = _digest
        WHERE s.stream = _stream;
        FOR _i IN 1 .. _seen LOOP
            CONTINUE WHEN _rows[_i] IS NULL;
            _row := _rows[_i]::text[];
            CASE _tables[_i]
{updates}
            END CASE;
        END LOOP;
        IF _command_id IS NOT NULL THEN
            INSERT INTO {commands} (command_id, command, first, last, result)
            VALUES (_command_id, _command, _position, _position, _result);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        RAISE;
    END;
    RETURN ARRAY[_position, _version, _recorded_at];
END $function$"""

CHECK = """
        WHEN {index} THEN
            PERFORM FROM {table} AS t
            WHERE t.{key} = _keys[_i]::{key_type} AND t.position = _positions[_i] FOR UPDATE;"""

UPDATE = """
            WHEN {index} THEN
                UPDATE {table} AS t SET {columns}, updated_at = _time, position = _position
                WHERE t.{key} = _keys[_i]::{key_type};"""

TYPES = """
    SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = to_regnamespace(%s) AND a.attnum > 0 AND NOT a.attisdropped"""


class Function(NamedTuple):
    """The function for a store, as it is called and made."""

    name: str
    """With its schema."""
    call: bytes


def function_for(schema: str, tables: Sequence[Table]) -> Function:
    """Return the function that writes rows of some tables."""
    what = repr((FUNCTION, CHECK, UPDATE, LEVEL, schema, [tuple(table) for table in tables]))
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    name = dialect.whole(schema, f"one_message_{VERSION}_{digest}")
    marks = ", ".join(f"${number}" for number in range(1, 17))
    return Function(name, f"SELECT {name}({marks})".encode())


def definition(
    name: str, schema: str, tables: Sequence[Table], types: Mapping[tuple[str, str], str]
) -> str:
    """Return the statement that makes the function.

    Args:
        name: its name.
        schema: the store's.
        tables: those that it writes to.
        types: of their columns, by table and column.
    """
    checks: list[str] = []
    updates: list[str] = []
    for index, table in enumerate(tables):
        key, *columns, _, _ = table.columns
        known = {
            "index": index,
            "table": dialect.whole(schema, table.name),
            "key": key,
            "key_type": types[table.name.lower(), key.lower()],
        }
        checks.append(CHECK.format(**known))
        values = (
            f"{column} = _row[{number}]::{types[table.name.lower(), column.lower()]}"
            for number, column in enumerate(columns, 1)
        )
        updates.append(UPDATE.format(**known, columns=", ".join(values)))
    log = ("events", "streams", "commands", "projections", "store")
    return FUNCTION.format(
        name=name,
        level=LEVEL,
        now=times.NOW_ON_POSTGRES,
        first=times.FIRST,
        last=times.LAST,
        sequence="'" + dialect.whole(schema, dialect.POSITIONS).replace("'", "''") + "'",
        event_columns=", ".join(EventRow._fields),
        checks="".join(checks),
        updates="".join(updates),
        **{table: dialect.whole(schema, table) for table in log},
    )


def text_of(projections: Projections) -> str:
    """Return the views that a store holds in the words that the function compares."""
    views = sorted(projections.items())
    return ",".join(
        f"{name} {version}" if position is None else f"{name} {version} {position}"
        for name, (version, position) in views
    )


def array(values: Iterable[Any]) -> str:
    """Return values as PostgreSQL writes an array of text."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        # The text itself, also of a word, whose `str` may be another.
        text = str.__str__(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    return float.__repr__(value) if isinstance(value, float) else str(int(value))


Statement = tuple[bytes, Sequence[bytes | None]]


def encoded(value: Any) -> bytes | None:
    """Return a parameter as libpq takes it.

    Raises:
        ValueError: it is text that holds what PostgreSQL cannot.
    """
    if value is None:
        return None
    text = str(value).encode()
    if b"\0" in text:  # at which libpq would end it
        raise ValueError("it holds a NUL character")
    return text


def ask_together(raw: Raw, statements: Sequence[Statement], needed: int) -> list[PGresult]:
    """Send statements in one message, and return the results of the first of them.

    They are not prepared by name, so a pooler may stand before the server.

    Args:
        raw: the connection.
        statements: each with its values.
        needed: how many of them must succeed; what becomes of the others is of no account.

    Raises:
        psycopg.Error: one of these has failed; those behind it were not carried out.
    """
    pgconn = raw.pgconn
    found: list[PGresult] = []
    try:
        pgconn.enter_pipeline_mode()
        for text, values in statements:
            pgconn.send_query_params(text, values)
        pgconn.pipeline_sync()
        raw.wait(_results(pgconn, found))
        pgconn.exit_pipeline_mode()
    except BaseException as error:
        raw.close()
        if not (isinstance(error, Exception) and len(found) >= needed):
            raise
    for result in found[:needed]:
        if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            raise error_from_result(result)
    return found[:needed]


def _results(pgconn: PGconn, found: list[PGresult]) -> PQGen[None]:
    while pgconn.flush():
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    while True:
        while pgconn.is_busy():
            if (yield Wait.R):
                pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            if pgconn.status == ConnStatus.BAD:
                raise OperationalError(pgconn.get_error_message())
        elif result.status == ExecStatus.PIPELINE_SYNC:
            return
        else:
            found.append(result)


def outcome_of(result: PGresult) -> Placed | Moved:
    """Return what the function says: three numbers, or one that tells what has moved."""
    answer = result.get_value(0, 0)
    assert answer is not None
    numbers = [int(number) for number in answer.strip(b"{}").split(b",")]
    if len(numbers) == 1:
        return Moved(numbers[0] - 1 if numbers[0] else None)
    return Placed(*numbers)

"""The schema of a store: whether there is one, and how it is made."""

import psycopg
from psycopg import sql

from refold.eventstore import errors, schema
from refold.eventstore.postgres import dialect
from refold.eventstore.postgres.connect import Raw
from refold.eventstore.postgres.failures import FAILURES, fail
from refold.eventstore.postgres.place import Place

LOG_FORMAT = 1  # of the tables of the log, not of events or views
MARK = "refold, log format "  # the comment on the table of events: tells a store from other schemas

WHAT_IS_THERE = """
    SELECT obj_description(to_regclass(quote_ident(%(schema)s) || '.events'), 'pg_class'),
           (SELECT string_agg(relname, ', ') FROM (
               SELECT relname FROM pg_class
               WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s)) LIMIT 5) AS first),
           to_regnamespace(quote_ident(%(schema)s)) IS NOT NULL"""


def prepare(raw: Raw, place: Place) -> None:
    """Make the schema and the tables of the log, unless they are there.

    Any number of processes may do so at once.

    Raises:
        NotAStore: the schema holds something else.
        StoreTooNew: a newer refold wrote it.
        AccessDenied: the user may not create the schema, or may not use it.
    """
    encoding = raw.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise errors.NotAStore(
            f"{place.name}: the database's encoding is {encoding}, which cannot hold all text: "
            f"pass one that was created with ENCODING 'UTF8'"
        )
    try:
        if not _is_store(raw, place):
            with raw.transaction():
                raw.execute("SET TRANSACTION READ WRITE")
                raw.execute("SELECT pg_advisory_xact_lock(%s)", (place.lock,))
                if not _is_store(raw, place):  # another process may have been first
                    _create(raw, place)
    except FAILURES as error:
        try:
            fail(place.name, error)
        except errors.InvalidQuery as invalid:
            raise errors.StoreFailed(f"{place.name}: {error}: see the cause") from invalid


def _create(raw: Raw, place: Place) -> None:
    name = sql.Identifier(place.schema)
    try:
        if not _there(raw, place)[2]:
            raw.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        raw.execute("CREATE SEQUENCE event_positions")
        for statement in schema.statements(schema.section("log")):
            for definition in dialect.definition(statement):
                raw.execute(definition.encode())
        mark = sql.Literal(f"{MARK}{LOG_FORMAT}")
        raw.execute(sql.SQL("COMMENT ON TABLE events IS {}").format(mark))
    except psycopg.errors.InsufficientPrivilege as error:
        raise errors.AccessDenied(
            f"{place.name}: {error.diag.message_primary}: there is no store in schema "
            f"{place.schema!r} yet, and this user may not make one: have an administrator open it "
            f"once, or run CREATE SCHEMA {name.as_string(raw)} AUTHORIZATION "
            f"{sql.Identifier(raw.info.user).as_string(raw)}"
        ) from error


def _there(raw: Raw, place: Place) -> tuple[str | None, str | None, bool]:
    found = raw.execute(WHAT_IS_THERE, {"schema": place.schema}).fetchone()
    assert found is not None
    return found


def _is_store(raw: Raw, place: Place) -> bool:
    mark, tables, _ = _there(raw, place)
    number = "" if mark is None else mark.removeprefix(MARK)
    if number != mark and number.isdecimal():
        log_format = int(number)
        if log_format > LOG_FORMAT:
            raise errors.StoreTooNew(
                f"{place.name} has log format {log_format}, this refold reads up to {LOG_FORMAT}: "
                f"upgrade refold"
            )
        return True
    if tables:
        raise errors.NotAStore(
            f"{place.name}: schema {place.schema!r} holds something else ({tables}): pass another "
            f"one as ?schema=name; refold keeps its own"
        )
    return False

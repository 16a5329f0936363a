"""The server of a store: which one it is, how it is set, what one may do there."""

from refold.cli.checkup import ALLOWED_SKEW, Finding, Findings, check_times
from refold.cli.output import size
from refold.eventstore import times
from refold.eventstore.engines.engine import Engine, Reader
from refold.eventstore.engines.postgres.engine import PostgresEngine

FACTS = f"""
    SELECT current_setting('server_version') AS version, current_database() AS database,
           current_schema() AS schema, current_user AS user,
           pg_database_size(current_database()) AS all_, pg_is_in_recovery() AS follows,
           (SELECT sum(pg_total_relation_size(oid)) FROM pg_class
            WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p'))::bigint
           AS own,
           {times.NOW_ON_POSTGRES} AS now,
           has_table_privilege('events', 'INSERT') AS may_append,
           (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS others"""

SETTINGS = ("fsync", "full_page_writes", "data_checksums", "server_encoding", "max_connections")


def check_server(engine: Engine, connection: Reader) -> Findings:
    """Look at the server."""
    [facts] = engine.query(FACTS, ())
    version, database, schema, user, all_, follows, own, now, may_append, others = facts.values()
    skew = abs(times.now() - now)
    yield Finding("fact", "engine", f"PostgreSQL {version}")
    yield Finding(
        "fact",
        "server",
        f"schema {schema} of {size(own or 0)} in database {database} of {size(all_)}, as {user}, "
        f"{others} connections to the database",
    )
    if follows:
        yield Finding("note", "server", "it is a replica: it can only be read, and may lag")
    elif not may_append:
        yield Finding("note", "rights", f"{user} may read the store and not append")
    if skew > ALLOWED_SKEW:
        yield Finding(
            "note",
            "clock",
            f"this machine's clock and the server's differ by {skew / times.SECOND:.1f} s: times "
            f"such as --at 5m are off by as much",
            "set the clocks by NTP",
        )
    yield from check_times(connection, now)


def check_way(engine: Engine) -> Findings:
    """Look whether something stands between this machine and the server."""
    assert isinstance(engine, PostgresEngine)
    if engine.pooled:
        yield Finding(
            "note",
            "pooler",
            "a pooler stands before the server: each command takes some more statements, none is "
            "prepared, and subscriptions look for events every 100 ms instead of being told",
            "where that matters, pass the URL of the server itself",
        )


def check_settings(connection: Reader) -> Findings:
    """Look at how the server is set."""
    found = {
        name: connection.execute("SELECT current_setting(?, true)", (name,))[0][0]
        for name in SETTINGS
    }
    yield Finding("fact", "settings", ", ".join(f"{name} {value}" for name, value in found.items()))
    for name in ("fsync", "full_page_writes"):
        if found[name] == "off":
            yield Finding(
                "problem",
                "settings",
                f"{name} is off: a power cut can lose what was committed, or damage it",
                f"have an administrator turn {name} on",
            )

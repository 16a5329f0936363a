"""A connection as the store needs it."""

from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types.numeric import Int8Dumper

from refold.eventstore.postgres.failures import fail_to_connect
from refold.eventstore.postgres.place import Place

Raw = psycopg.Connection[tuple[Any, ...]]

# A writer whose host has gone without a word holds its locks until the server finds out: after some
# 15 s, half of what others wait by default.
SETTINGS = """
    SELECT set_config('search_path', quote_ident(%(schema)s) || ', pg_temp', false),
           set_config('lock_timeout', %(lock_timeout)s, false),
           set_config('default_transaction_read_only', 'on', false),
           set_config('standard_conforming_strings', 'on', false),
           set_config('transform_null_equals', 'off', false),
           set_config('array_nulls', 'on', false),
           set_config('extra_float_digits', '1', false),
           set_config('tcp_keepalives_idle', '5', false),
           set_config('tcp_keepalives_interval', '5', false),
           set_config('tcp_keepalives_count', '2', false),
           set_config('tcp_user_timeout', '15000', false),
           CASE WHEN current_setting('synchronous_commit') = 'off'
                THEN set_config('synchronous_commit', 'on', false) END"""


class _IntegerDumper(Int8Dumper):
    """A bool is 0 or 1, as in SQLite."""

    def dump(self, obj: Any) -> Buffer | None:
        return super().dump(int(obj))


class _NumberLoader(Loader):
    """What SQL computes is a plain number, as in SQLite."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        try:
            return int(text)
        except ValueError:
            return float(text)


def connect(place: Place, timeout: float) -> Raw:
    """Open a connection.

    Raises:
        StoreUnreachable: no server answers.
        AccessDenied: it does not know the user or the password.
        NotAStore: it has no such database.
    """
    try:
        raw = psycopg.connect(place.conninfo, autocommit=True)
        _configure(raw, place, timeout)
    except (psycopg.Error, UnicodeError, OSError) as error:
        fail_to_connect(place.name, error)
    return raw


def _configure(raw: Raw, place: Place, timeout: float) -> None:
    # Reading is the default; a write transaction says that it is one.
    raw.adapters.register_dumper(bool, _IntegerDumper)
    raw.adapters.register_loader("numeric", _NumberLoader)
    raw.execute("SET client_encoding = 'UTF8'")
    milliseconds = max(1, min(round(timeout * 1000), 2**31 - 1))
    raw.execute(SETTINGS, {"schema": place.schema, "lock_timeout": str(milliseconds)})

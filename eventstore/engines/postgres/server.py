"""Where a store is on a server, a connection as it needs one, and how its schema is made."""

import hashlib
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from zlib import crc32

import msgspec
import psycopg
from psycopg import sql
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8Dumper, NumericBinaryLoader

from refold.eventstore import errors
from refold.eventstore.digests import key_id, log_key
from refold.eventstore.engines.engine import Values
from refold.eventstore.engines.log_end import LOG_FORMAT, STORE, StoreRow, new_store
from refold.eventstore.engines.postgres import dialect
from refold.eventstore.engines.postgres.failures import (
    FAILURES,
    fail,
    fail_to_connect,
    raise_interrupt,
)
from refold.eventstore.errors import NotAStore
from refold.eventstore.sql import section, statements

DEFAULT_SCHEMA = "refold"

# The URL may say otherwise. The first keeps a wrong address from hanging, the others find out that
# a server is gone without a word; `SETTINGS` in below has the server find that out of us.
CONNECTION_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
    "application_name": "refold",
}
FORCED = {"client_encoding": "UTF8"}

NAMES = 1024
"""How many locks on names there are: the server has room for some thousands altogether."""

LEAST = 2
"""Seconds that a server is given to let us in; libpq knows whole ones, and no fewer."""

SECRETS = ("password", "sslpassword")


class Address(msgspec.Struct, frozen=True):
    """What a URL says."""

    conninfo: str
    """For libpq."""
    schema: str
    name: str
    """The URL without the password, for messages."""

    def __repr__(self) -> str:
        return f"Address({self.name!r})"

    def within(self, seconds: float) -> str:
        """Return it for libpq, with so much time to connect at most, all hosts together."""
        given = conninfo_to_dict(self.conninfo)
        hosts = str(given.get("hostaddr") or given.get("host") or "").count(",") + 1
        allowed = max(LEAST, int(seconds / hosts))
        asked = str(given["connect_timeout"])
        if not asked.isdecimal() or 0 < int(asked) <= allowed:  # 0: for ever
            return self.conninfo
        return make_conninfo(self.conninfo, connect_timeout=allowed)

    @property
    def channel(self) -> str:
        """Where commits are announced; cut to what PostgreSQL takes, a shared one does no harm."""
        return f"refold {self.schema}".encode()[:63].decode(errors="ignore")

    @property
    def lock(self) -> int:
        """The key of the advisory lock on the store; its locks on names are of the lower half."""
        digest = hashlib.sha256(f"refold {self.schema}".encode()).digest()
        return int.from_bytes(digest[:8], signed=True)

    def name_lock(self, name: str) -> tuple[int, int]:
        """Return the two keys of the advisory lock on a name; the first is the same for all."""
        return self.lock >> 32, crc32(name.encode()) % NAMES


def address_of(url: str) -> Address:
    """Return where a URL leads: `postgresql://user@host/database?schema=name`.

    Raises:
        NotAStore: it is not such a URL.
    """
    try:
        url.encode()
        parts = urlsplit(url)
        _check_credentials(parts)
        options = [(option.partition("=")[0], option) for option in parts.query.split("&")]
        schemas = [option.partition("=")[2] for name, option in options if name == "schema"]
        schema = unquote(schemas[-1], errors="strict") if schemas else DEFAULT_SCHEMA
        # All else goes to libpq as it is.
        others = "&".join(option for name, option in options if name != "schema")
        dsn = urlunsplit(parts._replace(query=others))
        given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
        conninfo = make_conninfo("", **{**CONNECTION_DEFAULTS, **given, **FORCED})
    except (psycopg.Error, ValueError) as error:
        raise NotAStore(f"this URL cannot be read: {str(error).strip()}") from None
    if (
        not schema
        or "\0" in schema
        or len(schema.encode()) > 63
        or schema.startswith("pg_")
        or schema == "$user"
    ):
        raise NotAStore(
            f"{schema!r} can be no schema: pass 1 to 63 bytes of text that do not begin with pg_"
        )
    user, at, host = parts.netloc.rpartition("@")
    shown = "&".join(option for name, option in options if name not in SECRETS)
    name = urlunsplit(parts._replace(netloc=f"{user.split(':')[0]}{at}{host}", query=shown))
    return Address(conninfo, schema, name)


def _check_credentials(parts: SplitResult) -> None:
    # A password with such a character in it would be taken for something else, and shown.
    credentials = parts.netloc.rpartition("@")[0]
    odd = "@" in credentials or "@" in parts.path or "@" in parts.fragment or " " in credentials
    query = any(option and "=" not in option for option in parts.query.split("&"))
    if odd or query or re.search("%(?![0-9a-fA-F]{2})", credentials):
        raise ValueError(
            "the user or the password holds a character that must be written as %XX, such as %40 "
            "for @"
        )


class Raw(psycopg.Connection[tuple[Any, ...]]):
    """A connection to a server, or to a pooler before it."""

    settings: tuple[tuple[str, Values], ...] = ()
    """What each transaction has to begin with: behind a pooler no setting outlives one."""
    deadline: float | None = None
    """When it has to have answered."""

    def __del__(self, *_: object) -> None:
        """Warn of nothing: one that an interrupt has lost is closed by libpq."""

    def wait(self, gen: PQGen[Any], *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer; see psycopg."""
        if self.deadline is not None:
            gen = _until(self.deadline, gen)
        return super().wait(gen, *args, **kwargs)

    @property
    def pooled(self) -> bool:
        """Whether a pooler stands before the server, which lends us another session each time."""
        return bool(self.settings)


def _until(deadline: float, gen: PQGen[Any]) -> PQGen[Any]:
    wanted = next(gen)
    while True:
        ready = yield wanted
        if not ready and time.monotonic() >= deadline:
            raise psycopg.errors.ConnectionTimeout("the server takes connections and says nothing")
        try:
            wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


# A writer whose host has gone without a word holds its locks until the server finds out: after some
# 15 s, half of what others wait by default.
#
# A pooler gives its connections numbers of its own, instead of the server process's. It lends the
# session to others, too, so there all of this holds for a transaction only.
SETTINGS = """
    SELECT pooled,
           set_config('lock_timeout', ?, pooled),
           set_config('default_transaction_read_only', 'on', pooled),
           set_config('standard_conforming_strings', 'on', pooled),
           set_config('transform_null_equals', 'off', pooled),
           set_config('array_nulls', 'on', pooled),
           set_config('extra_float_digits', '1', pooled),
           set_config('plan_cache_mode', 'force_custom_plan', pooled),
           set_config('tcp_keepalives_idle', '5', pooled),
           set_config('tcp_keepalives_interval', '5', pooled),
           set_config('tcp_keepalives_count', '2', pooled),
           set_config('tcp_user_timeout', '15000', pooled),
           CASE WHEN current_setting('synchronous_commit') = 'off'
                THEN set_config('synchronous_commit', 'on', pooled) END
    FROM (SELECT pg_backend_pid() <> ? AS pooled) AS given"""


class _IntegerDumper(Int8Dumper):
    """A bool is 0 or 1, as in SQLite."""

    def dump(self, obj: Any) -> Buffer | None:
        return super().dump(int(obj))


class _BinaryNumberLoader(NumericBinaryLoader):
    """The same, where it comes in binary."""

    def load(self, data: Buffer) -> Any:
        return _number(str(super().load(data)))


class _NumberLoader(Loader):
    """What SQL computes is a plain number, as in SQLite."""

    def load(self, data: Buffer) -> int | float:
        return _number(bytes(data))


def _number(text: str | bytes) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def connect(address: Address, timeout: float, deadline: float | None = None) -> Raw:
    """Open a connection.

    Args:
        address: where to.
        timeout: of the store: how long its writers wait for others.
        deadline: when it has to be open; None: after that timeout.

    Raises:
        StoreUnreachable: no server answers.
        AccessDenied: it does not know the user or the password.
        NotAStore: it has no such database.
    """
    begun = time.monotonic()
    deadline = max(begun + LEAST, begun + timeout if deadline is None else deadline)
    raw, handled = None, sys.exception()
    try:
        raw = Raw.connect(address.within(deadline - begun), autocommit=True)
        raw.deadline = deadline
        _configure(raw, timeout)
        raw.deadline = None
    except (psycopg.Error, UnicodeError, OSError) as error:
        if raw is not None:
            raw.close()
        raise_interrupt(error, handled)
        fail_to_connect(address.name, error)
    return raw


def _configure(raw: Raw, timeout: float) -> None:
    # Reading is the default; a write transaction says that it is one.
    raw.adapters.register_dumper(bool, _IntegerDumper)
    raw.adapters.register_loader("numeric", _NumberLoader)
    raw.adapters.register_loader("numeric", _BinaryNumberLoader)
    milliseconds = max(1, min(round(timeout * 1000), 2**31 - 1))
    settings = SETTINGS, (str(milliseconds), raw.info.backend_pid)
    found = raw.execute(dialect.query(SETTINGS), settings[1], prepare=False).fetchone()
    assert found is not None
    if found[0]:
        raw.settings = (settings,)
        raw.prepare_threshold = None


MARK = "refold, log format "  # the comment on the table of events: tells a store from other schemas

WHAT_IS_THERE = """
    SELECT obj_description(to_regclass(quote_ident(%(schema)s) || '.events'), 'pg_class'),
           (SELECT string_agg(relname, ', ') FROM (
               SELECT relname FROM pg_class
               WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s)) LIMIT 5) AS first),
           to_regnamespace(quote_ident(%(schema)s)) IS NOT NULL"""


def prepare(raw: Raw, address: Address, *, create: bool) -> StoreRow:
    """Make the schema and the tables of the log, or bring older ones to today's format.

    Any number of processes may do so at once.

    Returns:
        which log it is.

    Raises:
        NotAStore: the schema holds something else, or nothing and `create` is false.
        StoreTooNew: a newer refold wrote it.
        AccessDenied: the user may not create the schema, or may not use it.
    """
    encoding = raw.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise errors.NotAStore(
            f"{address.name}: the database's encoding is {encoding}, which cannot hold all text: "
            f"pass one that was created with ENCODING 'UTF8'"
        )
    try:
        log_format = _log_format(raw, address)
        if log_format == 0 and not create:
            raise errors.NotAStore(
                f"{address.name}: there is no store in schema {address.schema!r}"
            )
        if log_format < LOG_FORMAT:
            with _alone(raw, address):
                log_format = _log_format(raw, address)  # another process may have been first
                if log_format == 0:
                    _create(raw, address)
                elif log_format < LOG_FORMAT:
                    _upgrade(raw, address)
        store = _store_row(raw, address)
        key = log_key()
        if key is not None and store.key_id is None:
            with suppress(
                psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction
            ):
                with _alone(raw, address):
                    raw.execute(KEYED, (key_id(key),))
                store = _store_row(raw, address)
        return store
    except FAILURES as error:
        try:
            fail(address.name, error)
        except errors.InvalidQuery as invalid:
            raise errors.StoreFailed(f"{address.name}: {error}: see the cause") from invalid


KEYED = """
    UPDATE store SET key_id = %s, keyed_after = (SELECT coalesce(max(position), 0) FROM events)
    WHERE key_id IS NULL"""


@contextmanager
def _alone(raw: Raw, address: Address) -> Generator[None, None, None]:
    """Have the block write while nobody else does."""
    with raw.transaction():
        raw.execute("SET TRANSACTION READ WRITE")
        for statement, values in (*raw.settings, (dialect.PATH, (address.schema,))):
            raw.execute(dialect.query(statement), values)
        raw.execute("SELECT pg_advisory_xact_lock(%s)", (address.lock,))
        yield


def _store_row(raw: Raw, address: Address) -> StoreRow:
    found = raw.execute(dialect.qualified(STORE, address.schema).encode()).fetchone()
    assert found is not None
    return StoreRow._make(found)


def _begin_store(raw: Raw, unchecked: int) -> None:
    for statement in statements(section("store")):
        for definition in dialect.definition(statement):
            raw.execute(definition.encode())
    raw.execute("GRANT SELECT ON store TO PUBLIC")  # the schema says who may look into it
    names = ", ".join(StoreRow._fields)
    values = ", ".join(["%s"] * len(StoreRow._fields))
    raw.execute(
        f"INSERT INTO store ({names}) VALUES ({values})".encode(), new_store(unchecked, gaps=True)
    )
    raw.execute(dialect.digests_needed(unchecked).encode())
    raw.execute(sql.SQL("COMMENT ON TABLE events IS {}").format(sql.Literal(f"{MARK}{LOG_FORMAT}")))


def _upgrade(raw: Raw, address: Address) -> None:
    try:
        for table in (b"events", b"streams"):
            raw.execute(b"ALTER TABLE %s ADD COLUMN digest BYTEA" % table)
        found = raw.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
        assert found is not None
        _begin_store(raw, found[0])
    except psycopg.errors.InsufficientPrivilege as error:
        raise errors.AccessDenied(
            f"{address.name}: the log is of an older format, and only its owner may bring it to "
            f"format {LOG_FORMAT}: have the owner open the store once "
            f"({error.diag.message_primary})"
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise errors.StoreReadOnly(
            f"{address.name}: the log is of an older format, and this server can only be read: "
            f"open the store on its primary once, with this refold"
        ) from error


def _create(raw: Raw, address: Address) -> None:
    name = sql.Identifier(address.schema)
    try:
        if not _there(raw, address)[2]:
            raw.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        raw.execute(f"CREATE SEQUENCE {dialect.POSITIONS}".encode())
        for statement in statements(section("log")):
            for definition in dialect.definition(statement):
                raw.execute(definition.encode())
        _begin_store(raw, 0)
    except psycopg.errors.InsufficientPrivilege as error:
        raise errors.AccessDenied(
            f"{address.name}: {error.diag.message_primary}: there is no store in schema "
            f"{address.schema!r} yet, and this user may not make one: have an administrator open "
            f"it once, or run CREATE SCHEMA {name.as_string(raw)} AUTHORIZATION "
            f"{sql.Identifier(raw.info.user).as_string(raw)}"
        ) from error


def _there(raw: Raw, address: Address) -> tuple[str | None, str | None, bool]:
    found = raw.execute(WHAT_IS_THERE, {"schema": address.schema}).fetchone()
    assert found is not None
    return found


def _log_format(raw: Raw, address: Address) -> int:
    """Return the format of the log that is there; 0: there is none, and one can be made."""
    mark, tables, _ = _there(raw, address)
    number = "" if mark is None else mark.removeprefix(MARK)
    if number != mark and number.isdecimal():
        log_format = int(number)
        if log_format > LOG_FORMAT:
            raise errors.StoreTooNew(
                f"{address.name} has log format {log_format}, this refold reads up to {LOG_FORMAT}"
                f": upgrade refold"
            )
        return log_format
    if tables:
        raise errors.NotAStore(
            f"{address.name}: schema {address.schema!r} holds something else ({tables}): pass "
            f"another one as ?schema=name; refold keeps its own"
        )
    return 0

"""Where a store is: a server, a database, and a schema in it."""

import hashlib
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from eventstore.errors import NotAStore

DEFAULT_SCHEMA = "refold"

# The URL may say otherwise. The first keeps a wrong address from hanging, the others find out that
# a server is gone without a word; `SETTINGS` in connect.py has the server find that out of us.
CONNECTION_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
    "application_name": "refold",
}

SECRETS = ("password", "sslpassword")


class Place(msgspec.Struct, frozen=True):
    """What a URL says."""

    conninfo: str
    """For libpq."""
    schema: str
    name: str
    """The URL without the password, for messages."""

    @property
    def channel(self) -> str:
        """Where commits are announced; cut to what PostgreSQL takes, a shared one does no harm."""
        return f"refold {self.schema}".encode()[:63].decode(errors="ignore")

    @property
    def lock(self) -> int:
        """The key of the advisory lock on the store; its locks on names are of the lower half."""
        digest = hashlib.sha256(f"refold {self.schema}".encode()).digest()
        return int.from_bytes(digest[:8], signed=True)


def place_of(url: str) -> Place:
    """Return where a URL leads: `postgresql://user@host/database?schema=name`.

    Raises:
        NotAStore: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        options = [(option.partition("=")[0], option) for option in parts.query.split("&")]
        schemas = [option.partition("=")[2] for name, option in options if name == "schema"]
        schema = unquote(schemas[-1]) if schemas else DEFAULT_SCHEMA
        # All else goes to libpq as it is.
        others = "&".join(option for name, option in options if name != "schema")
        dsn = urlunsplit(parts._replace(query=others))
        given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
        conninfo = make_conninfo("", **{**CONNECTION_DEFAULTS, **given})
    except (psycopg.Error, ValueError) as error:
        raise NotAStore(f"this URL cannot be read: {str(error).strip()}") from None
    if not schema or "\0" in schema or len(schema.encode()) > 63:
        raise NotAStore(f"schema {schema!r} is no name: pass 1 to 63 bytes of text")
    user, at, host = parts.netloc.rpartition("@")
    shown = "&".join(option for name, option in options if name not in SECRETS)
    name = urlunsplit(parts._replace(netloc=f"{user.split(':')[0]}{at}{host}", query=shown))
    return Place(conninfo, schema, name)

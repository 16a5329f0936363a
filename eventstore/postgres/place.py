"""Where a store is: a server, a database, and a schema in it."""

import hashlib
import re
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from refold.eventstore.errors import NotAStore

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

    def __repr__(self) -> str:
        return f"Place({self.name!r})"

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
        conninfo = make_conninfo("", **{**CONNECTION_DEFAULTS, **given})
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
    return Place(conninfo, schema, name)


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

"""A real PgBouncer before a PostgreSQL; in transaction mode, where each gets another session."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
from postgres import free_port

MISSING = "there is no command `pgbouncer`; it comes with the package of that name"


class PgBouncer:
    """A PgBouncer that ends with its block.

    Raises:
        FileNotFoundError: there is none on this machine.
    """

    def __init__(self, url: str, *, sessions: int = 3) -> None:
        """Lay down how it is set.

        Args:
            url: of the server.
            sessions: how many connections to the server its clients share.
        """
        if shutil.which("pgbouncer") is None:
            raise FileNotFoundError(MISSING)
        self._server = urlsplit(url)
        self._port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="refold-pgbouncer-"))
        self._directory.chmod(0o755)
        user, password = (
            unquote(each or "") for each in (self._server.username, self._server.password)
        )
        quoted = password.replace("'", "''")
        users = self._directory / "users"
        users.write_text(f'"{user}" "x"\n')
        self._settings = self._directory / "settings"
        self._settings.write_text(
            f"[databases]\n"
            f"* = host={self._server.hostname} port={self._server.port} user={user} "
            f"password='{quoted}'\n"
            f"[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self._port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {sessions}\nmax_client_conn = 100\n"
        )
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, place: str) -> str:
        """Return the URL that leads to a place on the server by way of the pooler."""
        return urlunsplit(urlsplit(place)._replace(netloc=f"{self._user}@127.0.0.1:{self._port}"))

    def __enter__(self) -> Self:
        command = ["pgbouncer", str(self._settings)]
        if os.geteuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            ids = f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}"
            command = ["setpriv", *ids, "--clear-groups", "--", *command]
        # It logs to a pipe, and says there when it listens.
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd="/")
        assert self._process.stderr is not None
        told: list[str] = []
        for line in self._process.stderr:
            told.append(line.decode())
            if b"process up" in line:
                return self
        self.__exit__(None, None, None)
        raise RuntimeError(f"PgBouncer does not start:\n{''.join(told)}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        shutil.rmtree(self._directory)


def connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    """Connect as somebody else's program does."""
    return psycopg.connect(url, autocommit=True, prepare_threshold=None)

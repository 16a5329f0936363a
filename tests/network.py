"""Hosts with a network between them: Linux network namespaces, joined by veth pairs to a switch."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

# Waits until its standard input closes, which happens however the process at the other end ends.
# Then: kill all that runs on the hosts, and remove them with all that joins them.
_GUARD = """
cat
for host in $(ip netns list | grep -o "^$0-[^ ]*"); do
    ip netns pids "$host" | xargs -r kill -9
    ip netns delete "$host"
done
"""

_made = 0


class NoNetwork(Exception):
    """This system, or the rights that we have on it, do not let us make a network."""


class Host:
    """A host: what runs on it sees no network but the one that joins it to the others."""

    def __init__(self, name: str, address: str, port: Sequence[str]) -> None:
        self.name = name
        self.address = address
        self.prefix = ("ip", "netns", "exec", name)
        """What goes before a command to run it there; it becomes that command."""
        self._port = port

    def start(
        self, *command: str, environment: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[str]:
        """Start a process on the host."""
        return subprocess.Popen(
            [*self.prefix, *command], env={**os.environ, **environment}, text=True, **options
        )

    def cut_off(self) -> None:
        """Pull the host's cable: from now on nothing comes through, and nobody is told."""
        _run(*self._port, "down")

    def join(self) -> None:
        """Plug the cable in again."""
        _run(*self._port, "up")


class Network:
    """Hosts on one switch. With the process that made it, however that ends, all of it ends.

    Raises:
        NoNetwork: `ip` is missing, or the right to make namespaces, bridges or veth pairs.
    """

    def __init__(self) -> None:
        global _made
        _made += 1
        if shutil.which("ip") is None:
            raise NoNetwork("there is no command `ip` (iproute2)")
        self._name = f"refold-{os.getpid()}-{_made}"
        self._switch = f"{self._name}-switch"
        self._hosts = 0
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, self._name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the tests
        )
        try:
            self._make_switch()
        except subprocess.CalledProcessError as error:
            self.close()
            raise NoNetwork(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error

    def _make_switch(self) -> None:
        _run("ip", "netns", "add", self._switch)
        _run("ip", "-n", self._switch, "link", "add", "bridge", "up", "type", "bridge")
        probe = ("probe", "type", "veth", "peer", "name", "peer")
        _run("ip", "-n", self._switch, "link", "add", *probe)
        _run("ip", "-n", self._switch, "link", "delete", "probe")

    def host(self, name: str) -> Host:
        """Add a host to the network."""
        self._hosts += 1
        host, port = f"{self._name}-{name}", f"port{self._hosts}"
        address = f"10.0.0.{self._hosts}"
        in_host, in_switch = ("ip", "-n", host), ("ip", "-n", self._switch)
        _run("ip", "netns", "add", host)
        pair = ("eth0", "type", "veth", "peer", "name", port, "netns", self._switch)
        _run(*in_host, "link", "add", *pair)
        _run(*in_host, "address", "add", f"{address}/24", "dev", "eth0")
        _run(*in_host, "link", "set", "lo", "up")
        _run(*in_host, "link", "set", "eth0", "up")
        _run(*in_switch, "link", "set", port, "master", "bridge", "up")
        return Host(host, address, (*in_switch, "link", "set", port))

    def close(self) -> None:
        """Kill all that runs on the hosts and remove them."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)

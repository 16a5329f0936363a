"""Hosts with a network between them: Linux network namespaces, joined by veth pairs to a switch."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

TOP = Path(__file__).parent.parent

# Waits until its standard input closes, which happens however the process at the other end ends.
# Then: kill all that runs on the hosts, and remove them with what joins them.
_GUARD = """
cat
for each in $(ip netns list | grep -o "^$0-[^ ]*"); do
    ip netns pids "$each" | xargs -r kill -9
    ip netns delete "$each"
done
"""

_numbers = count(1)


class NoNetwork(Exception):
    """This system, or the rights that we have on it, do not let us make a network."""


class Network:
    """Hosts on one switch. They end with the process that made them, also when that is killed.

    Raises:
        NoNetwork: `ip` is missing, or the right to make namespaces, bridges or veth pairs.
    """

    def __init__(self) -> None:
        if shutil.which("ip") is None:
            raise NoNetwork("there is no command `ip`; it comes with iproute2")
        self._name = f"refold-{os.getpid()}-{next(_numbers)}"
        self._switch = f"{self._name}-switch"
        self._hosts: list[Host] = []
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
            raise NoNetwork(f"`{' '.join(error.cmd)}` says: {error.stderr.strip()}") from error
        except BaseException:
            self.close()
            raise

    def _make_switch(self) -> None:
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "bridge", "up", "type", "bridge")
        # If this can be done, so can everything else.
        ip("-n", self._switch, "link", "add", "try", "type", "veth", "peer", "name", "out")
        ip("-n", self._switch, "link", "delete", "try")

    def host(self, name: str) -> "Host":
        """Add a host to the network."""
        number = len(self._hosts) + 1
        host = Host(f"{self._name}-{name}", f"10.0.0.{number}", self._switch, f"port{number}")
        self._hosts.append(host)
        return host

    def close(self) -> None:
        """Kill all that runs on the hosts and remove them."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
        for host in self._hosts:
            host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Host:
    """A host: what runs on it sees the others of its network and nothing else."""

    def __init__(self, name: str, address: str, switch: str, port: str) -> None:
        self.address = address
        self.prefix: Sequence[str] = ("ip", "netns", "exec", name)
        """What goes before a command to run it there; it becomes that command."""
        self._switch = switch
        self._port = port
        self._started: list[subprocess.Popen[str]] = []
        ip("netns", "add", name)
        peer = ("peer", "name", port, "netns", switch)
        ip("-n", name, "link", "add", "eth0", "type", "veth", *peer)
        ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", switch, "link", "set", port, "master", "bridge", "up")

    def start(
        self, *command: str, environment: Mapping[str, str], stderr: int | None = None
    ) -> subprocess.Popen[str]:
        """Start a process on the host, in the folder of the project; it can be talked with."""
        process = subprocess.Popen(
            [*self.prefix, *command],
            cwd=TOP,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        self._started.append(process)
        return process

    def cut_off(self) -> None:
        """Pull the cable out of the switch: nothing comes through, and nobody is told."""
        ip("-n", self._switch, "link", "set", self._port, "down")

    def join(self) -> None:
        """Plug it in again."""
        ip("-n", self._switch, "link", "set", self._port, "up")

    def close(self) -> None:
        """Wait for the processes, which have been killed, and let go of their pipes."""
        for process in self._started:
            with process:
                pass


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

"""A TCP proxy before a PostgreSQL server: a test holds statements or answers, and cuts lines."""

import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

PATIENCE = 30
"""Seconds to wait for what a test has announced; beyond it, it does not come any more."""


class Held:
    """A statement, or the answer to one, that the proxy keeps until a test says what to do."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._line: _Line | None = None
        self._goes_on = False
        self._there = threading.Event()
        self._decided = threading.Event()

    def wait(self) -> None:
        """Wait until it is there."""
        assert self._there.wait(PATIENCE), f"{self.pattern} did not come"

    def go_on(self) -> None:
        """Let it go where it was going."""
        self._goes_on = True
        self._decided.set()

    def cut(self) -> None:
        """Cut the line at both ends; what is held gets lost."""
        self._cut_line().cut()
        self._decided.set()

    def cut_client(self) -> None:
        """Cut the client off; the server does not notice, and what is held may still go on."""
        _end(self._cut_line().client)

    def drop(self) -> None:
        """Lose what is held, after all."""
        self._decided.set()

    def passes(self, line: "_Line") -> bool:
        """Keep what has come on a line until it is decided whether it goes on."""
        self._line = line
        self._there.set()
        self._decided.wait()
        return self._goes_on

    def _cut_line(self) -> "_Line":
        self.wait()
        assert self._line is not None
        return self._line


class Proxy:
    """Passes on what clients say to a server and back, on a port of its own, until told otherwise.

    It reads along as far as it must to tell which statement a message is about, so clients are not
    let use TLS.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._lines: list[_Line] = []
        self._statements: list[Held] = []
        self._answers: list[Held] = []
        self.messages: list[str] = []
        """What clients have sent to be carried out; as one, what they sent before they waited."""
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def url(self, url: str) -> str:
        """Return the URL of the server, by way of the proxy."""
        parts = urlsplit(url)
        account = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{self.port}"))

    def hold(self, pattern: str) -> Held:
        """Hold the next statement in which a regular expression is found, before the server."""
        held = Held(pattern)
        with self._lock:
            self._statements.append(held)
        return held

    def hold_answer(self, pattern: str) -> Held:
        """Hold the next answer in whose tag, such as COMMIT, it is found, before the client."""
        held = Held(pattern)
        with self._lock:
            self._answers.append(held)
        return held

    def cut(self) -> None:
        """Cut all lines at both ends; new ones can be made."""
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            line.cut()

    def close(self) -> None:
        """Cut all lines and take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._accepting.join()
        self._listener.close()
        for held in (*self._statements, *self._answers):
            held.drop()
        self.cut()
        for line in self._lines:
            line.join()

    def stopped(self) -> None:
        """Wait until it takes no more, which `close` in another thread has it do first."""
        self._accepting.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:  # as if nobody listened here either
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                continue
            line = _Line(client, server, self._statement_passes, self._answer_passes, self.messages)
            with self._lock:
                self._lines.append(line)
            line.start()

    def _statement_passes(self, line: "_Line", text: str) -> bool:
        return self._passes(line, text, self._statements)

    def _answer_passes(self, line: "_Line", tag: str) -> bool:
        return self._passes(line, tag, self._answers)

    def _passes(self, line: "_Line", text: str, traps: list[Held]) -> bool:
        with self._lock:
            held = next((held for held in traps if re.search(held.pattern, text)), None)
            if held is not None:
                traps.remove(held)
        return held is None or held.passes(line)


Passes = Callable[["_Line", str], bool]


class _Line:
    """A connection by way of the proxy, with a thread for each direction."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        statement_passes: Passes,
        answer_passes: Passes,
        messages: list[str],
    ) -> None:
        self.client, self.server = client, server
        self._messages = messages
        self._together: list[str] = []
        self._statement_passes = statement_passes
        self._answer_passes = answer_passes
        self._prepared: dict[bytes, str] = {}
        self._bound = ""
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        self._passing = threading.Thread(target=self._pass, daemon=True)

    def start(self) -> None:
        self._passing.start()

    def join(self) -> None:
        self._passing.join()

    def cut(self) -> None:
        _end(self.client)
        _end(self.server)

    def _pass(self) -> None:
        asking = threading.Thread(target=self._ask, daemon=True)
        asking.start()
        self._answer()
        asking.join()
        self.client.close()
        self.server.close()

    def _ask(self) -> None:
        with suppress(EOFError, OSError), self.client.makefile("rb") as messages:
            self.server.sendall(self._greeting(messages))
            while True:
                kind, body = message = _next(messages)
                statement = self._statement(kind, body)
                if statement is not None:
                    self._together.append(statement)
                    if not self._statement_passes(self, statement):
                        break
                if kind in (b"Q", b"S") and self._together:
                    self._messages.append(";\n".join(self._together))
                    self._together.clear()
                self.server.sendall(_packed(*message))
        _end(self.server)

    def _answer(self) -> None:
        with suppress(EOFError, OSError), self.server.makefile("rb") as messages:
            while True:
                kind, body = message = _next(messages)
                tag = body.rstrip(b"\0").decode() if kind == b"C" else None
                if tag is not None and not self._answer_passes(self, tag):
                    break
                self.client.sendall(_packed(*message))
        _end(self.client)

    def _greeting(self, messages: BufferedReader) -> bytes:
        """Return the message that begins a connection: the only one that has no kind."""
        while True:
            length = _read(messages, 4)
            body = _read(messages, int.from_bytes(length) - 4)
            if int.from_bytes(body[:4]) not in (80877103, 80877104):  # TLS, GSS
                return length + body
            self.client.sendall(b"N")

    def _statement(self, kind: bytes, body: bytes) -> str | None:
        """Return the text of the statement that a message has the server carry out."""
        match kind:
            case b"Q":
                return body.rstrip(b"\0").decode()
            case b"P":
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text.decode()
            case b"B":
                _, name, _ = body.split(b"\0", 2)
                self._bound = self._prepared[name]
            case b"E":
                return self._bound
            case _:
                pass
        return None


def _next(messages: BufferedReader) -> tuple[bytes, bytes]:
    kind = _read(messages, 1)
    return kind, _read(messages, int.from_bytes(_read(messages, 4)) - 4)


def _packed(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


def _read(messages: BufferedReader, length: int) -> bytes:
    data = messages.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _end(end: socket.socket) -> None:
    with suppress(OSError):  # the other side was first
        end.shutdown(socket.SHUT_RDWR)

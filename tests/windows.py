"""`refold ui` as a process of its own, and what a browser would ask it."""

import http.client
import json
import signal
import subprocess
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from command_line import command, environment


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


class Served:
    """A store that `refold ui` serves, and the cookie that lets one in."""

    def __init__(self, place: str, *words: str) -> None:
        self._process = subprocess.Popen(
            command("ui", "--no-browser", *words),
            env=environment(REFOLD_STORE=place),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        parts = urlsplit(self.address)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.port = parts.port or 0
        self.token = parts.fragment.removeprefix("token=")
        self.cookie = ""

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request with just these headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, content, headers or {})
            response = connection.getresponse()
            told = response.read()
            kind = response.getheader("content-type") or ""
            answer = json.loads(told) if kind.startswith("application/json") else told.decode()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, answer, found)
        finally:
            connection.close()

    def let_in(self) -> Self:
        """Exchange the token for the cookie."""
        answer = self.ask("POST", "/session", {"token": self.token}, {"Origin": self.origin})
        assert answer.status == 200, answer
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    def get(self, name: str, **parameters: Any) -> Any:
        """Return what the server answers to whoever was let in."""
        answer = self.try_get(name, **parameters)
        assert answer.status == 200, answer
        return answer.body

    def try_get(self, name: str, **parameters: Any) -> Answer:
        path = f"/api/{name}?{urlencode(parameters, doseq=True)}"
        return self.ask("GET", path, headers={"Cookie": self.cookie})

    def post(self, path: str, body: Any) -> Answer:
        """Send what the page would."""
        headers = {"Origin": self.origin, "Cookie": self.cookie}
        return self.ask("POST", f"/api/{path}", body, headers)

    def stream(self) -> "Stream":
        """Open the stream of news."""
        return Stream(self.port, self.cookie)

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return how it ended and what it complained of."""
        self._process.send_signal(signal.SIGINT)
        _, told = self._process.communicate(timeout=60)
        return self._process.returncode, told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()  # so that no temporary file is left
        self._process.communicate(timeout=60)


class Stream:
    """Server-sent events as they come."""

    def __init__(self, port: int, cookie: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.request("GET", "/api/news", headers={"Cookie": cookie})
        self._response = self._connection.getresponse()
        assert self._response.status == 200

    def next(self) -> dict[str, str] | None:
        """Return the fields of the next event; None: the stream has ended."""
        fields: dict[str, str] = {}
        while line := self._response.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        return fields or None

    def until(self, position: int) -> None:
        """Wait for the news of a position."""
        while (told := self.next()) is not None and int(told["id"]) < position:
            pass
        assert told is not None

    def close(self) -> None:
        self._connection.close()

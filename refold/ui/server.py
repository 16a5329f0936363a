"""The window over HTTP: the page, what it asks for, what it sends, and the stream of news."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from getpass import getuser
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from refold.eventstore.errors import (
    DBException,
    IllegalTransition,
    InvalidArgument,
    InvalidPayload,
    NotFound,
    Transient,
)
from refold.ui.access import Access, Guard
from refold.ui.news import News, State
from refold.ui.window import Operation, Window, encoded

PAGE = Path(__file__).parent / "page"

MOST_STREAMS = 100
"""Streams that are open at once; a browser needs one."""

LARGEST_NAME = 100
"""Characters of the name of whoever asks."""

STATUSES: dict[type[DBException], int] = {
    NotFound: 404,
    InvalidArgument: 400,
    InvalidPayload: 422,
    IllegalTransition: 409,
    Transient: 503,
}
"""The HTTP status of an error, by its kind; 500 of all others."""


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    """What the page sends when somebody asks something of a run."""

    seen: int
    actor: str
    command_id: str
    changes: dict[str, Any] = {}
    warm_start: bool = False


class _Exchange(msgspec.Struct, forbid_unknown_fields=True):
    token: str


def app(
    place: str | os.PathLike[str],
    *,
    read_only: bool = False,
    allow_hosts: Iterable[str] = (),
) -> Starlette:
    """Return the window on a store as an ASGI application, to be served or mounted elsewhere.

    It opens the store at once. `app.state.access.token` is what the page is opened with: its
    address with `#token=…` behind. `app.state.close()` ends the streams and closes the store, which
    serving it alone does at its end.

    Args:
        place: the path or URL of a store that is there.
        read_only: whether it has no routes that ask for something.
        allow_hosts: names under which the server is reached, besides those of this machine.

    Raises:
        NotAStore: there is none.
        DBException: it cannot be opened.
    """
    window = Window(os.fspath(place))
    server = _Server(window, read_only=read_only, access=Access(allow_hosts))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        yield
        await run_in_threadpool(server.close)

    made = Starlette(
        routes=server.routes(),
        middleware=[Middleware(Guard, access=server.access)],
        exception_handlers={DBException: _failed, HTTPException: _wrong},
        lifespan=lifespan,
    )
    made.state.access = server.access
    made.state.close = server.close
    return made


class _Server:
    def __init__(self, window: Window, *, read_only: bool, access: Access) -> None:
        self.access = access
        self.news = News(window.db)
        self._window = window
        self._read_only = read_only

    def close(self) -> None:
        self.news.close()
        self._window.close()

    def routes(self) -> list[Route | Mount]:
        known = [
            Route("/", self.shell),
            Mount("/page", StaticFiles(directory=PAGE)),
            Route("/session", self.exchange, methods=["POST"]),
            Route("/api/session", self._let_in(self.session)),
            Route("/api/news", self._let_in(self.stream)),
            *(
                Route(f"/api/{name}", self._let_in(self._answering(answer)))
                for name, answer in self._answers().items()
            ),
        ]
        if self._read_only:
            return known
        path = "/api/runs/{run_id:int}/{operation}"
        return [*known, Route(path, self._let_in(self.request), methods=["POST"])]

    # --- the page -------------------------------------------------------------------------

    async def shell(self, _: Request) -> Response:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    async def exchange(self, request: Request) -> Response:
        given = _decoded(await request.body(), _Exchange)
        if not self.access.is_token(given.token):
            return _refused(
                403, "the token is not this server's: open the address that it printed last"
            )
        return _json({}, headers={"set-cookie": self.access.cookie()})

    async def session(self, _: Request) -> Response:
        return _json(
            {
                "store": self._window.name,
                "read_only": self._read_only,
                "actor": _actor(),
                "types": self._window.types(),
                "entities": self._window.entities(),
            }
        )

    def _let_in(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            if not self.access.has_cookie(request.headers):
                return _refused(
                    401, "the page has no access: open the address that refold ui printed"
                )
            return await answer(request)

        return answered

    # --- reading --------------------------------------------------------------------------

    def _answers(self) -> dict[str, Callable[["_Query"], Any]]:
        """Return what answers each question: called in a thread."""
        window = self._window
        return {
            "head": lambda _: {"position": window.head()},
            "state": lambda q: window.state(at=q.number("at"), since=q.number("since")),
            "log": lambda q: window.log(
                at=q.number("at"),
                after=q.number("after") or 0,
                types=q.texts("type"),
                stream=q.text("stream"),
                actor=q.text("actor"),
                limit=q.number("limit") or 200,
            ),
            "history": lambda q: window.history(q["entity"], q["key"], at=q.number("at")),
            "why": lambda q: window.why(q["entity"], q["key"], q["column"], at=q.number("at")),
            "diff": lambda q: window.diff(q.position("a"), q.position("b")),
            "found": lambda q: window.found(q["where"], at=q.number("at")),
            "curve": lambda q: window.curve(
                q.position("run"), q["metric"], at=q.number("at"), width=q.number("width") or 1000
            ),
        }

    def _answering(self, answer: Callable[["_Query"], Any]) -> Callable[[Request], Any]:
        def told(request: Request) -> bytes:
            return encoded(answer(_Query(request)))

        async def answered(request: Request) -> Response:
            return Response(await run_in_threadpool(told, request), media_type="application/json")

        return answered

    async def stream(self, _: Request) -> Response:
        if len(self.news) >= MOST_STREAMS:
            return _refused(503, f"{MOST_STREAMS} streams are open: close some pages")
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(self._told(), headers=headers, media_type="text/event-stream")

    async def _told(self) -> AsyncGenerator[bytes, None]:
        before: State | None = None
        async for state in self.news.follow():
            kind = "heartbeat" if state == before else "news"
            before = state
            data = encoded({"position": state.position, "trouble": state.trouble})
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (state.position, kind.encode(), data)

    # --- requests -------------------------------------------------------------------------

    async def request(self, request: Request) -> Response:
        operation: Operation = _decoded_word(request.path_params["operation"])
        run_id: int = request.path_params["run_id"]
        asked = _decoded(await request.body(), _Request)
        actor = asked.actor.strip()
        if not 0 < len(actor) <= LARGEST_NAME or not actor.isprintable():
            return _refused(400, f"say who asks: a name of up to {LARGEST_NAME} characters")
        ic_id = await run_in_threadpool(
            self._window.request,
            operation,
            run_id,
            seen=asked.seen,
            actor=actor,
            command_id=asked.command_id,
            changes=asked.changes,
            warm_start=asked.warm_start,
        )
        return _json({"ic_id": ic_id})


class _Query:
    """What stands behind the ? of an address."""

    def __init__(self, request: Request) -> None:
        self._parameters = request.query_params

    def __getitem__(self, name: str) -> str:
        text = self.text(name)
        if text is None:
            raise HTTPException(400, f"{name} is missing")
        return text

    def text(self, name: str) -> str | None:
        return self._parameters.get(name) or None

    def texts(self, name: str) -> list[str]:
        return [text for text in self._parameters.getlist(name) if text]

    def number(self, name: str) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdecimal() or len(text) > 18:
            raise HTTPException(400, f"{name} is no number: {text[:50]!r}")
        return int(text)

    def position(self, name: str) -> int:
        number = self.number(name)
        if number is None:
            raise HTTPException(400, f"{name} is missing")
        return number


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise HTTPException(400, f"the request is not as it should be: {error}") from None


def _decoded_word(word: str) -> Operation:
    try:
        return msgspec.convert(word, Operation)
    except msgspec.ValidationError:
        raise HTTPException(404, "a run can be asked to stop, resume, delete or clone") from None


def _actor() -> str:
    try:
        return getuser()
    except (OSError, KeyError):  # nobody has this id
        return ""


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encoded(value), status, headers, media_type="application/json")


def _refused(status: int, message: str) -> Response:
    return _json({"error": "Refused", "message": message}, status)


async def _failed(_: Request, error: Exception) -> Response:
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 500)
    return _json({"error": type(error).__name__, "message": str(error)}, status)


async def _wrong(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": "Refused", "message": error.detail}, error.status_code)

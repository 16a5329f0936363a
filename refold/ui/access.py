"""Who may look: the token and the cookie, Host and Origin, and what the browser may do."""

import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

LARGEST = 1_000_000
"""Bytes that a request may have."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""No script, style or picture from elsewhere, none within the page; no text becomes HTML."""

HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Access:
    """What opens a window: a token, which is exchanged for a cookie.

    Cookies are shared by all ports of a host, so the cookie bears a name of the server's own.

    Args:
        allow_hosts: names under which the server is reached, besides those of this machine.
    """

    def __init__(self, allow_hosts: Iterable[str] = ()) -> None:
        self.token = secrets.token_urlsafe(32)
        self.allow_hosts = frozenset(host.lower() for host in allow_hosts)
        self._cookie = f"refold-{secrets.token_hex(8)}"
        self._secret = secrets.token_urlsafe(32)

    def is_token(self, given: object) -> bool:
        """Return whether it is the token."""
        return isinstance(given, str) and secrets.compare_digest(
            given.encode(errors="replace"), self.token.encode()
        )

    def cookie(self) -> str:
        """Return the header that gives a browser the cookie."""
        return f"{self._cookie}={self._secret}; HttpOnly; SameSite=Strict; Path=/"

    def has_cookie(self, headers: Headers) -> bool:
        """Return whether a request bears the cookie."""
        for line in headers.getlist("cookie"):
            try:
                cookie = SimpleCookie(line).get(self._cookie)
            except CookieError:
                continue
            if cookie is not None and secrets.compare_digest(
                cookie.value.encode(errors="replace"), self._secret.encode()
            ):
                return True
        return False

    def refusal(self, method: str, headers: Headers) -> str | None:
        """Return why a request is refused for where it comes from; None: it is not."""
        host = headers.get("host", "").lower()
        name = _without_port(host)
        if name not in OWN_HOSTS and name not in self.allow_hosts:
            return (
                f"this server is not known as {name[:200] or 'a host without a name'}: if it "
                f"should be, start it with --allow-host {name[:200] or 'NAME'}"
            )
        origin = headers.get("origin")
        if origin is None:
            if method in ("GET", "HEAD"):
                return None
            return "the request names no Origin: only the page itself may ask for changes"
        parts = urlsplit(origin.lower())
        # Another port is another server's page, except behind a proxy, which must be named.
        if parts.netloc == host or _without_port(parts.netloc) in self.allow_hosts:
            return None
        return (
            f"the request comes from a page of {origin[:200]}, not from this server's own: behind "
            f"a proxy of that name, start the server with --allow-host NAME"
        )


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


class Guard:
    """Refuses requests before anything looks at them, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refused = self._refused(scope["method"], Headers(scope=scope))
        answer = self._app if refused is None else refused
        await answer(scope, receive, send_with_headers)

    def _refused(self, method: str, headers: Headers) -> JSONResponse | None:
        if reason := self._access.refusal(method, headers):
            return JSONResponse({"error": "Refused", "message": reason}, 403)
        if method in ("GET", "HEAD"):
            return None
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return JSONResponse(
                {"error": "Refused", "message": "the request does not say how long it is"}, 411
            )
        if len(length) > len(str(LARGEST)) or int(length) > LARGEST:
            return JSONResponse(
                {"error": "Refused", "message": f"a request has {LARGEST:,} bytes at most"}, 413
            )
        return None

"""`refold ui`: the window on a store, in the browser."""

import os
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Generator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from refold.cli.options import DEFAULT_STORE, Store
from refold.cli.output import note, printable
from refold.eventstore.errors import InvalidCommand, needed_for

HERE = "127.0.0.1"

NICE = 5
"""How much the window stands back where processors are scarce: training comes first."""


def ui(
    store: Store = DEFAULT_STORE,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="0: any that is free.")
    ] = 0,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Nobody can ask anything of a run.")
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")
    ] = True,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A name under which a proxy serves it; may be given several times.",
        ),
    ] = None,
) -> None:
    """Open a window on the store: everything as of any moment, and why it is so.

    It listens on this machine only, until Ctrl-C. Whoever has the address that it prints can look.

    Examples:
        refold ui
        refold ui --store demo.db --port 8080 --read-only
        ssh -L 8080:localhost:8080 server refold ui --port 8080 --no-browser
    """
    with needed_for("the window", "ui"):
        import uvicorn

        from refold.ui import app

    made = app(store, read_only=read_only, allow_hosts=allow_host or ())

    class Server(uvicorn.Server):
        """Ends the streams, and whatever looks back, before it waits for them."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            threading.Thread(target=made.state.close).start()
            super().handle_exit(sig, frame)

    try:
        with _listening(port) as listener:
            address = f"http://{HERE}:{listener.getsockname()[1]}/#token={made.state.access.token}"
            print(printable(address), flush=True)
            note("Ctrl-C ends it")
            config = uvicorn.Config(
                made,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=1,
            )
            signal.signal(signal.SIGTERM, _end)
            os.nice(NICE)
            with _opened(address, browser):
                Server(config).run(sockets=[listener])
    finally:
        made.state.close()


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((HERE, port))
    except OSError as error:
        raise InvalidCommand(
            f"port {port} cannot be listened on ({error.strerror}): pass another one with --port"
        ) from error


@contextmanager
def _opened(address: str, browser: bool) -> Generator[None, None, None]:
    """Have the browser open an address, by a file: a list of processes would show it to all."""
    if not browser:
        yield
        return
    number, path = tempfile.mkstemp(prefix="refold-", suffix=".html")  # only its user reads it
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(
                '<!doctype html><meta charset="utf-8"><title>refold</title>'
                f'<meta http-equiv="refresh" content="0;url={escape(address)}">'
            )
        webbrowser.open(Path(path).as_uri())
        yield
    finally:
        with suppress(OSError):
            os.unlink(path)


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)

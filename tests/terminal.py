"""A command in a real pseudo-terminal, and what is to be seen there."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from types import TracebackType
from typing import Self

from command_line import command, environment

PATIENCE = 30.0
"""Seconds without any output after which a test gives up."""

# As a login does it: the command's own session, whose keys and signals come from this terminal.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([@-~])")


class Terminal:
    """A command that runs in a terminal of its own."""

    def __init__(self, *words: object, width: int = 100, height: int = 30, **env: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(width, height)
        self._before = termios.tcgetattr(slave)
        with_env = environment(**env)
        with_env.pop("COLUMNS")  # the terminal knows
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command(*words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=with_env,
            start_new_session=True,
        )
        os.close(slave)
        self.sent = ""
        """All that the command has sent."""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size; who reads from it is told."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.width, self.height = width, height

    def type(self, text: str) -> None:
        """Press keys."""
        self._seen = len(self.sent)
        os.write(self._master, text.encode())

    def wait_for(self, *texts: str) -> None:
        """Wait until these texts have appeared, in this order, since keys were last pressed."""
        pattern = re.compile(".*?".join(map(re.escape, texts)), re.DOTALL)
        while not pattern.search(ESCAPE.sub("", self.sent[self._seen :])):
            assert self._read(), "\n".join([f"{texts} never came; this is there:", *self.screen()])

    def wait_for_last_line(self, text: str) -> None:
        """Wait until this is the last line: what is being drawn is complete then."""
        while self.screen()[-1] != text:
            assert self._read(), "\n".join([f"{text} is not the last line:", *self.screen()])

    def _read(self) -> bool:
        if not select.select([self._master], [], [], PATIENCE)[0]:
            return False
        try:
            read = os.read(self._master, 65536)
        except OSError:  # nobody has the other end any more
            return False
        while select.select([self._master], [], [], 0)[0] and read[-1] >= 0x80:
            read += os.read(self._master, 65536)
        self.sent += read.decode()
        return bool(read)

    def end(self) -> int:
        """Wait until the command has ended; return its exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def is_as_it_was(self) -> bool:
        """Return whether the command has left the terminal as it found it."""
        shown = [found[0] for found in re.finditer(r"\x1b\[\?(?:1049|25)[hl]", self.sent)]
        # The screen that was there is back, and so is the cursor.
        restored = [*shown[-2:]] in ([], ["\x1b[?1049l", "\x1b[?25h"])
        return restored and termios.tcgetattr(self._master) == self._before

    def screen(self) -> list[str]:
        """Return the lines on the screen, as far as a command that draws whole lines goes."""
        lines: dict[int, str] = {}
        row, text = 0, re.split(r"(\x1b\[[0-9;?]*[@-~]|\n)", self.sent)
        for part in text:
            escape = ESCAPE.fullmatch(part)
            if part == "\n":
                row += 1
            elif escape is None:
                lines[row] = lines.get(row, "") + part
            elif escape[2] == "H":
                row = int(escape[1].partition(";")[0] or 1) - 1
                lines[row] = ""
            elif escape[0] == "\x1b[?1049h":
                lines = {}
        return [lines.get(row, "").rstrip() for row in range(self.height)]

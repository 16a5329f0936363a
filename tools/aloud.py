#!/usr/bin/env python3
"""Run a command that fills a folder, and say every few seconds how much is in the folder.

Usage: aloud.py FOLDER COMMAND [ARGUMENT...]

It needs only Python, because it runs before anything is installed.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress

PERIOD = 3  # seconds
MEGABYTE = 1e6

folder, command = sys.argv[1], sys.argv[2:]


def size() -> int:
    """Return how many bytes are in the folder."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # the command has just removed it
                total += os.lstat(os.path.join(inside, name)).st_size
    return total


began = time.monotonic()
with subprocess.Popen(command) as process:
    while True:
        try:
            code = process.wait(PERIOD)
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - began
            print(f"{seconds:5.1f} s  {size() / MEGABYTE:.0f} MB in {folder}", flush=True)
        else:
            sys.exit(code)

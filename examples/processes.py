"""Child processes: started by name, killed without mercy, never left behind."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from examples.place import VARIABLE

ROOT = Path(__file__).parent.parent
PATIENCE = 30  # seconds for a process to end when its work is done


class Processes:
    """The controllers, workers and actors of a store: `worker-1` is `examples.worker 1`.

    Args:
        store: the place of the store.
        say: called, from another thread, with each line that one writes to its standard error.
        on_failure: called, from another thread, with the reason when one ends with an error.
    """

    def __init__(
        self, store: str, say: Callable[[str], None], on_failure: Callable[[str], None]
    ) -> None:
        # OMP: one core each is what there is.
        self._environment = {**os.environ, VARIABLE: store, "OMP_NUM_THREADS": "1"}
        self._say = say
        self._on_failure = on_failure
        self._running: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str) -> None:
        """Start a process by its name."""
        module, *number = name.split("-")
        command = [sys.executable, "-m", f"examples.{module}", *number]
        # In a group of its own, so that Ctrl-C in a terminal reaches only the parent.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self._running[name] = process
        threading.Thread(target=self._watch, args=(name, process), daemon=True).start()

    def _watch(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._say(f"{name}: {line.rstrip()}")
        code = process.wait()
        if code and self._running.get(name) is process:
            self._on_failure(f"{name} ended with exit code {code}")

    def kill(self, name: str) -> int:
        """Kill a process with SIGKILL, wait until it is gone, and return the id that it had."""
        process = self._running.pop(name)
        process.kill()
        process.wait()
        return process.pid

    def wait(self) -> None:
        """Wait until all have ended by themselves."""
        for name, process in self._running.items():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._on_failure(f"{name} does not end although its work is done")

    def kill_all(self) -> None:
        """Kill those that still run."""
        for name in list(self._running):
            self.kill(name)

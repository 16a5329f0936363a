"""How a command ends: its exit codes. 0: done."""

NO = 1
"""The answer is no: there are differences, a problem was found, the user did not agree."""

USAGE = 2
"""The command line is wrong."""

FAILED = 3
"""It was refused, or failed; nothing was changed."""

INTERRUPTED = 130
"""Ctrl-C, as shells count it: 128 and the signal's number."""

BROKEN_PIPE = 141
"""Nobody reads any more what is printed, likewise; `refold log | head` is no error."""

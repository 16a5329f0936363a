"""Where the store of the examples is: the environment says it.

A URL may hold a password, and `ps` shows what is on a command line to everybody.
"""

import os
import sys

VARIABLE = "REFOLD_STORE"


def place() -> str:
    """Return the path or URL of the store."""
    found = os.environ.get(VARIABLE)
    if not found:
        sys.exit(f"{VARIABLE} is not set: let it be the path or URL of a store")
    return found

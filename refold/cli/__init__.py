"""The command line: `refold status`, `refold why run 5 status` …"""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from refold.cli.app import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())

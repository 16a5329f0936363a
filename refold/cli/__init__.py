"""The command line: `refold status`, `refold why run 5 status` …"""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from refold.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "click", "rich"):
            raise
        sys.exit(f"refold: the command line needs {error.name}: pip install 'refold[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())

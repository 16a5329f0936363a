"""The command line: `refold`, or `python -m refold`."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from refold.cli.app import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()

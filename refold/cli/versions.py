"""Which releases are at work here."""


def version_of(package: str) -> str:
    """Return the version of a package that is installed."""
    from importlib.metadata import PackageNotFoundError, version  # takes long to import

    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is on the path, and not installed
        return "(not installed)"

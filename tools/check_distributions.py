"""See whether the archives that were built hold the whole package, and nothing beside it.

Usage: check_distributions.py FOLDER

FOLDER holds the source archive, the wheel that was built from it and, in `direct`, the wheel that
was built from the checkout.
"""

import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

ROOMS = ("eventstore", "projections", "commands")


def main(folder: Path) -> None:
    """Compare the archives with the checkout and with each other."""
    top = Path(__file__).resolve().parent.parent
    expected = {
        f"{'' if place.name == 'refold' else 'refold/'}{path.relative_to(top).as_posix()}"
        for place in (top / "refold", *(top / room for room in ROOMS))
        for path in place.rglob("*")
        if path.suffix in (".py", ".pyi", ".typed") or path.parent.name == "page"
    }
    expected.add("refold/eventstore/tables.sql")

    [source] = folder.glob("*.tar.gz")
    [wheel] = folder.glob("*.whl")
    [direct] = (folder / "direct").glob("*.whl")
    for archive in (wheel, direct):
        found = {name for name in ZipFile(archive).namelist() if ".dist-info/" not in name}
        if found != expected:
            sys.exit(f"{archive}: missing {expected - found}, too much {found - expected}")
    with tarfile.open(source) as tar:
        names = [name.partition("/")[2] for name in tar.getnames()]
    missing = expected - {*names, "refold/eventstore/tables.sql"}
    twice = {name for name in names if names.count(name) > 1}
    if missing or twice or "tables.sql" not in names:
        sys.exit(f"{source}: missing {missing}, twice {twice}")
    print(f"{len(expected)} files of refold in each archive")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

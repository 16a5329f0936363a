"""The views: whether they are of this release, up to date, and equal to the log."""

from collections.abc import Sequence
from typing import Any

from refold.cli.checkup.finding import FEW, Finding, Findings
from refold.cli.lag import lag
from refold.cli.output import printable
from refold.eventstore import EventStore
from refold.eventstore.heads import projections_of
from refold.projections import ALL, View, Views


def check_views(store: EventStore, more: Sequence[View[Any]]) -> Findings:
    """Look at what the store says of its views, without touching them."""
    with store.reading() as connection:
        known = projections_of(connection)
    here = {view.name: view.version for view in (*ALL, *more) if view in ALL or view.name in known}
    versions = ", ".join(f"{name} {version}" for name, (version, _) in sorted(known.items()))
    yield Finding("fact", "views", versions or "there are none yet")
    newer = [name for name, (version, _) in known.items() if version > here.get(name, version)]
    older = [name for name, version in here.items() if version > known.get(name, (0, None))[0]]
    behind = {name: by for name, by in lag(store).items() if name in here}
    if newer:
        yield Finding(
            "problem", "views", f"a newer refold made {', '.join(newer)}", "upgrade this one"
        )
    if older:
        yield Finding(
            "note",
            "views",
            f"missing, or of an older release: {', '.join(older)}",
            "refold rebuild, or whoever opens the store next folds them anew",
        )
    if behind:
        told = ", ".join(f"{name} by {by}" for name, by in behind.items())
        yield Finding(
            "note", "views", f"behind the log: {told}", "whoever reads them next catches them up"
        )
    unknown = sorted(known.keys() - here.keys())
    if unknown:
        yield Finding(
            "note",
            "views",
            f"of somebody's own, not known here: {', '.join(unknown)}",
            "pass the module that defines them: --import MODULE",
        )
    if not (newer or older or behind):
        yield Finding("ok", "views", "up to date")


def check_equality(store: EventStore, more: Sequence[View[Any]]) -> Findings:
    """Fold the whole log in memory, and compare."""
    with store.reading() as connection:
        known = projections_of(connection)
    differences = Views(store, [view for view in more if view.name in known]).verify()
    for difference in differences[:FEW]:
        yield Finding("problem", "verify", printable(str(difference)), "refold rebuild")
    if len(differences) > FEW:
        yield Finding("problem", "verify", f"and {len(differences) - FEW} more", "refold verify")
    if not differences:
        yield Finding("ok", "verify", "views equal the log")

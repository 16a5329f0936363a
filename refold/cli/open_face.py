"""Opening the store that a command is about."""

import sys
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from getpass import getuser
from importlib import import_module
from typing import Any, cast

import typer

from refold.cli.options import position
from refold.cli.output import note
from refold.eventstore import EventStore, open_store
from refold.eventstore.arguments import excerpt
from refold.eventstore.engines.log_end import projections_of
from refold.eventstore.errors import NotAStore, StoreWarning
from refold.projections import ALL, View
from refold.rf_db import RfDb


@contextmanager
def open_face(
    place: str,
    *,
    at: str | None = None,
    imports: Iterable[str] | None = None,
    actor: str | None = None,
    allow_dill: bool = False,
) -> Generator[RfDb, None, None]:
    """Open a store that is there, and close it at the end of the block.

    Args:
        place: a path or URL.
        at: the moment, as people write it; None: now.
        imports: modules with event types and views of the user's own; of the views, those that the
            store holds.
        actor: who acts, for a command that changes something.
        allow_dill: whether payloads may be decoded that can run code.

    Raises:
        NotAStore: there is none: a mistyped path makes no new one.
        InvalidMoment: the moment lies in the future or before the first event.
        DBException: it cannot be opened.
    """
    views: list[View[Any]] = []
    if imports:
        known = import_views(imports)
        with open_log(place) as store, store.reading() as connection:
            views = [known[name] for name in projections_of(connection) if name in known]
    with _naming_the_options(), _warnings_as_notes():
        db = RfDb(place, actor=actor, projections=views, allow_dill=allow_dill, create=False)
    with db:
        if at is None:
            yield db
        else:
            with db.as_of(position(db, at)) as past:
                yield past


@contextmanager
def open_log(place: str) -> Generator[EventStore, None, None]:
    """Open the log of a store that is there, without its views, likewise.

    Raises:
        NotAStore: there is none.
        DBException: it cannot be opened.
    """
    with _naming_the_options(), _warnings_as_notes():
        store = open_store(place, create=False)
    with store:
        yield store


@contextmanager
def _naming_the_options() -> Generator[None, None, None]:
    try:
        yield
    except NotAStore as error:
        raise NotAStore(f"{error}; --store or REFOLD_STORE names another place") from error


@contextmanager
def _warnings_as_notes() -> Generator[None, None, None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StoreWarning)
        yield
    for warning in caught:
        note(f"note: {warning.message}")


def import_views(modules: Iterable[str]) -> dict[str, View[Any]]:
    """Import modules, found as `python -m` finds them, and return their views by name.

    Raises:
        typer.BadParameter: one cannot be imported.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    found: dict[str, View[Any]] = {}
    for name in modules:
        try:
            module = import_module(name)
        except Exception as error:  # the module's own, whatever it is
            message = f"{excerpt(name)} cannot be imported: {type(error).__name__}: {error}"
            raise typer.BadParameter(message, param_hint="--import") from error
        for value in vars(module).values():
            if isinstance(value, View) and value not in ALL:
                view = cast("View[Any]", value)
                found[view.name] = view
    return found


def actor_name(given: str | None) -> str:
    """Return who acts: whom the user named, else the user's own name here."""
    if given:
        return given
    try:
        return getuser()
    except (OSError, KeyError):  # nobody has this id
        return "cli"


def lag(store: EventStore) -> dict[str, int]:
    """Return the views that some process has left behind the log, and by how many positions.

    Whoever reads them next catches them up: so ask before a face is opened.
    """
    head = store.head()
    with store.reading() as connection:
        known = projections_of(connection)
    return {
        name: head - position
        for name, (_, position) in known.items()
        if position is not None and position < head
    }

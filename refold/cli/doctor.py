"""`refold doctor`: the store's place, its settings, whether it is sound, and what to do next."""

import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import dill
import msgspec
import typer

import refold
from refold.cli import checkup
from refold.cli.checkup import Finding, Findings, findings_of
from refold.cli.open_face import import_views, open_face, open_log
from refold.cli.options import DEFAULT_STORE, NO, Imports, Json, Store
from refold.cli.output import paint, print_json, printable
from refold.eventstore import EventStore, times
from refold.eventstore.engines.log_end import projections_of
from refold.eventstore.errors import DBException, NotAStore
from refold.projections import ALL, View

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def doctor(
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Fold the whole log and compare it with the views, check every payload's digest "
            "and, in a file, the indexes too.",
        ),
    ] = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Examine the store: file or server, versions, settings, integrity, what was left behind.

    It changes nothing; --verify catches up views that are behind. The exit code is 1 if there is
    a problem; notes are no problems.

    Examples:
        refold doctor
        refold doctor --verify
        refold doctor --json | jq '.[] | select(.level == "problem")'
    """
    more = import_views(imports or ())
    findings = [Finding("fact", "refold", _versions())]
    try:
        findings += _examine(store, tuple(more.values()), verify)
    except NotAStore:
        raise  # a mistyped path is nothing to examine
    except DBException as error:
        findings.append(Finding("problem", "store", str(error)))
    problems = sum(finding.level == "problem" for finding in findings)
    if json:
        print_json(findings)
    else:
        _print(findings)
        print()
        print("no problem was found" if not problems else f"problems: {problems}")
    if problems:
        raise typer.Exit(NO)


def _versions() -> str:
    packages = f"msgspec {msgspec.__version__}, dill {dill.__version__}"
    return f"{refold.__version__} on Python {platform.python_version()}, {packages}"


def _examine(place: str, more: Sequence[View[Any]], verify: bool) -> Findings:
    with open_log(place) as store:
        is_file = "://" not in store.engine.name
        if is_file:
            yield from _examine_file(store, verify)
        else:
            yield from _examine_server(store)
        yield from findings_of("log", partial(checkup.check_log, store, more))
        yield from findings_of("events", partial(checkup.check_events, store))
        yield from findings_of("payloads", partial(checkup.check_payloads, store, thorough=verify))
        yield from findings_of("views", partial(checkup.check_views, store, more))
        if verify:
            yield from findings_of("verify", partial(checkup.check_equality, store, more))
        yield from findings_of("workers", partial(_examine_members, place))
        yield from findings_of("leftovers", partial(checkup.check_leftovers, store))


def _examine_members(place: str) -> Findings:
    with open_log(place) as store, store.reading() as connection:
        up_to_date = {view.name: (view.version, None) for view in ALL}
        if not up_to_date.items() <= projections_of(connection).items():
            return  # to read them would fold them
    with open_face(place) as db:
        yield from checkup.check_members(db.members(), times.now())


def _examine_file(store: EventStore, verify: bool) -> Findings:
    from refold.cli import checkup_sqlite as sqlite

    with store.reading() as connection:
        yield from sqlite.check_file(Path(store.engine.name))
        for about, check in (
            ("settings", partial(sqlite.check_settings, connection)),
            ("integrity", partial(sqlite.check_integrity, connection, thorough=verify)),
            ("order", partial(checkup.check_order, connection, gapless=True)),
            ("clock", partial(checkup.check_times, connection, times.now())),
        ):
            yield from findings_of(about, check)


def _examine_server(store: EventStore) -> Findings:
    from refold.cli import checkup_postgres as postgres

    with store.reading() as connection:
        for about, check in (
            ("server", partial(postgres.check_server, store.engine, connection)),
            ("pooler", partial(postgres.check_way, store.engine)),
            ("settings", partial(postgres.check_settings, connection)),
            ("order", partial(checkup.check_order, connection, gapless=False)),
        ):
            yield from findings_of(about, check)


def _print(findings: list[Finding]) -> None:
    for finding in findings:
        level = paint(
            f"{finding.level:<8}", _COLOURS.get(finding.level), dim=finding.level == "fact"
        )
        print(f"{level}{finding.about:<16}{printable(finding.text)}")
        if finding.advice is not None:
            print(f"{'':24}{paint(f'-> {finding.advice}', dim=True)}")

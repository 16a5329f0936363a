"""Looking after a store: `verify`, `rebuild`, `recover`, `fork`, `copy`."""

import re
from typing import Annotated, Any, cast
from uuid import uuid4

import typer

from refold.cli.open_face import actor_name, open_face, open_log
from refold.cli.options import DEFAULT_STORE, NO, Actor, Imports, Json, Store, Yes, position
from refold.cli.output import note, paint, print_json, printable, shown
from refold.cli.safely import ask, note_if_interrupted, tell_if_interrupted
from refold.commands.store import ResetExperimentStates
from refold.eventstore.engines.engine import Writer
from refold.eventstore.engines.log_end import projections_of
from refold.eventstore.errors import Conflict
from refold.projections import Difference, UnitOfWork
from refold.rf_db import RfDb

To = Annotated[
    str,
    typer.Argument(metavar="TO", help="A path or URL where no store is yet."),
]


# --- views ------------------------------------------------------------------------------------


def verify(
    log: Annotated[
        bool, typer.Option("--log", help="Compare every event with its digest, too.")
    ] = False,
    payloads: Annotated[
        bool, typer.Option("--payloads", help="Compare every payload with its digest, too.")
    ] = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Fold the whole log, and tell where a view differs from it; then the exit code is 1.

    Examples:
        refold verify
        refold verify --log --payloads
        refold verify --import my_package.views --json
    """
    with open_face(store, imports=imports) as db:
        _note_unknown(db, "verified")
        found = db.verify(log=log, payloads=payloads)
        head = db.store.head()
    if json:
        print_json({"position": head, "differences": found, "unchecked": found.unchecked})
    elif not found:
        print(f"{paint('equal', 'green')}: the views are what the log makes of them up to {head}")
    if not json:
        for difference in found:
            print(printable(str(difference)))
    if any(isinstance(one, Difference) for one in found):
        note("refold rebuild folds the views anew")
    elif found.unchecked and not json:
        left = re.sub(r"verify.(\w+)=True.", r"refold verify --\1", "; ".join(found.unchecked))
        note(f"not looked at: {left}")
    if found:
        raise typer.Exit(NO)


def rebuild(
    yes: Yes = False, json: Json = False, store: Store = DEFAULT_STORE, imports: Imports = None
) -> None:
    """Fold the whole log into new views; readers see the old ones until these are complete.

    Examples:
        refold rebuild
        refold rebuild --yes --import my_package.views
    """
    with open_face(store, imports=imports) as db:
        _note_unknown(db, "rebuilt")
        ask(
            f"Fold the whole log of {db.store.engine.name} into new views? Writers are blocked "
            f"until it finishes.",
            yes=yes,
        )
        with note_if_interrupted("the views are as they were, or complete"):
            count, views = db.rebuild(), [view.name for view in db.views.views]
    if json:
        print_json({"events": count, "views": views})
    else:
        print(f"{count} events folded into {len(views)} views")


def _note_unknown(db: RfDb, done: str) -> None:
    with db.store.reading() as connection:
        unknown = projections_of(connection).keys() - {view.name for view in db.views.views}
    if unknown:
        names = ", ".join(sorted(unknown))
        note(f"not {done}, as their code is not known here: {names} (--import MODULE)")


# --- recovery ---------------------------------------------------------------------------------

WORDS = {
    "worker_tasks": "tasks",
    "actor_tasks": "actor tasks",
    "contexts": "contexts",
    "workers": "workers",
    "controller": "controller",
    "runs": "runs",
    "pipelines": "pipelines",
    "requests": "requests",
    "pipeline_requests": "pipeline ic",
}
"""What a recovery fails, as people call it."""


def recover(
    everything: Annotated[
        bool,
        typer.Option("--all", help="Fail all that is in progress, whoever is alive."),
    ] = False,
    fail_runs: Annotated[
        bool,
        typer.Option("--fail-runs", help="With --all: new and ongoing runs and pipelines too."),
    ] = False,
    lost: Annotated[
        str | None,
        typer.Option(
            "--lost", metavar="NAME", help="Declare this one lost, such as worker-0: it hangs."
        ),
    ] = None,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    actor: Actor = None,
) -> None:
    """Take back what belongs to the dead: their tasks fail, or are offered again.

    Of whom nothing is known, nothing is taken. With --all, which shows it first, whatever is in
    progress fails: tasks, contexts being built, progress of workers and of the controller; requests
    stay. Who is alive then is refused its late report.

    Examples:
        refold recover
        refold recover --lost worker-0
        refold recover --all --fail-runs --yes
    """
    with open_face(store, actor=actor_name(actor)) as db:
        if lost is not None:
            ask(f"Declare {lost} lost, though it may be alive?", yes=yes)
            _print_lost(db.declare_lost(lost), json=json)
            return
        if not (everything or fail_runs):
            _print_lost(db.recover(), json=json)
            return
        plan = _plan(db, fail_runs)
        if not any(plan.values()):
            note("nothing is in progress: there is nothing to recover")
            if json:
                print_json(plan)
            return
        if not yes:
            note(f"These would become FAILED in {db.store.engine.name}:\n{_listed(plan)}")
        ask("Declare them failed?", yes=yes)
        command_id = str(uuid4())
        with tell_if_interrupted(db, command_id):
            with db.batch():
                if not yes and _plan(db, fail_runs) != plan:
                    raise Conflict("meanwhile others are in progress: have a look again")
                done = db.reset_experiment_states(fail_runs, command_id=command_id)
            if json:
                print_json(done)
            else:
                print(f"FAILED:\n{_listed(done)}")


FOLLOWED = {
    "failed_tasks": "tasks failed",
    "offered_tasks": "tasks offered again",
    "failed_actor_tasks": "actor tasks failed",
    "offered_actor_tasks": "actor tasks offered again",
}


def _print_lost(told: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(told)
        return
    if not told["lost"]:
        note("nobody is known to be gone; refold recover --all fails whatever is in progress")
        return
    print(f"lost: {printable(', '.join(told['lost']))}")
    for name, what in FOLLOWED.items():
        if told[name]:
            print(f"  {what}: {shown(told[name])[1:-1]}")


def _plan(db: RfDb, fail_runs: bool) -> dict[str, Any]:
    """Return what a recovery would fail, as the command itself decides it."""
    with db.views.reading() as connection:
        # It only reads: what is decided is not carried out.
        rows = UnitOfWork(db.views.views, cast("Writer", connection))
        return ResetExperimentStates(fail_runs).decide(rows).result


def _listed(ids: dict[str, Any]) -> str:
    width = max(map(len, WORDS.values()))
    return "\n".join(
        f"  {word:<{width}}  {'' if ids[name] is True else shown(ids[name])[1:-1]}".rstrip()
        for name, word in WORDS.items()
        if ids[name]
    )


# --- other places -----------------------------------------------------------------------------


def fork(
    to: To,
    at: Annotated[
        str,
        typer.Option(
            "--at", metavar="POSITION|TIME", help="The last event to come along: 120, 5m, now."
        ),
    ] = "now",
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Make a new, independent store that holds the log up to a moment.

    So a bug can be reproduced, or another continuation tried.

    Examples:
        refold fork before.db --at 120
        refold fork before.db --at 2026-01-31T12:00Z && refold --store before.db status
    """
    from refold.copies import fork as make_fork

    with open_face(store, imports=imports) as db:
        end = position(db, at)
        ask(f"Fork {db.store.engine.name} up to position {end} to {_named(to)}?", yes=yes)
        again = "what is there is an empty store, or the whole fork: fork again"
        with (
            note_if_interrupted(f"{_named(to)}: {again}"),
            make_fork(db, at=end, to=to) as other,
        ):
            name, head = other.store.engine.name, other.store.head()
    if json:
        print_json({"store": name, "position": head})
    else:
        print(f"{name} holds the log up to position {head}")


def copy(to: To, yes: Yes = False, json: Json = False, store: Store = DEFAULT_STORE) -> None:
    """Copy the whole store to another place, also from a file to a server; again, what is new.

    The store may be in use. What was interrupted goes on when it is called again.

    Examples:
        refold copy backup.db
        refold copy postgresql://user@host/database?schema=digits
    """
    from refold.copies import copy_store

    with open_log(store) as log:
        name = log.engine.name
    ask(f"Copy {name} to {_named(to)}?", yes=yes)
    with note_if_interrupted(f"{_named(to)} holds the beginning of the log: copy again to go on"):
        count = copy_store(store, to)
    if json:
        print_json({"events": count})
    else:
        print(f"{count} events copied to {_named(to)}")


def backup(to: To, json: Json = False, store: Store = DEFAULT_STORE) -> None:
    """Copy the file of the store, as it is at this moment, to a new one, while others go on.

    Of a store on a server, make a backup with pg_dump, or copy it.

    Examples:
        refold backup monday.db
    """
    with open_log(store) as log:
        head = log.backup(to)
    if json:
        print_json({"store": to, "position": head})
    else:
        print(f"{to} holds the log up to position {head}")


def _named(place: str) -> str:
    """Return how a place is called in a question: a URL without a password."""
    return place if "://" not in place else place.rpartition("@")[2].partition("?")[0]

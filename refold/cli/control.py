"""Asking something of a run: `stop`, `resume`, `clone`, `delete`; its controller carries it out."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import uuid4

import msgspec
import typer

from refold.as_json import select
from refold.cli.open_face import actor_name, open_face
from refold.cli.options import DEFAULT_STORE, Actor, AllowDill, Json, Store, Yes, id_of
from refold.cli.output import note, print_json, shown
from refold.cli.safely import ask, tell_if_interrupted
from refold.configuration import replaced
from refold.eventstore.errors import InvalidCommand, InvalidPayload, NotFound
from refold.projections.fit import interactive_control, runs
from refold.rf_db import RfDb

Runs = Annotated[
    list[str],
    typer.Argument(metavar="[run] ID|NAME...", help="The runs, by their ids or names."),
]


def stop(
    run: Runs,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    actor: Actor = None,
) -> None:
    """Ask to stop runs; they can be resumed.

    Examples:
        refold stop 5
        refold stop run baseline
        refold stop 5 6 7 --yes --json
    """
    with open_face(store, actor=actor_name(actor)) as db:
        _request(db, _ids(db, run), "stop {}", db.request_stop, yes=yes, json=json)


def resume(
    run: Runs,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    actor: Actor = None,
) -> None:
    """Ask to let runs go on.

    Examples:
        refold resume 5
        refold resume 5 6
    """
    with open_face(store, actor=actor_name(actor)) as db:
        _request(db, _ids(db, run), "resume {}", db.request_resume, yes=yes, json=json)


def delete(
    run: Runs,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    actor: Actor = None,
) -> None:
    """Ask to delete runs, for ever; what happened to them stays in the log.

    Examples:
        refold delete 5
        refold delete 5 6
    """
    with open_face(store, actor=actor_name(actor)) as db:
        _request(db, _ids(db, run), "delete {}, for ever", db.request_delete, yes=yes, json=json)


def clone(
    run: Annotated[list[str], typer.Argument(metavar="[run] ID|NAME", help="The run.")],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="What the clone changes or adds, such as lr=0.1; the value is JSON, or else "
            "text. Names within names are separated by dots. May be given repeatedly.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="A JSON file with the whole configuration instead."
        ),
    ] = None,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Begin with the weights of the run.")
    ] = False,
    allow_dill: AllowDill = False,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    actor: Actor = None,
) -> None:
    """Ask for a copy of a run with another configuration.

    Without --set and --config the copy has the same one.

    Examples:
        refold clone 5 --set lr=0.1
        refold clone 5 --set optimizer.name=adam --set layers=[64,32] --warm-start
        refold clone 5 --config config.json
    """
    with open_face(store, actor=actor_name(actor), allow_dill=allow_dill) as db:
        run_id, *others = _ids(db, run)
        if others:
            raise typer.BadParameter("one run at a time can be cloned")
        given = None if config is None else _read(config)
        if changes:
            given = _changed(_config(db, run_id) if config is None else given, changes)
        weights = ", with its weights" if warm_start else ""

        def request(run_id: int, **about: Any) -> int:
            return db.request_clone_modify(run_id, given, warm_start, **about)

        _request(db, [run_id], f"clone {{}}{weights}", request, yes=yes, json=json)


def _ids(db: RfDb, words: list[str]) -> list[int]:
    """Return the ids of runs; the word before them may be left out."""
    if words[0] == "run" and len(words) > 1:
        words = words[1:]
    return list(dict.fromkeys(id_of(db, "run", word) for word in words))


def _described(db: RfDb, run_id: int) -> str:
    found = select(db, runs, {"run_id": run_id})
    if not found:
        raise NotFound(f"there is no run {run_id}: refold runs lists those that there are")
    [run] = found
    return f"run {run_id} ({run['run_name']}, {run['status']})"


def _request(
    db: RfDb, ids: list[int], what: str, request: Callable[..., int], *, yes: bool, json: bool
) -> None:
    """Ask the user, then request it of all of these runs or of none."""
    described = ", ".join(_described(db, run_id) for run_id in ids)
    ask(f"Ask to {what.format(described)}?", yes=yes)
    command_id = str(uuid4())
    with tell_if_interrupted(db, command_id):
        with db.batch():
            made = [
                request(run_id, command_id=f"{command_id}-{n}" if n else command_id)
                for n, run_id in enumerate(ids)
            ]
        rows = [
            row
            for ic_id in made
            for row in select(db, interactive_control, {"ic_id": ic_id}, config=json)
        ]
        if json:
            print_json(rows[0] if len(rows) == 1 else rows)
            return
        for row in rows:
            operation = row["operation"].lower().replace("_modify", "")
            print(f"request {row['ic_id']}: {operation} run {row['run_id']} is {row['status']}")
            note(f"the controller decides what becomes of it: refold show request {row['ic_id']}")


# --- configurations ---------------------------------------------------------------------------


def _config(db: RfDb, run_id: int) -> Any:
    try:
        return db.get_run(run_id)["config_leaf"]
    except InvalidPayload as error:
        raise type(error)(
            f"{error}; --allow-dill decodes it, --config FILE takes its place"
        ) from error


def _read(path: Path) -> Any:
    try:
        given = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint="--config") from None
    if not isinstance(given, dict):
        raise typer.BadParameter(f"{path} holds no JSON object: write {{…}}", param_hint="--config")
    return cast("dict[str, Any]", given)


def _changed(config: Any, changes: list[str]) -> Any:
    """Return a configuration with changes, and say what they are."""
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{change!r} is no NAME=VALUE", param_hint="--set")
        try:
            config, before, after = replaced(config, name, _value(text))
        except InvalidCommand as error:
            hint = "pass the whole of it with --config FILE"
            raise typer.BadParameter(f"{error}: {hint}", param_hint="--set") from None
        is_new = before is msgspec.UNSET
        note(
            f"{name}: {shown(after)}, which is new"
            if is_new
            else f"{name}: {shown(before)} -> {shown(after)}"
        )
    return config


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text

"""Asking something of a run: `stop`, `resume`, `clone`, `delete`; its controller carries it out."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import uuid4

import msgspec
import typer

from refold.as_json import select
from refold.cli.open_face import actor_name, open_face
from refold.cli.options import DEFAULT_STORE, Actor, AllowDill, Json, Store, Yes
from refold.cli.output import note, print_json, shown
from refold.cli.safely import ask, tell_if_interrupted
from refold.configuration import replaced
from refold.eventstore.errors import InvalidCommand, InvalidPayload, NotFound
from refold.projections.fit import interactive_control, runs
from refold.rf_db import RfDb
from refold.rows import Row

Run = Annotated[int, typer.Argument(metavar="RUN", help="Its id, such as 5.")]


def stop(
    run_id: Run,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    actor: Actor = None,
) -> None:
    """Ask to stop a run; it can be resumed.

    Examples:
        refold stop 5
        refold stop 5 --yes --json
    """
    with open_face(store, actor=actor_name(actor)) as db:
        ask(f"Ask to stop {_described(db, run_id)}?", yes=yes)
        _request(db, run_id, db.request_stop, json=json)


def resume(
    run_id: Run,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    actor: Actor = None,
) -> None:
    """Ask to let a run go on.

    Examples:
        refold resume 5
    """
    with open_face(store, actor=actor_name(actor)) as db:
        ask(f"Ask to resume {_described(db, run_id)}?", yes=yes)
        _request(db, run_id, db.request_resume, json=json)


def delete(
    run_id: Run,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    actor: Actor = None,
) -> None:
    """Ask to delete a run, for ever; what happened to it stays in the log.

    Examples:
        refold delete 5
    """
    with open_face(store, actor=actor_name(actor)) as db:
        ask(f"Ask to delete {_described(db, run_id)}, for ever?", yes=yes)
        _request(db, run_id, db.request_delete, json=json)


def clone(
    run_id: Run,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="What is to be different, such as lr=0.1; the value is JSON, or else text. "
            "Names within names are separated by dots. May be given repeatedly.",
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
        what = _described(db, run_id)
        given = None if config is None else _read(config)
        if changes:
            given = _changed(_config(db, run_id) if config is None else given, changes)
        weights = ", with its weights" if warm_start else ""
        ask(f"Ask to clone {what}{weights}?", yes=yes)

        def request(run_id: int, **about: Any) -> int:
            return db.request_clone_modify(run_id, given, warm_start, **about)

        _request(db, run_id, request, json=json)


def _described(db: RfDb, run_id: int) -> str:
    found = select(db, runs, {"run_id": run_id})
    if not found:
        raise NotFound(f"there is no run {run_id}: refold runs lists those that there are")
    [run] = found
    return f"run {run_id} ({run['run_name']}, {run['status']})"


def _request(db: RfDb, run_id: int, request: Callable[..., int], *, json: bool) -> None:
    command_id = str(uuid4())
    with tell_if_interrupted(db, command_id):
        ic_id = request(run_id, command_id=command_id)
        row: Row
        [row] = select(db, interactive_control, {"ic_id": ic_id}, config=json)
        if json:
            print_json(row)
            return
        what = row["operation"].lower().replace("_modify", "")
        print(f"request {ic_id}: {what} run {run_id} is {row['status']}")
        note(f"the controller decides what becomes of it: refold show request {ic_id}")


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
            hint = "pass the whole of it, or others, with --config FILE"
            raise typer.BadParameter(f"{error}; {hint}", param_hint="--set") from None
        note(f"{name}: {shown(before)} -> {shown(after)}")
    return config


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text

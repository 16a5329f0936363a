"""`refold export` and `refold import`: the log and the views in the formats of other programs."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, BinaryIO

import typer

from refold.cli.open_face import import_views, open_face, open_log
from refold.cli.options import DEFAULT_STORE, At, Imports, Json, Store, Yes, moment
from refold.cli.output import note, print_json
from refold.cli.safely import STDOUT, out_file
from refold.eventstore import EventStore
from refold.eventstore.log.past import PastStore
from refold.face import Face


class Format(StrEnum):
    """What a file can be."""

    JSONL = "jsonl"
    TRACE = "trace"
    CSV = "csv"
    PARQUET = "parquet"


SUFFIXES = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.TRACE,
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
}


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is standard output.")],
    kind: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="By default what the end of FILE says; jsonl for -."),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option("--view", metavar="VIEW", help="CSV, Parquet: a view, instead of the events."),
    ] = None,
    payloads: Annotated[
        bool,
        typer.Option(help="JSON Lines: configurations, checkpoints … too; import needs them."),
    ] = True,
    at: At = None,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Write the log or a view to a file: JSON Lines, a trace for Perfetto, CSV, Parquet.

    Only JSON Lines (.jsonl) holds the whole log, and can be imported again. The trace (.json) is a
    timeline, with a lane for each worker, actor and run: open it at https://ui.perfetto.dev, which
    keeps it in the browser.

    Examples:
        refold export log.jsonl
        refold export trace.json
        refold export runs.csv --view runs_wide --at 1h
        refold export events.parquet
        refold export - | gzip > log.jsonl.gz
    """
    chosen = kind or _format_of(file)
    of_the_log = chosen in (Format.JSONL, Format.TRACE)
    if view is not None and of_the_log:
        raise typer.BadParameter("only CSV and Parquet are of a view", param_hint="--view")
    if not payloads and chosen is not Format.JSONL:
        raise typer.BadParameter("only JSON Lines hold payloads", param_hint="--no-payloads")
    if json and file == STDOUT:
        raise typer.BadParameter("the file itself goes to standard output", param_hint="--json")
    if of_the_log:
        with _log_at(store, at) as log, out_file(file, store=store, yes=yes) as out:
            count, what = _write_log(log, out, chosen, payloads)
    else:
        what = view or "events"
        with (
            open_face(store, at=at, imports=imports) as db,
            out_file(file, store=store, yes=yes) as out,
        ):
            count = _write_rows(db, what, out, chosen)
    if json:
        print_json({"file": file, "format": chosen.value, "what": what, "count": count})
    elif file != STDOUT:
        note(f"{count} {what if view is None else f'rows of {view}'} written to {file}")


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON Lines; - is standard input.")],
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Make a store of a log in JSON Lines: an equal log, and its views.

    The store must not be there yet, or be empty. It is made as a whole or not at all.

    Examples:
        refold import log.jsonl --store copy.db
        gzip -dc log.jsonl.gz | refold import - --store postgresql://user@host/database
    """
    from refold.export import json_lines

    views = import_views(imports or ()).values()
    with _in_file(file) as lines:
        events = json_lines.read(lines, store, projections=views)
    if json:
        print_json({"file": file, "events": events})
    else:
        note(f"{events} events imported from {file}")


def _format_of(file: str) -> Format:
    suffix = os.path.splitext(file)[1].lower()
    if file == STDOUT:
        return Format.JSONL
    if suffix not in SUFFIXES:
        raise typer.BadParameter(
            f"{file} does not say what it shall be: pass a FILE that ends with "
            f"{', '.join(SUFFIXES)}, or --format"
        )
    return SUFFIXES[suffix]


@contextmanager
def _log_at(place: str, at: str | None) -> Generator[EventStore | PastStore, None, None]:
    """Open a log without its views, as events that no view can fold stand in the way of those."""
    with open_log(place) as log:
        when = None if at is None else moment(at)
        yield log if when is None else PastStore(log, log.position_at(when))


def _write_log(
    log: EventStore | PastStore, file: BinaryIO, kind: Format, payloads: bool
) -> tuple[int, str]:
    """Write a log, and return how many of what the file holds."""
    if kind is Format.JSONL:
        from refold.export import json_lines

        return json_lines.write(log, file, payloads=payloads), "events"
    from refold.export import trace

    return trace.write(log, file), "trace events"


def _write_rows(db: Face, what: str, file: BinaryIO, kind: Format) -> int:
    from refold.export.tables import write_csv, write_parquet

    write = write_csv if kind is Format.CSV else write_parquet
    return write(db, what, file)


@contextmanager
def _in_file(path: str) -> Generator[BinaryIO, None, None]:
    if path == STDOUT:
        yield sys.stdin.buffer
        return
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="FILE") from error

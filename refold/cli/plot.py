"""`refold plot`: how a metric of runs went."""

from enum import StrEnum
from shutil import get_terminal_size
from typing import Annotated

import typer

from refold.cli.open_face import open_face
from refold.cli.options import DEFAULT_STORE, At, Imports, Json, Store, Yes
from refold.cli.output import is_coloured, note, print_json
from refold.cli.safely import out_file
from refold.face import Face
from refold.plot import picture_of
from refold.plot import plot as plotted


class Axis(StrEnum):
    """What the x axis can show."""

    STEP = "step"
    POSITION = "position"
    TIME = "time"
    CHUNK = "chunk"


TALL = 24
"""Lines that a plot has at most."""


def plot(
    words: Annotated[
        list[str], typer.Argument(metavar="run RUN... METRIC", help="Without a RUN: all runs.")
    ],
    over: Annotated[
        Axis | None,
        typer.Option(
            help="What the x axis shows; steps, or positions in the log if there are none."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="A picture: .png, .svg or .pdf."),
    ] = None,
    at: At = None,
    yes: Yes = False,
    json: Json = False,
    store: Store = DEFAULT_STORE,
    imports: Imports = None,
) -> None:
    """Plot the curve of a metric, of one run or several, here or as a picture.

    Examples:
        refold plot run 5 loss
        refold plot run 1 2 5 accuracy --over time
        refold plot runs loss --out loss.svg
    """
    ids, metric = _parsed(words)
    kind = None if out is None else picture_of(out)
    with open_face(store, at=at, imports=imports) as db:
        made = plotted(db, ids or _all_runs(db), metric, over=None if over is None else over.value)
    if json:
        print_json(
            [
                {"run_id": curve.run_id, "metric": metric, made.over: curve.x, "values": curve.y}
                for curve in made.curves
            ]
        )
    if out is not None and kind is not None:
        with out_file(out, store=store, yes=yes) as file:
            file.write(made.picture(kind))
        if not json:
            note(f"{made.title}: saved as {out}")
    elif not json:
        width, height = get_terminal_size((100, TALL))
        print(made.text(width, min(height - 1, TALL), coloured=is_coloured()), end="")


def _all_runs(db: Face) -> list[int]:
    return [row["run_id"] for row in db.db.execute("SELECT run_id FROM runs ORDER BY run_id")]


def _parsed(words: list[str]) -> tuple[list[int], str]:
    """Return the ids of the runs, and the metric."""
    first, *ids, metric = [*words, ""] if len(words) < 2 else words
    if first not in ("run", "runs") or not metric or metric.isdecimal():
        raise typer.BadParameter("say which runs and which metric, such as run 5 loss")
    wrong = [word for word in ids if not (word.isascii() and word.isdigit())]
    if wrong:
        raise typer.BadParameter(
            f"{wrong[0]!r} is not a run's id: pass numbers, and the metric last"
        )
    return [int(word) for word in ids], metric

"""The command line itself: finds a command, runs it, and says how it ended."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import getdoc
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from refold import __version__
from refold.cli.options import BROKEN_PIPE, FAILED, INTERRUPTED, NEVER_IN_A_URL
from refold.cli.output import complain, is_terminal
from refold.eventstore.arguments import excerpt
from refold.eventstore.errors import DBException

DEBUG = "REFOLD_DEBUG"
"""The environment variable that shows the whole traceback of an unexpected error."""

# Some releases of typer bring a click of their own, others do not.
_WRONG_USAGE: type[Exception] = next(
    kind
    for kind in typer.BadParameter.__mro__
    if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)

COMMANDS: dict[str, dict[str, str]] = {
    "See what there is": {
        "status": "refold.cli.status:status",
        "experiments": "refold.cli.lists:experiments",
        "runs": "refold.cli.lists:runs",
        "tasks": "refold.cli.lists:tasks",
        "workers": "refold.cli.lists:workers",
        "requests": "refold.cli.lists:requests",
        "contexts": "refold.cli.lists:contexts",
        "pipelines": "refold.cli.lists:pipelines",
        "actor-tasks": "refold.cli.lists:actor_tasks",
        "show": "refold.cli.show:show",
        "ui": "refold.cli.ui:ui",
    },
    "Ask what happened, and why": {
        "log": "refold.cli.log:log",
        "history": "refold.cli.past:history",
        "why": "refold.cli.past:why",
        "diff": "refold.cli.past:diff",
        "step": "refold.cli.step:step",
        "plot": "refold.cli.plot:plot",
    },
    "Ask something of a run": {
        "stop": "refold.cli.control:stop",
        "resume": "refold.cli.control:resume",
        "clone": "refold.cli.control:clone",
        "delete": "refold.cli.control:delete",
    },
    "Run RapidFire AI on it": {
        "rapidfire": "refold.cli.rapidfire:rapidfire",
    },
    "Look after the store": {
        "doctor": "refold.cli.doctor:doctor",
        "verify": "refold.cli.maintain:verify",
        "rebuild": "refold.cli.maintain:rebuild",
        "recover": "refold.cli.maintain:recover",
        "fork": "refold.cli.maintain:fork",
        "copy": "refold.cli.maintain:copy",
        "backup": "refold.cli.maintain:backup",
        "export": "refold.cli.export:export",
        "import": "refold.cli.export:import_",
    },
}


HELP = f"""The event-sourced state store for ML experiments: look at it, ask why, change it.

\b
Examples:
    refold status                          what is running
    refold runs --status FAILED --at 1h    which runs had failed an hour ago
    refold why run 5 status                what made run 5 what it is
    refold log --follow                    what happens, as it happens

The store is the file rapidfire.db here, what REFOLD_STORE names, or --store. {NEVER_IN_A_URL}

Exit codes: 0 done; 1 the answer is no; 2 wrong usage; 3 refused or failed; 130 interrupted.
"""


class Commands(Mapping[str, Any]):
    """The commands, each made when it is asked for: so none waits for what the others import."""

    def __init__(self) -> None:
        self._places = {
            name: (panel, place)
            for panel, places in COMMANDS.items()
            for name, place in places.items()
        }

    def __getitem__(self, name: str) -> Any:
        panel, place = self._places[name]
        module, _, function = place.partition(":")
        command = getattr(import_module(module), function)
        alone = _typer()
        alone.command(name, help=_help_of(command), rich_help_panel=panel)(command)
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _typer(*, completion: bool = False, **options: Any) -> typer.Typer:
    """Return a new app; its help has colours and panels on a terminal only, as all output has."""
    return typer.Typer(
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if is_terminal() else None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


def _help_of(command: Any) -> str:
    # \b: the lines of the examples stay as they are.
    return re.sub(r"(?m)^Examples:$", "\b\nExamples:", getdoc(command) or "")


class Group(TyperGroup):
    """Runs a command and turns what it raises into a message and an exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands in the order of their panels."""
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except DBException as error:
            complain(str(error))
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:
            # Whoever read has had enough. What is still in the buffer goes nowhere, quietly.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from error
        except (_WRONG_USAGE, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            complain(
                f"{type(error).__name__}: {excerpt(str(error))}: this should not happen; report it "
                f"with what {DEBUG}=1 shows"
            )
            raise typer.Exit(FAILED) from error
        return result


def _version(asked: bool) -> None:
    if asked:
        print(f"refold {__version__}")
        raise typer.Exit


def _whole(
    store: Annotated[
        str | None,
        typer.Option(
            "--store", "-s", metavar="PATH|URL", help="The store, for whatever command follows."
        ),
    ] = None,
    _: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    if store is not None:
        os.environ["REFOLD_STORE"] = store


def run() -> int:
    """Run the command line and return its exit code."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # to a terminal with few characters, the others go escaped
        reconfigure(errors="backslashreplace")
    app = _typer(completion=True, cls=Group, help=HELP, no_args_is_help=True)
    app.callback()(_whole)
    try:
        app(prog_name="refold")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0

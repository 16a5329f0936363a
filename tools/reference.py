"""Write `docs/reference.md`, which lists the events, the views and the legal moves of the code.

Usage: reference.py
"""

import inspect
import sys
from pathlib import Path
from typing import Any, cast

import msgspec

# This checkout's refold, whichever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from refold.commands import moves as moves_module
from refold.eventstore.event import Event
from refold.eventstore.events import event_types
from refold.projections import ALL

TOP = Path(__file__).resolve().parents[1]
PAGE = TOP / "docs" / "reference.md"

HEAD = """# Reference

Written by `make generate` from the code; a test keeps it true.

## Events

Each row is a type, with the stream that it names; `field?` may be None, or missing.
*Changes* names the views whose rows it changes.

| event | stream | fields | what happened | changes |
| --- | --- | --- | --- | --- |
"""


def reference() -> str:
    """Return the page as the code has it."""
    by_entity = sorted(event_types(), key=_line)
    lines = [_event(cls) for cls in by_entity]
    page = HEAD + "\n".join(lines) + "\n\n## Views\n"
    for view in ALL:
        columns = ", ".join(f"`{column}`" for column in view.columns)
        page += f"\n**{view.name}** (version {view.version}): {columns}\n"
    page += (
        "\n## Legal moves\n\nA status that is set again changes nothing; any other move is refused "
        "with `IllegalTransition`.\n"
    )
    for name, value in vars(moves_module).items():
        if isinstance(value, dict) and name.isupper():
            page += f"\n**{name.lower().replace('_', ' ')}**\n\n"
            moves = cast("dict[str, Any]", value)
            for before, after in moves.items():
                ways = ", ".join(word for word in moves if word in after) or "nothing"
                page += f"- {before} → {ways}\n"
    return page


def _line(cls: type[Event]) -> int:
    return inspect.getsourcelines(cls)[1]


def _event(cls: type[Event]) -> str:
    fields = [
        f"{field.name}{'?' if field.default in (None, msgspec.UNSET) else ''}"
        for field in msgspec.structs.fields(cls)
    ]
    changes = [v.name for v in ALL if cls.__name__ in v.handlers or cls.__name__ in v.clearing]
    return (
        f"| `{cls.__name__}` | `{_example(cls)}` | {', '.join(fields)} "
        f"| {' '.join((inspect.getdoc(cls) or '').split())} | {', '.join(changes)} |"
    )


def _example(cls: type[Event]) -> str:
    """Return the stream of an event of a type, with the name of the id where the id is."""
    return str(cls.stream_of).format(
        f"<{cls.__struct_fields__[0]}>" if cls.__struct_fields__ else ""
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(reference(), "utf-8")
    print(f"wrote {PAGE.relative_to(TOP)}")


if __name__ == "__main__":
    main()

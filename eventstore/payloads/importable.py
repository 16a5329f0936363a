"""What another process finds by its name, and what it does not: a script's own."""

import sys
from operator import attrgetter
from typing import Any

SCRIPTS = ("__main__", "__mp_main__")
"""The names under which a script is a module: its own, and that in a spawned process."""


def is_importable(obj: Any) -> bool:
    """Whether a class, function or type variable is what its module has under its name."""
    module = sys.modules.get(obj.__module__)
    if module is None or obj.__module__ in SCRIPTS:
        return False
    try:
        return attrgetter(getattr(obj, "__qualname__", obj.__name__))(module) is obj
    except AttributeError:
        return False

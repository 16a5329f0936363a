"""Puts refold's classes in the place of RapidFire's when its database modules are imported."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PLACES = {
    "rapidfireai.fit.db.rf_db": ("refold.rapidfire.fit", "RfDb"),
    "rapidfireai.evals.db.rf_db": ("refold.rapidfire.evals", "RFDatabase"),
}
"""RapidFire's modules, each with the module that has the class for it, and the class."""


def install() -> None:
    """Have the classes replaced from now on; to call it again does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PLACES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # First the module itself: what ours imports of RapidFire is loaded then, without a circle.
        self._own.exec_module(module)
        place, name = PLACES[module.__name__]
        setattr(module, name, getattr(import_module(place), name))
        module.__dict__["replaced_by_refold"] = True

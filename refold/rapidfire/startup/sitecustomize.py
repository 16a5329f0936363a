"""Python runs this when it starts with the environment of `refold.rapidfire.environment()`."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run_the_next() -> None:
    """Run the `sitecustomize.py` that Python would have run without this one."""
    paths = [path for path in sys.path if Path(path).resolve() != HERE]
    spec = PathFinder.find_spec("sitecustomize", paths)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


try:
    from refold.rapidfire.hook import install
except ImportError:  # the interpreter of another environment, which has no refold
    pass
else:
    install()
run_the_next()

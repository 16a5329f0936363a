"""Put small faults into `commands` and `projections`, and list those that their own tests miss.

Usage: python tools/mutants.py [--sample COUNT] [--seed N] [--jobs N] [--only PATTERN]

A mutant is a module with one fault, made from its syntax tree. No file is changed: a child of a
process that has loaded the libraries already reads the mutant in place of the file, and runs the
tests until one fails. A mutant whose tests exceed the time limit counts as killed.

Left out are `__init__.py` and subfolders; within a module docstrings, the text of errors,
annotations (but not the words of a `Literal`), imports and assertions.

Mutants that behave like the original are listed in `equivalent_mutants.txt`, each with the reason.
The exit status is 1 if fewer than 95 % of the others are killed.
"""

import argparse
import ast
import gc
import importlib.util
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from copy import copy
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from signal import SIGKILL
from types import CodeType
from typing import Any, NamedTuple, cast

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("commands", "projections")
EVENTS = "refold.eventstore.events"
"""The module of the events: each is mutated into another."""
TESTS = {
    "commands/command.py": ["test_execute", "test_commands_fit"],
    "commands/evals.py": ["test_commands_evals", "test_commands_transitions"],
    "commands/fit.py": ["test_commands_fit", "test_commands_transitions"],
    "commands/moves.py": ["test_commands_transitions"],
    "commands/store.py": ["test_commands_store"],
    "projections/entities.py": ["test_entities"],
    "projections/evals.py": ["test_effects"],
    "projections/experiments.py": ["test_effects"],
    "projections/fit.py": ["test_effects"],
    "projections/unit_of_work.py": ["test_unit_of_work"],
    "projections/verify.py": ["test_verify"],
    "projections/view.py": ["test_view"],
    "projections/views.py": ["test_queries", "test_settling", "test_views"],
}
"""The modules, and the tests that run first on a mutant of each; then come those of the others."""
OPTIONS = [
    # Without those that need a server, start processes or take seconds.
    *("-m", "not property and not soak"),
    *("-k", "not (postgres or another_process or others_do_not or clean_while or readers_see)"),
    *("-x", "--tb=short"),
    *("-p", "pytest_timeout"),
    *("-p", "no:cacheprovider"),
    *("-p", "no:unraisableexception"),  # it would collect all garbage, twice
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # pytest runs more than once
]
WARM = (
    "refold.eventstore.events",
    "refold.eventstore.progress",
    "hypothesis.strategies",
    "psycopg",
)
"""What the parent imports: nothing that imports `commands` or `projections`."""
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where the tests put their files: in memory, which never waits for a disk."""
GOAL = 0.95
"""The share of the mutants that are not equivalent which must be killed."""
SECONDS = 60
"""The time limit of a mutant."""


class Mutant(NamedTuple):
    """A module with one fault."""

    file: str
    line: int
    name: str
    """The file, the place and the change: it stays when the line moves."""
    source: str

    def __str__(self) -> str:
        return self.name.replace(":", f":{self.line}:", 1)


# --- making mutants ------------------------------------------------------------------------------

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt,
}  # fmt: skip
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
}  # fmt: skip
MUTATED_ITSELF = (ast.Compare, ast.BoolOp, ast.UnaryOp)
"""As a test of `if`, these need not be negated."""
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}

Names = dict[str, list[str]]


def attributes(tree: ast.AST) -> Names:
    """Return the attributes that are read of each name; methods that are called are left out.

    What a module imports from `EVENTS` are attributes too.
    """
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found: Names = defaultdict(list)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=base), attr=name) if id(node) not in called:
                found[base].append(name)
            case ast.ImportFrom(module=module) if module == EVENTS:
                found[EVENTS] += [event.name for event in node.names]
            case _:
                pass
    return found


def after(names: Iterable[str], name: str) -> str | None:
    """Return the name that follows one; None: there is no other."""
    known = list(dict.fromkeys(names))
    if name not in known or len(known) == 1:
        return None
    return known[(known.index(name) + 1) % len(known)]


def changes(node: ast.AST, near: Names, far: Names) -> Iterator[tuple[ast.AST, str]]:
    """Yield what can take the place of a node, with a label if its code would be too long.

    Args:
        node: the original.
        near: the attributes that are read in the same statement of the module.
        far: those in the whole module.
    """
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value), ""
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1), ""
        case ast.Constant(value=str(value)):
            yield ast.Constant(value + "X"), ""
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for at, op in enumerate(ops):
                other = [*ops[:at], COMPARED[type(op)](), *ops[at + 1 :]]
                yield ast.Compare(left, other, comparators), ""
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values), ""
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand, ""
        case ast.BinOp(left=left, op=op, right=right) if type(op) in COMPUTED:
            yield ast.BinOp(left, COMPUTED[type(op)](), right), ""
        case ast.Call(func=func, args=args, keywords=keywords):
            for at, keyword in enumerate(keywords):
                yield ast.Call(func, args, without(keywords, at)), f"without {keyword.arg}="
        case ast.List(elts=elts) | ast.Set(elts=elts) | ast.Tuple(elts=elts, ctx=ast.Load()):
            for at, element in enumerate(elts):
                yield type(node)(without(elts, at)), f"without {ast.unparse(element)}"
        case ast.Dict(keys=keys, values=values):
            for at, key in enumerate(keys):
                label = f"without {ast.unparse(key)}" if key else f"without **{at}"
                yield ast.Dict(without(keys, at), without(values, at)), label
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, MUTATED_ITSELF):
            other = copy(node)
            other.test = ast.UnaryOp(ast.Not(), test)
            yield other, ""
        case ast.comprehension(target=target, iter=iterated, ifs=[_]):
            yield ast.comprehension(target, iterated, [], 0), ""
        case ast.Attribute(value=ast.Name(id=base) as value, attr=name):
            if other := after(near[base], name) or after(far[base], name):
                yield ast.Attribute(value, other), ""
        case ast.Name(id=name, ctx=ast.Load()):
            if other := FUNCTIONS.get(name) or after(far[EVENTS], name):
                yield ast.Name(other), ""
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield ast.Return(None), ""
        case ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Expr(value=ast.Call()):
            yield ast.Pass(), ""
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass(), ""
        case _:
            pass


def without(items: list[Any], index: int) -> list[Any]:
    """Return a list without one of its items."""
    return [*items[:index], *items[index + 1 :]]


def is_left_out(parent: ast.AST, field: str, part: ast.AST) -> bool:
    """Return whether nothing is changed in a part of a node."""
    match part:
        case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom() | ast.Assert():
            return True
        case ast.Assign(value=ast.Subscript() | ast.BinOp(op=ast.BitOr())):  # names of types
            return isinstance(parent, ast.Module)
        case ast.Call(func=ast.Name(id="TypeVar")):
            return True
        case _:
            pass
    if field in ("annotation", "returns"):
        return "Literal" not in ast.unparse(part)
    return isinstance(parent, ast.Raise) or (isinstance(parent, ast.ClassDef) and field != "body")


def mutants_of(file: str, text: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of its text."""
    tree = ast.parse(text)
    far = attributes(tree)
    names: Counter[str] = Counter()

    def within(node: ast.AST, scope: str, near: Names) -> Iterator[Mutant]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            scope = f"{scope[:-2]}.{node.name}: ".lstrip(".")
        for field, value in ast.iter_fields(node):
            parts = cast("list[object]", value) if isinstance(value, list) else [value]
            for at, part in enumerate(parts):
                if not isinstance(part, ast.AST) or is_left_out(node, field, part):
                    continue
                beside = attributes(part) if node is tree else near
                line = getattr(part, "lineno", getattr(node, "lineno", 0))
                for other, label in changes(part, beside, far):
                    name = f"{file}: {scope}{short(part)} -> {label or short(other)}"
                    names[name] += 1
                    again = f" ({names[name]})" if names[name] > 1 else ""
                    changed = [*parts[:at], other, *parts[at + 1 :]]
                    setattr(node, field, changed if parts is value else other)
                    yield Mutant(file, line, name + again, ast.unparse(tree))
                    setattr(node, field, value)
                yield from within(part, scope, beside)

    yield from within(tree, "", {})


def short(node: ast.AST) -> str:
    """Return the beginning of the code of a node, on one line."""
    code = f"if {ast.unparse(node.test)}" if isinstance(node, ast.If) else ast.unparse(node)
    text = " ".join(code.split())
    return text if len(text) <= 80 else text[:79] + "…"


# --- running their tests -------------------------------------------------------------------------

FORK = get_context("fork")
SPEC = cast("ModuleSpec", PathFinder.find_spec("refold", [str(ROOT)]))
REFOLD = importlib.util.module_from_spec(SPEC)
"""The package `refold`, whose `__init__.py`, which imports all others, is run in the child only."""


def put_in_place(mutant: Mutant) -> None:
    """Have this process read a mutant in place of its file."""
    mutated = "refold." + mutant.file.removesuffix(".py").replace("/", ".")
    code = compile(mutant.source, ROOT / mutant.file, "exec")
    read = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        return code if fullname == mutated else read(self, fullname)

    SourceFileLoader.get_code = get_code


def run_tests(mutant: Mutant, folder: str) -> None:
    """Run the tests until one fails, in a child, and end it with their status."""
    status = True
    folder = f"{folder}/{os.getpid()}"
    try:
        if mutant.name:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        put_in_place(mutant)
        cast("Loader", SPEC.loader).exec_module(REFOLD)
        first = TESTS[mutant.file]
        others = [name for name in dict.fromkeys(chain(*TESTS.values())) if name not in first]
        options = (f"--basetemp={folder}", *OPTIONS)
        status = any(
            pytest.main([*(f"tests/{name}.py" for name in names), *options])
            for names in (first, others)
        )
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(int(status))


def run_all(mutants: Iterable[Mutant], jobs: int, folder: str) -> Iterator[tuple[Mutant, int]]:
    """Run the tests on mutants, some at a time; yield each with the exit status of its child."""
    waiting = iter(mutants)
    running: dict[int, tuple[ForkProcess, Mutant, float]] = {}
    while True:
        for mutant in islice(waiting, jobs - len(running)):
            process = FORK.Process(target=run_tests, args=(mutant, folder))
            process.start()
            running[process.sentinel] = process, mutant, time.monotonic() + SECONDS
        if not running:
            return
        ended = wait(running, timeout=1)
        for sentinel, (process, mutant, until) in list(running.items()):
            if sentinel in ended:
                process.join()
                del running[sentinel]
                yield mutant, process.exitcode or 0
            elif time.monotonic() > until:
                process.kill()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Mutate two packages and run their own tests.")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="those in whose name this pattern is found")
    options = parser.parse_args()

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ.update(CI="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    sys.modules["refold"] = REFOLD
    for name in WARM:
        importlib.import_module(name)
    files = {str(file.relative_to(ROOT)) for room in ROOMS for file in (ROOT / room).glob("*.py")}
    if wrong := files ^ {*TESTS, *(f"{room}/__init__.py" for room in ROOMS)}:
        sys.exit(f"TESTS must name the modules that there are: see {', '.join(sorted(wrong))}")
    lines = EQUIVALENT.read_text("utf-8").splitlines()
    known = {line.split("  # ")[0] for line in lines if line and not line.startswith("#")}
    everything = [m for file in TESTS for m in mutants_of(file, (ROOT / file).read_text("utf-8"))]
    if stale := known - {mutant.name for mutant in everything}:
        sys.exit("\n".join([f"{EQUIVALENT.name} names what is no mutant:", *sorted(stale)]))
    chosen = [mutant for mutant in everything if re.search(options.only, str(mutant))]
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        # Bytecode is compiled once, also where the environment forbids to keep it beside the code.
        sys.dont_write_bytecode, sys.pycache_prefix = False, f"{folder}/bytecode"
        sys.exit(run(chosen, known, options.jobs, folder))


def run(chosen: list[Mutant], known: set[str], jobs: int, folder: str) -> bool:
    """Run the tests on mutants, tell how that ended, and return whether too many survived."""
    began = time.monotonic()
    file = next(iter(TESTS))
    original = Mutant(file, 0, "", (ROOT / file).read_text("utf-8"))
    if any(status for _, status in run_all([original], 1, folder)):
        sys.exit("the tests fail without a mutant")
    print(f"without a mutant the tests pass, in {time.monotonic() - began:.1f} s", flush=True)
    ends: dict[Mutant, int] = {}
    for mutant, status in run_all(chosen, jobs, folder):
        ends[mutant] = status
        if status == 0 and mutant.name not in known:
            print(f"survived: {mutant}", flush=True)
        elif status != 0 and mutant.name in known:
            print(f"killed, so it is not equivalent: {mutant}", flush=True)
        if len(ends) % 100 == 0:
            print(f"{len(ends)} of {len(chosen)}, {time.monotonic() - began:.0f} s", flush=True)
    alive = [mutant for mutant in chosen if ends[mutant] == 0]
    survivors = [mutant for mutant in alive if mutant.name not in known]
    dead, slow = len(ends) - len(alive), list(ends.values()).count(-SIGKILL)
    share = dead / max(dead + len(survivors), 1)
    equivalent, seconds = len(alive) - len(survivors), time.monotonic() - began
    print(f"\n{len(ends)} mutants in {seconds:.0f} s: {dead} killed ({slow} by the time limit),")
    print(f"{equivalent} equivalent, {len(survivors)} survived")
    for mutant in survivors:
        print(f"  {mutant}")
    print(f"{share:.1%} of those that are not equivalent are killed; {GOAL:.0%} is the least")
    return share < GOAL


if __name__ == "__main__":
    main()

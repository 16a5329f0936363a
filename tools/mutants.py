"""Mutate the rooms `commands` and `projections`, and list the mutants that their own tests miss.

Usage: python tools/mutants.py [--sample COUNT] [--seed N] [--jobs N] [--only PATTERN]

A mutant is a module with one small fault, made from its syntax tree in memory: no file is
changed. Each one is imported by a fork of a process that has the libraries loaded already; there
the tests run until the first fails. A mutant that exceeds the time limit counts as killed.

Not mutated: docstrings, the text of errors that are raised, annotations other than the words of a
`Literal`, `__all__`, imports, assertions, and what stands under `TYPE_CHECKING`.

Mutants that behave like the original are named in `equivalent_mutants.txt`, each with a reason.
The exit status is 1 if fewer than 95 % of the others are killed.
"""

import argparse
import ast
import gc
import importlib
import importlib.abc
import importlib.util
import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar, cast

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"commands": "commands", "projections": "projections"}
"""The folders, and the packages as which they are imported; their subfolders are left out."""
EVENTS = "eventstore.events"
"""Where the rooms import events from: each is mutated into another."""
IN_MEMORY = [
    *("test_effects", "test_commands_transitions", "test_commands_fit", "test_commands_evals"),
    *("test_commands_store", "test_unit_of_work", "test_view", "test_entities"),
]
"""The rooms' own tests that need no store: without conftest.py, which imports the faces."""
ON_FILES = ["test_execute", "test_settling", "test_verify", "test_views"]
"""The others."""
FIRST = {
    "commands": ["test_commands_transitions", "test_commands_fit"],
    "commands/actor_tasks.py": ["test_commands_transitions", "test_commands_evals"],
    "commands/contexts.py": ["test_commands_transitions", "test_commands_evals"],
    "commands/execute.py": ["test_execute"],
    "commands/pipelines.py": ["test_commands_transitions", "test_commands_evals"],
    "commands/store.py": ["test_commands_store"],
    "commands/transitions.py": ["test_commands_transitions"],
    "projections": ["test_effects"],
    "projections/entities.py": ["test_entities"],
    "projections/unit_of_work.py": ["test_unit_of_work"],
    "projections/verify.py": ["test_verify"],
    "projections/view.py": ["test_view"],
    "projections/views.py": ["test_settling", "test_verify"],
}
"""The tests that are likely to kill a mutant of a room, or of a module, run before the others."""
SKIPPED = [
    *("-k", "not postgres"),
    *(f"--deselect=tests/test_views.py::{test}" for test in (
        *("test_any_", "test_every_prefix", "test_an_aborted", "test_views_of_a_users_own"),
        *("test_what_another_process", "test_a_view_that_others", "test_verify_is_clean_while"),
        *("test_readers_see",),
    )),
]  # fmt: skip
"""Of these, what is not run: tests that need a server, start processes or take seconds."""
WARM = ("eventstore", "hypothesis.strategies", "psycopg", "pytest", "tqdm")
"""What is imported before the fork: nothing that imports a room."""
OPTIONS = [
    *("-x", "--tb=short"),
    *("-p", "pytest_timeout"),
    *("-p", "no:cacheprovider"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # pytest runs more than once
    *("-p", "no:unraisableexception"),  # would collect all garbage, twice
]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where the tests put their files: in memory, which never waits for a disk."""
GOAL = 0.95
"""How many of the mutants that are not equivalent must be killed."""
SECONDS = 60
"""The time limit of a mutant."""


@dataclass(frozen=True)
class Mutant:
    """A module with one fault."""

    file: str
    line: int
    name: str
    """What is changed, and where: the same as long as the code is, unlike the line."""
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
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
TYPES_OF_FIELDS = ("Event", "Id", "Int", "Name")

T = TypeVar("T")


class Siblings:
    """What might have been written instead of a name: a field, a word or an event beside it."""

    def __init__(self, tree: ast.Module) -> None:
        self._attributes: dict[str, list[str]] = {}
        self._events: list[str] = []
        self._fields: list[str] = []
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id=base), attr=name):
                    self._attributes.setdefault(base, []).append(name)
                case ast.ImportFrom(module=module) if module == EVENTS:
                    self._events += [n.name for n in node.names if n.name not in TYPES_OF_FIELDS]
                case _:
                    pass

    def enter(self, node: ast.ClassDef) -> None:
        """Take the fields of a class for those that `self` has."""
        self._fields = [
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        ]

    def of_attribute(self, base: str, name: str) -> str | None:
        """Return another attribute of the same thing."""
        if base == "self":
            return _next(self._fields, name)
        return _next(list(dict.fromkeys(self._attributes[base])), name)

    def of_event(self, name: str) -> str | None:
        """Return another event."""
        return _next(self._events, name)


def _next(names: list[str], name: str) -> str | None:
    if name not in names or len(names) == 1:
        return None
    return names[(names.index(name) + 1) % len(names)]


def changes(node: ast.AST, siblings: Siblings, called: bool) -> Iterator[tuple[ast.AST, str]]:
    """Yield what can take the place of one node, and how to tell it where that is long."""
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
                yield ast.Call(func, args, _without(keywords, at)), f"without {keyword.arg}="
        case ast.List(elts=elts) | ast.Set(elts=elts) | ast.Tuple(elts=elts, ctx=ast.Load()):
            for at, element in enumerate(elts):
                rest = _without(elts, at)
                empty = ast.Call(ast.Name("set"), [], [])
                other = empty if isinstance(node, ast.Set) and not rest else type(node)(rest)
                yield other, f"without {ast.unparse(element)}"
        case ast.Dict(keys=keys, values=values):
            for at, key in enumerate(keys):
                told = f"without {ast.unparse(key)}" if key else f"without **{at}"
                yield ast.Dict(_without(keys, at), _without(values, at)), told
        case ast.IfExp(test=test, body=body, orelse=orelse) if not _is_negated(test):
            yield ast.IfExp(_not(test), body, orelse), ""
        case ast.comprehension(target=target, iter=iterated, ifs=[_]):
            yield ast.comprehension(target, iterated, [], 0), ""
        case ast.If(test=test, body=body, orelse=orelse) if not _is_negated(test):
            yield ast.If(_not(test), body, orelse), ""
        case ast.Attribute(value=ast.Name(id=base) as value, attr=name) if not called:
            if other := siblings.of_attribute(base, name):
                yield ast.Attribute(value, other), ""
        case ast.Name(id=name, ctx=ast.Load()):
            if other := SWAPPED.get(name) or siblings.of_event(name):
                yield ast.Name(other), ""
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield ast.Return(None), ""
        case ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Expr(value=ast.Call()):
            yield ast.Pass(), ""
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass(), ""
        case _:
            pass


def _is_negated(test: ast.expr) -> bool:
    # Then another mutant is the same.
    return isinstance(test, ast.Compare | ast.BoolOp) or (
        isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    )


def _not(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), node)


def _without(items: Sequence[T], index: int) -> list[T]:
    return [item for at, item in enumerate(items) if at != index]


def _is_left_out(parent: ast.AST, field: str, part: ast.AST) -> bool:
    match part:
        case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom() | ast.Assert():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
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
    siblings = Siblings(tree)
    names: Counter[str] = Counter()

    def within(node: ast.AST, scope: str) -> Iterator[Mutant]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            scope = f"{scope[:-2]}.{node.name}: ".lstrip(".")
        if isinstance(node, ast.ClassDef):
            siblings.enter(node)
        for field, value in ast.iter_fields(node):
            parts = cast("list[object]", value) if isinstance(value, list) else [value]
            for at, part in enumerate(parts):
                if not isinstance(part, ast.AST) or _is_left_out(node, field, part):
                    continue
                called = isinstance(node, ast.Call) and field == "func"
                line = getattr(part, "lineno", getattr(node, "lineno", 0))
                for other, told in changes(part, siblings, called):
                    name = f"{file}: {scope}{_told(part)} -> {told or _told(other)}"
                    names[name] += 1
                    again = f" ({names[name]})" if names[name] > 1 else ""
                    source = _with(tree, node, field, at, other)
                    yield Mutant(file, line, name + again, source)
                yield from within(part, scope)

    yield from within(tree, "")


def _with(tree: ast.Module, node: ast.AST, field: str, at: int, other: ast.AST) -> str:
    before: Any = getattr(node, field)
    many = isinstance(before, list)
    setattr(node, field, [*before[:at], other, *before[at + 1 :]] if many else other)
    source = ast.unparse(tree)
    setattr(node, field, before)
    return source


def _told(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    if isinstance(node, ast.If):
        text = f"if {ast.unparse(node.test)}"
    return text if len(text) <= 80 else text[:79] + "…"


# --- running them --------------------------------------------------------------------------------


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        folder, _, path = mutant.file.partition("/")
        self._name = f"{ROOMS[folder]}.{path.removesuffix('.py')}"
        self._path = str(ROOT / mutant.file)
        self._code: CodeType = compile(mutant.source, self._path, "exec")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the mutant, and nothing else."""
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=self._path)

    def exec_module(self, module: ModuleType) -> None:
        """Run it."""
        module.__file__ = self._path
        exec(self._code, module.__dict__)


def run_tests(mutant: Mutant | None, folder: str) -> None:
    """Run the tests until one fails, in a process of their own, and exit with its status."""
    import pytest

    output = os.open(f"{folder}/output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    file = mutant.file if mutant else "commands"
    first = FIRST.get(file) or FIRST[file.partition("/")[0]]
    status = 1
    try:
        if mutant is not None:
            sys.meta_path.insert(0, Finder(mutant))
        for names in (first, IN_MEMORY, ON_FILES):
            files = [f"tests/{name}.py" for name in names if names is first or name not in first]
            more = SKIPPED if names[0] in ON_FILES else ["--noconftest"]
            status = pytest.main([*files, f"--basetemp={folder}/tests", *OPTIONS, *more])
            if status != 0:
                break
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(int(status))


class Run:
    """The tests on a mutant, in a fork of this process."""

    def __init__(self, mutant: Mutant | None) -> None:
        self.mutant = mutant
        self.late = False
        self._until = time.monotonic() + SECONDS
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY)
        arguments = (mutant, self._folder.name)
        self._process = get_context("fork").Process(target=run_tests, args=arguments)
        self._process.start()
        self.sentinel = self._process.sentinel

    def has_ended(self, ended: bool) -> bool:
        """Return whether it is over, which it is too when its time is."""
        self.late = not ended and time.monotonic() > self._until
        if self.late:
            self._process.kill()
        return ended or self.late

    def end(self) -> str:
        """Return how it ended: `killed`, `slow` or `alive`."""
        self._process.join()
        if self.mutant is None and self._process.exitcode != 0:
            sys.exit(Path(self._folder.name, "output").read_text("utf-8", "replace"))
        self._folder.cleanup()
        return "slow" if self.late else "killed" if self._process.exitcode else "alive"


def killed(mutants: Sequence[Mutant | None], jobs: int) -> Iterator[tuple[Mutant | None, str]]:
    """Run the tests on each mutant, some at a time; yield it with how that ended."""
    waiting, running = list(reversed(mutants)), list[Run]()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(Run(waiting.pop()))
        ended = wait([run.sentinel for run in running], timeout=1)
        for run in [run for run in running if run.has_ended(run.sentinel in ended)]:
            running.remove(run)
            yield run.mutant, run.end()


def all_mutants() -> list[Mutant]:
    """Return the mutants of both rooms."""
    files = [file for room in ROOMS for file in sorted((ROOT / room).glob("*.py"))]
    return [
        mutant
        for file in files
        for mutant in mutants_of(str(file.relative_to(ROOT)), file.read_text("utf-8"))
    ]


def equivalents() -> dict[str, str]:
    """Return the names of equivalent mutants, and why they are."""
    lines = EQUIVALENT.read_text("utf-8").splitlines()
    pairs = [line.split("  # ", 1) for line in lines if line and not line.startswith("#")]
    return {line[0]: line[1] for line in pairs}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Mutate the rooms and run their own tests.")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="those in whose name a pattern is found")
    options = parser.parse_args()

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ.update(CI="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    for name in WARM:
        importlib.import_module(name)
    known, everything = equivalents(), all_mutants()
    if stale := known.keys() - {mutant.name for mutant in everything}:
        sys.exit("\n".join([f"{EQUIVALENT.name} names what is no mutant:", *sorted(stale)]))
    chosen = [mutant for mutant in everything if re.search(options.only, str(mutant))]
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    gc.collect()
    gc.freeze()

    began = time.monotonic()
    for _ in killed([None], 1):
        print(f"without a mutant the tests pass, in {time.monotonic() - began:.1f} s", flush=True)
    ends: dict[Mutant, str] = {}
    for mutant, end in killed(chosen, options.jobs):
        assert mutant is not None
        ends[mutant] = end
        if end == "alive" and mutant.name not in known:
            print(f"survived: {mutant}", flush=True)
        elif end != "alive" and mutant.name in known:
            print(f"killed, so it is not equivalent: {mutant}", flush=True)
        if len(ends) % 100 == 0:
            print(f"{len(ends)} of {len(chosen)}, {time.monotonic() - began:.0f} s", flush=True)
    report(ends, known, len(everything), time.monotonic() - began)


def report(ends: dict[Mutant, str], known: dict[str, str], of: int, seconds: float) -> None:
    """Print the counts and the survivors by name, and exit."""
    alive = sorted((m for m, end in ends.items() if end == "alive"), key=lambda m: (m.file, m.line))
    equivalent = [mutant for mutant in alive if mutant.name in known]
    survivors = [mutant for mutant in alive if mutant.name not in known]
    count = len(ends) - len(equivalent)
    dead = count - len(survivors)
    slow = list(ends.values()).count("slow")
    share = dead / count if count else 1.0
    print(f"\n{len(ends)} mutants of {of}, in {seconds:.0f} s: {dead} killed ({slow} by the time "
          f"limit), {len(equivalent)} equivalent, {len(survivors)} survived")  # fmt: skip
    for mutant in survivors:
        print(f"  {mutant}")
    print(f"{share:.1%} of those that are not equivalent are killed; {GOAL:.0%} is the least")
    sys.exit(share < GOAL)


if __name__ == "__main__":
    main()

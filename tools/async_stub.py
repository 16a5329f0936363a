"""Write `refold/asynchronous.pyi`: the async faces, which are the sync ones, awaited.

Usage: async_stub.py
"""

import ast
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

# This checkout's refold, whichever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from refold import asynchronous, face, rf_database, rf_db

TOP = Path(__file__).resolve().parents[1]
STUB = TOP / "refold" / "asynchronous.pyi"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Method = tuple[Function, str]
"""A method with the text of its header."""


def stub() -> str:
    """Return the text of `asynchronous.pyi`: the methods of the sync faces, awaited."""
    own, common = _class(asynchronous, "AsyncFace"), _class(face, "Face")
    body = ["class AsyncFace:", "    face_type: type[Face]\n", _method(common["__init__"])]
    body += [_method(own[name]) for name in own if not name.startswith("_")]
    body += [_method(own[name]) for name in ("__aenter__", "__aexit__", "__init_subclass__")]
    body += _awaited_methods(common, own)
    for module, name in ((rf_db, "RfDb"), (rf_database, "RFDatabase")):
        body += [f"class Async{name}(AsyncFace, face={name}):"]
        different = _class(asynchronous, f"Async{name}")
        body += [_method(method) for method in different.values()]
        body += _awaited_methods(_class(module, name), own | different)
    text = "\n".join(body)
    aliases = [
        f"{ast.unparse(node)}\n"
        for module in (rf_db, rf_database)
        for node in _tree(module).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in _names(text)
    ]
    text = "".join(dict.fromkeys(aliases)) + "\n" + text
    head = '"""Made from the sync faces by `make generate`: do not edit."""'
    return f"{head}\n\n{_imports(text)}\n{text}".rstrip() + "\n"


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _class(module: ModuleType, name: str) -> dict[str, Method]:
    """Return the methods of a class, each with the text of its header."""
    lines = inspect.getsource(module).splitlines()
    [found] = [n for n in _tree(module).body if isinstance(n, ast.ClassDef) and n.name == name]
    return {
        node.name: (node, "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1]).strip())
        for node in found.body
        # What is looked up at once, such as `store`, is not awaited.
        if isinstance(node, Function) and "property" not in map(ast.unparse, node.decorator_list)
    }


def _awaited_methods(methods: dict[str, Method], own: dict[str, Method]) -> list[str]:
    return [
        _method((node, f"async {header}"))
        for name, (node, header) in methods.items()
        if not name.startswith("_") and name not in own
    ]


def _method(method: Method) -> str:
    """Return a method with its signature and the first line of its docstring."""
    node, header = method
    if "asynccontextmanager" in map(ast.unparse, node.decorator_list):
        # The generator behind it is nobody's business.
        header = "@asynccontextmanager\n    " + header.removeprefix("async ")
        header = re.sub(r"AsyncGenerator\[(\w+), None\]", r"AsyncGenerator[\1]", header)
    if len(header.splitlines()[0]) > 96:  # "async" made it too long: as ruff would break it
        header = re.sub(r"^(.*?\()(.*)(\) ->.*)$", r"\1\n        \2\n    \3", header)
    header = re.sub(r'-> "(.*)":$', r"-> \1:", header)  # what only type checkers import
    doc = ast.get_docstring(node)
    if doc is None:
        return f"    {header} ..."
    return f'    {header}\n        """{doc.splitlines()[0]}"""\n'


def _names(text: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}


def _imports(text: str) -> str:
    """Return the imports of the sources that the text needs, sorted as ruff does."""
    wanted = _names(text)
    plain: set[str] = set()
    members: dict[str, set[str]] = {}
    for module in (asynchronous, face, rf_db, rf_database):
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.Import):
                plain.update(alias.name for alias in node.names if alias.name in wanted)
            elif isinstance(node, ast.ImportFrom):
                found = {alias.name for alias in node.names if alias.name in wanted}
                if found and node.module is not None:
                    members.setdefault(node.module, set()).update(found)
    standard, others = "", ""
    for name in sorted(plain):
        if name in sys.stdlib_module_names:
            standard += f"import {name}\n"
        else:
            others += f"import {name}\n"
    ours = ""
    for module, found in sorted(members.items()):
        names = sorted(found)
        line = f"from {module} import {', '.join(names)}"
        if len(line) > 100:
            head = f"from {module} import ("
            line = "\n    ".join([head, *(f"{name}," for name in names)]) + "\n)"
        if module.split(".")[0] in sys.stdlib_module_names:
            standard += f"{line}\n"
        else:
            ours += f"{line}\n"
    return "\n".join(filter(None, (standard, others, ours)))


def main() -> None:
    """Write the stub."""
    STUB.write_text(stub(), "utf-8")
    print(f"wrote {STUB.relative_to(TOP)}")


if __name__ == "__main__":
    main()

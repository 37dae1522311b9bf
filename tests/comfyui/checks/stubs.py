"""Whether ``stubs/`` says of ComfyUI what is so: every name is there, and takes the parameters by the names given."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STUBS = Path(__file__).parents[3] / "stubs"


def check_stubs(_out: Path) -> Any:
    files = [p for p in sorted(STUBS.rglob("*.pyi")) if "pgp_pack" not in p.parts]
    return {"files": len(files), "wrong": [wrong for p in files for wrong in _of_module(p)]}


def _of_module(stub: Path) -> Iterator[str]:
    parts = stub.relative_to(STUBS).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    module = _imported(name)
    yield from _of_body(name, module, ast.parse(stub.read_text(encoding="utf-8")).body, "")


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        # A name that a package gives to one of its modules.
        package, _, last = name.rpartition(".")
        return getattr(importlib.import_module(package), last)


def _of_body(where: str, real: Any, body: list[ast.stmt], source: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        else:
            continue
        # What begins with an underscore is the stub's own; what is called Type is for type checkers in ComfyUI too.
        if (name.startswith("_") and name != "__init__") or name == "Type":
            continue
        if not hasattr(real, name):
            # Of objects, not of their class.
            if f"self.{name}" not in source:
                yield f"{where} has no {name}"
            continue
        found = getattr(real, name)
        if isinstance(node, ast.ClassDef):
            yield from _of_body(f"{where}.{name}", found, node.body, _source(found))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _of_function(f"{where}.{name}", found, node)


def _source(kind: Any) -> str:
    """Of a class and what it inherits from ComfyUI."""
    ours = [c for c in kind.__mro__ if c.__module__.partition(".")[0] in ("comfy", "comfy_api", "comfy_execution")]
    return "\n".join(inspect.getsource(c) for c in ours)


def _of_function(where: str, real: Any, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    taken = inspect.signature(real).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
        if argument.arg not in ("self", "cls") and argument.arg not in taken:
            yield f"{where} takes no {argument.arg}"

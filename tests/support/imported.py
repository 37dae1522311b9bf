"""What the nodes import, as their files say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def imported_by_nodes() -> list[str]:
    """Names of all modules below ``pgp_core`` that ``nodes/`` imports."""
    return sorted({name for file in (ROOT / "nodes").rglob("*.py") for name in _imported(file)})


def _imported(file: Path) -> set[str]:
    """Modules of ``pgp_core`` that a file of ``nodes/`` imports."""
    names: set[str] = set()
    for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.ImportFrom) and statement.level >= 2 and statement.module:
            head, _, module = statement.module.partition(".")
            if head == "pgp_core" and module:
                for path in (module, *(f"{module}.{a.name}" for a in statement.names)):
                    if (ROOT / "pgp_core" / Path(*path.split("."))).with_suffix(".py").exists():
                        names.add(path)
    return names


def reached_by_nodes() -> dict[str, set[str]]:
    """The files that the pack's entry point and ``nodes/`` lead to, from one to the next, at their tops or in their
    functions; each with the packages of others that it names."""
    found: dict[str, set[str]] = {}
    todo = [ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py")]
    while todo:
        file = todo.pop()
        name = file.relative_to(ROOT).as_posix()
        if name not in found:
            imports = list(_imports(file))
            found[name] = {i for i in imports if isinstance(i, str)}
            todo += [i for i in imports if isinstance(i, Path)]
    return found


def _imports(file: Path) -> Iterator[Path | str]:
    """Files of this repository, and names of others' packages."""
    for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            yield str(statement.module).partition(".")[0]
        elif isinstance(statement, ast.ImportFrom):
            base = file.parents[statement.level - 1].joinpath(*(statement.module or "").split("."))
            for path in (base, *(base / alias.name for alias in statement.names)):
                yield from (p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file())

"""What the nodes import of the core, as their files say."""

from __future__ import annotations

import ast
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

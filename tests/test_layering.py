"""The floors of ``pgp_core``: what a room imports lies below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "pgp_core"

#: Lowest first; rooms beside each other import nothing of each other. A file of its own is a room too.
FLOORS = (
    ("choices", "visible"),
    ("errors", "schedule"),
    ("number", "progress", "memory", "extras"),
    ("files",),
    ("images",),
    ("tiling",),
    ("unet",),
    ("guidance",),
    ("conditioning", "codecs"),
    ("sampling",),
    ("restorers",),
    ("batch",),
    ("redundancy",),
    ("planner",),
    ("plots",),
    ("training",),
    ("evaluation",),
    ("bench",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports(file: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line, and what is imported below ``pgp_core``, by its parts; relative imports resolved."""
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = base + tuple((node.module or "").split(".") if node.module else ())
            named = [(*module, alias.name) for alias in node.names]
        else:
            continue
        for parts in named:
            if parts[:1] == ("pgp_core",):
                yield node.lineno, parts[1:]


def room(parts: tuple[str, ...]) -> str | None:
    """The room of a module; None for ``pgp_core`` itself, which knows its version only."""
    return parts[0] if parts and (parts[0] in FLOOR or (CORE / parts[0]).exists()) else None


def test_every_room_has_its_floor() -> None:
    there = {p.stem for p in CORE.glob("*.py")} | {p.parent.name for p in CORE.glob("*/__init__.py")}
    assert there - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("file", sorted(CORE.rglob("*.py")), ids=lambda p: str(p.relative_to(CORE)))
def test_an_import_goes_down_a_floor(file: Path) -> None:
    own = file.relative_to(CORE).with_suffix("").parts[0]
    for line, parts in imports(file):
        other = room(parts)
        if other is not None and other != own:
            assert own in FLOOR and FLOOR[other] < FLOOR[own], f"{file.name}:{line}: {own} imports {other}"


def test_the_core_never_imports_comfyui() -> None:
    words = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server")
    for file in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            heads = {a.name.split(".")[0] for a in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                heads = {node.module.split(".")[0]}
            assert not heads & set(words), f"{file}: {heads}"

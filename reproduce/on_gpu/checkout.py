"""This checkout's packages, by their place: nothing has to be installed, and no folder goes on ``sys.path``.

The pack's root must not stand there: its ``nodes/`` would hide ComfyUI's ``nodes.py``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def import_as(name: str, folder: Path) -> ModuleType:
    """Import a package from a folder under a name; once."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def provide() -> None:
    """From now on ``import pgp_core`` and ``import large_pictures`` find this checkout's."""
    import_as("pgp_core", ROOT / "pgp_core")
    import_as("large_pictures", ROOT / "reproduce" / "large_pictures")
